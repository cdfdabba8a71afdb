package telemetry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	nethttp "net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	sdk "go.opentelemetry.io/otel/sdk/trace"

	"jobtally/internal/events"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestAppendFailuresAreCountedByReason(t *testing.T) {
	m := newMetrics()
	var fails error
	appending := m.append(func(context.Context, *events.Request) (events.Position, error) {
		return events.Position{Sequence: 7}, fails
	})
	for _, fails = range []error{
		nil, fmt.Errorf("%w: full", events.ErrUnavailable), fmt.Errorf("%w: full", events.ErrUnavailable),
		fmt.Errorf("%w: gone", events.ErrUnknownOutcome), errors.New("else"),
	} {
		if p, err := appending(t.Context(), &events.Request{}); p.Sequence != 7 || err != fails {
			t.Errorf("%v: %s, %v", fails, p, err)
		}
	}
	all := m.appendAll(func(_ context.Context, requests []*events.Request) ([]events.Position, []error) {
		return make([]events.Position, len(requests)), []error{nil, fmt.Errorf("%w: full", events.ErrUnavailable), events.ErrUnknownOutcome}
	})
	if _, errs := all(t.Context(), make([]*events.Request, 3)); errs[0] != nil || !errors.Is(errs[1], events.ErrUnavailable) {
		t.Errorf("of a group: %v", errs)
	}
	left, leave := context.WithCancel(t.Context())
	leave()
	fails = fmt.Errorf("%w: %w", events.ErrUnknownOutcome, context.Canceled)
	appending(left, &events.Request{})
	for reason, want := range map[error]float64{events.ErrUnavailable: 3, events.ErrUnknownOutcome: 2, context.Canceled: 1, nil: 1} {
		if got := testutil.ToFloat64(m.refused[reason]); got != want {
			t.Errorf("%v: %v, want %v", reason, got, want)
		}
	}
	if got := testutil.CollectAndCount(m.appended); got != 1 {
		t.Errorf("%d histograms", got)
	}
}

// Each decision on a capture is in one outcome, and no other decision is in any.
func TestOutcomesAreOfCaptures(t *testing.T) {
	m := newMetrics()
	m.recorded([]events.Decision{
		{Body: &events.JobCaptured{}}, {Body: &events.JobCaptured{}}, {Body: &events.JobCaptureRejected{}},
		{Body: &events.RequestRefused{Kind: "job_capture"}}, {Body: &events.RequestRefused{Kind: "plan_change"}},
		{Body: &events.AccountOpened{}}, {Body: &events.MonthArchived{}},
	})
	for outcome, want := range map[string]float64{"captured": 2, "duplicated": 0, "rejected": 1, "repeated": 0, "refused": 1} {
		if got := testutil.ToFloat64(m.captures[outcome]); got != want {
			t.Errorf("%s: %v, want %v", outcome, got, want)
		}
	}
	if got := testutil.ToFloat64(m.decisions); got != 7 {
		t.Errorf("%v decisions, want 7", got)
	}
}

// Clients cannot make labels: any method that is not one of HTTP's counts as the same other one, from beginning to end.
func TestMethodsOfClientsMakeNoLabels(t *testing.T) {
	w := &Telemetry{metrics: newMetrics()}
	for i := range 1000 {
		method := fmt.Sprintf("M%d", i)
		ctx := w.Began()(t.Context(), method, "", "")
		if got := testutil.ToFloat64(w.metrics.active[otherMethod]); got != 1 {
			t.Fatalf("%v calls are being answered, want 1", got)
		}
		w.Answered()(ctx, method, "", nethttp.StatusNotFound, time.Millisecond, events.Position{})
	}
	if got := testutil.CollectAndCount(w.metrics.calls.vec); got != 1 {
		t.Errorf("%d series, want 1", got)
	}
	if got := testutil.ToFloat64(w.metrics.active[otherMethod]); got != 0 {
		t.Errorf("%v calls are still being answered", got)
	}
}

