package node

import (
	"errors"
	"testing"
	"time"

	"jobtally/internal/events"
)

func TestBacklogIsBoundedInLengthAndAge(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	after := func(d time.Duration) time.Time { return start.Add(d) }
	var b backlog
	wantOpen := func(what string, folded uint64, now time.Time) {
		t.Helper()
		if err := b.check(folded, now); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	wantShut := func(what string, folded uint64, now time.Time) {
		t.Helper()
		if err := b.check(folded, now); !errors.Is(err, events.ErrUnavailable) {
			t.Errorf("%s: error %v, want ErrUnavailable", what, err)
		}
	}

	wantOpen("nothing was appended", 0, start)
	b.add(1, 0, start)
	wantOpen("as old as may be", 0, after(maxUndecidedAge))
	wantShut("too old", 0, after(maxUndecidedAge+1))
	wantOpen("folded", 1, after(time.Hour))

	b.add(2, 1, after(time.Hour))
	b.add(3, 1, after(time.Hour+maxUndecidedAge))
	wantShut("the first of two is too old", 1, after(time.Hour+maxUndecidedAge+1))
	wantOpen("the first is folded", 2, after(time.Hour+maxUndecidedAge+1))

	b.add(3+maxUndecided, 3, after(time.Hour))
	wantOpen("as long as may be", 3, after(time.Hour))
	wantShut("too long", 2, after(time.Hour))
}
