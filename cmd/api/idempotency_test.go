package main

import (
	"net/http"
	"slices"
	"testing"
)

const retryKey = `Idempotency-Key: "0a8f-retry"`

func TestRetryGetsTheFirstAnswerAtOnceAfterRestartAndAfterRollover(t *testing.T) {
	t.Parallel()
	data, clock := t.TempDir(), clockAt(t, "2026-11-30T23:00:00Z")
	s := start(t, data, clock.now, "--plans", "free=2")
	first := s.capture(t, jobURL(1), retryKey).wants(t, http.StatusCreated)
	rejectedKey, duplicateKey := "Idempotency-Key: rejected", "Idempotency-Key: duplicate"
	duplicate := s.capture(t, jobURL(1), duplicateKey).wants(t, http.StatusOK)
	s.capture(t, jobURL(2)).wants(t, http.StatusCreated)
	rejected := s.capture(t, jobURL(3), rejectedKey).wantsExhausted(t, 2, 2, december)

	retry := func(when string) {
		t.Helper()
		for _, r := range []reply{
			s.capture(t, jobURL(1), retryKey).wantsSame(t, first),
			s.capture(t, jobURL(1), "Idempotency-Key: 0a8f-retry").wantsSame(t, first),
			s.capture(t, jobURL(1), duplicateKey).wantsSame(t, duplicate),
			s.capture(t, jobURL(3), rejectedKey).wantsSame(t, rejected),
		} {
			if r.header.Get("Idempotent-Replayed") != "true" {
				t.Errorf("%s: a repeated answer does not say so: %v", when, r.header)
			}
		}
	}
	retry("at once")
	s.wantsQuota(t, quota{2, 2, 0, december})
	s.stop(t)
	s = start(t, data, clock.now)
	retry("after a restart")
	s.wantsQuota(t, quota{2, 2, 0, december})
	clock.set(t, "2026-12-01T00:00:00Z")
	retry("after the month")
	s.wantsQuota(t, quota{0, 2, 2, "2027-01-01"})
	clock.set(t, "2031-05-05T05:05:05Z")
	retry("years later")
	s.wantsQuota(t, quota{0, 2, 2, "2031-06-01"})
	s.capture(t, jobURL(3)).wants(t, http.StatusCreated) // without the key it is a new capture
}

func Test20RetriesAtOnceGetOneAnswer(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember)
	replies := together(20, func(int) reply { return s.capture(t, jobURL(1), retryKey) })
	replayed := 0
	for _, r := range replies {
		r.wants(t, http.StatusCreated).wantsSame(t, replies[0])
		if r.header.Get("Idempotent-Replayed") == "true" {
			replayed++
		}
	}
	if replayed != 19 {
		t.Errorf("%d of 20 answers say that they are repeated, want 19", replayed)
	}
	s.wantsQuota(t, quota{1, 50, 49, december})
}

func TestReusedKeyIsRefusedAndCountsNothing(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember)
	first := s.capture(t, jobURL(1), retryKey).wants(t, http.StatusCreated)
	for _, body := range []string{
		jobAt(jobURL(2)),
		posting{Title: "Another title", Company: "Example", SourceURL: jobURL(1)}.json(),
		jobAt(jobURL(1) + "?utm_source=mail"), // the same job, yet not the same request
	} {
		r := s.post(t, body, retryKey).wantsProblem(t, http.StatusUnprocessableEntity, "idempotency_key_reused")
		r.wantsReceipt(t)
	}
	s.wantsQuota(t, quota{1, 50, 49, december})
	s.capture(t, jobURL(1), retryKey).wantsSame(t, first)
	s.capture(t, jobURL(2)).wants(t, http.StatusCreated)
	s.wantsQuota(t, quota{2, 50, 48, december})
}

func TestKeyBelongsToOneAccount(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember)
	other := s.accounts(t, 5, "other")[0]
	one := s.capture(t, jobURL(1), retryKey).wants(t, http.StatusCreated)
	two := other.capture(t, jobURL(2), retryKey).wants(t, http.StatusCreated)
	if one.Job.ID == two.Job.ID {
		t.Errorf("two accounts got job %s under one key", one.Job.ID)
	}
}

func TestEveryAnswerTellsTheKeyWithWhichItCanBeRepeated(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember)
	first := s.capture(t, jobURL(1)).wants(t, http.StatusCreated)
	key := first.header.Get("Idempotency-Key")
	s.capture(t, jobURL(1), "Idempotency-Key: "+key).wantsSame(t, first)
	second := s.capture(t, jobURL(2)).header.Get("Idempotency-Key")
	if keys := []string{key, second}; key == second || slices.Contains(keys, "") {
		t.Errorf("the keys of two captures: %q", keys)
	}
}
