package http

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"jobtally/internal/events"
)

const (
	gopher = `{"source_url":"https://jobs.example.com/1?utm_source=x","title":" Gopher ","company":"Example"}`
	crab   = `{"source_url":"https://jobs.example.com/2","title":"Crab","company":"Example"}`
	heron  = `{"source_url":"https://jobs.example.com/3","title":"Heron","company":"Example"}`
)

// captured is the answer to gopher, sent first and with the key k1, but for the digest.
const captured = `{"outcome":"captured","job":{"id":"JOB","source_url":"https://jobs.example.com/1?utm_source=x",` +
	`"title":"Gopher","company":"Example","status":"saved","captured_via":"api","captured_at":"2024-01-15T10:20:30.456Z","updated_at":"2024-01-15T10:20:30.456Z","version":1},` +
	`"quota":{"used":1,"limit":2,"remaining":1,"reset_date":"2024-02-01"},"receipt":{"position":"0-6","digest":"DIGEST"}}`

func (n *node) digest(sequence int) string { return n.decisions[sequence-1].Digest.String() }

func (n *node) capturedAnswer() string {
	id := n.decisions[5].Body.(*events.JobCaptured).JobID
	return strings.NewReplacer("JOB", id, "DIGEST", n.digest(6)).Replace(captured)
}

func TestCapture(t *testing.T) {
	n := newNode(t)
	x := n.send(t, "POST", "/api/jobs", gopher, "Idempotency-Key: k1")
	x.wants(t, 201, n.capturedAnswer())
	location := x.Header.Get("Location")
	x.wantsHeader(t, "Content-Type: application/json", "Ledger-Position: 0-6", `Idempotency-Key: "k1"`, "Vary: Prefer",
		`RateLimit: "captures";r=1;t=1431570`, `RateLimit-Policy: "captures";q=2;w=2678400`,
		"Idempotent-Replayed:", "Preference-Applied:", "Cache-Control: private, no-cache", `ETag: "1"`)

	r := n.requests[5]
	if b := r.Body.(*events.JobCaptureRequested); r.ID != "k1" || b.CanonicalURL != "https://jobs.example.com/1" ||
		b.Month != "2024-01" || r.Time != time.Date(2024, 1, 15, 10, 20, 30, 456_000_000, time.UTC) {
		t.Errorf("appended %+v with %+v", r, b)
	}
	job := n.send(t, "GET", location, "")
	if job.StatusCode != 200 || !strings.Contains(x.body, `"job":`+job.body+`,`) {
		t.Errorf("GET %s: %d %s", location, job.StatusCode, job.body)
	}
	n.send(t, "GET", "/api/jobs/captures/0-6", "").wants(t, 200, x.body)
}

func TestCaptureWithoutKeyIsGivenOne(t *testing.T) {
	n := newNode(t)
	x := n.send(t, "POST", "/api/jobs", gopher)
	key := x.Header.Get("Idempotency-Key")
	again := n.send(t, "POST", "/api/jobs", gopher, "Idempotency-Key: "+key)
	again.wants(t, 201, x.body)
	again.wantsHeader(t, "Idempotent-Replayed: true", "Idempotency-Key: "+key)
}

func TestRepeatedCaptureGetsTheFirstAnswer(t *testing.T) {
	n := newNode(t)
	first := n.send(t, "POST", "/api/jobs", gopher, "Idempotency-Key: k1")
	n.send(t, "POST", "/api/jobs", crab).wants(t, 201, `{"outcome":"captured"…`)
	n.now = n.now.AddDate(0, 1, 0)

	again := n.send(t, "POST", "/api/jobs", gopher, `Idempotency-Key: "k1"`)
	again.wants(t, 201, first.body)
	again.wantsHeader(t, "Idempotent-Replayed: true", "Ledger-Position: 0-8", "Location: "+first.Header.Get("Location"),
		`RateLimit: "captures";r=2;t=1258770`, `RateLimit-Policy: "captures";q=2;w=2505600`)
	n.send(t, "GET", "/api/jobs/captures/0-8", "").wants(t, 200, first.body)
}

func TestDuplicate(t *testing.T) {
	n := newNode(t)
	first := n.send(t, "POST", "/api/jobs", gopher, "Idempotency-Key: k1")
	x := n.send(t, "POST", "/api/jobs", `{"source_url":"https://jobs.example.com/1","title":"Other","company":"Example"}`)
	want := strings.NewReplacer("captured\",\"job", "duplicate\",\"job", "0-6", "0-7", n.digest(6), n.digest(7)).Replace(first.body)
	x.wants(t, 200, want)
	x.wantsHeader(t, "Location: "+first.Header.Get("Location"), `RateLimit: "captures";r=1;t=1431570`)
	n.send(t, "GET", "/api/jobs/captures/0-7", "").wants(t, 200, want)
}

