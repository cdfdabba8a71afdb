package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"jobtally/client"
)

// The commands, built for these tests.
var commands string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	var err error
	if commands, err = os.MkdirTemp("", "jobtally-client-"); err != nil {
		panic(err)
	}
	defer os.RemoveAll(commands)
	build := exec.Command("go", "build", "-o", commands, "../cmd/api", "../cmd/projector", "./example")
	if output, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n%s", build, err, output)
		return 1
	}
	return m.Run()
}

// service is the real service.
type service struct {
	url, token, data string
}

// log gathers what the service logs, and tells when it listens.
type log struct {
	mu        sync.Mutex
	text      strings.Builder
	listening chan string
}

var addr = regexp.MustCompile(`msg=listening addr=(\S+)`)

// Write looks for the address.
func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	if found := addr.FindStringSubmatch(l.text.String()); found != nil && l.listening != nil {
		l.listening <- found[1]
		l.listening = nil
	}
	return len(p), nil
}

func start(t *testing.T, args ...string) *service {
	t.Helper()
	s := &service{data: t.TempDir()}
	listening := make(chan string, 1)
	errs := &log{listening: listening}
	cmd := exec.Command(filepath.Join(commands, "api"), append([]string{"--addr", "127.0.0.1:0", "--data", s.data}, args...)...)
	cmd.Stderr = errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		if err := <-ended; err != nil {
			t.Errorf("the service ended with %v\n%s", err, errs.text.String())
		}
	})
	select {
	case address := <-listening:
		s.url = "http://" + address
	case err := <-ended:
		ended <- nil
		t.Fatalf("the service ended: %v\n%s", err, errs.text.String())
	}
	text, err := os.ReadFile(filepath.Join(s.data, "token"))
	if err != nil {
		t.Fatal(err)
	}
	s.token = strings.TrimSpace(string(text))
	return s
}

