package relay

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/webhook"
)

// TestSignaturesAreVerifiedByThePublicLibrary sends events before, while and after two secrets sign.
func TestSignaturesAreVerifiedByThePublicLibrary(t *testing.T) {
	h, rcv, clock := newHouse(t), receive(t, nil), &clock{at: time.Now()}
	cfg := h.config()
	cfg.RootCAs, cfg.Now = rcv.trusted(), clock.now
	r, _ := run(t, cfg)
	e := create(t, r, "demo", rcv.URL+"/hooks?a=b")
	at := h.capture(t, "demo")
	g := rcv.next(t)
	ok(t, verify(t, e.Secrets[0], g))
	if g.id() != "evt_"+at.String() || g.header.Get("Content-Type") != "application/json" || g.header.Get("Webhook-Redelivery") != "" ||
		!strings.HasPrefix(g.header.Get("User-Agent"), "jobtally/") {
		t.Errorf("got %v", g.header)
	}
	var told struct{ ID, Type, Account, Timestamp string }
	ok(t, json.Unmarshal(g.body, &told))
	if told.Type != events.TypeJobCaptured || told.ID != at.String() || told.Account != "demo" || told.Timestamp == "" {
		t.Errorf("got %s", g.body)
	}

	rotated := must[webhook.Endpoint](t)(r.Rotate(within(t), "demo", e.ID, time.Minute))
	if len(rotated.Secrets) != 2 || rotated.Secrets[1].Value != e.Secrets[0].Value || rotated.Secrets[0].Value == e.Secrets[0].Value {
		t.Fatalf("the secrets are %v", rotated.Secrets)
	}
	g = rcv.nextSigned(t, h, 2)
	ok(t, verify(t, rotated.Secrets[0], g))
	ok(t, verify(t, rotated.Secrets[1], g))

	clock.pass(time.Minute)
	g = rcv.nextSigned(t, h, 1)
	ok(t, verify(t, rotated.Secrets[0], g))
	if verify(t, rotated.Secrets[1], g) == nil {
		t.Error("the secret that is expired signs")
	}
}

// nextSigned captures until what comes has so many signatures: the relay hears of a change a moment later.
func (rcv *receiver) nextSigned(t *testing.T, h *house, signatures int) got {
	t.Helper()
	for range 1000 {
		h.capture(t, "demo")
		if g := rcv.next(t); strings.Count(g.header.Get("Webhook-Signature"), "v1,") == signatures {
			return g
		}
	}
	t.Fatalf("nothing comes with %d signatures", signatures)
	return got{}
}

func TestAnEndpointIsSentTheTypesThatItWants(t *testing.T) {
	h, rcv := newHouse(t), receive(t, nil)
	cfg := h.config()
	cfg.RootCAs = rcv.trusted()
	r, _ := run(t, cfg)
	h.capture(t, "demo") // before it is registered
	e := create(t, r, "demo", rcv.URL, "jobtally.job.deleted", events.TypeQuotaReset)
	h.capture(t, "demo")
	h.decide(t, "other", &events.JobDeleted{JobID: "job_x"})
	h.decide(t, "demo", &events.AccountOpened{Plan: "free", Limit: 50})
	deleted := h.decide(t, "demo", &events.JobDeleted{JobID: "job_x"})
	archived := h.decide(t, "", &events.MonthArchived{Month: "2026-10"})
	rcv.wantIDs(t, "evt_"+deleted.String(), "evt_"+archived.String()+"-reset")
	progressed(t, r, e, "everything is done with", func(p webhook.Progress) bool { return p.Pending == 0 && p.Delivered == archived })
	rcv.wantNothing(t)
}

