package main

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/node"
	"jobtally/internal/replay"
)

// consumerStart is where a consumer begins: after a position, with a month, at the beginning or, if it is none of these, now.
type consumerStart struct {
	isPosition bool
	position   events.Position
	month      events.Month
	beginning  bool
}

// UnmarshalText reads 0-1234, 2026-10, beginning or now. 0-0 is the place before the first decision.
func (f *consumerStart) UnmarshalText(text []byte) (err error) {
	s := string(text)
	if s == "now" {
		return nil
	}
	if f.beginning = s == "beginning"; f.beginning {
		return nil
	}
	if f.month, err = events.ParseMonth(s); err == nil {
		if f.month > events.MonthOf(time.Now()) {
			return fmt.Errorf("%s is in the future", f.month)
		}
		return nil
	}
	f.isPosition = true
	if partition, ok := strings.CutSuffix(s, "-0"); ok {
		f.position, err = events.ParsePosition(partition + "-1")
		f.position.Sequence = 0
	} else {
		f.position, err = events.ParsePosition(s)
	}
	if err != nil {
		return fmt.Errorf("%q is neither a position, such as 0-1234, nor a month, such as 2026-10, nor beginning or now", s)
	}
	return nil
}

// after returns the positions after which a consumer begins that reads some partitions. The error says which archives have
// what is no longer in the ledger.
func (f *consumerStart) after(ctx context.Context, o *node.Operator, partitions []int) (after []events.Position, err error) {
	if err := f.check(o, partitions); err != nil {
		return nil, err
	}
	for _, number := range partitions {
		p, err := ledgerSource(o.Ledger).Partition(ctx, number)
		if err != nil {
			return nil, err
		}
		at := events.Position{Partition: number}
		if at.Sequence, err = f.in(ctx, p); err != nil {
			return nil, err
		}
		first, err := o.Ledger.Pruned(ctx, at)
		if err != nil {
			return nil, err
		}
		if first > 0 {
			return nil, pruned(ctx, o, p, at.Sequence+1, first)
		}
		after = append(after, at)
	}
	return after, nil
}

// check refuses what cannot be meant.
func (f *consumerStart) check(o *node.Operator, partitions []int) error {
	switch {
	case !f.isPosition:
	case f.position.Partition >= o.Ledger.Partitions:
		return usage("--from %s is in no partition of this ledger: they are 0 to %d", f.position, o.Ledger.Partitions-1)
	case len(partitions) > 1:
		return usage("--from %s is in one of %d partitions, and the consumer reads all: say a month, beginning or now, or name an account with --account",
			f.position, len(partitions))
	case f.position.Partition != partitions[0]:
		return usage("--from %s: the account is in partition %d", f.position, partitions[0])
	}
	return nil
}

// in returns the sequence after which the consumer begins in a partition.
func (f *consumerStart) in(ctx context.Context, p *replay.Partition) (after uint64, err error) {
	switch {
	case f.beginning:
		return 0, nil
	case f.month != "":
		after, _, err = p.Month(ctx, f.month)
		return min(after, p.Heads.Decisions), err
	case !f.isPosition:
		return p.Heads.Decisions, nil
	case f.position.Sequence > p.Heads.Decisions:
		return 0, usage("--from %s is not there yet: the last decision is %s", f.position, events.Position{Partition: p.Number, Sequence: p.Heads.Decisions})
	}
	return f.position.Sequence, nil
}

// pruned is the error of a consumer that is to begin with a decision that is no longer in the ledger, where that begins with
// another.
func pruned(ctx context.Context, o *node.Operator, p *replay.Partition, wanted, first uint64) error {
	at := func(sequence uint64) events.Position { return events.Position{Partition: p.Number, Sequence: sequence} }
	gone := fmt.Sprintf("decision %s is no longer in the ledger, which goes back to %s", at(wanted), at(first))
	closings, err := readClosings(ctx, o, p)
	if err != nil {
		return fmt.Errorf("%s: %w", gone, err)
	}
	from := sort.Search(len(closings), func(i int) bool { return closings[i].sequence >= wanted })
	to := sort.Search(len(closings), func(i int) bool { return closings[i].sequence >= first-1 })
	if from == len(closings) {
		return fmt.Errorf("%s, and is of a month that is not archived: only a backup has it", gone)
	}
	end := ""
	if to == len(closings) {
		to, end = to-1, ", but for what came after that"
	}
	has := fmt.Sprintf("the archive of %s has", closings[from].month)
	if to > from {
		has = fmt.Sprintf("the archives of %s to %s have", closings[from].month, closings[to].month)
	}
	return fmt.Errorf("%s: %s what is missing%s. Read it there, with `projector archive replay DIR`, and add the consumer with --from %s", gone, has, end, at(first-1))
}

// closing is where a month was closed: what came before it belongs to that month or to one before, or is early for the next.
type closing struct {
	month    events.Month
	sequence uint64
}

// readClosings returns the closings of a partition in order. It reads what asked for them: the decisions on them are perhaps
// among those that are missing.
func readClosings(ctx context.Context, o *node.Operator, p *replay.Partition) (closings []closing, err error) {
	for batch, err := range o.Ledger.ReadTo(ctx, events.Requests, p.Number, []string{events.ClosesSubject(p.Number)}, 0, p.Heads.Requests) {
		if err != nil {
			return nil, err
		}
		for _, m := range batch {
			r, err := events.DecodeRequest(m, p.Number, o.Ledger.Partitions)
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
