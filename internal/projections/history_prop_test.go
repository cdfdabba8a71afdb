package projections

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// drawRequests draws a past in which accounts are opened, exhausted and changed, requests come again, and jobs change and go.
func drawRequests(t *rapid.T) (requests []events.Request) {
	state, captured := capture.NewState(), map[string][]string{}
	for i := range rapid.SampledFrom([]int{1, 10, 40, 80}).Draw(t, "n") { // left alone, rapid draws a handful
		account := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "account")
		id := rapid.SampledFrom([]string{"1", "2", "3", "4", "5", "6", "ü \"%", "8"}).Draw(t, "id")
		r := request(account, id, drawBody(t, captured[account]))
		r.Time = r.Time.Add(time.Duration(rapid.IntRange(0, 1e9).Draw(t, "later")))
		m := r.Message(1)
		m.Sequence = uint64(i + 1)
		requests = append(requests, drawSpoilt(t, m))
		d := capture.Decide(state, &requests[i])
		state.Fold(&d)
		if b, is := d.Body.(*events.JobCaptured); is {
			captured[account] = append(captured[account], b.JobID)
		}
	}
	return requests
}

// drawBody draws what is asked of an account that captured some jobs.
func drawBody(t *rapid.T, captured []string) events.RequestBody {
	limit := rapid.Int64Range(-1, 4).Draw(t, "limit")
	token := rapid.SampledFrom([]string{"t1", "t2"}).Draw(t, "token")
	switch rapid.IntRange(0, 13).Draw(t, "kind") {
	case 0, 1:
		return openWith(limit)
	case 2:
		return &events.PlanChangeRequested{Plan: "other", Limit: limit, Who: events.Who{By: "operator", Reason: token}}
	case 3:
		return &events.TokenIssueRequested{TokenID: token, SecretHash: events.Hash([]byte(token)), TokenTerms: events.TokenTerms{Name: token}}
	case 4:
		return &events.TokenRevokeRequested{TokenID: token}
	case 5, 6, 7:
		changes := map[string]string{"status": rapid.SampledFrom(events.Statuses()).Draw(t, "status"), "company": token}
		return &events.JobUpdateRequested{JobID: drawJob(t, captured), IfVersion: drawIfVersion(t), Changes: changes}
	case 8, 9:
		return &events.JobDeleteRequested{JobID: drawJob(t, captured), IfVersion: drawIfVersion(t)}
	}
	month := rapid.SampledFrom([]events.Month{november, december}).Draw(t, "month")
	return captureOf(month, "https://example.com/"+rapid.StringMatching("[1-9]").Draw(t, "url"))
}

// drawJob draws a job that was captured, be it deleted since, or one that never was.
func drawJob(t *rapid.T, captured []string) string {
	i := rapid.IntRange(0, 9).Draw(t, "job")
	if i == 9 || len(captured) == 0 {
		return "job_none"
	}
	return captured[len(captured)-1-i%len(captured)]
}

func drawIfVersion(t *rapid.T) int64 {
	return rapid.SampledFrom([]int64{0, 0, 0, 1, 2}).Draw(t, "if version")
}

