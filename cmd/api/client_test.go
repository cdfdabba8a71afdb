package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"jobtally/internal/events"
)

// client speaks HTTP for one account.
type client struct {
	url, token string
	http       *http.Client
}

// reply is an answer of the service. form is whatever its JSON says, be it a success or a problem.
type reply struct {
	status int
	header http.Header
	body   string
	form
}

type form struct {
	// Of a capture.
	Outcome string
	Reason  string
	Job     job
	Quota   quota
	Receipt receipt

	// Of a problem.
	Code     string
	Detail   string
	Instance string
	Errors   []struct{ Field, Detail string }
	quota    // of the quota itself, and of quota_exceeded
	Version  int64

	// Of a page, of a look-up and of a batch.
	Jobs    []job
	Results []struct {
		Status  int
		Outcome string
		Key     string `json:"idempotency_key"`
		Found   bool
		Job     job
		Receipt receipt
	}
}

// job is a job as it is told everywhere.
type job struct {
	ID          string
	SourceURL   string `json:"source_url"`
	Title       string
	Company     string
	Description string
	Status      string
	UpdatedAt   string `json:"updated_at"`
	Version     int64
}

type quota struct {
	Used, Limit, Remaining int64
	ResetDate              string `json:"reset_date"`
}

type receipt struct{ Position, Digest string }

// call sends a request, with headers given as "Name: value". The token is the client's and a body is JSON, unless
// they say otherwise; "Name:" leaves the header out.
func (c client) call(method, path string, body io.Reader, headers ...string) (r reply, err error) {
	request, err := http.NewRequest(method, c.url+path, body)
	if err != nil {
		return r, err
	}
	request.Header.Set("Authorization", "Bearer "+c.token)
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ":")
		if request.Header.Del(name); value != "" {
			request.Header.Set(name, value[1:])
		}
	}
	return c.exchange(request)
}

func (c client) exchange(request *http.Request) (r reply, err error) {
	answer, err := c.http.Do(request)
	if err != nil {
		return r, err
	}
	defer answer.Body.Close()
	text, err := readAnswer(answer)
	if err != nil {
		return r, err
	}
	r = reply{status: answer.StatusCode, header: answer.Header, body: string(text)}
	if strings.Contains(r.header.Get("Content-Type"), "json") && len(text) > 0 { // HEAD has none
		err = json.Unmarshal(text, &r.form)
	}
	return r, err
}

func (c client) post(t *testing.T, body string, headers ...string) reply {
	t.Helper()
	r, err := c.call(http.MethodPost, "/api/jobs", strings.NewReader(body), headers...)
	if err != nil {
		t.Error(err)
	}
	return r
}

func (c client) get(t *testing.T, path string, headers ...string) reply {
	t.Helper()
	r, err := c.call(http.MethodGet, path, nil, headers...)
	if err != nil {
		t.Error(err)
	}
	return r
}

// patch changes a job, and remove deletes it.
func (c client) patch(t *testing.T, id, body string, headers ...string) reply {
	t.Helper()
	r, err := c.call(http.MethodPatch, "/api/jobs/"+id, strings.NewReader(body), append([]string{"Content-Type: application/merge-patch+json"}, headers...)...)
	if err != nil {
		t.Error(err)
	}
	return r
}

func (c client) remove(t *testing.T, id string, headers ...string) reply {
	t.Helper()
	r, err := c.call(http.MethodDelete, "/api/jobs/"+id, nil, headers...)
	if err != nil {
		t.Error(err)
	}
	return r
}

// batch captures many jobs at once.
func (c client) batch(t *testing.T, items []string, headers ...string) reply {
	t.Helper()
	r, err := c.call(http.MethodPost, "/api/jobs/batch", strings.NewReader(`{"jobs":[`+strings.Join(items, ",")+`]}`), headers...)
	if err != nil {
		t.Error(err)
	}
	return r
}

// capture captures a job at a URL.
func (c client) capture(t *testing.T, url string, headers ...string) reply {
	t.Helper()
	return c.post(t, jobAt(url), headers...)
}

