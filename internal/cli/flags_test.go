package cli_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"jobtally/internal/cli"
)

func TestPlans(t *testing.T) {
	for text, want := range map[string]cli.Plans{
		"free=50":                    {"free": 50},
		"free=50,pro=500,premium=-1": {"free": 50, "pro": 500, "premium": -1},
		" free=0 , pro=500":          {"free": 0, "pro": 500},
		"big=1000000000000":          {"big": cli.MaxLimit},
		"":                           nil,
		"free":                       nil,
		"free=":                      nil,
		"=50":                        nil,
		"free=50,":                   nil,
		"free=many":                  nil,
		"free=-2":                    nil,
		"free=1.5":                   nil,
		"free=50;pro=500":            nil,
		"big=1000000000001":          nil,
		"big=9223372036854775808":    nil,
		"free=50,pro":                nil,
	} {
		var plans cli.Plans
		err := plans.UnmarshalText([]byte(text))
		if (err == nil) != (want != nil) || !maps.Equal(plans, want) {
			t.Errorf("%q: %v, %v, want %v", text, plans, err, want)
		}
		if err != nil && !strings.Contains(err.Error(), "write NAME=LIMIT") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestPlanLimit(t *testing.T) {
	plans := cli.Plans{"pro": 500, "free": 50}
	if limit, err := plans.Limit("pro"); limit != 500 || err != nil {
		t.Errorf("%d, %v", limit, err)
	}
	_, err := plans.Limit("gold")
	if !errors.Is(err, cli.ErrUsage) || err.Error() != `usage: there is no plan "gold"; there are free, pro` {
		t.Errorf("%v", err)
	}
}

func TestSync(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"always": 0, "1s": time.Second, "250ms": 250 * time.Millisecond,
		"": -1, "0": -1, "0s": -1, "-1s": -1, "1": -1, "Always": -1, "never": -1,
	} {
		sync := cli.Sync(42)
		err := sync.UnmarshalText([]byte(text))
		if want == -1 {
			want = 42
			if err == nil {
				t.Errorf("%q was taken for %s", text, time.Duration(sync))
			}
		} else if err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if time.Duration(sync) != want {
			t.Errorf("%q: %s, want %s", text, time.Duration(sync), want)
		}
	}
}

func TestLogger(t *testing.T) {
	var text, structured bytes.Buffer
	cli.Logging{LogLevel: slog.LevelWarn, LogFormat: "text"}.Logger(&text).Info("hello")
	if text.Len() > 0 {
		t.Errorf("logged below the level: %s", &text)
	}
	cli.Logging{LogFormat: "text"}.Logger(&text).Info("hello", "to", "anna")
	if !strings.HasSuffix(text.String(), "level=INFO msg=hello to=anna\n") {
		t.Errorf("text: %s", &text)
	}
	cli.Logging{LogFormat: "json"}.Logger(&structured).Info("hello", "to", "anna")
	var line struct{ Level, Msg, To string }
	if err := json.Unmarshal(structured.Bytes(), &line); err != nil || line.Msg != "hello" || line.To != "anna" || line.Level != "INFO" {
		t.Errorf("json: %s", &structured)
	}
}

func TestNetworks(t *testing.T) {
	for text, want := range map[string][]string{
		"10.0.0.0/8":                  {"10.0.0.0/8"},
		"192.0.2.1":                   {"192.0.2.1/32"},
		" 10.0.0.0/8 , 2001:db8::/32": {"10.0.0.0/8", "2001:db8::/32"},
		"::1":                         {"::1/128"},
		"10.0.0.1/8":                  nil, // which of the two is meant?
		"":                            nil,
		"10.0.0.0/8,":                 nil,
		"10.0.0.0/33":                 nil,
		"proxy.example":               nil,
		"::ffff:10.0.0.0/104":         nil, // no address is in it
		"::ffff:192.0.2.1":            nil,
	} {
		var read cli.Networks
		err := read.UnmarshalText([]byte(text))
		var got []string
		for _, network := range read {
			got = append(got, network.String())
		}
		if (err == nil) != (want != nil) || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
		if err != nil && !strings.Contains(err.Error(), "write it like 10.0.0.0/8") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
