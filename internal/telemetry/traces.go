package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"jobtally/internal/events"
)

// traces makes the spans: one of the call, of appending its request, of deciding it, and of folding the decision. The
// latter two come from whichever process does it, under the trace context that the messages carry.
type traces struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
}

// traceable is for how long after its request what is done with it belongs to its trace. A node that folds the ledger anew
// sends nothing of traces that ended long ago.
const traceable = 15 * time.Minute

func startTraces(ctx context.Context, cfg Config) (*traces, error) {
	endpoint, err := url.Parse(cfg.OTLPEndpoint)
	if err != nil || endpoint.Host == "" || endpoint.Scheme != "http" && endpoint.Scheme != "https" {
		return nil, fmt.Errorf("the OTLP endpoint is not a URL such as http://127.0.0.1:4318; set it with --otlp-endpoint") // it may have a password
	}
	// The exporter would leave them out of what it sends, and this would log them.
	if endpoint.User != nil || endpoint.RawQuery != "" {
		return nil, errors.New("the OTLP endpoint has a user or a query, which are not sent: say who you are with OTEL_EXPORTER_OTLP_HEADERS, and leave it out of --otlp-endpoint")
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(endpoint.JoinPath("v1", "traces").String()))
	if err != nil {
		return nil, fmt.Errorf("OTLP: %w", err)
	}
	version, _ := build()
	of, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithHost(),
		resource.WithAttributes(attribute.String("service.name", cfg.Service), attribute.String("service.version", version)), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("OTLP: %w", err)
	}
	t := &traces{provider: sdk.NewTracerProvider(sdk.WithResource(of), sdk.WithBatcher(&patient{SpanExporter: exporter, log: cfg.Log}))}
	t.tracer = t.provider.Tracer("jobtally")
	cfg.Log.Info("sending traces", "endpoint", endpoint.Redacted())
	return t, nil
}

func (t *traces) close(ctx context.Context) {
	if t != nil {
		t.provider.Shutdown(ctx) // what does not arrive in time is lost, and nobody waits for it
	}
}

// patient says once that the collector takes no spans, and once that it does again. They are dropped meanwhile.
type patient struct {
	sdk.SpanExporter
	log     *slog.Logger
	failing atomic.Bool
}

// ExportSpans never fails: what there is to say is in the log.
func (p *patient) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := p.SpanExporter.ExportSpans(ctx, spans)
	switch {
	case err != nil && !p.failing.Swap(true):
		p.log.Warn("traces cannot be sent, and are dropped until they can", "error", err)
	case err == nil && p.failing.Swap(false):
		p.log.Info("traces can be sent again")
	}
	return nil
}

// began starts the span of a call, if it is one of the API: probes are no work.
func (t *traces) began(ctx context.Context, method, route, traceparent string) context.Context {
	if !strings.HasPrefix(route, "/api/") {
		return ctx
	}
	ctx, _ = t.tracer.Start(under(ctx, traceparent), method+" "+route, trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(attribute.String("http.request.method", method), attribute.String("http.route", route)))
	return ctx
}

func (t *traces) answered(ctx context.Context, status int, p events.Position) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(attribute.Int("http.response.status_code", status))
	if p != (events.Position{}) {
		span.SetAttributes(position(p))
	}
	if status >= 500 {
		span.SetStatus(codes.Error, "")
	}
	span.End()
}

// append makes the span of an append, and gives the request its context to carry, unless nobody records the trace. What the
// client sent never goes on as it is.
func (t *traces) append(next Append) Append {
	return func(ctx context.Context, r *events.Request) (events.Position, error) {
		ctx, span := t.appending(ctx, r)
		p, err := next(ctx, r)
		appended(span, p, err)
		return p, err
	}
}

// appendAll makes a span for each request of a group likewise.
func (t *traces) appendAll(next AppendAll) AppendAll {
	return func(ctx context.Context, requests []*events.Request) ([]events.Position, []error) {
		spans := make([]trace.Span, len(requests))
		for i, r := range requests {
			_, spans[i] = t.appending(ctx, r)
		}
		positions, errs := next(ctx, requests)
		for i, span := range spans {
			appended(span, positions[i], errs[i])
		}
		return positions, errs
	}
}

func (t *traces) appending(ctx context.Context, r *events.Request) (context.Context, trace.Span) {
	ctx, span := t.tracer.Start(ctx, "append requests", trace.WithSpanKind(trace.SpanKindProducer))
	if span.SpanContext().IsSampled() {
		r.Traceparent = traceparentOf(ctx)
	}
	return ctx, span
}

// appended ends the span of an append.
func appended(span trace.Span, p events.Position, err error) {
	defer span.End()
	if err != nil {
		span.SetStatus(codes.Error, "not appended") // the error may name what is the client's own
		return
	}
	span.SetName(fmt.Sprintf("append requests.%d", p.Partition))
	span.SetAttributes(append(messaging("send", events.Requests, p), position(p))...)
}

func (t *traces) decided(requests []events.Request, began, ended time.Time) {
	for i := range requests {
		if r := &requests[i]; r.Traceparent != "" && ended.Sub(r.Time) < traceable {
			t.consumed("decide", r.Traceparent, r.Position, events.Requests, len(requests), began, ended)
		}
	}
}

func (t *traces) folded(decisions []events.Decision, began, ended time.Time) {
	for i := range decisions {
		if d := &decisions[i]; d.Traceparent != "" && ended.Sub(d.Time) < traceable {
			t.consumed("fold", d.Traceparent, d.Position, events.Decisions, len(decisions), began, ended)
		}
	}
}

// consumed makes the span of a message that was worked on with the others of its batch, under the append of the request.
func (t *traces) consumed(name, traceparent string, p events.Position, from events.Stream, batch int, began, ended time.Time) {
	_, span := t.tracer.Start(under(context.Background(), traceparent), name,
		trace.WithSpanKind(trace.SpanKindConsumer), trace.WithTimestamp(began))
	if span.IsRecording() {
		span.SetAttributes(append(messaging("process", from, p), position(p), attribute.Int("messaging.batch.message_count", batch))...)
	}
	span.End(trace.WithTimestamp(ended))
}

// messaging says which stream it is. The subject of a message is left out: it names the account.
func messaging(operation string, stream events.Stream, p events.Position) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("messaging.system", "nats"), attribute.String("messaging.operation.type", operation),
		attribute.String("messaging.destination.name", stream.Name(p.Partition)),
	}
}

func position(p events.Position) attribute.KeyValue {
	return attribute.String("jobtally.position", p.String())
}

const headerTraceparent = "traceparent"

// under returns a context in which spans belong to a trace context, if it is one.
func under(ctx context.Context, traceparent string) context.Context {
	if traceparent == "" {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{headerTraceparent: traceparent})
}

func traceparentOf(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier[headerTraceparent]
}

// traced is a handler of a log that adds to each line of a call the ids of its span.
type traced struct{ slog.Handler }

// Handle adds them.
func (h traced) Handle(ctx context.Context, line slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		line.AddAttrs(slog.String("trace_id", span.TraceID().String()), slog.String("span_id", span.SpanID().String()))
	}
	return h.Handler.Handle(ctx, line)
}

// WithAttrs keeps it one.
func (h traced) WithAttrs(attrs []slog.Attr) slog.Handler { return traced{h.Handler.WithAttrs(attrs)} }

// WithGroup keeps it one.
func (h traced) WithGroup(name string) slog.Handler { return traced{h.Handler.WithGroup(name)} }
