// Package telemetry owns what an operator watches a process by: the metrics that Prometheus scrapes, and the traces that
// go to an OpenTelemetry collector. It alone knows their libraries. The other packages are given function values, and
// none where nothing is watched: then it costs nothing.
//
// Nothing here names an account, and nothing has a token.
package telemetry

import (
	"context"
	"log/slog"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/node"
)

// closeTimeout is how long the last spans have to reach their collector, and scrapes in flight to end, once it is closed.
const closeTimeout = time.Second

// Config says what is watched.
type Config struct {
	// Service is the name of the program in traces, unless OTEL_SERVICE_NAME says it.
	Service string
	// MetricsAddr is where the metrics are served; empty: nowhere, and none are kept.
	MetricsAddr string
	// OTLPEndpoint is the base URL of the collector, to which /v1/traces is added; empty: there are no traces.
	OTLPEndpoint string
	Log          *slog.Logger
}

// Telemetry is what is watched by. Its methods may be called concurrently, but for Close.
type Telemetry struct {
	metrics *metrics // nil where none are kept
	traces  *traces  // nil where there are none
	server  *server  // nil without metrics
}

// Start listens where metrics are served, and is ready to send traces. A collector that is not there is no error, now or
// later: the log says so, and the spans are dropped.
func Start(ctx context.Context, cfg Config) (*Telemetry, error) {
	t := &Telemetry{}
	if cfg.OTLPEndpoint != "" {
		traces, err := startTraces(ctx, cfg)
		if err != nil {
			return nil, err
		}
		t.traces = traces
	}
	if cfg.MetricsAddr != "" {
		t.metrics = newMetrics()
		server, err := serve(cfg.MetricsAddr, t.metrics.registry, cfg.Log)
		if err != nil {
			t.Close()
			return nil, err
		}
		t.server = server
	}
	return t, nil
}

// Close sends the spans that are left, and serves no longer. It takes a second or two at most.
func (t *Telemetry) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	t.server.close(ctx)
	t.traces.close(ctx)
}

// Log returns the log with the ids of the trace in each line that belongs to one.
func (t *Telemetry) Log(log *slog.Logger) *slog.Logger {
	if t.traces == nil {
		return log
	}
	return slog.New(traced{log.Handler()})
}

// Watch has the metrics tell how a node is, from now on, and /readyz whether it is ready.
func (t *Telemetry) Watch(n *node.Node) {
	if t.metrics != nil {
		t.metrics.watch(n)
		t.server.watch(n)
	}
}

// Node returns what a node tells.
func (t *Telemetry) Node() (o node.Observer) {
	if t.metrics != nil {
		o.Ledger.Grouped, o.Ledger.Synced = t.metrics.grouped, t.metrics.synced
		o.Projector.Recorded, o.Projector.Fenced = t.metrics.recorded, t.metrics.fenced.Inc
	}
	if t.metrics != nil || t.traces != nil {
		o.Projector.Decided, o.Projector.Folded = t.decided, t.folded
	}
	return o
}

func (t *Telemetry) decided(requests []events.Request, began time.Time) {
	ended := time.Now()
	if t.metrics != nil {
		t.metrics.decided(len(requests), ended.Sub(began))
	}
	if t.traces != nil {
		t.traces.decided(requests, began, ended)
	}
}

func (t *Telemetry) folded(decisions []events.Decision, began time.Time) {
	ended := time.Now()
	if t.metrics != nil {
		t.metrics.folded.Observe(ended.Sub(began).Seconds())
	}
	if t.traces != nil {
		t.traces.folded(decisions, began, ended)
	}
}

// Append is the appending of a request.
type Append = func(context.Context, *events.Request) (events.Position, error)

// Append returns an appending that is watched, and hands its trace on with the request.
func (t *Telemetry) Append(next Append) Append {
	if t.traces != nil {
		next = t.traces.append(next)
	}
	if t.metrics != nil {
		next = t.metrics.append(next)
	}
	return next
}

// Began and Answered return what the API tells of its calls, as its Observer wants it; nil where nobody listens.
func (t *Telemetry) Began() func(ctx context.Context, method, route, traceparent string) context.Context {
	if t.metrics == nil && t.traces == nil {
		return nil
	}
	return func(ctx context.Context, method, route, traceparent string) context.Context {
		if t.metrics != nil {
			t.metrics.active[known(method)].Inc()
		}
		if t.traces != nil {
			ctx = t.traces.began(ctx, known(method), route, traceparent)
		}
		return ctx
	}
}

// Answered is described with Began.
func (t *Telemetry) Answered() func(ctx context.Context, method, route string, status int, took time.Duration, p events.Position) {
	if t.metrics == nil && t.traces == nil {
		return nil
	}
	return func(ctx context.Context, method, route string, status int, took time.Duration, p events.Position) {
		if t.metrics != nil {
			t.metrics.active[known(method)].Dec()
			t.metrics.answered(callKey{known(method), route, status}, took)
		}
		if t.traces != nil {
			t.traces.answered(ctx, status, p)
		}
	}
}