func (s *service) client(t *testing.T, at string, options ...client.Option) *client.Client {
	t.Helper()
	c, err := client.New(at, s.token, append([]client.Option{client.HTTP(byContract(t))}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// admin is a client with a token of scope admin.
func (s *service) admin(t *testing.T) client.Admin { return s.adminAt(t, s.url) }

func (s *service) adminAt(t *testing.T, at string) client.Admin {
	t.Helper()
	out, err := exec.Command(filepath.Join(commands, "projector"), "token", "issue", "--account", "demo", "--scope", "admin", "--data", s.data).Output()
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(at, strings.TrimSpace(string(out)), client.HTTP(byContract(t)))
	if err != nil {
		t.Fatal(err)
	}
	return c.Admin()
}

func job(n int) client.NewJob {
	return client.NewJob{
		SourceURL: fmt.Sprintf("https://jobs.example.com/%d", n), Title: fmt.Sprintf("Gopher %d", n), Company: "Example",
	}
}

// must returns the first of two when the second is no error.
func must[T any](t *testing.T) func(T, error) T {
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func TestAJobFromItsCaptureToItsDeletion(t *testing.T) {
	t.Parallel()
	s := start(t)
	c, ctx := s.client(t, s.url), t.Context()

	captured := must[*client.Capture](t)(c.Capture(ctx, job(1), client.Key(`a "key"`)))
	if captured.Outcome != client.Captured || captured.Job.Version != 1 || captured.Quota.Used != 1 || captured.Receipt.Digest == "" {
		t.Fatalf("captured %+v", captured)
	}
	again := must[*client.Capture](t)(c.Capture(ctx, job(1), client.Key(`a "key"`)))
	if !again.Replayed || again.Receipt.Position != captured.Receipt.Position {
		t.Errorf("the same key: %+v", again)
	}
	if duplicate := must[*client.Capture](t)(c.Capture(ctx, job(1))); duplicate.Outcome != client.Duplicate {
		t.Errorf("the same posting: %+v", duplicate)
	}
	if dry := must[*client.Capture](t)(c.Capture(ctx, job(2), client.DryRun())); dry.Outcome != client.Captured || dry.Quota.Used != 2 {
		t.Errorf("a dry run: %+v", dry)
	}
	known := must[[]client.Known](t)(c.Lookup(ctx, job(2).SourceURL, job(1).SourceURL+"?utm_source=x"))
	if len(known) != 2 || known[0].Found || !known[1].Found || known[1].Job.ID != captured.Job.ID {
		t.Errorf("known %+v", known)
	}

	id := captured.Job.ID
	updated := must[*client.Capture](t)(c.UpdateJob(ctx, id, client.Change{"status": "applied", "notes": "call back"}, 1))
	if updated.Outcome != client.Updated || updated.Job.Version != 2 || updated.Job.Status != "applied" {
		t.Errorf("updated %+v", updated)
	}
	_, err := c.UpdateJob(ctx, id, client.Change{"notes": ""}, 1)
	var problem *client.Problem
	if !errors.Is(err, client.VersionConflict) || !errors.As(err, &problem) || problem.Version != 2 {
		t.Errorf("an update of what was changed meanwhile: %v", err)
	}
	if removed := must[*client.Capture](t)(c.UpdateJob(ctx, id, client.Change{"notes": ""}, 0)); removed.Job.Notes != "" || removed.Job.Version != 3 {
		t.Errorf("removed %+v", removed.Job)
	}
	if got := must[*client.Job](t)(c.Job(ctx, id)); got.Version != 3 || got.Status != "applied" || !got.UpdatedAt.After(got.CapturedAt) {
		t.Errorf("job %+v", got)
	}
	must[*client.Capture](t)(c.DeleteJob(ctx, id, 3))
	if _, err := c.Job(ctx, id); !errors.Is(err, client.JobNotFound) {
		t.Errorf("a job that was deleted: %v", err)
	}
	if quota := must[*client.Quota](t)(c.Quota(ctx)); quota.Used != 1 || quota.Limit != 50 {
		t.Errorf("quota %+v", quota)
	}
}

func TestListsAreReadPageByPage(t *testing.T) {
	t.Parallel()
	s := start(t)
	c, ctx := s.client(t, s.url), t.Context()
	var batch []client.BatchJob
	for n := range 25 {
		batch = append(batch, client.BatchJob{NewJob: job(n)})
	}
	batch[7].SourceURL = "mailto:nobody"
	results := must[*client.Batch](t)(c.CaptureBatch(ctx, batch))
	for i, r := range results.Results {
		if want := 201; i == 7 && (r.Status != 400 || r.Problem == nil || r.Problem.Code != client.InvalidRequest) || i != 7 && r.Status != want {
			t.Errorf("item %d: %+v", i, r)
		}
	}
	if results.Quota.Used != 24 {
		t.Errorf("quota %+v", results.Quota)
	}
	var titles []string
	for job, err := range c.Jobs(ctx, client.JobQuery{PageSize: 10, Text: "goph"}) {
		if err != nil {
			t.Fatal(err)
		}
		titles = append(titles, job.Title)
	}
	if len(titles) != 24 || titles[0] != "Gopher 24" || titles[23] != "Gopher 0" {
		t.Errorf("listed %q", titles)
	}
	for job, err := range c.Jobs(ctx, client.JobQuery{PageSize: 10}) { // who stops early is not asked for more
		if err != nil || job.Title != "Gopher 24" {
			t.Errorf("%+v, %v", job, err)
		}
		break
	}
	months := 0
	for month, err := range c.Months(ctx) {
		if err != nil || month.Captured != 24 {
			t.Errorf("%+v, %v", month, err)
		}
		months++
		if one := must[*client.Month](t)(c.Month(ctx, month.Month, client.Ledger)); !one.Ledger.Matches || one.CapturedVia["api"] != 24 {
			t.Errorf("month %+v", one)
		}
	}
	if months != 1 {
		t.Errorf("%d months", months)
	}
}

func TestAdministration(t *testing.T) {
	t.Parallel()
	s := start(t)
	admin, ctx := s.admin(t), t.Context()
	limit := int64(1)
	opened := must[*client.Account](t)(admin.OpenAccount(ctx, "acme", client.Plan{Limit: &limit}))
	if opened.Limit != 1 || opened.Receipt == nil {
		t.Errorf("opened %+v", opened)
	}
	if _, err := admin.OpenAccount(ctx, "acme", client.Plan{}); !errors.Is(err, client.AccountExists) {
		t.Errorf("opened again: %v", err)
	}
	expires := time.Now().Add(time.Hour)
	issued := must[*client.IssuedToken](t)(admin.IssueToken(ctx, "acme", client.TokenTerms{Name: "laptop", ExpiresAt: &expires}))
	acme, err := client.New(s.url, issued.Token, client.HTTP(byContract(t)))
	if err != nil {
		t.Fatal(err)
	}
	must[*client.Capture](t)(acme.Capture(ctx, job(1)))
	if _, err := acme.Capture(ctx, job(2)); !errors.Is(err, client.QuotaExceeded) {
		t.Errorf("beyond the limit: %v", err)
	}
	changed := must[*client.ChangedPlan](t)(admin.SetPlan(ctx, "acme", client.Plan{Plan: "pro", Reason: "paid"}))
	if changed.PreviousLimit != 1 || changed.Limit != 500 {
		t.Errorf("changed %+v", changed)
	}
	must[*client.Capture](t)(acme.Capture(ctx, job(2)))
	if own := must[*client.Account](t)(acme.Account(ctx)); own.Account != "acme" || own.Token.Name != "laptop" || own.Quota.Used != 2 {
		t.Errorf("account %+v", own)
	}
	if shown := must[*client.Account](t)(admin.Account(ctx, "acme")); shown.PlanChanged.Reason != "paid" {
		t.Errorf("account %+v", shown.PlanChanged)
	}
	var names []string
	for account, err := range admin.Accounts(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, account.Account)
	}
	if !slices.Equal(names, []string{"acme", "demo"}) {
		t.Errorf("accounts %q", names)
	}
	if outcome := must[client.Outcome](t)(admin.RevokeToken(ctx, "acme", issued.ID)); outcome != client.Revoked {
		t.Errorf("revoked: %s", outcome)
	}
	if _, err := acme.Quota(ctx); !errors.Is(err, client.TokenRevoked) {
		t.Errorf("a revoked token: %v", err)
	}
	for token, err := range admin.Tokens(ctx, "acme") {
		if err != nil || token.Status != "revoked" || !strings.HasSuffix(issued.Token, token.LastFour) {
			t.Errorf("%+v, %v", token, err)
		}
	}
	if outcome := must[client.Outcome](t)(admin.EraseAccount(ctx, "acme")); outcome != client.Erased {
		t.Errorf("erased: %s", outcome)
	}
	if _, err := admin.Account(ctx, "acme"); !errors.Is(err, client.AccountUnknown) {
		t.Errorf("an erased account: %v", err)
	}
}

// TestAdministrationThatIsNotDecidedYet has a proxy before the service that prefers not to wait.
func TestAdministrationThatIsNotDecidedYet(t *testing.T) {
	t.Parallel()
	s := start(t)
	target, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Header.Set("Prefer", "respond-async")
	}})
	t.Cleanup(proxy.Close)
	admin, ctx := s.adminAt(t, proxy.URL), t.Context()
	if opened := must[*client.Account](t)(admin.OpenAccount(ctx, "acme", client.Plan{})); opened.Outcome != client.Pending || opened.Receipt.Position == "" {
		t.Errorf("opened %+v", opened)
	}
	if changed := must[*client.ChangedPlan](t)(admin.SetPlan(ctx, "demo", client.Plan{Plan: "pro"})); changed.Outcome != client.Pending {
		t.Errorf("changed %+v", changed)
	}
	issued := must[*client.IssuedToken](t)(admin.IssueToken(ctx, "demo", client.TokenTerms{}))
	if issued.Outcome != client.Pending || issued.Token == "" || issued.Receipt.Position == "" {
		t.Errorf("issued %s %+v", issued.Outcome, issued.Receipt)
	}
	if outcome := must[client.Outcome](t)(admin.EraseAccount(ctx, "demo")); outcome != client.Pending {
		t.Errorf("erased: %s", outcome)
	}
}

