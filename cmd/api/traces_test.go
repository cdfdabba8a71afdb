package main

import (
	"compress/gzip"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	collected "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"jobtally/internal/events"
	"jobtally/internal/node"
)

const (
	traceID     = "4bf92f3577b34da6a3ce929d0e0e4736"
	clientSpan  = "00f067aa0ba902b7"
	traceparent = "Traceparent: 00-" + traceID + "-" + clientSpan + "-01"
)

// collector takes spans as an OpenTelemetry collector does.
type collector struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*tracepb.Span
	raw   []byte        // everything that was sent
	grew  chan struct{} // has one in it when something was
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{grew: make(chan struct{}, 1)}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := c.take(r); err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *collector) take(r *http.Request) (err error) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		if body, err = gzip.NewReader(body); err != nil {
			return err
		}
	}
	text, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	if r.Method != http.MethodPost || r.URL.Path != "/v1/traces" {
		return fmt.Errorf("%s %s", r.Method, r.URL)
	}
	var sent collected.ExportTraceServiceRequest
	if err := proto.Unmarshal(text, &sent); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw = append(c.raw, text...)
	for _, resource := range sent.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			c.spans = append(c.spans, scope.Spans...)
		}
	}
	select {
	case c.grew <- struct{}{}:
	default:
	}
	return nil
}

// await waits until enough spans came: a service that stops gives them no more than a moment.
func (c *collector) await(t *testing.T, enough func() bool) {
	t.Helper()
	for timeout := time.After(patience); !enough(); {
		select {
		case <-c.grew:
		case <-timeout:
			t.Fatal("spans are missing")
		}
	}
}

// captures returns the spans of calls that capture.
func (c *collector) captures() (spans []*tracepb.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if s.Name == "POST /api/jobs" {
			spans = append(spans, s)
		}
	}
	return spans
}

// of returns the spans of a trace by name.
func (c *collector) of(trace string) map[string]*tracepb.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	spans := map[string]*tracepb.Span{}
	for _, s := range c.spans {
		if hex.EncodeToString(s.TraceId) == trace {
			spans[s.Name] = s
		}
	}
	return spans
}

func attributesOf(s *tracepb.Span) string {
	texts := []string{}
	for _, a := range s.Attributes {
		value := a.Value.GetStringValue()
		if value == "" {
			value = strconv.FormatInt(a.Value.GetIntValue(), 10)
		}
		texts = append(texts, a.Key+"="+value)
	}
	return strings.Join(texts, " ") + " "
}

