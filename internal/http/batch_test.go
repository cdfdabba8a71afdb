package http

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"jobtally/internal/events"
)

// batchOf is a batch in JSON.
func batchOf(items ...string) string { return `{"jobs":[` + strings.Join(items, ",") + `]}` }

// results returns status, outcome and key of each result, and what its problem says first.
func (x exchange) results(t *testing.T) (results []string) {
	t.Helper()
	var form struct {
		Results []struct {
			Status  int
			Outcome string
			Key     string `json:"idempotency_key"`
			Problem struct {
				Code   string
				Detail string
			}
		}
	}
	if err := json.Unmarshal([]byte(x.body), &form); err != nil || x.StatusCode != 200 {
		t.Fatalf("%d %s: %v", x.StatusCode, x.body, err)
	}
	for _, r := range form.Results {
		results = append(results, strings.TrimSpace(fmt.Sprintf("%d %s %s %s", r.Status, r.Outcome, r.Key, r.Problem.Code)))
	}
	return results
}

func (x exchange) wantsResults(t *testing.T, want ...string) {
	t.Helper()
	if got := x.results(t); !slices.Equal(got, want) {
		t.Errorf("results %q, want %q in %s", got, want, x.body)
	}
}

func TestBatch(t *testing.T) {
	n := newNode(t)
	own := strings.Replace(crab, "{", `{"idempotency_key":"own \"1\"",`, 1)
	invalid := `{"source_url":"ftp://x","title":"T"}`
	x := n.send(t, "POST", "/api/jobs/batch", batchOf(gopher, gopher, invalid, own, heron), "Idempotency-Key: b")
	x.wantsResults(t, "201 captured b.0", "200 duplicate b.1", "400 invalid  invalid_request", `201 captured own "1"`, "403 rejected b.4 quota_exceeded")
	x.wantsHeader(t, `Idempotency-Key: "b"`, `RateLimit: "captures";r=0;t=1431570`, "Ledger-Position: 0-9", "Location:", "Vary: Prefer")
	job := n.send(t, "GET", "/api/jobs/"+n.decisions[5].Body.(*events.JobCaptured).JobID, "").body
	if want := `{"results":[{"status":201,"outcome":"captured","idempotency_key":"b.0","job":` + job + `,` +
		`"quota":{"used":1,"limit":2,"remaining":1,"reset_date":"2024-02-01"},"receipt":{"position":"0-6","digest":"` + n.digest(6) + `"}},` +
		`{"status":200,"outcome":"duplicate","idempotency_key":"b.1","job":` + job + `,`; !strings.HasPrefix(x.body, want) {
		t.Errorf("answer %s\nwant  %s", x.body, want)
	}
	if want := `"quota":{"used":2,"limit":2,"remaining":0,"reset_date":"2024-02-01"}}`; !strings.HasSuffix(x.body, want) {
		t.Errorf("the quota is not that of now: %s", x.body)
	}

	t.Log("sent again it is told the same, and costs nothing")
	again := n.send(t, "POST", "/api/jobs/batch", batchOf(gopher, gopher, invalid, own, heron), "Idempotency-Key: b")
	again.wants(t, 200, x.body)

	t.Log("a key is one of a single capture too, and another job under it is refused")
	n.send(t, "POST", "/api/jobs", gopher, "Idempotency-Key: b.0").wantsHeader(t, "Idempotent-Replayed: true")
	n.send(t, "POST", "/api/jobs/batch", batchOf(heron, own), "Idempotency-Key: b").wantsResults(t,
		"422 refused b.0 idempotency_key_reused", `201 captured own "1"`)
}