// TestLaterEventsWaitForOneThatFails has the second of three events fail twice.
func TestLaterEventsWaitForOneThatFails(t *testing.T) {
	h, failures := newHouse(t), 0
	rcv := receive(t, func(w http.ResponseWriter, id string) {
		if id == "evt_0-2" && failures < 2 {
			failures++
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	cfg := h.config()
	cfg.RootCAs = rcv.trusted()
	r, _ := run(t, cfg)
	e := create(t, r, "demo", rcv.URL)
	for range 3 {
		h.capture(t, "demo")
	}
	rcv.wantIDs(t, "evt_0-1", "evt_0-2", "evt_0-2", "evt_0-2", "evt_0-3")
	p := done(t, r, e)
	if p.ConsecutiveFailures != 0 || !p.FailingSince.IsZero() || p.LastSuccess.IsZero() || p.Open || p.Poisoned != 0 {
		t.Errorf("the progress is %+v", p)
	}
	all := must[[]webhook.Delivery](t)(r.Deliveries(within(t), "demo", e.ID, 0, 10))
	var said []string
	for _, d := range all {
		said = append(said, strings.Join([]string{d.MessageID, strconv.Itoa(d.Attempt), string(d.Outcome), strconv.Itoa(d.Status), d.Error}, " "))
	}
	want := []string{
		"evt_0-3 1 accepted 200 ", "evt_0-2 3 accepted 200 ", "evt_0-2 2 failed 503 it answered 503 Service Unavailable",
		"evt_0-2 1 failed 503 it answered 503 Service Unavailable", "evt_0-1 1 accepted 200 ",
	}
	if strings.Join(said, "\n") != strings.Join(want, "\n") {
		t.Errorf("the log is\n%s", strings.Join(said, "\n"))
	}
	page := must[[]webhook.Delivery](t)(r.Deliveries(within(t), "demo", e.ID, all[1].Sequence, 2))
	if len(page) != 2 || page[0] != all[2] || page[1] != all[3] {
		t.Errorf("the page is %v", page)
	}
}

// TestThresholdAndResetAreToldOnceEach has one decision be two events, of which the second fails once.
func TestThresholdAndResetAreToldOnceEach(t *testing.T) {
	h, failed := newHouse(t), false
	rcv := receive(t, func(w http.ResponseWriter, id string) {
		if strings.HasSuffix(id, "-threshold") && !failed {
			failed = true
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	cfg := h.config()
	cfg.RootCAs = rcv.trusted()
	r, _ := run(t, cfg)
	create(t, r, "demo", rcv.URL)
	h.decide(t, "demo", captured(80))
	h.decide(t, "other", captured(100))
	h.decide(t, "", &events.MonthArchived{Month: "2026-10"})
	h.capture(t, "demo")
	rcv.wantIDs(t, "evt_0-1", "evt_0-1-threshold", "evt_0-1-threshold", "evt_0-3-reset", "evt_0-4")
	rcv.wantNothing(t)
}

func TestRetryAfterIsHonoured(t *testing.T) {
	for name, after := range map[string]func(time.Time) string{
		"seconds": func(time.Time) string { return "3600" },
		"date":    func(now time.Time) string { return now.Add(time.Hour).UTC().Format(http.TimeFormat) },
	} {
		t.Run(name, func(t *testing.T) {
			h, clock := newHouse(t), &clock{at: time.Now().Truncate(time.Second)}
			rcv := receive(t, func(w http.ResponseWriter, _ string) {
				if clock.passed() == 0 {
					clock.pass(10 * time.Second) // it takes that long, and counts from then
					w.Header().Set("Retry-After", after(clock.now()))
					w.WriteHeader(http.StatusTooManyRequests)
				}
			})
			cfg := h.config()
			cfg.RootCAs, cfg.Now = rcv.trusted(), clock.now
			r, _ := run(t, cfg)
			e := create(t, r, "demo", rcv.URL)
			h.capture(t, "demo")
			rcv.wantIDs(t, "evt_0-1")
			p := progressed(t, r, e, "it waits", func(p webhook.Progress) bool { return !p.NextAttempt.IsZero() })
			if rest := p.NextAttempt.Sub(clock.now()); rest != time.Hour {
				t.Errorf("it rests for %s, want an hour", rest)
			}
			h.rested(t, e, 3)
			rcv.wantNothing(t)
			clock.pass(time.Hour)
			rcv.wantIDs(t, "evt_0-1")
		})
	}
}

func TestRetryAfterIsBounded(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "soon": 0, "-5": 0, "0": 0, "120": 2 * time.Minute, "99999999": 24 * time.Hour, "4294967296": 24 * time.Hour, "99999999999999999999": 24 * time.Hour, "1e9": 0,
		"Sun, 22 Nov 2026 12:05:00 GMT": 5 * time.Minute, "Sun, 22 Nov 2026 11:00:00 GMT": 0, "Mon, 22 Nov 2027 12:00:00 GMT": 24 * time.Hour,
	} {
		if is := retryAfter(http.Header{"Retry-After": {text}}, now); is != want {
			t.Errorf("%q: %s, want %s", text, is, want)
		}
	}
}

// TestAnswer410DisablesAndEnablingGoesOn has the endpoint come back.
func TestAnswer410DisablesAndEnablingGoesOn(t *testing.T) {
	h, gone := newHouse(t), true
	rcv := receive(t, func(w http.ResponseWriter, _ string) {
		if gone {
			gone = false
			w.WriteHeader(http.StatusGone)
		}
	})
	cfg := h.config()
	cfg.RootCAs = rcv.trusted()
	r, _ := run(t, cfg)
	e := create(t, r, "demo", rcv.URL)
	h.capture(t, "demo")
	h.capture(t, "demo")
	rcv.wantIDs(t, "evt_0-1")
	until(t, "it is gone", func() bool {
		return must[webhook.Endpoint](t)(r.Get(within(t), "demo", e.ID)).State == webhook.Gone
	})
	if p := must[webhook.Progress](t)(r.Progress(within(t), e)); p.Pending != 2 || p.Poisoned != 0 {
		t.Errorf("the progress is %+v", p)
	}
	rcv.wantNothing(t)
	enabled := true
	must[webhook.Endpoint](t)(r.Change(within(t), "demo", e.ID, 0, webhook.Change{Enabled: &enabled}))
	rcv.wantIDs(t, "evt_0-1", "evt_0-2")
}

// TestDeadEndpointsAreGivenUpSlowly follows the attempts at two events by the clock, until the endpoint counts as failing.
func TestDeadEndpointsAreGivenUpSlowly(t *testing.T) {
	h, clock := newHouse(t), &clock{at: time.Now().UTC()}
	rcv := receive(t, func(w http.ResponseWriter, _ string) { w.WriteHeader(http.StatusInternalServerError) })
	cfg := h.config()
	cfg.RootCAs, cfg.Now, cfg.Schedule = rcv.trusted(), clock.now, DefaultSchedule()
	r, _ := run(t, cfg)
	e := create(t, r, "demo", rcv.URL)
	h.capture(t, "demo")
	h.capture(t, "demo")
	for i, want := range append(DefaultSchedule()[1:], 24*time.Hour, 24*time.Hour) {
		id := "evt_0-1"
		if i >= 9 {
			if i == 9 {
				rcv.wantIDs(t, id) // the last attempt
			}
			id = "evt_0-2"
		}
		rcv.wantIDs(t, id)
		if i == 10 {
			break // five days are over
		}
		p := progressed(t, r, e, "it waits for its next attempt", func(p webhook.Progress) bool { return p.NextAttempt.After(clock.now()) })
		rest := p.NextAttempt.Sub(clock.now())
		if rest < want*9/10 || rest > want*11/10 || p.Open != (p.ConsecutiveFailures >= openAfter) {
			t.Errorf("after failure %d it rests for %s, want %s: %+v", i+1, rest, want, p)
		}
		if i == 9 {
			clock.pass(failingAtMost) // however long the pauses were
		}
		clock.pass(rest)
	}
	until(t, "it is failing", func() bool {
		return must[webhook.Endpoint](t)(r.Get(within(t), "demo", e.ID)).State == webhook.Failing
	})
	if p := must[webhook.Progress](t)(r.Progress(within(t), e)); p.Poisoned != 1 || p.Pending != 1 || !p.Open || !p.FailingSince.Before(clock.now()) {
		t.Errorf("the progress is %+v", p)
	}
}

// TestThatNobodyTriedIsNoFailure has days pass after one failure in which no relay runs: what was not tried did not fail. The webhook
// is failing with as many failures in a row as are made at an event.
func TestThatNobodyTriedIsNoFailure(t *testing.T) {
	h, clock := newHouse(t), &clock{at: time.Now().UTC()}
	rcv := receive(t, func(w http.ResponseWriter, _ string) { w.WriteHeader(http.StatusInternalServerError) })
	cfg := h.config()
	cfg.RootCAs, cfg.Now, cfg.Schedule = rcv.trusted(), clock.now, make([]time.Duration, 4)
	for i := range cfg.Schedule {
		cfg.Schedule[i] = time.Hour
	}
	r, stop := run(t, cfg)
	e := create(t, r, "demo", rcv.URL)
	h.capture(t, "demo")
	for failures := 1; failures <= len(cfg.Schedule); failures++ {
		rcv.wantIDs(t, "evt_0-1")
		p := progressed(t, r, e, "it failed", func(p webhook.Progress) bool { return p.ConsecutiveFailures == failures })
		if last := failures == len(cfg.Schedule); p.NextAttempt.IsZero() != last {
			t.Fatalf("after %d failures: %+v", failures, p)
		}
		if failures == 1 {
			stop()
			clock.pass(2 * failingAtMost)
			r, _ = run(t, cfg)
		}
		clock.pass(2 * time.Hour)
	}
	until(t, "it is failing", func() bool {
		return must[webhook.Endpoint](t)(r.Get(within(t), "demo", e.ID)).State == webhook.Failing
	})
}

// TestASlowEndpointDelaysNobodyElse has one that answers nothing, and one that goes on.
func TestASlowEndpointDelaysNobodyElse(t *testing.T) {
	h, hold := newHouse(t), make(chan struct{})
	slow := receive(t, func(http.ResponseWriter, string) { <-hold })
	fast := receive(t, nil)
	t.Cleanup(func() { close(hold) })
	cfg := h.config()
	cfg.RootCAs = slow.trusted()
	cfg.RootCAs.AddCert(fast.Certificate())
	r, _ := run(t, cfg)
	create(t, r, "demo", slow.URL)
	create(t, r, "demo", fast.URL)
	for range 20 {
		h.capture(t, "demo")
	}
	for i := range 20 {
		fast.wantIDs(t, "evt_0-"+strconv.Itoa(i+1))
	}
}

// TestWhatEndpointsAnswer has each answer be an error in words, or none.
func TestWhatEndpointsAnswer(t *testing.T) {
	var release chan struct{}
	secret := receive(t, nil)
	for _, c := range []struct {
		name   string
		answer func(w http.ResponseWriter, id string)
		want   string
	}{
		{"a redirect to a private address", func(w http.ResponseWriter, _ string) {
			w.Header().Set("Location", secret.URL)
			w.WriteHeader(http.StatusTemporaryRedirect)
		}, "it answered 307: redirects are not followed; register the URL that it leads to"},
		{"nothing, ever", func(http.ResponseWriter, string) { <-release }, "it did not answer within 3s"},
		{"a status of its own", func(w http.ResponseWriter, _ string) { w.WriteHeader(599) }, "it answered 599"},
		{"a huge body", func(w http.ResponseWriter, _ string) { io.CopyN(w, zeros{}, 1<<30) }, ""},
		{"a body without end", func(w http.ResponseWriter, _ string) {
			w.(*statusWriter).ResponseWriter.(http.Flusher).Flush()
			<-release
		}, ""},
		{"headers without end", func(w http.ResponseWriter, _ string) {
			w.Header().Set("X", strings.Repeat("x", 1<<20))
		}, "server response headers exceeded"},
		{"nothing, at once", hijacked(""), "it closed the connection without an answer"},
		{"half an answer", hijacked("HTTP/1.1 204 No Content\r\n"), "it closed the connection without an answer"},
		{"another protocol", hijacked("SSH-2.0-inside\r\n"), "malformed HTTP response"},
		{"a status of another protocol", hijacked("HTTP/1.1 inside inside\r\n\r\n"), "malformed HTTP status code"},
		{"headers of another protocol", hijacked("HTTP/1.1 200 OK\r\ninside\r\n\r\n"), "the headers of its answer cannot be read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			release = make(chan struct{})
			h, rcv := newHouse(t), receive(t, c.answer)
			t.Cleanup(func() { close(release) }) // before the receiver is closed, which waits for its answers
			cfg := h.config()
			cfg.RootCAs, cfg.timeout = rcv.trusted(), deadline
			switch c.name { // who waits for nothing, and whose answer has to begin in time
			case "nothing, ever":
				cfg.timeout = 3 * time.Second
			case "a body without end":
				cfg.timeout = 10 * time.Second
			}
			cfg.RootCAs.AddCert(secret.Certificate())
			r := open(t, cfg)
			e := create(t, r, "demo", rcv.URL)
			d := must[webhook.Delivery](t)(r.Test(within(t), "demo", e.ID))
			if (c.want == "") != (d.Outcome == webhook.Accepted) || !strings.HasPrefix(d.Error, c.want) || strings.Contains(d.Error, "127.0.0.1") || strings.Contains(d.Error, "inside") {
				t.Errorf("said %+v", d)
			}
			secret.wantNothing(t)
		})
	}
}

// hijacked answers with what need not be HTTP.
func hijacked(text string) func(w http.ResponseWriter, id string) {
	return func(w http.ResponseWriter, _ string) {
		conn, _, err := http.NewResponseController(w.(*statusWriter).ResponseWriter).Hijack()
		if err == nil {
			io.WriteString(conn, text)
			conn.Close()
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

func TestATestClosesTheCircuit(t *testing.T) {
	h, down := newHouse(t), make(chan struct{})
	rcv := receive(t, func(w http.ResponseWriter, _ string) {
		select {
		case <-down:
		default:
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	cfg := h.config()
	cfg.RootCAs, cfg.Schedule = rcv.trusted(), []time.Duration{0, time.Hour}
	r, _ := run(t, cfg)
	e := create(t, r, "demo", rcv.URL)
	h.capture(t, "demo")
	rcv.wantIDs(t, "evt_0-1")
	progressed(t, r, e, "it waits", func(p webhook.Progress) bool { return !p.NextAttempt.IsZero() })
	close(down)
	d := must[webhook.Delivery](t)(r.Test(within(t), "demo", e.ID))
	if d.Outcome != webhook.Accepted || d.Cause != webhook.ByTest || d.Type != testType {
		t.Errorf("the test is %+v", d)
	}
	rcv.wantIDs(t, d.MessageID, "evt_0-1")
}

// TestAnEndpointWaitsForANewerVersion has a decision of a type that nobody knows.
func TestAnEndpointWaitsForANewerVersion(t *testing.T) {
	h, rcv := newHouse(t), receive(t, nil)
	cfg := h.config()
	cfg.RootCAs = rcv.trusted()
	r, _ := run(t, cfg)
	e := create(t, r, "demo", rcv.URL)
	h.decideUnknown(t, "demo")
	h.capture(t, "demo")
	p := progressed(t, r, e, "it says so", func(p webhook.Progress) bool { return p.Waits != "" && p.Pending == 2 })
	if !strings.Contains(p.Waits, "jobtally.job.applauded.v1") {
		t.Errorf("the progress is %+v", p)
	}
	h.rested(t, e, 3)
	rcv.wantNothing(t)
}
