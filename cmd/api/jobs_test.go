package main

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"sync/atomic"
	"testing"
)

// TestAJobIsChangedAndDeletedWhenTheQuotaIsUsedUp goes through the life of a job at the limit, over a restart.
func TestAJobIsChangedAndDeletedWhenTheQuotaIsUsedUp(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	s := start(t, data, midNovember, "--plans", "free=2")
	first := s.capture(t, jobURL(1)).wants(t, http.StatusCreated)
	second := s.capture(t, jobURL(2)).wants(t, http.StatusCreated)
	full := quota{2, 2, 0, december}
	s.capture(t, jobURL(3)).wantsExhausted(t, 2, 2, december)

	updated := s.patch(t, first.Job.ID, `{"status":"applied","title":"Staff Engineer"}`).wants(t, http.StatusOK)
	if updated.Outcome != "updated" || updated.Job.Version != 2 || updated.Job.Title != "Staff Engineer" || updated.header.Get("ETag") != `"2"` {
		t.Errorf("updated to %s, ETag %s", updated.body, updated.header.Get("ETag"))
	}
	updated.wantsReceipt(t)
	deleted := s.remove(t, second.Job.ID, `If-Match: "1"`).wants(t, http.StatusOK)
	deleted.wantsReceipt(t)
	s.remove(t, second.Job.ID).wantsProblem(t, http.StatusNotFound, "job_not_found").wantsReceipt(t)
	s.wantsQuota(t, full)
	s.capture(t, jobURL(2)).wantsExhausted(t, 2, 2, december) // it is a new job, for which there is no quota
	duplicate := s.capture(t, jobURL(1)).wants(t, http.StatusOK)
	if duplicate.Outcome != "duplicate" || duplicate.Job != updated.Job {
		t.Errorf("the duplicate shows %s", duplicate.body)
	}
	later := s.patch(t, first.Job.ID, `{"notes":"x"}`, "Prefer: respond-async").wants(t, http.StatusAccepted)
	told := s.get(t, later.header.Get("Location"), "Prefer: wait=10").wants(t, http.StatusOK)
	if told.Outcome != "updated" || told.Job.Version != 3 || told.Receipt.Position != later.Receipt.Position {
		t.Errorf("first %s, later %s", later.body, told.body)
	}

	s.stop(t)
	s = start(t, data, midNovember)
	if now := s.get(t, "/api/jobs/"+first.Job.ID).wants(t, http.StatusOK); now.header.Get("ETag") != `"3"` {
		t.Errorf("after a restart the job is %s", now.body)
	}
	s.get(t, "/api/jobs/"+second.Job.ID).wantsProblem(t, http.StatusNotFound, "job_not_found")
	for _, r := range []reply{first, second, told, deleted} {
		s.get(t, "/api/jobs/captures/"+r.Receipt.Position).wants(t, http.StatusOK).wantsReceipt(t)
	}
	if again := s.get(t, "/api/jobs/captures/"+deleted.Receipt.Position); again.body != deleted.body {
		t.Errorf("the deletion is told as %s, first it was %s", again.body, deleted.body)
	}
	s.wantsQuota(t, full)
	s.operator(t, "audit", "--receipt", updated.Receipt.Position+":"+updated.Receipt.Digest)
	s.operator(t, "audit")
}

