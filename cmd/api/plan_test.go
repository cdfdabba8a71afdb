package main

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
)

func TestUpgradeCountsAtOnceAndDowngradeNeverGoesBelow0(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember, "--plans", "free=3")
	plan := func(args ...string) {
		t.Helper()
		s.operator(t, append([]string{"account", "plan", "demo"}, args...)...)
		s.settle(t)
	}
	for i := range 3 {
		s.capture(t, jobURL(i)).wants(t, http.StatusCreated)
	}
	s.capture(t, jobURL(3)).wantsExhausted(t, 3, 3, december)

	plan("--plan", "pro")
	s.wantsQuota(t, quota{3, 500, 497, december})
	s.capture(t, jobURL(3)).wants(t, http.StatusCreated)

	plan("--limit", "2")
	s.wantsQuota(t, quota{4, 2, 0, december})
	s.capture(t, jobURL(4)).wantsExhausted(t, 4, 2, december)
	s.capture(t, jobURL(3)).wants(t, http.StatusOK)

	plan("--plan", "premium")
	s.wantsQuota(t, quota{4, -1, -1, december})
	r := s.capture(t, jobURL(4)).wants(t, http.StatusCreated)
	if r.Quota != (quota{5, -1, -1, december}) {
		t.Errorf("an unlimited capture answers %+v", r.Quota)
	}
	if r.header.Get("RateLimit") != "" {
		t.Errorf("an unlimited quota says RateLimit: %s", r.header.Get("RateLimit"))
	}

	plan("--limit", "6")
	s.capture(t, jobURL(5)).wants(t, http.StatusCreated)
	s.capture(t, jobURL(6)).wantsExhausted(t, 6, 6, december)
	plan("--limit", "0")
	s.wantsQuota(t, quota{6, 0, 0, december})
}

func TestAPlanHoldsForTheNextCaptureWithoutAWait(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember, "--plans", "free=0")
	for i := range 5 {
		s.capture(t, jobURL(i)).wantsExhausted(t, int64(i), int64(i), december)
		s.operator(t, "account", "plan", "demo", "--limit", strconv.Itoa(i+1))
		s.capture(t, jobURL(i)).wants(t, http.StatusCreated)
	}
}

func TestATokenWorksFromItsIssueToItsRevocation(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember)
	for range 3 {
		text := s.operator(t, "token", "issue", "--account", "demo")
		issued := client{s.url, text, s.http}
		s.settle(t)
		issued.wantsQuota(t, quota{0, 50, 50, december})
		s.operator(t, "token", "revoke", strings.Split(text, "_")[1], "--account", "demo")
		s.settle(t)
		issued.get(t, "/api/jobs/quota").wantsProblem(t, http.StatusUnauthorized, "token_revoked")
	}
	s.wantsQuota(t, quota{0, 50, 50, december})
}

func TestOperatorsAreToldWhatIsWrong(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember)
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"account open demo", 1, "account demo is open already"},
		{"account plan nobody --plan pro", 1, "account nobody was never opened"},
		{"account plan demo --plan gold", 2, `there is no plan "gold"; there are enterprise, free, premium, pro`},
		{"account plan demo", 2, "give either --plan or --limit"},
		{"account plan demo --limit -2", 2, "-1 for unlimited"},
		{"account open Demo.1", 2, "account"},
		{"token issue --account nobody", 1, "account nobody was never opened"},
		{"token revoke 0123456789AB --account demo", 1, "token 0123456789AB was never issued"},
	} {
		code, stdout, stderr := finish(t, command(projectorBinary, append(strings.Fields(c.args), "--data", s.data)...))
		if code != c.code || stdout != "" || !strings.Contains(stderr, c.says) {
			t.Errorf("projector %s: exit code %d, %q, %q; want %d and %q", c.args, code, stdout, stderr, c.code, c.says)
		}
	}
	s.wantsQuota(t, quota{0, 50, 50, december})
}