// What is counted for each call allocates nothing, and where nobody watches there is nothing to be called.
func TestCountingAllocatesNothing(t *testing.T) {
	w := &Telemetry{metrics: newMetrics()}
	began, answered, ctx := w.Began(), w.Answered(), context.Background()
	call := func() {
		answered(began(ctx, "POST", "/api/jobs", ""), "POST", "/api/jobs", 201, time.Millisecond, events.Position{Sequence: 1})
	}
	call() // the first of its labels
	if allocations := testing.AllocsPerRun(100, call); allocations != 0 {
		t.Errorf("%v allocations a call", allocations)
	}
	off := &Telemetry{}
	o := off.Node()
	if off.Began() != nil || off.Answered() != nil || o.Ledger.Grouped != nil || o.Projector.Decided != nil || o.Projector.Folded != nil {
		t.Error("nothing is watched, and there is somebody to tell")
	}
}

func TestNotReadyBeforeTheNodeIsUp(t *testing.T) {
	var log bytes.Buffer
	s, err := serve("127.0.0.1:0", prometheus.NewRegistry(), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close(t.Context())
	url := "http://" + regexp.MustCompile(`addr=(\S+)`).FindStringSubmatch(log.String())[1]
	for path, want := range map[string]string{"/livez": "200 alive\n", "/readyz": "503 starting\n", "/else": "404 404 page not found\n"} {
		answer, err := nethttp.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if got := fmt.Sprint(answer.StatusCode, " ", string(body)); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", path, got, err, want)
		}
	}
}

// failing is an exporter that fails as long as it is told to.
type failing struct{ err error }

func (f *failing) ExportSpans(context.Context, []sdk.ReadOnlySpan) error { return f.err }
func (f *failing) Shutdown(context.Context) error                        { return nil }

func TestADeadCollectorIsComplainedOfOnce(t *testing.T) {
	var log bytes.Buffer
	f := &failing{}
	p := &patient{SpanExporter: f, log: slog.New(slog.NewTextHandler(&log, nil))}
	for _, f.err = range []error{nil, errors.New("refused"), errors.New("refused"), nil, nil, errors.New("again")} {
		if err := p.ExportSpans(t.Context(), nil); err != nil {
			t.Error(err)
		}
	}
	for text, want := range map[string]int{"cannot be sent": 2, "can be sent again": 1, "\n": 3} {
		if got := strings.Count(log.String(), text); got != want {
			t.Errorf("%q: %d times, want %d, in\n%s", text, got, want, log.String())
		}
	}
}

// A node that folds what was decided long ago sends no spans of traces that ended then.
func TestOldDecisionsAreInNoTrace(t *testing.T) {
	seen := &counting{}
	traces := &traces{provider: sdk.NewTracerProvider(sdk.WithSyncer(seen))}
	traces.tracer = traces.provider.Tracer("test")
	now := time.Now()
	const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	traces.folded([]events.Decision{
		{Time: now.Add(-traceable), Traceparent: traceparent}, {Time: now}, {Time: now, Traceparent: traceparent, Position: events.Position{Sequence: 3}},
	}, now, now)
	if len(seen.spans) != 1 || seen.spans[0].Name() != "fold" || seen.spans[0].Parent().SpanID().String() != "00f067aa0ba902b7" {
		t.Errorf("%v", seen.spans)
	}
}

type counting struct{ spans []sdk.ReadOnlySpan }

func (c *counting) ExportSpans(_ context.Context, spans []sdk.ReadOnlySpan) error {
	c.spans = append(c.spans, spans...)
	return nil
}
func (c *counting) Shutdown(context.Context) error { return nil }

func TestEndpointsAndAddressesThatCannotBe(t *testing.T) {
	for _, cfg := range []Config{{OTLPEndpoint: "127.0.0.1:4318"}, {OTLPEndpoint: "unix:///x"}, {OTLPEndpoint: "http://user:secret@127.0.0.1:4318"}, {OTLPEndpoint: "http://127.0.0.1:4318?key=secret"},
		{MetricsAddr: "nowhere"}, {MetricsAddr: "127.0.0.1:99999"}} {
		cfg.Log = quiet()
		if w, err := Start(t.Context(), cfg); err == nil {
			w.Close()
			t.Errorf("%+v was taken", cfg)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}