// recorded returns the request and the decision at a position of a service that has stopped.
func recorded(t *testing.T, data, position string) (request, decision events.Message) {
	t.Helper()
	p, err := events.ParsePosition(position)
	if err != nil {
		t.Fatal(err)
	}
	o, err := node.Inspect(context.Background(), node.Config{Dir: data, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if request, err = o.Ledger.Get(t.Context(), events.Requests, p); err != nil {
		t.Fatal(err)
	}
	if decision, err = o.Ledger.Get(t.Context(), events.Decisions, p); err != nil {
		t.Fatal(err)
	}
	return request, decision
}

func TestACaptureIsOneTrace(t *testing.T) {
	t.Parallel()
	c, data := newCollector(t), t.TempDir()
	s := start(t, data, time.Now, "--otlp-endpoint", c.URL, "--log-level", "debug")
	s.get(t, "/livez", traceparent)
	answer := s.capture(t, jobURL(1), traceparent).wants(t, http.StatusCreated)
	c.await(t, func() bool { return len(c.of(traceID)) >= 4 })
	s.stop(t)

	spans := c.of(traceID)
	for _, want := range []struct {
		name, parent string
		kind         tracepb.Span_SpanKind
		attributes   string
	}{
		{"POST /api/jobs", clientSpan, tracepb.Span_SPAN_KIND_SERVER, "http.response.status_code=201"},
		{"append requests.0", "POST /api/jobs", tracepb.Span_SPAN_KIND_PRODUCER, "messaging.destination.name=REQUESTS_0"},
		{"decide", "append requests.0", tracepb.Span_SPAN_KIND_CONSUMER, "messaging.destination.name=REQUESTS_0"},
		{"fold", "append requests.0", tracepb.Span_SPAN_KIND_CONSUMER, "messaging.destination.name=DECISIONS_0"},
	} {
		span, parent := spans[want.name], want.parent
		if span == nil {
			t.Errorf("no span %s", want.name)
			continue
		}
		if above := spans[want.parent]; above != nil {
			parent = hex.EncodeToString(above.SpanId)
		}
		if hex.EncodeToString(span.ParentSpanId) != parent || span.Kind != want.kind || span.EndTimeUnixNano < span.StartTimeUnixNano {
			t.Errorf("%v; want kind %s under %s, %s", span, want.kind, want.parent, parent)
		}
		for _, attribute := range []string{want.attributes + " ", "jobtally.position=" + answer.Receipt.Position + " "} {
			if !strings.Contains(attributesOf(span), attribute) {
				t.Errorf("%s has %s, not %s", want.name, attributesOf(span), attribute)
			}
		}
	}
	if len(spans) != 4 {
		t.Errorf("%d spans, want 4: %v", len(spans), spans)
	}
	for _, private := range []string{s.token, "demo", "example.com"} {
		if strings.Contains(string(c.raw), private) {
			t.Errorf("the spans tell %q", private)
		}
	}
	line := "route=/api/jobs account=demo"
	if log := s.stderr.String(); !strings.Contains(log, line) || !strings.Contains(log, "position="+answer.Receipt.Position) || !strings.Contains(log, "trace_id="+traceID) {
		t.Errorf("no line of the capture with its position and trace:\n%s", log)
	}

	request, decision := recorded(t, data, answer.Receipt.Position)
	carried := "00-" + traceID + "-" + hex.EncodeToString(spans["append requests.0"].SpanId) + "-01"
	for _, m := range []events.Message{request, decision} {
		if got := strings.Join(m.Header["traceparent"], "|"); got != carried {
			t.Errorf("%s carries %q, want %q", m.Subject, got, carried)
		}
	}
}

// What is no traceparent begins a trace of its own, and one that the client does not record leaves nothing in the ledger.
func TestTracesOfOtherClients(t *testing.T) {
	t.Parallel()
	c, data := newCollector(t), t.TempDir()
	s := start(t, data, time.Now, "--otlp-endpoint", c.URL)
	s.capture(t, jobURL(1), "Traceparent: "+strings.Repeat("0", 4096)).wants(t, http.StatusCreated)
	unrecorded := s.capture(t, jobURL(2), traceparent[:len(traceparent)-1]+"0").wants(t, http.StatusCreated)
	c.await(t, func() bool { return len(c.captures()) > 0 })
	s.stop(t)
	if spans := c.of(traceID); len(spans) != 0 {
		t.Errorf("spans of a trace that is not recorded: %v", spans)
	}
	if calls := c.captures(); len(calls) != 1 || len(calls[0].ParentSpanId) != 0 {
		t.Errorf("spans of captures %v, want one without a parent", calls)
	}
	if request, _ := recorded(t, data, unrecorded.Receipt.Position); request.Header["traceparent"] != nil {
		t.Errorf("the request carries %q", request.Header["traceparent"])
	}
}

func TestWithoutAnEndpointNothingIsCarried(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	s := start(t, data, midNovember, "--metrics-addr", "127.0.0.1:0")
	answer := s.capture(t, jobURL(1), traceparent).wants(t, http.StatusCreated)
	s.stop(t)
	request, decision := recorded(t, data, answer.Receipt.Position)
	for _, m := range []events.Message{request, decision} {
		if got := m.Header["traceparent"]; got != nil {
			t.Errorf("%s carries %q", m.Subject, got)
		}
	}
}

// A collector that takes the spans and never answers, and one that is not there, hold up no capture and no stop.
func TestADeadCollectorHoldsUpNothing(t *testing.T) {
	t.Parallel()
	asked, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		once.Do(func() { close(asked) })
		<-release
	}))
	t.Cleanup(hanging.Close)
	t.Cleanup(func() { close(release) })
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for _, endpoint := range []string{hanging.URL, gone.URL} {
		data := t.TempDir()
		cmd := command(apiBinary, append(serviceFlags(data), "--otlp-endpoint", endpoint)...)
		cmd.Env = append(cmd.Env, "OTEL_EXPORTER_OTLP_TIMEOUT=600000", "OTEL_BSP_EXPORT_TIMEOUT=600000", "OTEL_BSP_SCHEDULE_DELAY=1",
			"OTEL_BSP_MAX_QUEUE_SIZE=2", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE=1")
		s := launch(t, data, cmd)
		s.attach(t)
		s.capture(t, jobURL(0)).wants(t, http.StatusCreated)
		if endpoint == hanging.URL {
			select {
			case <-asked:
			case <-time.After(patience):
				t.Fatal("no span was sent")
			}
		}
		for n := range 20 { // more spans than wait
			if r := s.capture(t, jobURL(1+n)); r.status != http.StatusCreated {
				t.Fatalf("%d %s", r.status, r.body)
			}
		}
		s.stop(t) // which loses its patience long before the exporter
	}
}

func TestAnEndpointThatIsNoURLIsRefused(t *testing.T) {
	t.Parallel()
	for _, endpoint := range []string{"localhost:4318", "ftp://127.0.0.1", "http://", "://secret@x"} {
		code, _, stderr := finish(t, command(apiBinary, append(serviceFlags(t.TempDir()), "--otlp-endpoint", endpoint)...))
		if code != 1 || !strings.Contains(stderr, "--otlp-endpoint") || strings.Contains(stderr, "secret") {
			t.Errorf("%s: exit code %d, %q", endpoint, code, stderr)
		}
	}
}