func TestBatchInLines(t *testing.T) {
	n := newNode(t)
	x := n.send(t, "POST", "/api/jobs/batch", gopher+"\r\n\n  \n"+`{"title":`+"\n[]\n{} {}\n\xff\n"+crab, "Content-Type: application/x-ndjson", "Idempotency-Key: b")
	x.wantsResults(t, "201 captured b.0", "400 invalid  invalid_request", "400 invalid  invalid_request", "400 invalid  invalid_request",
		"400 invalid  invalid_request", "201 captured b.5")
	for _, want := range []string{
		`"detail":"the item is not JSON: it ends too early"`, `"detail":"the item must be a JSON object, not an array"`,
		`"detail":"something follows the JSON object; send one object and nothing else"`, `"detail":"the item is not UTF-8"`,
	} {
		if !strings.Contains(x.body, want) {
			t.Errorf("it does not say %s: %s", want, x.body)
		}
	}
}

func TestBatchWithoutKeyIsGivenOne(t *testing.T) {
	n := newNode(t)
	x := n.send(t, "POST", "/api/jobs/batch", batchOf(gopher, crab))
	again := n.send(t, "POST", "/api/jobs/batch", batchOf(gopher, crab), "Idempotency-Key: "+x.Header.Get("Idempotency-Key"))
	again.wants(t, 200, x.body)
}

func TestTwoItemsWithOneKey(t *testing.T) {
	n := newNode(t)
	key := func(job string) string { return strings.Replace(job, "{", `{"idempotency_key":"k",`, 1) }
	x := n.send(t, "POST", "/api/jobs/batch", batchOf(key(gopher), key(gopher), key(crab)))
	x.wantsResults(t, "201 captured k", "201 captured k", "422 refused k idempotency_key_reused")
	n.send(t, "GET", "/api/jobs/quota", "").wants(t, 200, `{"used":1…`)
}

func TestItemsThatAreInvalid(t *testing.T) {
	with := func(member string) string { return strings.Replace(gopher, "{", "{"+member+",", 1) }
	n := newNode(t)
	for item, want := range map[string]string{
		with(`"idempotency_key":"of ` + n.anna.Reveal() + `"`): "idempotency_key must not have a token in it, for a key is recorded",

		`7`: "the item must be a JSON object, not a number", `null`: "the item must be a JSON object, not null",
		with(`"idempotency_key":""`):                                 "idempotency_key must have 1 to 255 printable ASCII characters",
		with(`"idempotency_key":"é"`):                                "idempotency_key must have 1 to 255 printable ASCII characters",
		with(`"idempotency_key":"\ud83d"`):                           "idempotency_key must not contain half of a surrogate pair",
		with(`"idempotency_key":"` + strings.Repeat("k", 256) + `"`): "idempotency_key must have 1 to 255 printable ASCII characters",
		with(`"idempotency_key":7`):                                  "idempotency_key must be a string, not a number",
		with(`"idempotency_key":"a","idempotency_key":"a"`):          "idempotency_key is there more than once",
		with(`"idempotencyKey":"a"`):                                 "idempotencyKey is not a field of a job; did you mean idempotency_key?",
		with(`"title":"a","title":"b"`):                              "2 things are wrong, the first: title is there more than once",
		with(`"notes":"` + strings.Repeat("x", maxBodyBytes) + `"`):  "a job has at most 262144 bytes",
	} {
		x := n.send(t, "POST", "/api/jobs/batch", batchOf(item))
		result := x.results(t)[0]
		if !strings.HasPrefix(result, "4") || !strings.Contains(result, " invalid ") || !strings.Contains(x.body, `"detail":"`+want) {
			t.Errorf("%.80s: %s", item, x.body)
		}
	}
	n.send(t, "POST", "/api/jobs/batch", batchOf(with(`"idempotency_key":null`)), "Idempotency-Key: n").wantsResults(t, "201 captured n.0")
	if len(n.requests) != 6 {
		t.Errorf("%d requests", len(n.requests))
	}
}

