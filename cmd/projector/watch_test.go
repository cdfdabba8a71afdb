package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	collected "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// scraped starts a program whose metrics are served, and returns where.
func scraped(t *testing.T, name string, args ...string) (p *process, url string) {
	t.Helper()
	p = spawn(t, name, append(args, "--metrics-addr", "127.0.0.1:0")...)
	return p, "http://" + p.await(t, `msg="serving metrics" addr=(\S+)`)[1]
}

func fetch(t *testing.T, url string) (status int, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(within(t), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

// A projector that runs tells its health and its metrics, and is told apart from one that stands by: by what it decides.
func TestProjectorServesHealthAndMetrics(t *testing.T) {
	nats, a := natsServer(t), t.TempDir()
	mustOperate(t, "init", "--nats", nats, "--partitions", "2")
	_, base := service(t, "--nats", nats, "--data", a)
	p, url := scraped(t, "projector", "run", "--nats", nats, "--data", t.TempDir())
	p.await(t, "msg=deciding")
	anna := open(t, nats, base, "anna")
	anna.mustCapture(t, "1")
	if status, body := fetch(t, url+"/livez"); status != http.StatusOK || body != "alive\n" {
		t.Errorf("/livez: %d %q", status, body)
	}
	if status, body := fetch(t, url+"/readyz"); status != http.StatusOK || body != "ready\n" {
		t.Errorf("/readyz: %d %q", status, body)
	}
	_, metrics := fetch(t, url+"/metrics")
	for _, want := range []string{"jobtally_captures_total{outcome=\"captured\"} 1", "jobtally_decisions_total 3",
		"jobtally_undecided_requests{partition=\"0\"} 0", "jobtally_undecided_requests{partition=\"1\"} 0", "jobtally_ready 1"} {
		if !regexp.MustCompile("(?m)^" + regexp.QuoteMeta(want) + "$").MatchString(metrics) {
			t.Errorf("no line %s in\n%s", want, metrics)
		}
	}
	if strings.Contains(metrics, "anna") || strings.Contains(metrics, anna.token) {
		t.Error("the metrics name an account or its token")
	}
	p.interrupt(t)
}

// A capture that is recorded, decided and folded by several processes is one trace.
func TestOneTraceOfSeveralProcesses(t *testing.T) {
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	var mu sync.Mutex
	spans := map[string]int{} // by program and name
	came := make(chan struct{}, 1)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var sent collected.ExportTraceServiceRequest
		body, err := io.ReadAll(r.Body)
		if err != nil || proto.Unmarshal(body, &sent) != nil {
			t.Errorf("not spans: %v", err)
		}
		mu.Lock()
		defer mu.Unlock()
		defer func() {
			select {
			case came <- struct{}{}:
			default:
			}
		}()
		for _, resource := range sent.ResourceSpans {
			for _, a := range resource.Resource.Attributes {
				for _, scope := range resource.ScopeSpans {
					for _, s := range scope.Spans {
						if a.Key == "service.name" && hex.EncodeToString(s.TraceId) == trace {
							spans[a.Value.GetStringValue()+": "+s.Name]++
						}
					}
				}
			}
		}
	}))
	t.Cleanup(collector.Close)
	nats := natsServer(t)
	mustOperate(t, "init", "--nats", nats, "--partitions", "1")
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "10") // milliseconds
	api, base := service(t, "--nats", nats, "--data", t.TempDir(), "--otlp-endpoint", collector.URL)
	p := spawn(t, "projector", "run", "--nats", nats, "--data", t.TempDir(), "--otlp-endpoint", collector.URL)
	p.await(t, "msg=deciding")
	anna := open(t, nats, base, "anna")
	anna.mustHaveUsed(t, 0)

	request, err := http.NewRequestWithContext(within(t), http.MethodPost, base+"/api/jobs", strings.NewReader(posting("1")))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = http.Header{"Authorization": {"Bearer " + anna.token}, "Content-Type": {"application/json"},
		"Traceparent": {fmt.Sprintf("00-%s-00f067aa0ba902b7-01", trace)}}
	answer, err := http.DefaultClient.Do(request)
	if err != nil || answer.StatusCode != http.StatusCreated {
		t.Fatalf("%+v, %v", answer, err)
	}
	answer.Body.Close()
	want := map[string]int{
		"jobtally-api: POST /api/jobs": 1, "jobtally-api: append requests.0": 1, "jobtally-api: fold": 1,
		"jobtally-projector: decide": 1, "jobtally-projector: fold": 1,
	}
	all := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(spans) == len(want)
	}
	for ctx := within(t); !all() && ctx.Err() == nil; {
		select {
		case <-came:
		case <-ctx.Done():
		}
	}
	p.interrupt(t) // which sends what they may have beyond that
	api.interrupt(t)
	mu.Lock()
	defer mu.Unlock()
	if !maps.Equal(spans, want) {
		t.Errorf("spans %v, want %v", slices.Sorted(maps.Keys(spans)), slices.Sorted(maps.Keys(want)))
	}
}

// An address that is taken is named, before anything is opened.
func TestProjectorThatCannotListenSaysWhere(t *testing.T) {
	taken := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(taken.Close)
	err := run(context.Background(), []string{"run", "--nats", "nats://127.0.0.1:1", "--data", t.TempDir(),
		"--metrics-addr", strings.TrimPrefix(taken.URL, "http://")}, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "choose another address with --metrics-addr") {
		t.Errorf("%v", err)
	}
}
