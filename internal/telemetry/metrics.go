package telemetry

import (
	"context"
	"errors"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"jobtally/internal/events"
)

// The buckets, in seconds. Those of calls are the ones that the semantic conventions of OpenTelemetry ask for.
var (
	callBuckets = []float64{.005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10}
	workBuckets = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	sizeBuckets = []float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512}
)

// The outcomes of captures, as they stand in the subjects of decisions.
var captureOutcomes = []events.DecisionBody{
	&events.JobCaptured{}, &events.JobCaptureDuplicated{}, &events.JobCaptureRejected{}, &events.JobCaptureRepeated{}, &events.RequestRefused{},
}

// metrics are the instruments. What is counted on the way of every call is resolved once: a look-up by labels would cost
// more than the counting. docs/METRICS.md says what each of them means.
type metrics struct {
	registry *prometheus.Registry

	active map[string]prometheus.Gauge // by method
	calls  callDurations

	streams streams

	appended  prometheus.Histogram
	refused   map[error]prometheus.Counter // by what is known of the append
	groupSize prometheus.Histogram
	fsyncs    prometheus.Histogram

	decisions prometheus.Counter
	captures  map[string]prometheus.Counter // by outcome
	fenced    prometheus.Counter
	batchSize prometheus.Histogram
	deciding  prometheus.Histogram
	folded    prometheus.Histogram
}

func newMetrics() *metrics {
	m := &metrics{
		registry:  prometheus.NewRegistry(),
		appended:  histogram("jobtally_append_duration_seconds", "Time from a request of a client until it was durable in the ledger.", workBuckets),
		groupSize: histogram("jobtally_append_group_size", "Requests that were made durable together.", sizeBuckets),
		fsyncs:    histogram("jobtally_fsync_duration_seconds", "Time of one fsync of the requests, where this process does it.", workBuckets),
		decisions: counter("jobtally_decisions_total", "Decisions that this process made and recorded."),
		fenced:    counter("jobtally_fenced_total", "Times that another projector had decided a position before this one."),
		batchSize: histogram("jobtally_decide_batch_size", "Requests that were decided together.", sizeBuckets),
		deciding:  histogram("jobtally_decide_duration_seconds", "Time to load the state for a batch of requests and decide them.", workBuckets),
		folded:    histogram("jobtally_fold_duration_seconds", "Time to fold a batch of decisions into SQLite, in one transaction.", workBuckets),
	}
	m.registry.MustRegister(m.appended, m.groupSize, m.fsyncs, m.decisions, m.fenced, m.batchSize, m.deciding, m.folded,
		buildInfo(), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.active, m.calls = newCalls(m.registry)
	m.streams = newStreams(m.registry)
	m.captures, m.refused = newOutcomes(m.registry), newRefusals(m.registry)
	return m
}

func histogram(name, help string, buckets []float64) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

func newOutcomes(registry *prometheus.Registry) map[string]prometheus.Counter {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "jobtally_captures_total", Help: "Captures that this process decided, and recorded, by outcome.",
	}, []string{"outcome"})
	registry.MustRegister(vec)
	captures := map[string]prometheus.Counter{}
	for _, body := range captureOutcomes {
		captures[events.OutcomeOf(body)] = vec.WithLabelValues(events.OutcomeOf(body))
	}
	return captures
}

func newRefusals(registry *prometheus.Registry) map[error]prometheus.Counter {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "jobtally_append_failures_total", Help: "Requests of clients that were not appended, or of which that is not known, by reason.",
	}, []string{"reason"})
	registry.MustRegister(vec)
	return map[error]prometheus.Counter{
		events.ErrUnavailable: vec.WithLabelValues("unavailable"), events.ErrUnknownOutcome: vec.WithLabelValues("unknown_outcome"),
		context.Canceled: vec.WithLabelValues("interrupted"), nil: vec.WithLabelValues("other"),
	}
}

// buildInfo is always 1: what it says stands in its labels.
func buildInfo() prometheus.Collector {
	version, revision := build()
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "jobtally_build_info", Help: "What is running: always 1.",
		ConstLabels: prometheus.Labels{"version": version, "revision": revision, "goversion": runtime.Version()},
	})
	g.Set(1)
	return g
}

// build says what was built into this program.
func build() (version, revision string) {
	version, revision = "unknown", "unknown"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return version, revision
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			revision = setting.Value
		}
	}
	return info.Main.Version, revision
}

func (m *metrics) grouped(requests int)      { m.groupSize.Observe(float64(requests)) }
func (m *metrics) synced(took time.Duration) { m.fsyncs.Observe(took.Seconds()) }

func (m *metrics) decided(requests int, took time.Duration) {
	m.batchSize.Observe(float64(requests))
	m.deciding.Observe(took.Seconds())
}

func (m *metrics) recorded(decisions []events.Decision) {
	m.decisions.Add(float64(len(decisions)))
	for i := range decisions {
		if outcome, is := captureOutcome(decisions[i].Body); is {
			m.captures[outcome].Inc()
		}
	}
}

// captureOutcome returns the outcome of a decision, if that is on a capture.
func captureOutcome(body events.DecisionBody) (outcome string, is bool) {
	switch b := body.(type) {
	case *events.JobCaptured, *events.JobCaptureDuplicated, *events.JobCaptureRejected, *events.JobCaptureRepeated:
		is = true
	case *events.RequestRefused:
		is = b.Kind == events.KindOf(&events.JobCaptureRequested{})
	}
	return events.OutcomeOf(body), is
}

func (m *metrics) append(next Append) Append {
	return func(ctx context.Context, r *events.Request) (events.Position, error) {
		began := time.Now()
		p, err := next(ctx, r)
		m.appending(ctx, time.Since(began), err)
		return p, err
	}
}

func (m *metrics) appendAll(next AppendAll) AppendAll {
	return func(ctx context.Context, requests []*events.Request) ([]events.Position, []error) {
		began := time.Now()
		positions, errs := next(ctx, requests)
		for _, err := range errs {
			m.appending(ctx, time.Since(began), err)
		}
		return positions, errs
	}
}

// appending takes in what became of one request. That a client left says nothing of the ledger, whatever came of its request.
func (m *metrics) appending(ctx context.Context, took time.Duration, err error) {
	if err == nil {
		m.appended.Observe(took.Seconds())
		return
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		m.refused[context.Canceled].Inc()
		return
	}
	for reason, refused := range m.refused {
		if reason != nil && errors.Is(err, reason) {
			refused.Inc()
			return
		}
	}
	m.refused[nil].Inc()
}
