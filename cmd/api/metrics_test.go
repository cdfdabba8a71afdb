package main

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

var servesMetrics = regexp.MustCompile(`"?msg"?[=:]"serving metrics"[ ,]"?addr"?[=:]"?([^ ",\n]+)`)

// metricsURL is where a service serves its metrics.
func (s *service) metricsURL(t *testing.T) string {
	t.Helper()
	return "http://" + s.wait(t, &s.stderr, servesMetrics)[1]
}

// scrape reads the metrics of a service, as Prometheus does.
func (s *service) scrape(t *testing.T) (metrics map[string]*dto.MetricFamily, text string) {
	t.Helper()
	answer, err := http.Get(s.metricsURL(t) + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%d, %v: %s", answer.StatusCode, err, body)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	if metrics, err = parser.TextToMetricFamilies(strings.NewReader(string(body))); err != nil {
		t.Fatal(err)
	}
	return metrics, string(body)
}

// values returns the values of metrics by name and labels, a histogram's being how many it has seen.
func values(metrics map[string]*dto.MetricFamily) map[string]float64 {
	values := map[string]float64{}
	for name, family := range metrics {
		for _, m := range family.Metric {
			labels := []string{}
			for _, l := range m.Label {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			values[name+"{"+strings.Join(labels, ",")+"}"] =
				m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return values
}

func TestMetricsCountWhatHappened(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember, "--metrics-addr", "127.0.0.1:0", "--plans", "free=2")
	s.capture(t, jobURL(1), "Idempotency-Key: \"again\"").wants(t, http.StatusCreated)
	s.capture(t, jobURL(1), "Idempotency-Key: \"again\"").wants(t, http.StatusCreated)
	s.capture(t, jobURL(1), "Idempotency-Key: \"again\"").wants(t, http.StatusCreated)
	s.capture(t, jobURL(2), "Idempotency-Key: \"again\"").wants(t, http.StatusUnprocessableEntity)
	s.capture(t, jobURL(1)).wants(t, http.StatusOK)
	s.capture(t, jobURL(2)).wants(t, http.StatusCreated)
	s.capture(t, jobURL(3)).wants(t, http.StatusForbidden)
	s.post(t, "{").wants(t, http.StatusBadRequest)
	s.get(t, "/api/jobs/quota", "Authorization: Bearer jt_wrong").wants(t, http.StatusUnauthorized)
	s.get(t, "/secret/elsewhere").wants(t, http.StatusNotFound)
	if r, err := s.call("BREW", "/coffee", nil); err != nil || r.status < 400 {
		t.Errorf("%d, %v", r.status, err)
	}

	metrics, text := s.scrape(t)
	got := values(metrics)
	call := func(method, route string, status int) string {
		return fmt.Sprintf("http_server_request_duration_seconds{http_request_method=%s,http_response_status_code=%d,http_route=%s}", method, status, route)
	}
	for name, want := range map[string]float64{
		"jobtally_captures_total{outcome=captured}":             2,
		"jobtally_captures_total{outcome=duplicated}":           1,
		"jobtally_captures_total{outcome=rejected}":             1,
		"jobtally_captures_total{outcome=repeated}":             2,
		"jobtally_captures_total{outcome=refused}":              1,
		"jobtally_decisions_total{}":                            9, // with account and token of the first start
		"jobtally_append_duration_seconds{}":                    7,
		"jobtally_append_failures_total{reason=unavailable}":    0,
		"jobtally_fenced_total{}":                               0,
		"jobtally_ready{}":                                      1,
		"jobtally_partition_failing{partition=0}":               0,
		"jobtally_undecided_requests{partition=0}":              0,
		"jobtally_projection_lag_events{partition=0}":           0,
		"jobtally_projection_lag_seconds{partition=0}":          0,
		"http_server_active_requests{http_request_method=POST}": 0,
		call("POST", "/api/jobs", 201):                          4,
		call("POST", "/api/jobs", 200):                          1,
		call("POST", "/api/jobs", 403):                          1,
		call("POST", "/api/jobs", 422):                          1,
		call("POST", "/api/jobs", 400):                          1,
		call("GET", "/api/jobs/quota", 401):                     1,
		call("GET", "", 404):                                    1,
		call("_OTHER", "", 404):                                 1,
	} {
		if value, there := got[name]; !there || value != want {
			t.Errorf("%s: %v (there: %t), want %v", name, value, there, want)
		}
	}
	for _, positive := range []string{"jobtally_append_group_size{}", "jobtally_fsync_duration_seconds{}", "jobtally_decide_batch_size{}",
		"jobtally_decide_duration_seconds{}", "jobtally_fold_duration_seconds{}", "jobtally_wal_bytes{}"} {
		if got[positive] <= 0 {
			t.Errorf("%s: %v", positive, got[positive])
		}
	}
	if decided := metrics["jobtally_decide_batch_size"].Metric[0].GetHistogram().GetSampleSum(); decided != 9 {
		t.Errorf("%v requests were decided, want 9", decided)
	}
	for _, private := range []string{s.token, "jt_", "demo", "secret", "example.com", "Example"} {
		if strings.Contains(text, private) {
			t.Errorf("the metrics tell %q", private)
		}
	}
}

func TestHealthBesideTheMetrics(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember, "--metrics-addr", "127.0.0.1:0")
	for path, want := range map[string]string{"/livez": "alive\n", "/readyz": "ready\n"} {
		answer, err := http.Get(s.metricsURL(t) + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || answer.StatusCode != http.StatusOK || string(body) != want {
			t.Errorf("%s: %d %q, %v", path, answer.StatusCode, body, err)
		}
	}
	s.get(t, "/metrics").wantsProblem(t, http.StatusNotFound, "not_found") // the API's own listener has none
}

// libraries are the metrics of the Prometheus client itself, which the page names by their beginnings.
var libraries = regexp.MustCompile(`^(go|process)_`)

// TestMetricsPage holds the page against what a service serves, both ways, with the labels.
func TestMetricsPage(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember, "--metrics-addr", "127.0.0.1:0")
	s.capture(t, jobURL(1)).wants(t, http.StatusCreated)
	metrics, _ := s.scrape(t)
	served := map[string]string{}
	for name, family := range metrics {
		labels := []string{}
		for _, l := range family.Metric[0].Label {
			labels = append(labels, l.GetName())
		}
		slices.Sort(labels)
		if !libraries.MatchString(name) {
			served[name] = strings.Join(labels, ",") + " " + strings.ToLower(family.GetType().String())
		}
	}
	page, err := os.ReadFile("../../docs/METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `((?:jobtally|http)_[a-z_]+)(?:\\{([a-z_,]*)\\})?` \\| ([a-z]+) \\|").FindAllStringSubmatch(string(page), -1) {
		labels := strings.Split(row[2], ",")
		slices.Sort(labels)
		documented[row[1]] = strings.Join(labels, ",") + " " + row[3]
	}
	if !maps.Equal(served, documented) {
		t.Errorf("served and documented differ:\n%v\n%v", served, documented)
	}
}

func TestATakenMetricsAddressIsNamed(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember)
	taken := strings.TrimPrefix(s.url, "http://")
	code, _, stderr := finish(t, command(apiBinary, append(serviceFlags(t.TempDir()), "--metrics-addr", taken)...))
	if code != 1 || !strings.Contains(stderr, "choose another address with --metrics-addr") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}