// TestBatchIsChargedByItsItems: a batch takes of what a token may send as much as its captures alone would.
func TestBatchIsChargedByItsItems(t *testing.T) {
	n := newNode(t)
	limits := Limits{RequestsPerSecond: 1, Loopback: true} // 10 at once
	handler := NewHandler(Config{Backend: n.Backend, Now: func() time.Time { return n.now }, Limits: limits, gateNow: n.clock})
	send := func(path, body string) int {
		r := httptest.NewRequest("POST", path, strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+n.bob.Reveal())
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w.Code
	}
	for i, want := range []int{201, 200, 429} {
		body, path := gopher, "/api/jobs"
		if i == 1 {
			body, path = batchOf(gopher, gopher, gopher, crab, crab, crab, heron, heron, heron), "/api/jobs/batch"
		}
		if got := send(path, body); got != want {
			t.Errorf("call %d is answered %d, want %d", i, got, want)
		}
	}
}

func TestBatchesThatAreNone(t *testing.T) {
	n := newNode(t)
	for body, want := range map[string]string{
		"": "the body is empty; send a JSON object", "[]": "the body must be a JSON object, not an array", `{"jobs":[`: "the body is not JSON: it ends too early",
		`{}`: "jobs is missing", `{"jobs":[]}`: "a batch has 1 to 100 jobs", `{"jobs":null}`: "jobs must be an array, not null",
		`{"jobs":"x"}`: "jobs must be an array, not a string", `{"jobs":[],"jobs":[]}`: "jobs is there more than once",
		`{"job":[]}`: "2 things", `{"jobs":[],"x":1}`: "x is not a field of a batch; its fields are jobs", `{"jobs":[]} {}`: "something follows the JSON object",
		batchOf(gopher + strings.Repeat(","+gopher, 100)): "a batch has 1 to 100 jobs",
	} {
		p := n.send(t, "POST", "/api/jobs/batch", body, "Content-Type: application/json").wantsProblem(t, codeInvalidRequest)
		if !strings.Contains(p, `"detail":"`+want) && want != "2 things" {
			t.Errorf("%.60s: %s", body, p)
		}
	}
	lines := "Content-Type: application/x-ndjson"
	for _, body := range []string{"", " \n\r\n", strings.Repeat(gopher+"\n", 101)} {
		p := n.send(t, "POST", "/api/jobs/batch", body, lines).wantsProblem(t, codeInvalidRequest)
		if !strings.Contains(p, `"detail":"a batch has 1 to 100 jobs"`) {
			t.Error(p)
		}
	}
	n.send(t, "POST", "/api/jobs/batch", gopher, "Content-Type: text/csv").wantsProblem(t, codeUnsupportedMediaType)
	n.send(t, "POST", "/api/jobs/batch", strings.Repeat(" ", maxBatchBytes+1), lines).wantsProblem(t, codeBodyTooLarge)
	n.send(t, "POST", "/api/jobs/batch", batchOf(gopher), "Idempotency-Key: "+strings.Repeat("k", 253)).wantsProblem(t, codeInvalidIdempotencyKey)
	if len(n.requests) != 5 {
		t.Errorf("%d requests", len(n.requests))
	}
	n.send(t, "POST", "/api/jobs/batch", batchOf(gopher), "Idempotency-Key: "+strings.Repeat("k", 252)).wants(t, 200, `{"results":[{"status":201…`)
	n.send(t, "POST", "/api/jobs/batch", strings.Repeat(gopher+"\n", 100), lines).wants(t, 200, `{"results":[…`)
}

func TestPendingBatch(t *testing.T) {
	n := newNode(t)
	n.hold = true
	x := n.send(t, "POST", "/api/jobs/batch", batchOf(gopher, `{}`, crab), "Prefer: respond-async", "Idempotency-Key: b")
	x.wantsResults(t, "202 pending b.0", "400 invalid  invalid_request", "202 pending b.2")
	x.wantsHeader(t, "Preference-Applied: respond-async")
	if !strings.Contains(x.body, `"idempotency_key":"b.2","receipt":{"position":"0-7"}}`) {
		t.Error(x.body)
	}
	n.release()
	n.send(t, "GET", "/api/jobs/captures/0-7", "").wants(t, 200, `{"outcome":"captured"…`)

	t.Log("one time-out is for all: what is decided by then is told")
	awaited := 0
	n.Await = func(ctx context.Context, p events.Position) (events.Decision, error) {
		if awaited++; awaited == 2 {
			return events.Decision{}, context.DeadlineExceeded
		}
		return n.await(ctx, p)
	}
	x = n.send(t, "POST", "/api/jobs/batch", batchOf(gopher, crab, heron), "Prefer: wait=7", "Idempotency-Key: c")
	x.wantsResults(t, "200 duplicate c.0", "202 pending c.1", "403 rejected c.2 quota_exceeded")
	x.wantsHeader(t, "Preference-Applied: wait=7")
}