func jobAt(url string) string {
	return posting{Title: "Engineer", Company: "Example", SourceURL: url}.json()
}

// posting is what a client sends of a job.
type posting struct {
	Title     string `json:"title"`
	Company   string `json:"company"`
	Location  string `json:"location,omitempty"`
	SourceURL string `json:"source_url"`
}

func (p posting) json() string {
	text, err := json.Marshal(p)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// jobURL is the URL of the n-th of many postings.
func jobURL(n int) string { return fmt.Sprintf("https://jobs.example.com/openings/%d", n) }

// wantsQuota reads the quota, and checks it.
func (c client) wantsQuota(t *testing.T, want quota, headers ...string) {
	t.Helper()
	r := c.get(t, "/api/jobs/quota", headers...)
	if r.status != http.StatusOK || r.quota != want {
		t.Errorf("quota %d %s, want %+v", r.status, r.body, want)
	}
}

// wants checks the status.
func (r reply) wants(t *testing.T, status int) reply {
	t.Helper()
	if r.status != status {
		t.Errorf("answered %d %s, want %d", r.status, r.body, status)
	}
	return r
}

// wantsProblem checks that the answer is the problem of the code.
func (r reply) wantsProblem(t *testing.T, status int, code string) reply {
	t.Helper()
	if r.status != status || r.Code != code || r.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("answered %d %s %s, want %d %s", r.status, r.header.Get("Content-Type"), r.body, status, code)
	}
	return r
}

// wantsExhausted checks that the answer is quota_exceeded with everything that a client needs to go on.
func (r reply) wantsExhausted(t *testing.T, used, limit int64, resetDate string) reply {
	t.Helper()
	r.wantsProblem(t, http.StatusForbidden, "quota_exceeded")
	if r.quota != (quota{used, limit, 0, resetDate}) {
		t.Errorf("refused with %+v, want %d used of %d until %s", r.quota, used, limit, resetDate)
	}
	r.wantsReceipt(t)
	if r.Instance != "/api/jobs/captures/"+r.Receipt.Position {
		t.Errorf("the problem points at %q", r.Instance)
	}
	return r
}

// wantsReceipt checks that the answer can be proven later.
func (r reply) wantsReceipt(t *testing.T) {
	t.Helper()
	if _, err := events.ParsePosition(r.Receipt.Position); err != nil || len(r.Receipt.Digest) != 64 {
		t.Errorf("receipt %+v in %s", r.Receipt, r.body)
	}
}

// wantsSame checks that an answer is another one, byte for byte.
func (r reply) wantsSame(t *testing.T, first reply) reply {
	t.Helper()
	if r.status != first.status || r.body != first.body {
		t.Errorf("answered %d %s\nfirst it was %d %s", r.status, r.body, first.status, first.body)
	}
	return r
}

// together calls f n times at once and returns what came back.
func together[T any](n int, f func(i int) T) []T {
	results, ready, gate := make([]T, n), sync.WaitGroup{}, make(chan struct{})
	var done sync.WaitGroup
	ready.Add(n)
	for i := range n {
		done.Go(func() {
			ready.Done()
			<-gate
			results[i] = f(i)
		})
	}
	ready.Wait()
	close(gate)
	done.Wait()
	return results
}

// tally counts answers by status.
func tally(replies []reply) map[int]int {
	counts := map[int]int{}
	for _, r := range replies {
		counts[r.status]++
	}
	return counts
}

// clock is a clock that a test sets.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func clockAt(t *testing.T, text string) *clock {
	t.Helper()
	c := &clock{}
	c.set(t, text)
	return c
}

func (c *clock) set(t *testing.T, text string) {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = at
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

// midNovember is the clock of the tests for which the time does not matter.
func midNovember() time.Time { return time.Date(2026, 11, 15, 12, 0, 0, 0, time.UTC) }

// december is when the count starts at 0 again after midNovember.
const december = "2026-12-01"