// lossy is a proxy before the service that breaks off the connection after the service has answered, for as many calls of a
// method as it is told to.
func lossy(t *testing.T, s *service, method string, losses int32) string {
	t.Helper()
	target, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	var left atomic.Int32
	left.Store(losses)
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ModifyResponse = func(r *http.Response) error {
		if r.Request.Method == method && left.Add(-1) >= 0 {
			return errors.New("lost")
		}
		return nil
	}
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { panic(http.ErrAbortHandler) }
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	return server.URL
}

// TestLostAnswersCostNothing: the answer of a capture is lost, and the client asks again until it has it.
func TestLostAnswersCostNothing(t *testing.T) {
	t.Parallel()
	s := start(t)
	c, ctx := s.client(t, lossy(t, s, http.MethodPost, 3)), t.Context()
	captured := must[*client.Capture](t)(c.Capture(ctx, job(1)))
	if captured.Outcome != client.Captured || !captured.Replayed || captured.Quota.Used != 1 {
		t.Errorf("captured %+v", captured)
	}
	if quota := must[*client.Quota](t)(c.Quota(ctx)); quota.Used != 1 {
		t.Errorf("quota %+v", quota)
	}
}

// TestChangesAreNotRepeatedOnADoubt: an update whose answer is lost is the caller's to look into.
func TestChangesAreNotRepeatedOnADoubt(t *testing.T) {
	t.Parallel()
	s := start(t)
	c, ctx := s.client(t, lossy(t, s, http.MethodPatch, 1)), t.Context()
	captured := must[*client.Capture](t)(c.Capture(ctx, job(1)))
	if _, err := c.UpdateJob(ctx, captured.Job.ID, client.Change{"status": "applied"}, 1); err == nil {
		t.Error("an answer that was lost is no error")
	}
	if got := must[*client.Job](t)(c.Job(ctx, captured.Job.ID)); got.Version != 2 {
		t.Errorf("version %d", got.Version)
	}
}