func TestRejection(t *testing.T) {
	n := newNode(t)
	n.send(t, "POST", "/api/jobs", gopher)
	n.send(t, "POST", "/api/jobs", crab)
	x := n.send(t, "POST", "/api/jobs", heron, "Idempotency-Key: k3")
	x.wantsProblem(t, codeQuotaExceeded)
	x.wants(t, 403, `{"type":"urn:jobtally:problem:quota_exceeded","title":"The quota of the month is used up","status":403,`+
		`"detail":"2 captures are used of 2 a month; the count starts at 0 again on 2024-02-01, 00:00 UTC","code":"quota_exceeded",`+
		`"instance":"/api/jobs/captures/0-8","violated-policies":["captures"],"used":2,"limit":2,"remaining":0,`+
		`"reset_date":"2024-02-01","receipt":{"position":"0-8","digest":"`+n.digest(8)+`"}}`)
	x.wantsHeader(t, `RateLimit: "captures";r=0;t=1431570`, "Ledger-Position: 0-8", `Idempotency-Key: "k3"`)

	n.send(t, "GET", "/api/jobs/captures/0-8", "").wants(t, 200, `{"outcome":"rejected","reason":"quota_exceeded",`+
		`"quota":{"used":2,"limit":2,"remaining":0,"reset_date":"2024-02-01"},"receipt":{"position":"0-8","digest":"`+n.digest(8)+`"}}`)
	again := n.send(t, "POST", "/api/jobs", heron, "Idempotency-Key: k3")
	again.wants(t, 403, x.body)
	again.wantsHeader(t, "Idempotent-Replayed: true")
}

func TestReusedKeyIsRefused(t *testing.T) {
	n := newNode(t)
	n.send(t, "POST", "/api/jobs", gopher, "Idempotency-Key: k1")
	x := n.send(t, "POST", "/api/jobs", crab, "Idempotency-Key: k1")
	body := x.wantsProblem(t, codeIdempotencyKeyReused)
	if !strings.Contains(body, `"receipt":{"position":"0-7","digest":"`+n.digest(7)+`"}`) {
		t.Errorf("no receipt: %s", body)
	}
	n.send(t, "GET", "/api/jobs/captures/0-7", "").wants(t, 200,
		`{"outcome":"refused","reason":"idempotency_key_reused","detail":"…`)
}

func TestUnlimitedAccount(t *testing.T) {
	n := newNode(t)
	x := n.send(t, "POST", "/api/jobs", gopher, "Authorization: Bearer "+n.bob.Reveal())
	x.wants(t, 201, `{"outcome":"captured"…`)
	x.wantsHeader(t, "RateLimit:", "RateLimit-Policy:")
	if want := `"quota":{"used":1,"limit":-1,"remaining":-1,"reset_date":"2024-02-01"}`; !strings.Contains(x.body, want) {
		t.Errorf("%s has no %s", x.body, want)
	}
}

func TestRefusalsThatTheLedgerMayGive(t *testing.T) {
	for reason, want := range map[string]code{
		events.ReasonAccountUnknown: codeAccountUnknown,
		events.ReasonMalformed:      codeMalformed,
		"something_new":             codeRequestRefused,
	} {
		n := newNode(t)
		n.Await = func(_ context.Context, p events.Position) (events.Decision, error) {
			return events.Decision{Position: p, Account: "anna", RequestID: "key", Body: &events.RequestRefused{Kind: "job_capture", Reason: reason, Detail: "why"}}, nil
		}
		n.send(t, "POST", "/api/jobs", gopher, "Idempotency-Key: key").wantsProblem(t, want)
	}
}

// A ledger that lost requests gives their positions away again. What was decided there is another's, and stays so.
func TestDecisionOnAnotherRequestIsNeverShown(t *testing.T) {
	for _, other := range []events.Decision{{Account: "bob", RequestID: "key"}, {Account: "anna", RequestID: "another"}} {
		n := newNode(t)
		n.Await = func(context.Context, events.Position) (events.Decision, error) {
			other.Body = &events.JobCaptured{JobID: "job_of_bob"}
			return other, nil
		}
		body := n.send(t, "POST", "/api/jobs", gopher, "Idempotency-Key: key").wantsProblem(t, codeOutcomeUnknown)
		if strings.Contains(body, "job_of_bob") {
			t.Errorf("another's job is shown: %s", body)
		}
	}
}

