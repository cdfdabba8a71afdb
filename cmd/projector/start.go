package main

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/ledger"
)

// start is where reading decisions begins: after a position, with a month, at the beginning, or now. The zero value is what the
// command does unless it is told.
type start struct {
	position       *events.Position // sequence 0 is the place before the first decision
	month          events.Month
	beginning, now bool
}

// UnmarshalText reads 0-1234, 2026-10, beginning or now.
func (f *start) UnmarshalText(text []byte) (err error) {
	switch s := string(text); s {
	case "now":
		f.now = true
		return nil
	case "beginning":
		f.beginning = true
		return nil
	default:
		if f.month, err = events.ParseMonth(s); err == nil {
			return f.past()
		}
		p, err := events.ParsePosition(s)
		if partition, ok := strings.CutSuffix(s, "-0"); ok {
			p, err = events.ParsePosition(partition + "-1")
			p.Sequence = 0
		}
		if err != nil {
			return fmt.Errorf("%q is neither a position, such as 0-1234, nor a month, such as 2026-10, nor beginning or now", s)
		}
		f.position = &p
		return nil
	}
}

func (f *start) past() error {
	if f.month > events.MonthOf(time.Now()) {
		return fmt.Errorf("%s is in the future", f.month)
	}
	return nil
}

// unpruned returns an error that names the archives, where decisions after a position are no longer in the ledger.
func unpruned(ctx context.Context, l *ledger.Ledger, after events.Position) error {
	first, err := l.Pruned(ctx, after)
	if err != nil || first == 0 {
		return err
	}
	at := func(sequence uint64) events.Position {
		return events.Position{Partition: after.Partition, Sequence: sequence}
	}
	gone := fmt.Sprintf("decision %s is no longer in the ledger, which goes back to %s", at(after.Sequence+1), at(first))
	closings, err := readClosings(ctx, l, after.Partition)
	if err != nil {
		return fmt.Errorf("%s: %w", gone, err)
	}
	from := sort.Search(len(closings), func(i int) bool { return closings[i].sequence > after.Sequence })
	to := sort.Search(len(closings), func(i int) bool { return closings[i].sequence >= first-1 })
	if from == len(closings) {
		return fmt.Errorf("%s, and is of a month that is not archived: only a backup has it. Go on here with --from %s", gone, at(first-1))
	}
	end := ""
	if to == len(closings) {
		to, end = to-1, ", but for what came after that"
	}
	has := fmt.Sprintf("the archive of %s has", closings[from].month)
	if to > from {
		has = fmt.Sprintf("the archives of %s to %s have", closings[from].month, closings[to].month)
	}
	return fmt.Errorf("%s: %s what is missing%s. Read it there, with `projector archive replay DIR`, and go on here with --from %s", gone, has, end, at(first-1))
}

// closing is where a month was closed: what came before it belongs to that month or to one before, or is early for the next.
type closing struct {
	month    events.Month
	sequence uint64
}

// readClosings returns the closings of a partition in order. It reads what asked for them: the decisions on them are perhaps
// among those that are missing.
func readClosings(ctx context.Context, l *ledger.Ledger, partition int) (closings []closing, err error) {
	heads, err := l.Heads(ctx, partition)
	if err != nil {
		return nil, err
	}
	for batch, err := range l.ReadTo(ctx, events.Requests, partition, []string{events.ClosesSubject(partition)}, 0, heads.Requests) {
		if err != nil {
			return nil, err
		}
		for _, m := range batch {
			r, err := events.DecodeRequest(m, partition, l.Partitions)
			if err != nil {
				return nil, err
			}
			asked, ok := r.Body.(*events.MonthCloseRequested)
			if ok && (len(closings) == 0 || closings[len(closings)-1].month < asked.Month) { // asked twice, it is closed once
				closings = append(closings, closing{asked.Month, m.Sequence})
			}
		}
	}
	return closings, nil
}
