package projections

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"jobtally/internal/events"
)

// BenchmarkFold folds the captures of a thousand accounts, 512 in a transaction; and of one account, whose word index fills.
func BenchmarkFold(b *testing.B) {
	for name, accounts := range map[string]int{"many_accounts": 1000, "one_account": 1} {
		b.Run(name, func(b *testing.B) {
			var requests []*events.Request
			for i := range accounts {
				requests = append(requests, request(fmt.Sprintf("account-%d", i), "open", openWith(-1)))
			}
			for i := range 20_000 {
				body := captureOf(november, fmt.Sprintf("https://example.com/%d", i))
				body.Job.Company, body.Job.Description = "Example", strings.Repeat(fmt.Sprintf("text of a job w%d ", i%997), 20)
				requests = append(requests, request(fmt.Sprintf("account-%d", i*7919%accounts), fmt.Sprint(i), body))
			}
			decisions, _ := decideAll(recorded(b, requests...))
			spent := int64(0)
			for b.Loop() {
				db := openDB(b, filepath.Join(b.TempDir(), "projection.db"))
				var before, after syscall.Rusage
				ok(b, syscall.Getrusage(syscall.RUSAGE_SELF, &before))
				for at := 0; at < len(decisions); at += 512 {
					ok(b, db.Apply(0, decisions[at:min(len(decisions), at+512)]))
				}
				ok(b, syscall.Getrusage(syscall.RUSAGE_SELF, &after))
				spent += after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
				ok(b, db.Close())
			}
			b.ReportMetric(float64(spent)/1000/float64(len(decisions)*b.N), "cpu-µs/decision")
		})
	}
}