func TestOf20ConcurrentChangesOfOneVersionOneIsMade(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember)
	id := s.capture(t, jobURL(1)).wants(t, http.StatusCreated).Job.ID
	replies := together(20, func(i int) reply {
		if i == 0 {
			return s.remove(t, id, `If-Match: "7"`) // of a version that there may be, or not
		}
		return s.patch(t, id, fmt.Sprintf(`{"title":"By client %d"}`, i), `If-Match: "1"`)
	})
	if got := tally(replies); !maps.Equal(got, map[int]int{http.StatusOK: 1, http.StatusPreconditionFailed: 19}) {
		t.Fatalf("answers by status: %v, want 1 x 200 and 19 x 412", got)
	}
	now := s.get(t, "/api/jobs/"+id)
	for _, r := range replies[1:] {
		switch {
		case r.status == http.StatusOK:
			if r.Job.Version != 2 || r.header.Get("ETag") != now.header.Get("ETag") {
				t.Errorf("changed to %s, and it is %s", r.body, now.body)
			}
		default:
			r.wantsProblem(t, http.StatusPreconditionFailed, "version_conflict")
			if r.Version != 2 {
				t.Errorf("the version is told as %d: %s", r.Version, r.body)
			}
		}
	}
	s.patch(t, id, `{"title":"Once more"}`, "If-Match: "+now.header.Get("ETag")).wants(t, http.StatusOK)
}

var nextLink = regexp.MustCompile(`^<([^>]+)>; rel="next"$`)

// pages reads all pages from one on, and calls each with what it reads.
func (c client) pages(t *testing.T, path string, each func(reply)) {
	t.Helper()
	for path != "" {
		r := c.get(t, path).wants(t, http.StatusOK)
		each(r)
		match := nextLink.FindStringSubmatch(r.header.Get("Link"))
		if path = ""; match != nil {
			path = match[1]
		}
	}
}

// captureMany captures n jobs in batches, from a number on, and returns their ids.
func (c client) captureMany(t *testing.T, from, n int) (ids []string) {
	t.Helper()
	var items []string
	for i := range n {
		items = append(items, posting{Title: fmt.Sprint("Engineer ", from+i), Company: "Example", SourceURL: jobURL(from + i)}.json())
	}
	for some := range slices.Chunk(items, 100) {
		for _, result := range c.batch(t, some).wants(t, http.StatusOK).Results {
			if result.Status != http.StatusCreated {
				t.Fatalf("not captured: %+v", result)
			}
			ids = append(ids, result.Job.ID)
		}
	}
	return ids
}

func TestPagesHaveEachJobOnceWhileCapturesGoOn(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember, "--plans", "free=-1")
	ids := s.captureMany(t, 0, 250)
	for _, changed := range []int{3, 100, 249} {
		s.patch(t, ids[changed], `{"status":"applied"}`).wants(t, http.StatusOK)
	}
	var stop atomic.Bool
	capturing := make(chan int)
	go func() {
		n := 0
		for ; !stop.Load(); n++ {
			s.capture(t, jobURL(1000+n)).wants(t, http.StatusCreated)
		}
		capturing <- n
	}()
	for _, query := range []string{"?limit=17", "?limit=100&company=%20EXAMPLE", "?limit=40&q=engineer", "?limit=33&sort=updated", "?limit=50&month=2026-11&status=saved"} {
		var seen []string
		s.pages(t, "/api/jobs"+query, func(r reply) {
			for _, job := range r.Jobs {
				if slices.Contains(ids, job.ID) { // what was captured meanwhile comes before
					seen = append(seen, job.ID)
				}
			}
		})
		want := slices.Clone(ids)
		slices.Reverse(want)
		switch query {
		case "?limit=33&sort=updated":
			moved := []string{ids[249], ids[100], ids[3]}
			want = append(moved, slices.DeleteFunc(want, func(id string) bool { return slices.Contains(moved, id) })...)
		case "?limit=50&month=2026-11&status=saved":
			want = slices.DeleteFunc(want, func(id string) bool { return id == ids[249] || id == ids[100] || id == ids[3] })
		}
		if !slices.Equal(seen, want) {
			t.Errorf("%s: %d jobs, want %d, each once and in order", query, len(seen), len(want))
		}
	}
	stop.Store(true)
	if n := <-capturing; n == 0 {
		t.Error("nothing was captured meanwhile")
	}
}

