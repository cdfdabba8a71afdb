package node

import (
	"fmt"
	"sync"
	"time"

	"jobtally/internal/events"
)

const (
	// maxUndecided bounds the requests of a partition that this node recorded and has not folded. Beyond it, it takes
	// no more until the projector has caught up.
	maxUndecided = 8192
	// maxUndecidedAge bounds for how long one of them may wait.
	maxUndecidedAge = 10 * time.Second
)

// backlog is what this node recorded in a partition and has not folded.
type backlog struct {
	mu     sync.Mutex // guards the fields below
	last   uint64     // the highest sequence that this node appended
	marked uint64     // one of those that was not folded when it was last looked at, with the time of its append
	since  time.Time
}

// check returns ErrUnavailable when the backlog is too long or too old, given the sequence up to which the partition is
// folded.
func (b *backlog) check(folded uint64, now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last > folded+maxUndecided {
		return fmt.Errorf("%w: %d requests are undecided", events.ErrUnavailable, b.last-folded)
	}
	if age := now.Sub(b.since); b.marked > folded && age > maxUndecidedAge {
		return fmt.Errorf("%w: requests are undecided for %s", events.ErrUnavailable, age.Round(time.Second))
	}
	return nil
}

// add takes in what was appended. The mark moves to it once what was marked before is folded.
func (b *backlog) add(sequence, folded uint64, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last = max(b.last, sequence)
	if b.marked <= folded {
		b.marked, b.since = sequence, now
	}
}
