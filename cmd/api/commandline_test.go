package main

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestASecondServiceOnOneDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	s := startBinary(t, t.TempDir())
	code, stdout, stderr := finish(t, command(apiBinary, serviceFlags(s.data)...))
	if code != 1 || stdout != "" || !strings.Contains(stderr, "another jobtally is running on "+s.data) {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
	s.capture(t, jobURL(1)).wants(t, http.StatusCreated)
}

func TestATakenAddressIsNamedAndLeavesNoData(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	data := filepath.Join(t.TempDir(), "data")
	code, _, stderr := finish(t, command(apiBinary, "--addr", taken.Addr().String(), "--data", data))
	for _, want := range []string{taken.Addr().String(), "address already in use", "choose another address with --addr"} {
		if code != 1 || !strings.Contains(stderr, want) {
			t.Errorf("exit code %d, %q, want 1 and %q", code, stderr, want)
		}
	}
	if _, err := os.Stat(data); err == nil {
		t.Error("a service that cannot listen made a data directory")
	}
}

func TestAWrongCommandLineExits2AndSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, says string }{
		{"--adr :80", "unknown flag --adr"},
		{"serve", "unexpected argument serve"},
		{"--sync 0s", `"0s" is neither always nor an interval such as 1s`},
		{"--sync often", `"often" is neither always nor an interval such as 1s`},
		{"--plans free", `"free" is not a plan: write NAME=LIMIT`},
		{"--plans free=-2", "-1 for unlimited"},
		{"--plans pro=10", `there is no plan "free"; there are pro; the first start opens account demo on plan free`},
		{"--partitions many", "--partitions"},
		{"--log-level loud", "--log-level"},
		{"--log-format xml", "--log-format"},
		{"--trusted-proxies proxy.example", `"proxy.example" is not a network: write it like 10.0.0.0/8`},
		{"--max-connections -1", "--max-connections"},
	} {
		t.Run(c.args, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := finish(t, command(apiBinary, append(serviceFlags(t.TempDir()), strings.Fields(c.args)...)...))
			if code != 2 || stdout != "" || !strings.Contains(stderr, c.says) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("exit code %d, %q, %q; want 2 and %q", code, stdout, stderr, c.says)
			}
		})
	}
}

func TestHelpTellsTheDefaultAndTheVariableOfEachFlag(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := finish(t, command(apiBinary, "--help"))
	if code != 0 || stderr != "" {
		t.Fatalf("exit code %d, %q", code, stderr)
	}
	for flag, byDefault := range map[string]string{
		"addr": "127.0.0.1:8080", "data": "data", "nats": "none", "partitions": "1", "sync": "always",
		"metrics-addr": "none", "otlp-endpoint": "none",
		"plans": "free=50,pro=500,premium=-1,enterprise=-1", "log-level": "info", "log-format": "text",
		"tls-cert": "none", "tls-key": "none", "trusted-proxies": "none", "max-connections": "4096", "max-connections-per-address": "256",
		"max-requests-at-once": "100", "max-requests-at-once-per-address": "200", "requests-per-second": "50",
		"requests-per-second-per-address": "100",
	} {
		_, text, found := strings.Cut(stdout, "--"+flag+"=")
		text, _, closed := strings.Cut(text, "\n      --") // the next flag
		variable := "$JOBTALLY_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
		text = strings.Join(strings.Fields(text), "")
		if !found || !closed && flag != "log-format" || !strings.Contains(text, variable) || !strings.Contains(text, byDefault) {
			t.Errorf("--help does not tell of --%s its default %s and %s:\n%s", flag, byDefault, variable, stdout)
		}
	}
}

func TestASyncWeakerThanAlwaysIsWarnedOf(t *testing.T) {
	t.Parallel()
	const warning = `level=WARN msg="a power failure may lose acknowledged captures" sync=1s`
	s := start(t, t.TempDir(), midNovember, "--sync", "1s")
	if log := s.stderr.String(); !strings.Contains(log, warning) {
		t.Errorf("no warning in the log:\n%s", log)
	}
	s.capture(t, jobURL(1)).wants(t, http.StatusCreated)
	if log := start(t, t.TempDir(), midNovember).stderr.String(); strings.Contains(log, "WARN") {
		t.Errorf("a warning without a reason:\n%s", log)
	}
}

func TestTheEnvironmentSetsWhatNoFlagSets(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "from-environment")
	cmd := command(apiBinary, "--plans", "free=3")
	cmd.Env = append(cmd.Env, "JOBTALLY_ADDR=127.0.0.1:0", "JOBTALLY_DATA="+data, "JOBTALLY_PLANS=free=7", "JOBTALLY_LOG_LEVEL=debug")
	s := launch(t, data, cmd)
	s.attach(t)
	if r := s.get(t, "/api/jobs/quota"); r.Limit != 3 {
		t.Errorf("quota %s, want the limit of the flag, 3", r.body)
	}
	if !strings.Contains(s.stderr.String(), "level=DEBUG") {
		t.Errorf("JOBTALLY_LOG_LEVEL=debug is not heard:\n%s", s.stderr.String())
	}
}

func TestAnotherNumberOfPartitionsIsRefused(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	startBinary(t, data, "--partitions", "3").stop(t)
	startBinary(t, data).stop(t)
	code, _, stderr := finish(t, command(apiBinary, append(serviceFlags(data), "--partitions", "4")...))
	if code != 1 || !strings.Contains(stderr, "created with --partitions 3, not 4") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
	startBinary(t, data).capture(t, jobURL(1)).wants(t, http.StatusCreated)
}
