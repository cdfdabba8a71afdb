package jobtally_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// documentedMetrics are the metrics of docs/METRICS.md, which a test of the service holds against what it serves, with the
// labels of each and with what Prometheus adds: names of histograms, and of scrapes.
func documentedMetrics(t *testing.T) map[string][]string {
	t.Helper()
	page, err := os.ReadFile("docs/METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	metrics := map[string][]string{"up": {"instance", "job"}} // of Prometheus itself
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)(?:\\{([a-z_,]*)\\})?` \\| ([a-z]+) \\|").FindAllStringSubmatch(string(page), -1) {
		name, labels := row[1], strings.Split(row[2]+",instance,job", ",")
		if row[3] != "histogram" {
			metrics[name] = labels
			continue
		}
		metrics[name+"_bucket"], metrics[name+"_sum"], metrics[name+"_count"] = append(labels, "le"), labels, labels
	}
	return metrics
}

// wantExpression checks that an expression is of metrics that there are, and of labels that they have.
func wantExpression(t *testing.T, where, expression string, metrics map[string][]string) {
	t.Helper()
	var labels []string
	names := regexp.MustCompile(`\b(?:(?:jobtally|http_server|process|go)_[a-z0-9_]+|up\b)`).FindAllString(expression, -1)
	for _, name := range names {
		if strings.HasPrefix(name, "process_") || strings.HasPrefix(name, "go_") { // of the Prometheus client
			labels = append(labels, "instance")
			continue
		}
		if metrics[name] == nil {
			t.Errorf("%s: there is no metric %s", where, name)
		}
		labels = append(labels, metrics[name]...)
	}
	if len(names) == 0 {
		t.Errorf("%s: %q has no metric", where, expression)
	}
	if strings.Count(expression, "(") != strings.Count(expression, ")") || strings.Count(expression, "{") != strings.Count(expression, "}") {
		t.Errorf("%s: the brackets of %q do not match", where, expression)
	}
	used := regexp.MustCompile(`by \(([a-z_, ]+)\)|([a-z_]+)!?[=~]+"`)
	for _, m := range used.FindAllStringSubmatch(expression, -1) {
		for _, label := range strings.Split(m[1]+m[2], ",") {
			if label = strings.TrimSpace(label); !strings.Contains(","+strings.Join(labels, ",")+",", ","+label+",") {
				t.Errorf("%s: no metric of %q has the label %s", where, expression, label)
			}
		}
	}
}

func TestAlertsUseMetricsThatThereAre(t *testing.T) {
	text, err := os.ReadFile("deploy/prometheus/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	metrics, rules := documentedMetrics(t), 0
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			rules++
			wantExpression(t, rule.Alert, rule.Expr, metrics)
			if rule.Alert == "" || rule.For == "" || rule.Labels["severity"] == "" || rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
				t.Errorf("the rule %+v is not whole", rule)
			}
		}
	}
	if rules == 0 {
		t.Error("there are no rules")
	}
}

func TestDashboardUsesMetricsThatThereAre(t *testing.T) {
	text, err := os.ReadFile("deploy/grafana/jobtally.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			ID      int
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	metrics, shown := documentedMetrics(t), ""
	for i, p := range dashboard.Panels {
		if len(p.Targets) == 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %q shows nothing, or is beside the grid", p.Title)
		}
		for _, other := range dashboard.Panels[:i] {
			a, b := p.GridPos, other.GridPos
			if p.ID == other.ID || a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("panels %q and %q are in one place", p.Title, other.Title)
			}
		}
		for _, target := range p.Targets {
			wantExpression(t, p.Title, target.Expr, metrics)
			shown += target.Expr + " "
		}
	}
	for name := range metrics {
		if name == "up" {
			continue
		}
		if base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count"); !strings.Contains(shown, base) {
			t.Errorf("no panel shows %s", base)
		}
	}
}

// TestPrometheusScrapesWhatComposeStarts holds the targets against the compose file.
func TestPrometheusScrapesWhatComposeStarts(t *testing.T) {
	var prometheus struct {
		RuleFiles     []string `yaml:"rule_files"`
		ScrapeConfigs []struct {
			StaticConfigs []struct{ Targets []string } `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	var compose struct {
		Services map[string]struct{ Environment map[string]string }
	}
	for path, into := range map[string]any{"deploy/prometheus/prometheus.yml": &prometheus, "docker-compose.yml": &compose} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(text, into); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range prometheus.RuleFiles {
		if _, err := os.Stat("deploy/prometheus/" + file); err != nil {
			t.Error(err)
		}
	}
	targets := map[string]bool{}
	for _, target := range prometheus.ScrapeConfigs[0].StaticConfigs[0].Targets {
		targets[target] = true
	}
	serving := 0
	for name, service := range compose.Services {
		addr := service.Environment["JOBTALLY_METRICS_ADDR"]
		if addr == "" {
			continue
		}
		serving++
		if _, port, _ := strings.Cut(addr, ":"); !targets[name+":"+port] {
			t.Errorf("%s serves metrics at %s, and Prometheus does not know", name, addr)
		}
	}
	if serving != len(targets) {
		t.Errorf("%d services serve metrics, Prometheus knows %d", serving, len(targets))
	}
}