func TestBatchesThatFail(t *testing.T) {
	n := newNode(t)
	fail := func(errs ...error) {
		n.AppendAll = func(ctx context.Context, requests []*events.Request) ([]events.Position, []error) {
			positions := make([]events.Position, len(requests))
			for i := range requests {
				if errs[i] == nil {
					positions[i], _ = n.append(ctx, requests[i])
				}
			}
			return positions, errs
		}
	}
	fail(nil, fmt.Errorf("%w: timeout", events.ErrUnknownOutcome), fmt.Errorf("%w: too large", events.ErrUnavailable), errors.New("disk"))
	x := n.send(t, "POST", "/api/jobs/batch", batchOf(gopher, crab, heron, heron), "Idempotency-Key: b")
	x.wantsResults(t, "201 captured b.0", "503 unknown b.1 outcome_unknown", "503 unavailable b.2 ledger_unavailable", "500 unavailable b.3 internal")
	if strings.Count(n.log.String(), `"level":"ERROR"`) != 2 || strings.Contains(x.body, "disk") {
		t.Errorf("log %s, answer %s", n.log.String(), x.body)
	}

	t.Log("what fails all of them is in the log once")
	n.log.Reset()
	cut := fmt.Errorf("%w: cut off", events.ErrUnknownOutcome)
	fail(cut, cut, cut)
	n.send(t, "POST", "/api/jobs/batch", batchOf(gopher, crab, heron)).wants(t, 200, `{"results":[{"status":503,"outcome":"unknown"…`)
	if lines := strings.Count(n.log.String(), "cut off"); lines != 1 {
		t.Errorf("%d lines: %s", lines, n.log.String())
	}

	t.Log("a position that was taken is nobody else's")
	n.AppendAll = func(context.Context, []*events.Request) ([]events.Position, []error) {
		return []events.Position{{Sequence: 2}, {Sequence: 6}}, make([]error, 2)
	}
	n.send(t, "POST", "/api/jobs/batch", batchOf(crab, heron)).wants(t, 200, `{"results":[{"status":503,"outcome":"unknown"…`)

	t.Log("an account that is erased meanwhile")
	n.AppendAll = n.appendAll
	n.Await = func(context.Context, events.Position) (d events.Decision, err error) { return d, events.ErrNotFound }
	n.send(t, "POST", "/api/jobs/batch", batchOf(crab)).wantsProblem(t, codeAccountUnknown)
}

