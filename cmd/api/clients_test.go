package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The clients of the documentation lie in testdata/clients. They run here as they stand, against the real binary.

// needs fails the test when a tool is missing: a client that is skipped is a client that nobody tried.
func needs(t *testing.T, debianPackage, tool string, args ...string) {
	t.Helper()
	if output, err := exec.Command(tool, args...).CombinedOutput(); err != nil {
		t.Fatalf("this test needs %s (%v %s): install the Debian package %s", tool, err, output, debianPackage)
	}
}

// resetDate is when the count of the real month starts at 0 again.
func resetDate() string {
	now := time.Now().UTC()
	return time.Date(now.Year(), now.Month()+1, 1, 0, 0, 0, 0, time.UTC).Format(time.DateOnly)
}

func TestTheClientsOfTheDocumentationWorkVerbatim(t *testing.T) {
	t.Parallel()
	needs(t, "curl", "curl", "--version")
	needs(t, "nodejs, version 18 or later", "node", "--eval", "fetch")
	needs(t, "python3-requests", "python3", "-c", "import requests")
	s := startBinary(t, t.TempDir(), "--plans", "free=4")
	reset := resetDate()
	captured := 0
	captures := func(n int) {
		for range n {
			captured++
			s.capture(t, jobURL(captured))
		}
	}
	for _, state := range []struct {
		name                       string
		reach                      func()
		quota, percentage, capture string // what the clients print, … for anything
	}{
		{"fresh", func() {},
			`{"used":0,"limit":4,"remaining":4,"reset_date":"` + reset + `"}`,
			"0 of 4 captures used (0.0 %), 4 remaining until " + reset,
			"201 captured job_…"},
		{"some used", func() { captures(2) },
			`{"used":3,"limit":4,"remaining":1,"reset_date":"` + reset + `"}`,
			"3 of 4 captures used (75.0 %), 1 remaining until " + reset,
			"200 duplicate job_…"}, // the page that was captured when all was fresh
		{"exhausted", func() { captures(1) },
			`{"used":4,"limit":4,"remaining":0,"reset_date":"` + reset + `"}`,
			"4 of 4 captures used (100.0 %), 0 remaining until " + reset,
			"The quota of the month is used up until " + reset + "."},
		{"below what is used", func() { s.operator(t, "account", "plan", "demo", "--limit", "3"); s.settle(t) },
			`{"used":4,"limit":3,"remaining":0,"reset_date":"` + reset + `"}`,
			"4 of 3 captures used (133.3 %), 0 remaining until " + reset,
			"The quota of the month is used up until " + reset + "."},
		{"unlimited", func() { s.operator(t, "account", "plan", "demo", "--plan", "premium"); s.settle(t) },
			`{"used":4,"limit":-1,"remaining":-1,"reset_date":"` + reset + `"}`,
			"4 captures used, unlimited, count starts again on " + reset,
			"200 duplicate job_…"},
	} {
		state.reach()
		s.clientPrints(t, state.name, state.quota, "sh", "quota.sh")
		s.clientPrints(t, state.name, state.percentage, "python3", "percentage.py")
		s.clientPrints(t, state.name, state.capture, "node", "capture.mjs", "https://careers.example.com/1", "Engineer", "Example")
	}
	s.clientPrints(t, "unlimited, another page", "201 captured job_…", "node", "capture.mjs", "https://careers.example.com/2", "Engineer", "Example")
	s.clientPrints(t, "in the end", `{"used":5,"limit":-1,"remaining":-1,"reset_date":"`+reset+`"}`, "sh", "quota.sh")
}

// clientPrints runs a client and checks what it prints. Where the text ends in …, its beginning counts.
func (s *service) clientPrints(t *testing.T, state, want, interpreter, script string, args ...string) {
	t.Helper()
	cmd := command(interpreter, append([]string{filepath.Join("testdata", "clients", script)}, args...)...)
	cmd.Env = append(cmd.Env, "JOBTALLY_URL="+s.url, "TOKEN="+s.token, "no_proxy=127.0.0.1", "NO_PROXY=127.0.0.1")
	code, stdout, stderr := finish(t, cmd)
	beginning, open := strings.CutSuffix(want, "…")
	got := strings.TrimSpace(stdout)
	if code != 0 || got != want && !(open && strings.HasPrefix(got, beginning)) {
		t.Errorf("%s, %s: exit code %d, printed %q, want %q\n%s", state, script, code, got, want, stderr)
	}
}