// drawSpoilt spoils some messages on their way.
func drawSpoilt(t *rapid.T, m events.Message) events.Request {
	switch rapid.IntRange(0, 20).Draw(t, "spoil") {
	case 0:
		m.Data = []byte("{")
	case 1:
		m.Subject = "requests.0.A.job_capture"
	case 2:
		m.Header["ce-id"] = nil
	}
	d, err := events.DecodeRequest(m, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// recordedWithMalformed numbers the requests and spoils some of them.
func recordedWithMalformed(t *rapid.T, requests []*events.Request) (decoded []events.Request) {
	for i, r := range requests {
		m := r.Message(1)
		m.Sequence = uint64(i + 1)
		decoded = append(decoded, drawSpoilt(t, m))
	}
	return decoded
}

// drawCuts draws the ends of batches of n things.
func drawCuts(t *rapid.T, n int) (ends []int) {
	for end := 0; end < n; {
		end = min(n, end+rapid.IntRange(1, 20).Draw(t, "batch"))
		ends = append(ends, end)
	}
	return ends
}

// freshDB opens an empty projection for one run of a property; close removes it.
func freshDB(t *rapid.T, dir string) (db *DB, remove func()) {
	path, err := os.MkdirTemp(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	db, err = Open(filepath.Join(path, "projection.db"), "the-ledger", 1)
	if err != nil {
		t.Fatal(err)
	}
	return db, func() {
		if err := errors.Join(db.Close(), os.RemoveAll(path)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFoldingInAnyBatchesGivesOneFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		decisions, state := decideAll(drawRequests(rt))
		single, removeSingle := freshDB(rt, dir)
		defer removeSingle()
		batched, removeBatched := freshDB(rt, dir)
		defer removeBatched()

		for i := range decisions {
			if err := single.Apply(0, decisions[i:i+1]); err != nil {
				rt.Fatal(err)
			}
		}
		start := 0
		for _, end := range drawCuts(rt, len(decisions)) {
			if err := batched.Apply(0, decisions[start:end]); err != nil {
				rt.Fatal(err)
			}
			start = end
		}

		auditDB(t, batched, decisions, state)
		if a, b := dump(t, single), dump(t, batched); a != b {
			rt.Fatalf("one by one:\n%s\nin batches:\n%s", a, b)
		}
		if a, b := single.partitions[0].at.Digest, batched.partitions[0].at.Digest; a != b {
			rt.Fatalf("digests %s and %s", a, b)
		}
	})
}

// What the file and the decisions on their way there say is enough to decide by: the decisions are those made with the
// whole past in memory, however far behind the file is, and also if it is written to while the state is loaded.
func TestDecidingFromTheFileIsDecidingFromEverything(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	outcomes := map[string]int{}
	checkUntilHad(t, outcomes, []string{
		"captured", "duplicated", "rejected", "repeated", "refused", "opened", "plan_changed", "token_issued", "token_revoked",
		"updated", "deleted", "not_found", "version_conflict",
	}, func(rt *rapid.T) {
		requests := drawRequests(rt)
		want, state := decideAll(requests)
		db, remove := freshDB(rt, dir)
		defer remove()
		p, start := NewProjector(db, Ledger{Partitions: 1}, 0, true, quiet()), 0
		var flight inFlight
		var unfolded []events.Decision
		for _, end := range drawCuts(rt, len(requests)) {
			folding := make(chan error, 1)
			n := rapid.IntRange(0, len(unfolded)).Draw(rt, "folded meanwhile")
			go func(decisions []events.Decision) { folding <- db.Apply(0, decisions) }(unfolded[:n])
			unfolded = unfolded[n:]

			decisions, err := p.decideBatch(context.Background(), requests[start:end], &flight)
			if err = errors.Join(err, <-folding); err != nil {
				rt.Fatal(err)
			}
			for i, d := range decisions {
				if difference := differ(want[start+i].Message(), d.Message()); difference != "" {
					rt.Fatalf("decision %d of the batch from %d: %s", i+1, start+1, difference)
				}
				outcomes[events.OutcomeOf(d.Body)]++
				if refused, is := d.Body.(*events.RequestRefused); is {
					outcomes[refused.Reason]++
				}
			}
			unfolded, start = append(unfolded, decisions...), end
		}
		if err := db.Apply(0, unfolded); err != nil {
			rt.Fatal(err)
		}
		auditDB(t, db, want, state)
	})
}

// checkUntilHad checks a property until its draws had all that is wanted, which those of one check may lack by chance.
func checkUntilHad(t *testing.T, had map[string]int, wanted []string, property func(*rapid.T)) {
	t.Helper()
	lacking := wanted
	for try := 0; len(lacking) > 0; try++ {
		if try == 20 {
			t.Fatalf("no draw had %q: %v", lacking, had)
		}
		rapid.Check(t, property)
		lacking = slices.DeleteFunc(slices.Clone(wanted), func(what string) bool { return had[what] > 0 })
	}
}