func TestFailuresOfAppend(t *testing.T) {
	for _, tt := range []struct {
		err        error
		want       code
		retryAfter string
	}{
		{fmt.Errorf("full: %w", events.ErrUnavailable), codeLedgerUnavailable, "1"},
		{fmt.Errorf("timed out: %w", events.ErrUnknownOutcome), codeOutcomeUnknown, "1"},
		{errors.New("disk on fire"), codeInternal, ""},
	} {
		n := newNode(t)
		n.Append = func(context.Context, *events.Request) (events.Position, error) { return events.Position{}, tt.err }
		x := n.send(t, "POST", "/api/jobs", gopher, "Idempotency-Key: k1")
		body := x.wantsProblem(t, tt.want)
		x.wantsHeader(t, "Retry-After: "+tt.retryAfter, `Idempotency-Key: "k1"`, "Ledger-Position: 0-5")
		if strings.Contains(body, "fire") {
			t.Errorf("the client is told %s", body)
		}
	}
}

func TestPendingCapture(t *testing.T) {
	n := newNode(t)
	n.hold = true
	const pending = `{"outcome":"pending","receipt":{"position":"0-6"}}`
	x := n.send(t, "POST", "/api/jobs", gopher, "Prefer: respond-async", "Idempotency-Key: k1")
	x.wants(t, 202, pending)
	x.wantsHeader(t, "Location: /api/jobs/captures/0-6", "Retry-After: 1", "Preference-Applied: respond-async", "Vary: Prefer",
		"Ledger-Position: 0-5", `Idempotency-Key: "k1"`)
	look := n.send(t, "GET", "/api/jobs/captures/0-6", "")
	look.wants(t, 200, pending)
	look.wantsHeader(t, "Retry-After: 1", "Preference-Applied:")
	n.send(t, "GET", "/api/jobs/captures/0-6", "", "Authorization: Bearer "+n.bob.Reveal()).wantsProblem(t, codeCaptureNotFound)

	done := make(chan exchange)
	go func() { done <- n.send(t, "GET", "/api/jobs/captures/0-6", "", "Prefer: wait=20") }()
	n.release()
	waited := <-done
	waited.wants(t, 200, n.capturedAnswer())
	waited.wantsHeader(t, "Preference-Applied: wait=20", "Ledger-Position: 0-6")
}

// TestPatience looks at the deadline that Await gets: nothing is waited for.
func TestPatience(t *testing.T) {
	for _, tt := range []struct {
		method, prefer string
		patience       time.Duration // 0: Await is not called
		applied        string
	}{
		{"POST", "", 10 * time.Second, ""},
		{"POST", "wait=3", 3 * time.Second, "wait=3"},
		{"POST", "wait=3600", 30 * time.Second, "wait=30"},
		{"POST", "wait=0", 0, "wait=0"},
		{"POST", "wait=soon", 10 * time.Second, ""},
		{"POST", "respond-async", 0, "respond-async"},
		{"POST", "respond-async, wait=5", 5 * time.Second, "respond-async, wait=5"},
		{"POST", "return=minimal", 10 * time.Second, ""},
		{"GET", "", 0, ""},
		{"GET", "wait=7", 7 * time.Second, "wait=7"},
		{"GET", "respond-async", 0, ""},
	} {
		t.Run(tt.method+" "+tt.prefer, func(t *testing.T) {
			n := newNode(t)
			n.hold = true
			var least, most time.Duration // the clock goes on between the call and the look at it
			began := time.Now()
			n.Await = func(ctx context.Context, _ events.Position) (events.Decision, error) {
				deadline, _ := ctx.Deadline()
				least, most = time.Until(deadline), deadline.Sub(began)
				return events.Decision{}, context.DeadlineExceeded
			}
			headers := []string{"Prefer: " + tt.prefer}
			if tt.prefer == "" {
				headers = nil
			}
			path, body, status := "/api/jobs", gopher, 202
			if tt.method == "GET" {
				n.send(t, "POST", path, body, "Prefer: respond-async")
				path, body, status = "/api/jobs/captures/0-6", "", 200
			}
			x := n.send(t, tt.method, path, body, headers...)
			x.wants(t, status, `{"outcome":"pending","receipt":{"position":"0-6"}}`)
			x.wantsHeader(t, "Preference-Applied: "+tt.applied)
			if least > tt.patience || most < tt.patience {
				t.Errorf("waited up to %v, want %v", least, tt.patience)
			}
		})
	}
}