func TestDryRun(t *testing.T) {
	n := newNode(t)
	n.send(t, "POST", "/api/jobs", gopher, "Idempotency-Key: k1").wants(t, 201, `{"outcome":"captured"…`)
	job := n.send(t, "GET", "/api/jobs/"+n.decisions[5].Body.(*events.JobCaptured).JobID, "").body
	const path, appended = "/api/jobs?dry_run=true", 6
	x := n.send(t, "POST", path, crab)
	x.wants(t, 200, `{"dry_run":true,"status":201,"outcome":"captured","job":{"source_url":"https://jobs.example.com/2","title":"Crab","company":"Example",`+
		`"status":"saved","captured_via":"api","captured_at":"2024-01-15T10:20:30.456Z","updated_at":"2024-01-15T10:20:30.456Z","version":1},`+
		`"quota":{"used":2,"limit":2,"remaining":0,"reset_date":"2024-02-01"}}`)
	x.wantsHeader(t, "Location:", "ETag:", "Ledger-Position: 0-6")
	n.send(t, "POST", path, gopher).wants(t, 200, `{"dry_run":true,"status":200,"outcome":"duplicate","job":`+job+`,"quota":{"used":1…`)
	n.send(t, "POST", path, gopher, "Idempotency-Key: k1").wants(t, 200, `{"dry_run":true,"status":201,"outcome":"repeated","job":`+job+`,"quota":{"used":1…`)
	n.send(t, "POST", path, crab, "Idempotency-Key: k1").wants(t, 200, `{"dry_run":true,"status":422,"outcome":"refused","problem":{"type":…`)
	n.send(t, "POST", path, `{"title":"x"}`).wantsProblem(t, codeInvalidRequest)
	if len(n.requests) != appended {
		t.Fatalf("%d requests were appended", len(n.requests)-appended)
	}

	n.send(t, "POST", "/api/jobs?dry_run=false", crab).wants(t, 201, `{"outcome":"captured"…`)
	rejected := n.send(t, "POST", path, heron)
	rejected.wants(t, 200, `{"dry_run":true,"status":403,"outcome":"rejected","quota":{"used":2,"limit":2,"remaining":0,"reset_date":"2024-02-01"},`+
		`"problem":{"type":"urn:jobtally:problem:quota_exceeded"…`)
	if strings.Contains(rejected.body, "receipt") || strings.Contains(rejected.body, "/api/jobs/captures/") {
		t.Errorf("it points at what is not there: %s", rejected.body)
	}
}

func TestDryRunOfABatch(t *testing.T) {
	n := newNode(t)
	key := func(job string) string { return strings.Replace(job, "{", `{"idempotency_key":"k",`, 1) }
	x := n.send(t, "POST", "/api/jobs/batch?dry_run=true", batchOf(key(gopher), gopher, key(gopher), key(crab), `{}`, crab, heron), "Idempotency-Key: b")
	x.wantsResults(t, "201 captured k", "200 duplicate b.1", "201 repeated k", "422 refused k idempotency_key_reused",
		"400 invalid  invalid_request", "201 captured b.5", "403 rejected b.6 quota_exceeded")
	if !strings.HasPrefix(x.body, `{"dry_run":true,"results":[{"status":201`) || !strings.HasSuffix(x.body, `"quota":{"used":0,"limit":2,"remaining":2,"reset_date":"2024-02-01"}}`) ||
		strings.Contains(x.body, "receipt") || strings.Contains(x.body, `"id"`) {
		t.Error(x.body)
	}
	if len(n.requests) != 5 {
		t.Errorf("%d requests", len(n.requests))
	}
	n.Try = func(context.Context, []*events.Request) ([]events.Decision, error) { return nil, events.ErrUnavailable }
	n.send(t, "POST", "/api/jobs/batch?dry_run=true", batchOf(gopher)).wantsProblem(t, codeLedgerUnavailable)
	n.send(t, "POST", "/api/jobs?dry_run=true", gopher).wantsProblem(t, codeLedgerUnavailable)
}

// FuzzItems: an item of any bytes has a problem, or is the job that it is alone, and any body a problem or items.
func FuzzItems(f *testing.F) {
	for _, body := range []string{batchOf(gopher, crab), batchOf(strings.Replace(gopher, "{", `{"idempotency_key":"k",`, 1)), gopher, `{"jobs":[7,{}]}`, `{"jobs":{}}`} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		items, err := jobsOf(body)
		var p *problem
		if err != nil && !errors.As(err, &p) {
			t.Fatalf("%q: %v is no problem", body, err)
		}
		for _, item := range append(items, linesOf(body)...) {
			job, canonical, key, err := decodeItem(item)
			if err != nil {
				_ = err.(*problem)
				continue
			}
			checkBounds(t, job)
			alone, other, err := decodeJob(encode(job))
			if err != nil || alone != job || other != canonical || key != "" && checkKey(key) != "" {
				t.Fatalf("%q is %+v, %q, under %q; alone %+v, %q, %v", item, job, canonical, key, alone, other, err)
			}
		}
	})
}
