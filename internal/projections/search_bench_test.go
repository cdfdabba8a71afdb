package projections

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

const benchJobs = 100_000

// benchTracker is the projection of an account with n jobs, of which every fiftieth was updated. Their descriptions have
// 200 words of 20,000, in which a few are common and most are rare.
func benchTracker(tb testing.TB, n int) *DB {
	tb.Helper()
	db := openDB(tb, filepath.Join(tb.TempDir(), "projection.db"))
	random := rand.New(rand.NewPCG(1, 2))
	zipf := rand.NewZipf(random, 1.1, 8, 19_999)
	text := func(words int) string {
		var b strings.Builder
		for range words {
			fmt.Fprintf(&b, "%s ", benchWord(zipf.Uint64()))
		}
		return b.String()
	}
	state := capture.NewState()
	var decisions []events.Decision
	var ids []string
	ask := func(id string, body events.RequestBody) {
		r := request("demo", id, body)
		r.Position.Sequence = db.Folded(0) + uint64(len(decisions)) + 1
		d := capture.Decide(state, r)
		state.Fold(&d)
		if captured, is := d.Body.(*events.JobCaptured); is {
			ids = append(ids, captured.JobID)
		}
		if decisions = append(decisions, d); len(decisions) == 512 {
			ok(tb, db.Apply(0, decisions))
			decisions = decisions[:0]
		}
	}
	ask("open", openWith(-1))
	for i := range n {
		body := captureOf(november, fmt.Sprintf("https://example.com/%d", i))
		body.Job.Title, body.Job.Company, body.Job.Description = "Engineer "+text(3), fmt.Sprintf("Company %d", i%1000), text(200)
		body.Job.Status = events.Statuses()[i%7%6]
		ask(fmt.Sprint(i), body)
		if i%50 == 49 {
			ask("", &events.JobUpdateRequested{JobID: ids[random.IntN(len(ids))], Changes: map[string]string{"status": "withdrawn", "description": text(200)}})
		}
	}
	ok(tb, db.Apply(0, decisions))
	return db
}

func benchWord(n uint64) string { return fmt.Sprintf("%c%cw%d", 'a'+n%26, 'a'+n*7%26, n) }

// BenchmarkSearch100k: pages of 50 jobs of an account with 100,000, against SQLite's LIKE over the same rows.
func BenchmarkSearch100k(b *testing.B) {
	db, ctx := benchTracker(b, benchJobs), context.Background()
	for _, c := range []struct {
		name string
		q    capture.JobQuery
	}{
		{"list", capture.JobQuery{}},
		{"list by change", capture.JobQuery{Updated: true}},
		{"list of a status", capture.JobQuery{Status: "offered"}},
		{"list of a company", capture.JobQuery{Company: "Company 77"}},
		{"list of a company without jobs", capture.JobQuery{Company: "None"}},
		{"rare word", capture.JobQuery{Text: benchWord(19_000)}},
		{"common word", capture.JobQuery{Text: benchWord(0)}},
		{"word of every job", capture.JobQuery{Text: "engineer"}},
		{"one letter", capture.JobQuery{Text: "e"}},
		{"two words", capture.JobQuery{Text: benchWord(0) + " " + benchWord(15_000)}},
		{"two common words", capture.JobQuery{Text: "engineer " + benchWord(1)}},
		{"common word by change", capture.JobQuery{Text: "engineer", Updated: true}},
		{"common word of a status", capture.JobQuery{Text: "engineer", Status: "offered"}},
		{"common word of a company", capture.JobQuery{Text: "engineer", Company: "Company 77"}},
		{"common word of a company without jobs", capture.JobQuery{Text: "engineer", Company: "None"}},
		{"word of no job", capture.JobQuery{Text: "zzzz"}},
		{"last page of a common word", capture.JobQuery{Text: "engineer", Before: 60}},
	} {
		b.Run(strings.ReplaceAll(c.name, " ", "_"), func(b *testing.B) {
			c.q.Limit = 50
			began, n := processorTime(b), 0
			for b.Loop() {
				must[capture.JobPage](b)(db.Jobs(ctx, "demo", c.q))
				n++
			}
			b.ReportMetric(float64((processorTime(b)-began).Microseconds())/1000/float64(n), "cpu-ms/op")
		})
	}
	b.Run("lookup_of_100", func(b *testing.B) {
		var urls []string
		for i := range 100 {
			urls = append(urls, fmt.Sprintf("https://example.com/%d", i*999))
		}
		for b.Loop() {
			must[map[string]capture.StoredJob](b)(db.Lookup(ctx, "demo", urls))
		}
	})
	b.Run("LIKE_of_a_rare_word", func(b *testing.B) {
		for b.Loop() {
			rows, err := db.reading.Query(`SELECT jobs.id FROM jobs JOIN decisions AS v ON v.partition = jobs.partition AND v.sequence = jobs.changed
				WHERE jobs.account = 'demo' AND CAST(v.data AS TEXT) LIKE '%' || ? || '%' ORDER BY jobs.sequence DESC LIMIT 51`, benchWord(19_000))
			ok(b, scanAll(rows, err, func(rows *sql.Rows) error { return rows.Scan(new(string)) }))
		}
	})
}

// processorTime is how long this process has run on a processor: on a machine that others share, it tells more than a clock.
func processorTime(tb testing.TB) time.Duration {
	tb.Helper()
	var usage syscall.Rusage
	ok(tb, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
