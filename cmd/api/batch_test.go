package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func TestABatchFillsWhatIsLeftOfTheQuota(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	s := start(t, data, midNovember, "--plans", "free=5")
	known := s.capture(t, jobURL(0)).wants(t, http.StatusCreated)
	items := []string{jobAt(jobURL(0)), `{"title":"no URL"}`}
	for i := range 8 {
		items = append(items, jobAt(jobURL(i+1)))
	}
	key := "Idempotency-Key: import-1"
	r := s.batch(t, items, key).wants(t, http.StatusOK)
	want := []string{"200 duplicate import-1.0", "400 invalid "}
	for i := range 8 {
		want = append(want, fmt.Sprintf("%s import-1.%d", map[bool]string{true: "201 captured", false: "403 rejected"}[i < 4], i+2))
	}
	position := known.Receipt.Position
	for i, result := range r.Results {
		if got := fmt.Sprintf("%d %s %s", result.Status, result.Outcome, result.Key); got != want[i] {
			t.Errorf("result %d is %s, want %s", i, got, want[i])
		}
		if result.Outcome == "invalid" {
			continue
		}
		if position = following(t, position); result.Receipt.Position != position {
			t.Errorf("result %d stands at %s, want %s", i, result.Receipt.Position, position)
		}
	}
	full := quota{5, 5, 0, december}
	if r.Quota != full {
		t.Errorf("the quota is %+v", r.Quota)
	}
	s.batch(t, items, key).wantsSame(t, r)
	s.stop(t)
	s = start(t, data, midNovember)
	s.batch(t, items, key).wantsSame(t, r)
	s.wantsQuota(t, full)
	if jobs := s.get(t, "/api/jobs").wants(t, http.StatusOK).Jobs; len(jobs) != 5 {
		t.Errorf("%d jobs", len(jobs))
	}
}

func TestBatchesOfLines(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember)
	var lines strings.Builder
	for i := range 40 {
		lines.WriteString(jobAt(jobURL(i)) + "\n\n")
	}
	r := s.client.send(t, "POST /api/jobs/batch", example{body: lines.String()}, nil, "Content-Type: application/x-ndjson").wants(t, http.StatusOK)
	if len(r.Results) != 40 || r.Quota != (quota{40, 50, 10, december}) {
		t.Errorf("%d results, quota %+v", len(r.Results), r.Quota)
	}
	position := r.Results[0].Receipt.Position
	for i, result := range r.Results {
		if result.Status != http.StatusCreated || result.Job.SourceURL != jobURL(i) || result.Receipt.Position != position {
			t.Errorf("line %d: %+v", i, result)
		}
		position = following(t, position)
	}
}

// TestBatchesAtOnceNeverExceedTheLimit: a job in several batches is captured by one of them.
func TestBatchesAtOnceNeverExceedTheLimit(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember)
	counts := map[string]int{}
	for _, r := range together(10, func(i int) reply {
		var items []string
		for j := range 20 {
			items = append(items, jobAt(jobURL(i*10+j))) // each half of the next one's
		}
		return s.batch(t, items)
	}) {
		for _, result := range r.wants(t, http.StatusOK).Results {
			counts[result.Outcome]++
		}
	}
	if counts["captured"] != 50 || counts["captured"]+counts["duplicate"]+counts["rejected"] != 200 {
		t.Errorf("outcomes %v", counts)
	}
	s.wantsQuota(t, quota{50, 50, 0, december})
}

func TestADryRunRecordsNothing(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember, "--plans", "free=2")
	first := s.capture(t, jobURL(1), retryKey).wants(t, http.StatusCreated)
	before := requestsOfPartition.FindString(s.operator(t, "status"))
	dry := func(path, body string, headers ...string) reply {
		return s.client.send(t, "POST "+path+"?dry_run=true", example{body: body}, nil, headers...).wants(t, http.StatusOK)
	}
	for want, r := range map[string]reply{
		"captured": dry("/api/jobs", jobAt(jobURL(2))), "duplicate": dry("/api/jobs", jobAt(jobURL(1))),
		"repeated": dry("/api/jobs", jobAt(jobURL(1)), retryKey), "refused": dry("/api/jobs", jobAt(jobURL(2)), retryKey),
	} {
		if r.Outcome != want || r.Receipt.Position != "" || r.header.Get("Location") != "" || r.header.Get("Ledger-Position") != first.Receipt.Position {
			t.Errorf("%s is told as %s", want, r.body)
		}
	}
	r := dry("/api/jobs/batch", `{"jobs":[`+jobAt(jobURL(2))+","+jobAt(jobURL(3))+","+jobAt(jobURL(1))+`]}`)
	for i, want := range []string{"captured", "rejected", "duplicate"} {
		if r.Results[i].Outcome != want {
			t.Errorf("result %d of %s is not %s", i, r.body, want)
		}
	}
	if after := requestsOfPartition.FindString(s.operator(t, "status")); before == "" || after != before {
		t.Errorf("the ledger went from %q to %q", before, after)
	}
	s.wantsQuota(t, quota{1, 2, 1, december})
	if next := s.capture(t, jobURL(2)).wants(t, http.StatusCreated); next.Receipt.Position != following(t, first.Receipt.Position) {
		t.Errorf("the next capture stands at %s, behind %s", next.Receipt.Position, first.Receipt.Position)
	}
}
