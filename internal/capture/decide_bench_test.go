package capture

import (
	"fmt"
	"testing"
	"time"

	"jobtally/internal/events"
)

// BenchmarkDecide measures one decision, sealed, in an account of ten thousand jobs.
func BenchmarkDecide(b *testing.B) {
	at := time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)
	url := func(i int) string { return fmt.Sprintf("https://example.com/jobs/%d", i) }
	h := replay(b, []events.Message{message("a", "open", at, &events.AccountOpenRequested{Plan: "pro", Limit: 10_000})})
	for i := range 10_000 {
		h.take(b, message("a", url(i), at, captureBody(url(i), url(i), "Clerk", at)))
	}
	later := at.AddDate(0, 1, 0)
	for name, m := range map[string]events.Message{
		"captured":   message("a", "new", later, captureBody(url(-1), url(-1), "Clerk", later)),
		"duplicated": message("a", "new", at, captureBody(url(1), url(1), "Clerk", at)),
		"rejected":   message("a", "new", at, captureBody(url(-1), url(-1), "Clerk", at)),
		"repeated":   message("a", url(1), at, captureBody(url(1), url(1), "Clerk", at)),
		"refused":    message("b", "new", at, captureBody(url(1), url(1), "Clerk", at)),
	} {
		b.Run(name, func(b *testing.B) {
			m.Sequence = uint64(len(h.steps)) + 1
			r, err := events.DecodeRequest(m, 0, 1)
			if err != nil {
				b.Fatal(err)
			}
			if d := Decide(h.state, &r); events.OutcomeOf(d.Body) != name {
				b.Fatalf("decided %+v", d.Body)
			}
			b.ReportAllocs()
			for b.Loop() {
				_ = Decide(h.state, &r)
			}
		})
	}
}