// TestRetriesHeedTheService: what the service asks to wait is waited, what it says is wrong is not tried again, and the
// context ends the wait.
func TestRetriesHeedTheService(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	answers := []string{"429 rate_limited 1", "503 ledger_unavailable 0", "200"}
	stub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := strings.Fields(answers[min(int(calls.Add(1))-1, len(answers)-1)])
		if answer[0] == "200" {
			fmt.Fprint(w, `{"used":1,"limit":50,"remaining":49,"reset_date":"2026-12-01"}`)
			return
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.Header().Set("Retry-After", answer[2])
		status := map[string]int{"429": 429, "503": 503, "404": 404}[answer[0]]
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"status":%d,"code":%q,"detail":"told so"}`, status, answer[1])
	}))
	t.Cleanup(stub.Close)
	c, err := client.New(stub.URL, "token")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if quota := must[*client.Quota](t)(c.Quota(t.Context())); quota.Used != 1 || calls.Load() != 3 || time.Since(began) < time.Second {
		t.Errorf("%+v after %d calls and %s", quota, calls.Load(), time.Since(began))
	}
	answers = []string{"404 job_not_found 0"}
	calls.Store(0)
	if _, err := c.Job(t.Context(), "x"); !errors.Is(err, client.JobNotFound) || calls.Load() != 1 {
		t.Errorf("%v after %d calls", err, calls.Load())
	}
	answers = []string{"429 rate_limited 3600"}
	calls.Store(0)
	if _, err := c.Quota(t.Context()); !errors.Is(err, client.RateLimited) || calls.Load() != 1 {
		t.Errorf("%v after %d calls", err, calls.Load())
	}
	answers = []string{"429 rate_limited 9"}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if c, err = client.New(stub.URL, "token", client.HTTP(&http.Client{Transport: leaving{cancel}})); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Quota(ctx); !errors.Is(err, client.RateLimited) || ctx.Err() == nil {
		t.Errorf("the context ended: %v", err)
	}
}

// leaving leaves a moment after an answer was read: while the client waits to try again.
type leaving struct{ leave func() }

func (l leaving) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err == nil {
		answer.Body = leavingBody{answer.Body, l.leave}
	}
	return answer, err
}

type leavingBody struct {
	io.ReadCloser
	leave func()
}

func (b leavingBody) Close() error {
	time.AfterFunc(100*time.Millisecond, b.leave)
	return b.ReadCloser.Close()
}

func TestUnreachableService(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	c, err := client.New("http://"+listener.Addr().String(), "jt_secret", client.Attempts(2))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Quota(t.Context()); err == nil || strings.Contains(err.Error(), "jt_secret") {
		t.Errorf("error %v", err)
	}
	for _, bad := range []string{"", "jobs.example.com", "ftp://x", "http://", "http://user:secret@"} {
		if _, err := client.New(bad, "t"); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestTheExampleRuns(t *testing.T) {
	t.Parallel()
	s := start(t)
	for _, want := range []string{
		"captured: Software Engineer, 1 of 50 used\napplied: Software Engineer at Example, version 2\n",
		"duplicate: Software Engineer, 1 of 50 used\napplied: Software Engineer at Example, version 3\n",
	} {
		cmd := exec.Command(filepath.Join(commands, "example"), "--url", s.url, "--token-file", filepath.Join(s.data, "token"))
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != want {
			t.Errorf("%v\n%s\nwant\n%s", err, out, want)
		}
	}
}
