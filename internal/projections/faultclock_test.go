package projections

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// The clock at the edge jumps back over midnight UTC on the first of a month, and forth again. Each capture counts in the
// month that it is stamped with, up to the limit of that month, and what is known stays known in both.
func TestClockJumpsBackAcrossMidnight(t *testing.T) {
	t.Parallel()
	steps := []struct {
		at, id, posting, want string
		november, december    int64 // used afterwards
	}{
		{"2026-12-01T00:00:00.5Z", "1", "a", "captured", 0, 1},
		{"2026-11-30T23:59:59.9Z", "2", "b", "captured", 1, 1},
		{"2026-11-30T23:59:59.91Z", "3", "a", "duplicated", 1, 1}, // captured tomorrow, and known all the same
		{"2026-12-01T00:00:00.1Z", "4", "c", "captured", 1, 2},
		{"2026-12-01T00:00:00.2Z", "5", "d", "rejected", 1, 2},
		{"2026-11-30T23:59:59.999999999Z", "6", "d", "captured", 2, 2},
		{"2026-11-30T23:59:59.8Z", "7", "e", "rejected", 2, 2},
		{"2026-11-30T23:59:59.7Z", "1", "a", "repeated", 2, 2},
		{"2026-12-01T00:00:00Z", "8", "b", "duplicated", 2, 2},
	}
	requests := make([]*events.Request, len(steps))
	for i, step := range steps {
		at := must[time.Time](t)(time.Parse(time.RFC3339Nano, step.at))
		requests[i] = request("demo", step.id, captureOf(events.MonthOf(at), "https://example.com/"+step.posting))
		requests[i].Time = at
	}
	for _, size := range []int{1, 3, len(steps)} {
		t.Run(fmt.Sprintf("%d in a batch", size), func(t *testing.T) {
			t.Parallel()
			dir, f := t.TempDir(), newFault("", "", size)
			s := startService(t, dir, f)
			s.run(t)
			await(t, s.db, s.append(t, "demo", "open", openWith(2)))
			f.batchUp()
			turn := []events.Month{december, november}
			for batch := range slices.Chunk(requests, size) {
				for _, r := range batch {
					must[events.Position](t)(s.Append(within(t), r))
				}
				last := int(s.heads(t).Requests) - 1
				await(t, s.db, events.Position{Sequence: uint64(last) + 1})
				wantUsed(t, s.db, steps[last-1].november, steps[last-1].december, turn)
			}
			s.audit(t, s.db)
			s.wantAnew(t)
			s.stop(t)

			t.Log("the next process says the same")
			s = startService(t, dir, nil)
			s.audit(t, s.db)
			s.wantAnew(t)
			wantUsed(t, s.db, 2, 2, turn)
			for i, step := range steps {
				d := await(t, s.db, events.Position{Sequence: uint64(i) + 2})
				if got := events.OutcomeOf(d.Body); got != step.want {
					t.Errorf("step %d: %s, want %s", i+1, got, step.want)
				}
				if rejected, is := d.Body.(*events.JobCaptureRejected); is && rejected.ResetDate != requests[i].Time.AddDate(0, 1, 0).Format("2006-01")+"-01" {
					t.Errorf("step %d: resets on %s", i+1, rejected.ResetDate)
				}
			}
			got := column(t, s.db, "SELECT month || ' ' || used || ' ' || duplicated || ' ' || rejected || ' ' || repeated FROM months ORDER BY month")
			if want := []string{"2026-11 2 1 1 1", "2026-12 2 1 1 0"}; !slices.Equal(got, want) {
				t.Errorf("months %q, want %q", got, want)
			}
		})
	}
}

// wantUsed reads both months in turn: of the file, and of what is kept in memory, where one month of an account is kept.
// It begins with the one that it read last before.
func wantUsed(t *testing.T, db *DB, novembers, decembers int64, turn []events.Month) {
	t.Helper()
	for _, month := range []events.Month{turn[0], turn[0], turn[1], turn[1], turn[0], turn[1]} {
		want := capture.Quota{Month: month, Used: map[events.Month]int64{november: novembers, december: decembers}[month], Limit: 2}
		if q := must[capture.Quota](t)(db.Quota(within(t), "demo", month)); q != want {
			t.Fatalf("quota %+v, want %+v", q, want)
		}
	}
	slices.Reverse(turn)
}