func TestAListIsNotSentAgainWhenNothingChanged(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember)
	id := s.capture(t, jobURL(1)).wants(t, http.StatusCreated).Job.ID
	list, job := s.get(t, "/api/jobs").wants(t, http.StatusOK), s.get(t, "/api/jobs/"+id).wants(t, http.StatusOK)
	known := map[string]string{"/api/jobs": list.header.Get("ETag"), "/api/jobs/" + id: job.header.Get("ETag")}
	for path, etag := range known {
		s.get(t, path, "If-None-Match: "+etag).wants(t, http.StatusNotModified)
	}
	s.patch(t, id, `{"title":"Engineer"}`).wants(t, http.StatusOK) // as it was, and a new version all the same
	for path, etag := range known {
		s.get(t, path, "If-None-Match: "+etag).wants(t, http.StatusOK)
	}
}

// titlesOf returns the titles of the jobs that are found.
func (c client) titlesOf(t *testing.T, query string) (titles []string) {
	t.Helper()
	for _, job := range c.get(t, "/api/jobs?"+query).wants(t, http.StatusOK).Jobs {
		titles = append(titles, job.Title)
	}
	return titles
}

func TestSearchFindsWhatAJobIsNow(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember, "--plans", "free=-1")
	s.captureMany(t, 0, 300) // so many are indexed, and some are not yet
	gardener := s.post(t, `{"source_url":"https://jobs.example.com/1","title":"Chef jardinière","company":"Grünwerk","location":"Nîmes",`+
		`"description":"Pruning of ROSES, and 3D-printing"}`).wants(t, http.StatusCreated).Job.ID
	for query, found := range map[string]bool{
		"jardiniere": true, "JARD": true, "jardin chef": true, "rose prun": true, "3d": true, "grunwerk": true, "Grün jardinière": true,
		"ardin": false, "roses tulips": false, "nimes": false, // the place is not searched
	} {
		if got := s.titlesOf(t, "q="+url.QueryEscape(query)); (len(got) == 1) != found || found && got[0] != "Chef jardinière" {
			t.Errorf("%s finds %q", query, got)
		}
	}
	s.patch(t, gardener, `{"title":"Florist","description":null}`).wants(t, http.StatusOK)
	for query, want := range map[string]string{
		"q=jardin": "[]", "q=roses": "[]", "q=florist": "[Florist]", "q=florist+grunwerk&sort=updated": "[Florist]", "q=florist&status=applied": "[]",
		"q=florist&company=gr%C3%BCnwerk": "[Florist]", "q=%21%21": "[]", "q=engineer+299": "[Engineer 299]", "q=engineer+7&limit=1&captured_via=api": "[Engineer 79]",
	} {
		if got := fmt.Sprint(s.titlesOf(t, query)); got != want {
			t.Errorf("%s finds %s, want %s", query, got, want)
		}
	}
	s.remove(t, gardener).wants(t, http.StatusOK)
	if got := s.titlesOf(t, "q=florist"); len(got) != 0 {
		t.Errorf("what was deleted is found: %q", got)
	}
}

func TestLookupFinds50SpellingsOfOneURL(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember)
	id := s.capture(t, spelling(0)).wants(t, http.StatusCreated).Job.ID
	query := url.Values{"source_url": {jobURL(1)}}
	for i := range 50 {
		query.Add("source_url", spelling(i))
	}
	r := s.get(t, "/api/jobs/lookup?"+query.Encode()).wants(t, http.StatusOK)
	if len(r.Results) != 51 || r.Results[0].Found {
		t.Fatalf("found %s", r.body)
	}
	for i, result := range r.Results[1:] {
		if !result.Found || result.Job.ID != id {
			t.Errorf("%s is %+v", spelling(i), result)
		}
	}
	other := s.accounts(t, 5, "other")[0]
	for _, result := range other.get(t, "/api/jobs/lookup?"+query.Encode()).wants(t, http.StatusOK).Results {
		if result.Found {
			t.Errorf("another account finds %+v", result)
		}
	}
	s.wantsQuota(t, quota{1, 50, 49, december})
}