func TestAsyncIsNotAppliedToAnAnswerInTime(t *testing.T) {
	n := newNode(t)
	x := n.send(t, "POST", "/api/jobs", gopher, "Prefer: respond-async, wait=5")
	x.wants(t, 201, n.capturedAnswer()[:20]+"…")
	x.wantsHeader(t, "Preference-Applied: wait=5")
}

// TestAwaitThatFails: the request stands, whatever happens to the wait.
func TestAwaitThatFails(t *testing.T) {
	n := newNode(t)
	n.Await = func(context.Context, events.Position) (events.Decision, error) {
		return events.Decision{}, errors.New("the projector stopped")
	}
	n.send(t, "POST", "/api/jobs", gopher).wants(t, 202, `{"outcome":"pending","receipt":{"position":"0-6"}}`)
	if !strings.Contains(n.log.String(), "the projector stopped") {
		t.Errorf("nothing was logged: %s", n.log.String())
	}
}

func TestLookingUpCaptures(t *testing.T) {
	n := newNode(t)
	n.send(t, "POST", "/api/jobs", gopher, "Authorization: Bearer "+n.bob.Reveal())
	unknown := n.send(t, "GET", "/api/jobs/captures/0-99", "")
	unknown.wantsProblem(t, codeCaptureNotFound)
	for _, path := range []string{"0-6", "0-2", "1-6", "0-9223372036854775807"} { // another's, another's opening, no partition
		n.send(t, "GET", "/api/jobs/captures/"+path, "").wants(t, 404, unknown.body)
	}
	n.send(t, "GET", "/api/jobs/captures/0-1", "").wants(t, 404, unknown.body) // own, but no capture
	for _, path := range []string{"1234", "0-0", "0-07", "x-1", "0-1-2"} {
		n.send(t, "GET", "/api/jobs/captures/"+path, "").wantsProblem(t, codeInvalidPosition)
	}
}

// TestCaptureFoldedBetweenTwoLooks: a request may be folded after its decision was not found, and before its
// requester is looked for.
func TestCaptureFoldedBetweenTwoLooks(t *testing.T) {
	n := newNode(t)
	n.hold = true
	n.send(t, "POST", "/api/jobs", gopher, "Prefer: respond-async", "Idempotency-Key: k1")
	n.Requester = func(ctx context.Context, p events.Position) (string, error) {
		n.release()
		return n.requester(ctx, p)
	}
	n.send(t, "GET", "/api/jobs/captures/0-6", "").wants(t, 200, `{"outcome":"captured"…`)
}

func TestQueryOfACaptureIsRefused(t *testing.T) {
	n := newNode(t)
	for query, want := range map[string]string{
		"dryrun=true": "dryrun is not a parameter of this call; did you mean dry_run?", "dry_run=1": "dry_run must be true or false",
		"dry_run=": "dry_run must be true or false", "dry_run": "dry_run must be true or false", "dry_run=TRUE": "dry_run must be true or false",
		"dry_run=true&dry_run=true": "dry_run is there more than once", "a=b;c": "the query of the URL cannot be read",
	} {
		for _, path := range []string{"/api/jobs?", "/api/jobs/batch?"} {
			body := n.send(t, "POST", path+query, gopher).wantsProblem(t, codeInvalidRequest)
			if !strings.Contains(body, `"detail":"`+want+`"`) || len(n.requests) != 5 {
				t.Errorf("%s: %d requests, answer %s", query, len(n.requests), body)
			}
		}
	}
}

func TestJobs(t *testing.T) {
	n := newNode(t)
	location := n.send(t, "POST", "/api/jobs", gopher).Header.Get("Location")
	unknown := n.send(t, "GET", "/api/jobs/job_nothing", "")
	unknown.wantsProblem(t, codeJobNotFound)
	n.send(t, "GET", location, "", "Authorization: Bearer "+n.bob.Reveal()).wants(t, 404, unknown.body)
	n.send(t, "HEAD", location, "").wantsHeader(t, "Content-Type: application/json", "Ledger-Position: 0-6", `ETag: "1"`)
	n.send(t, "GET", location, "", `If-None-Match: "1"`).wants(t, 304, "")
	n.send(t, "GET", location, "", `If-None-Match: "2"`).wants(t, 200, `{"id":"job_…`)
}
