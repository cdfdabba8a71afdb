package main

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestPlainHTTPBeyondLoopbackIsWarnedOf(t *testing.T) {
	t.Parallel()
	const warning = `level=WARN msg="tokens travel in the clear unless a proxy in front speaks TLS; see --tls-cert" addr=`
	p := newProof(t, t.TempDir(), 1)
	for name, c := range map[string]struct {
		args  []string
		warns int
	}{
		"loopback":       {nil, 0},
		"everywhere":     {[]string{"--addr", "0.0.0.0:0"}, 1},
		"everywhere TLS": {append(p.flags(), "--addr", "0.0.0.0:0"), 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, t.TempDir(), midNovember, c.args...)
			if log := s.stderr.String(); strings.Count(log, warning) != c.warns || strings.Count(log, "WARN") != c.warns {
				t.Errorf("not warned of %d times:\n%s", c.warns, log)
			}
		})
	}
}

func TestLimitsAreThoseOfTheFlags(t *testing.T) {
	t.Parallel()
	get := func(t *testing.T, s *service, n int, headers ...string) map[int]int {
		return tally(together(n, func(int) reply { return s.get(t, "/api/jobs/quota", headers...) }))
	}
	t.Run("loopback has none by default", func(t *testing.T) {
		t.Parallel()
		s := start(t, t.TempDir(), midNovember, "--requests-per-second", "1", "--requests-per-second-per-address", "1",
			"--max-requests-at-once", "1", "--max-requests-at-once-per-address", "1", "--max-connections-per-address", "1")
		if got := get(t, s, 50); got[http.StatusOK] != 50 {
			t.Errorf("answered %v", got)
		}
	})
	for _, flag := range []string{"--requests-per-second", "--requests-per-second-per-address"} {
		t.Run(flag, func(t *testing.T) {
			t.Parallel()
			s := start(t, t.TempDir(), midNovember, flag, "1", "--limit-loopback")
			replies := together(100, func(int) reply { return s.get(t, "/api/jobs/quota") })
			got := tally(replies)
			if got[http.StatusOK] < 10 || got[http.StatusTooManyRequests] == 0 || got[http.StatusOK]+got[http.StatusTooManyRequests] != 100 {
				t.Fatalf("answered %v, want 10 and some at once", got)
			}
			refused := slices.IndexFunc(replies, func(r reply) bool { return r.status == http.StatusTooManyRequests })
			r := replies[refused].wantsProblem(t, http.StatusTooManyRequests, "rate_limited")
			if r.header.Get("Retry-After") == "" || r.header.Get("Access-Control-Allow-Origin") != "*" {
				t.Errorf("a client cannot tell when to go on: %v", r.header)
			}
		})
	}
	t.Run("--trusted-proxies", func(t *testing.T) {
		t.Parallel()
		s := start(t, t.TempDir(), midNovember, "--requests-per-second-per-address", "1", "--trusted-proxies", "127.0.0.1", "--log-level", "debug")
		got := get(t, s, 50, "X-Forwarded-For: 192.0.2.1, 203.0.113.9")
		if got[http.StatusOK] < 10 || got[http.StatusTooManyRequests] == 0 {
			t.Errorf("answered %v, want 10 and some at once", got)
		}
		s.get(t, "/api/jobs/quota", "X-Forwarded-For: 203.0.113.9, 192.0.2.1").wants(t, http.StatusOK)
		if log := s.stderr.String(); !strings.Contains(log, " address=203.0.113.9") || !strings.Contains(log, " address=192.0.2.1") {
			t.Errorf("the log does not tell the addresses:\n%s", log)
		}
	})
	t.Run("--max-connections", func(t *testing.T) {
		t.Parallel()
		s := start(t, t.TempDir(), midNovember, "--max-connections", "1")
		s.get(t, "/livez").wants(t, http.StatusOK)
		other := client{s.url, s.token, &http.Client{Timeout: patience, Transport: &http.Transport{}}}
		if r, err := other.call(http.MethodGet, "/livez", nil); err == nil {
			t.Errorf("a second connection is answered %s", r.body)
		}
		s.get(t, "/livez").wants(t, http.StatusOK)
	})
}
