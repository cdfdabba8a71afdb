package main

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/node"
	"jobtally/internal/token"
)

// wantsCeremony checks that the first start printed its two curl lines, with the address and the token.
func (s *service) wantsCeremony(t *testing.T) {
	t.Helper()
	s.wait(t, &s.stdout, regexp.MustCompile(`The token is kept in .*\n`))
	text := s.stdout.String()
	for _, want := range []string{
		"curl -s " + s.url + "/api/jobs \\\n", "curl -s " + s.url + "/api/jobs/quota \\\n", tokenFile(s.data),
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the first start does not print %q:\n%s", want, text)
		}
	}
	if n := strings.Count(text, "'Authorization: Bearer "+s.token+"'"); n != 2 {
		t.Errorf("the first start prints the token in %d curl lines, want 2:\n%s", n, text)
	}
}

func TestWhatTheFirstStartPrintsCanBePasted(t *testing.T) {
	t.Parallel()
	needs(t, "curl", "curl", "--version")
	s := startBinary(t, t.TempDir())
	s.wantsCeremony(t)
	lines := regexp.MustCompile(`(?m)^ +curl (?:.*\\\n)+.*$`).FindAllString(s.stdout.String(), -1)
	if len(lines) != 2 {
		t.Fatalf("%d curl lines in\n%s", len(lines), s.stdout.String())
	}
	for i, want := range []string{`{"outcome":"captured",`, `{"used":1,"limit":50,"remaining":49,`} {
		output, err := exec.Command("sh", "-c", lines[i]).CombinedOutput()
		if err != nil || !strings.HasPrefix(string(output), want) {
			t.Errorf("%s\nprints %s, %v", lines[i], output, err)
		}
	}
	if strings.Contains(s.stderr.String(), s.token) {
		t.Error("the token is in the log")
	}
}

// TestAFirstStartCutShortIsTakenUpWhereItEnded begins with what a first start leaves behind that died on the way.
func TestAFirstStartCutShortIsTakenUpWhereItEnded(t *testing.T) {
	t.Parallel()
	secret := token.New()
	writeToken := func(t *testing.T, data string) {
		if err := os.WriteFile(tokenFile(data), []byte(secret.Reveal()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ledger := func(t *testing.T, data string, requests ...events.RequestBody) {
		n, err := node.Start(t.Context(), node.Config{Dir: data, Decides: true, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		for _, body := range requests {
			d := demo{node: n, now: midNovember}
			if err := d.ask(t.Context(), body); err != nil {
				t.Fatal(err)
			}
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	opened := &events.AccountOpenRequested{Plan: "free", Limit: 50}
	for name, leave := range map[string]func(t *testing.T, data string){
		"a ledger":                      func(t *testing.T, data string) { ledger(t, data) },
		"a token file":                  writeToken,
		"a ledger and a token file":     func(t *testing.T, data string) { ledger(t, data); writeToken(t, data) },
		"two of them cut short":         func(t *testing.T, data string) { ledger(t, data, opened, opened); writeToken(t, data) },
		"an account and a token file":   func(t *testing.T, data string) { ledger(t, data, opened); writeToken(t, data) },
		"half a token in its temp file": func(t *testing.T, data string) { os.WriteFile(tokenFile(data)+"-1", []byte("jt_"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data := t.TempDir()
			leave(t, data)
			_, err := os.Stat(tokenFile(data))
			s := start(t, data, midNovember)
			s.wantsCeremony(t)
			if err == nil && s.token != secret.Reveal() {
				t.Error("the token in the file was not taken")
			}
			s.capture(t, jobURL(1)).wants(t, http.StatusCreated)
			s.wantsQuota(t, quota{1, 50, 49, december})
			s.stop(t)
			s = start(t, data, midNovember)
			s.stop(t)
			if got := s.stdout.String(); got != "" {
				t.Errorf("the next start printed\n%s", got)
			}
		})
	}
}

func TestAFirstStartKilledAtAnyMomentIsCompletedByTheNext(t *testing.T) {
	t.Parallel()
	data, seed := t.TempDir(), rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 8 {
		killStart(t, data, time.Duration(random.Int64N(int64(startUpToKill))))
	}
	s := startBinary(t, data)
	s.settle(t)
	captured := s.capture(t, jobURL(1)).wants(t, http.StatusCreated)
	s.stop(t)
	s = startBinary(t, data)
	s.get(t, captured.header.Get("Location")).wants(t, http.StatusOK)
	if r := s.get(t, "/api/jobs/quota"); r.Used != 1 || r.Limit != 50 {
		t.Errorf("quota %s", r.body)
	}
}

// TestAStreamCutShortIsMadeAnew begins with what a kill leaves behind between the two files that the NATS server
// writes for a new stream: it would take the stream into use, and not find it at the start after.
func TestAStreamCutShortIsMadeAnew(t *testing.T) {
	t.Parallel()
	whole, data := t.TempDir(), t.TempDir()
	start(t, whole, midNovember).stop(t)
	settings := filepath.Join("jetstream", "jetstream", "$G", "streams", "REQUESTS_0", "meta.inf")
	text, err := os.ReadFile(filepath.Join(whole, settings))
	if err != nil {
		t.Fatal(err)
	}
	err = os.MkdirAll(filepath.Join(data, filepath.Dir(settings)), 0o700)
	if err := errors.Join(err, os.WriteFile(filepath.Join(data, settings), text, 0o600)); err != nil {
		t.Fatal(err)
	}
	s := start(t, data, midNovember)
	captured := s.capture(t, jobURL(1)).wants(t, http.StatusCreated)
	s.stop(t)
	start(t, data, midNovember).get(t, captured.header.Get("Location")).wants(t, http.StatusOK)
}

func TestADamagedTokenFileIsNamedWithItsRemedy(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	if err := os.WriteFile(tokenFile(data), []byte("jt_nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := finish(t, command(apiBinary, serviceFlags(data)...))
	if code != 1 || !strings.Contains(stderr, tokenFile(data)) || !strings.Contains(stderr, "remove the file and start again") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
}
