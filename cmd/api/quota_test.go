package main

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"testing"
)

func Test200ConcurrentCapturesAtLimit10GiveExactly10(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember, "--plans", "free=10")
	replies := together(200, func(i int) reply { return s.capture(t, jobURL(i)) })
	if got := tally(replies); !maps.Equal(got, map[int]int{http.StatusCreated: 10, http.StatusForbidden: 190}) {
		t.Fatalf("answers by status: %v, want 10 x 201 and 190 x 403", got)
	}
	counts, positions := map[int64]bool{}, map[string]bool{}
	for _, r := range replies {
		positions[r.Receipt.Position] = true
		proof := s.get(t, "/api/jobs/captures/"+r.Receipt.Position).wants(t, http.StatusOK)
		if proof.Receipt != r.Receipt {
			t.Errorf("receipt %+v, and later %+v", r.Receipt, proof.Receipt)
		}
		if r.status == http.StatusCreated {
			counts[r.Quota.Used] = true
			continue
		}
		r.wantsExhausted(t, 10, 10, december)
		if proof.Outcome != "rejected" || proof.Reason != "quota_exceeded" {
			t.Errorf("a rejected capture is told as %s", proof.body)
		}
	}
	if len(counts) != 10 || len(positions) != 200 {
		t.Errorf("%d counts in 10 captures, %d positions in 200 answers", len(counts), len(positions))
	}
	s.wantsQuota(t, quota{10, 10, 0, december})
}

func TestOneURLIsOneJobIn50SpellingsAtOnce(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember)
	replies := together(50, func(i int) reply { return s.capture(t, spelling(i)) })
	if got := tally(replies); !maps.Equal(got, map[int]int{http.StatusCreated: 1, http.StatusOK: 49}) {
		t.Fatalf("answers by status: %v, want 1 x 201 and 49 x 200", got)
	}
	for i, r := range replies {
		if r.Job.ID == "" || r.Job.ID != replies[0].Job.ID {
			t.Errorf("%s is job %q, another spelling of it is %q", spelling(i), r.Job.ID, replies[0].Job.ID)
		}
		if r.status == http.StatusOK && r.Outcome != "duplicate" {
			t.Errorf("outcome %s", r.body)
		}
	}
	s.wantsQuota(t, quota{1, 50, 49, december})
}

// spelling writes one URL in another way for each i up to 63.
func spelling(i int) string {
	choose := func(bit int, one, other string) string {
		if i>>bit&1 == 0 {
			return one
		}
		return other
	}
	return choose(0, "https://", "HTTP://") + choose(1, "careers.example.com", "Careers.EXAMPLE.com") + "/Jobs/Engineer" +
		choose(2, "", "/") + "?team=7" + choose(3, "", fmt.Sprintf("&utm_source=board&utm_campaign=%d", i)) +
		choose(4, "", "&gclid=Cj0KCQ") + choose(5, "", "#apply")
}

func TestDuplicateIsAnsweredWhenTheQuotaIsExhausted(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember, "--plans", "free=2")
	first := s.capture(t, jobURL(1)).wants(t, http.StatusCreated)
	s.capture(t, jobURL(2)).wants(t, http.StatusCreated)
	s.capture(t, jobURL(3)).wantsExhausted(t, 2, 2, december)
	again := s.capture(t, jobURL(1)+"?utm_source=mail").wants(t, http.StatusOK)
	if again.Outcome != "duplicate" || again.Job.ID != first.Job.ID || again.Job.SourceURL != jobURL(1) {
		t.Errorf("answered %s\nfirst it was %s", again.body, first.body)
	}
	if again.Quota != (quota{2, 2, 0, december}) {
		t.Errorf("a duplicate left the quota at %+v", again.Quota)
	}
	s.wantsQuota(t, quota{2, 2, 0, december})
}

func TestEveryCaptureShowsInTheQuotaReadAfterIt(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember, "--plans", "free=100")
	for i := range int64(100) {
		r := s.capture(t, jobURL(int(i))).wants(t, http.StatusCreated)
		if want := (quota{i + 1, 100, 99 - i, december}); r.Quota != want {
			t.Fatalf("the answer says %+v, want %+v", r.Quota, want)
		}
		s.wantsQuota(t, r.Quota)
		s.get(t, r.header.Get("Location")).wants(t, http.StatusOK)
	}
}

func Test16AccountsAtOnceEachReadTheirOwnWrites(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember)
	names := make([]string, 16)
	for i := range names {
		names[i] = fmt.Sprintf("account-%d", i)
	}
	clients := s.accounts(t, 20, names...)
	jobs := together(len(clients), func(i int) (ids []string) {
		for n := range int64(20) {
			r := clients[i].capture(t, jobURL(int(n))).wants(t, http.StatusCreated)
			clients[i].wantsQuota(t, quota{n + 1, 20, 19 - n, december})
			ids = append(ids, r.Job.ID)
		}
		return ids
	})
	s.wantsQuota(t, quota{0, 50, 50, december})
	if ids := slices.Compact(slices.Sorted(slices.Values(slices.Concat(jobs...)))); len(ids) != 16*20 {
		t.Errorf("%d accounts captured %d jobs, and have %d", 16, 16*20, len(ids))
	}
	clients[0].get(t, "/api/jobs/"+jobs[1][0]).wantsProblem(t, http.StatusNotFound, "job_not_found")
}
