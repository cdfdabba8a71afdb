package http

import (
	"context"
	"fmt"
	"log/slog"
	nethttp "net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/events"
	"jobtally/internal/telemetry"
	"jobtally/internal/token"
)

const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

type observed string // the key of a context

// An observer hears of each call once it begins and once it ends, whatever became of it, with a valid trace context only;
// and the context that it returns is that of the call.
func TestObserverHearsOfEveryCall(t *testing.T) {
	n := newNode(t)
	appended := n.Backend.Append
	n.Backend.Append = func(ctx context.Context, r *events.Request) (events.Position, error) {
		if ctx.Value(observed("call")) != "POST /api/jobs" {
			t.Errorf("a request is appended in the context of %v", ctx.Value(observed("call")))
		}
		return appended(ctx, r)
	}
	n.Backend.Quota = func(context.Context, string, events.Month) (capture.Quota, error) { panic("at the quota") }
	var heard []string
	observer := Observer{
		Began: func(ctx context.Context, method, route, traceparent string) context.Context {
			heard = append(heard, fmt.Sprintf("%s %s %.7s", method, route, traceparent))
			return context.WithValue(ctx, observed("call"), method+" "+route)
		},
		Answered: func(ctx context.Context, method, route string, status int, took time.Duration, p events.Position) {
			if ctx.Value(observed("call")) != method+" "+route || took < 0 {
				t.Errorf("%s %s: in the context of %v, after %s", method, route, ctx.Value(observed("call")), took)
			}
			heard = append(heard, fmt.Sprintf("%s %s %d %s", method, route, status, p))
		},
	}
	h := NewHandler(Config{Backend: n.Backend, Now: func() time.Time { return n.now }, Observer: observer})
	for _, c := range []struct{ method, path, body, traceparent string }{
		{"POST", "/api/jobs", `{"source_url":"https://example.com/1","title":"a","company":"b"}`, traceparent},
		{"GET", "/api/jobs/captures/0-6", "", traceparent + "x"},
		{"GET", "/api/jobs/quota", "", ""},
		{"GET", "/nowhere/else", "", strings.ToUpper(traceparent)},
		{"PUT", "/api/jobs", "", ""},
	} {
		r := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
		r.Header.Set("Authorization", "Bearer "+n.anna.Reveal())
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Traceparent", c.traceparent)
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	want := []string{
		"POST /api/jobs 00-4bf9", "POST /api/jobs 201 0-6",
		"GET /api/jobs/captures/:position ", "GET /api/jobs/captures/:position 200 0-6",
		"GET /api/jobs/quota ", "GET /api/jobs/quota 500 0-0",
		"GET  ", "GET  404 0-0",
		"PUT /api/jobs ", "PUT /api/jobs 405 0-0",
	}
	if !slices.Equal(heard, want) {
		t.Errorf("heard %q\nwant  %q", heard, want)
	}
}

// Every line of the log that a call writes says whose it is, under which id, and at which position it stands.
func TestLinesOfACallNameIt(t *testing.T) {
	n := newNode(t)
	n.send(t, "POST", "/api/jobs", `{"source_url":"https://example.com/1","title":"a","company":"b"}`, "X-Request-Id: mine").wants(t, 201, "{…")
	n.Backend.Await = func(context.Context, events.Position) (events.Decision, error) {
		return events.Decision{}, fmt.Errorf("lost")
	}
	n.send(t, "POST", "/api/jobs", `{"source_url":"https://example.com/2","title":"a","company":"b"}`, "X-Request-Id: other").wants(t, 202, "{…")
	log := n.log.String()
	for _, want := range []string{
		`"msg":"answered","method":"POST","route":"/api/jobs","account":"anna","request_id":"mine","position":"0-6","status":201`,
		`"msg":"a call failed","method":"POST","route":"/api/jobs","account":"anna","request_id":"other","position":"0-7","error":"await the decision at 0-7: lost"`,
		`"msg":"answered","method":"POST","route":"/api/jobs","account":"anna","request_id":"other","position":"0-7","status":202`,
	} {
		if !strings.Contains(log, want) {
			t.Errorf("no line %s in\n%s", want, log)
		}
	}
	if strings.Contains(log, n.anna.Reveal()) || strings.Contains(log, "example.com") {
		t.Errorf("the log tells too much:\n%s", log)
	}
}

// BenchmarkObserved measures what it costs a capture that it is counted, and that it is told to nobody.
func BenchmarkObserved(b *testing.B) {
	held := token.New()
	watching, err := telemetry.Start(b.Context(), telemetry.Config{MetricsAddr: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer watching.Close()
	counted := Config{Backend: constant(held), Observer: Observer{Began: watching.Began(), Answered: watching.Answered()}}
	counted.Backend.Append = watching.Append(counted.Backend.Append)
	for _, c := range []struct {
		name string
		cfg  Config
	}{{"not watched", Config{Backend: constant(held)}}, {"metrics", counted}} {
		b.Run(c.name, func(b *testing.B) {
			r := httptest.NewRequest(nethttp.MethodPost, "/api/jobs", nil)
			r.Header.Set("Authorization", "Bearer "+held.Reveal())
			r.Header.Set("Content-Type", "application/json")
			r.ContentLength = int64(len(benchJob))
			serve(b, NewHandler(c.cfg), r, benchJob, nethttp.StatusCreated)
		})
	}
}
