package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/ledger"
)

// leastTail is how many decisions of a partition tail reads at once, at the least, when it looks for the last ones.
const leastTail = 64

// begin finds out where to begin in each partition that is to be shown, and shows the last lines where these are asked for.
func (t *tail) begin(l *ledger.Ledger) (err error) {
	t.ledger, t.after = l.ID, map[int]uint64{}
	for p := range l.Partitions {
		t.after[p] = 0
	}
	if t.Account != "" {
		own := events.PartitionOf(t.Account, l.Partitions)
		t.subjects = []string{events.Decisions.SubjectOf(t.Account, own)}
		t.after = map[int]uint64{own: 0}
		if err := t.known(l, own); err != nil {
			return err
		}
	}
	switch {
	case t.From.position != nil:
		return t.beginBehind(l, *t.From.position)
	case t.From.month != "":
		return t.beginWith(l, t.From.month)
	case t.From.beginning:
		return nil
	}
	heads, err := t.heads(l)
	if err != nil {
		return err
	}
	if !t.From.now {
		if err := t.showLast(l, heads); err != nil {
			return err
		}
	}
	t.after = heads
	return nil
}

// known says so where nothing was decided on the account that is shown, which may be misspelt: nothing may come, either.
func (t *tail) known(l *ledger.Ledger, partition int) error {
	_, err := l.Last(t.ctx, events.Decisions, partition, t.subjects[0])
	if !errors.Is(err, events.ErrNotFound) {
		return err
	}
	if !t.Follow {
		return fmt.Errorf("there is nothing of account %s", t.Account)
	}
	_, err = fmt.Fprintf(t.stderr, "nothing is decided on account %s so far\n", t.Account)
	return err
}

func (t *tail) beginBehind(l *ledger.Ledger, p events.Position) error {
	if p.Partition >= l.Partitions {
		return usage("%s is in no partition of this ledger: they are 0 to %d", p, l.Partitions-1)
	}
	if _, shown := t.after[p.Partition]; !shown {
		return usage("account %s is in partition %d, and %s is not", t.Account, events.PartitionOf(t.Account, l.Partitions), p)
	}
	t.after = map[int]uint64{p.Partition: p.Sequence}
	heads, err := t.heads(l)
	if err != nil {
		return err
	}
	if head := heads[p.Partition]; p.Sequence > head {
		return usage("--from %s is not there yet: the last decision is %s", p, events.Position{Partition: p.Partition, Sequence: head})
	}
	return unpruned(t.ctx, l, p)
}

// beginWith begins with what was asked for in a month, or since.
func (t *tail) beginWith(l *ledger.Ledger, month events.Month) error {
	source := ledgerSource(l)
	for p := range t.after {
		partition, err := source.Partition(t.ctx, p)
		if err != nil {
			return err
		}
		if t.after[p], err = partition.Since(t.ctx, month); err != nil {
			return err
		}
		if err := unpruned(t.ctx, l, events.Position{Partition: p, Sequence: t.after[p]}); err != nil {
			return err
		}
	}
	t.since = month.Start()
	return nil
}

// decided is a message of a partition.
type decided struct {
	partition int
	events.Message
}

// history shows what there is up to the heads, by the time of the request.
func (t *tail) history(l *ledger.Ledger, heads map[int]uint64) error {
	var parts []iter.Seq2[decided, error]
	for _, p := range slices.Sorted(maps.Keys(heads)) {
		parts = append(parts, one(p, l.ReadTo(t.ctx, events.Decisions, p, t.subjects, t.after[p], heads[p])))
	}
	for d, err := range merged(parts) {
		if err != nil {
			return err
		}
		if err := t.take(d.partition, &d.Message); err != nil {
			return err
		}
	}
	for p, head := range heads {
		t.after[p] = max(t.after[p], head)
	}
	return t.out.Flush()
}

// one yields the messages of a partition one by one.
func one(partition int, batches iter.Seq2[[]events.Message, error]) iter.Seq2[decided, error] {
	return func(yield func(decided, error) bool) {
		for batch, err := range batches {
			for _, m := range batch {
				if !yield(decided{partition, m}, nil) {
					return
				}
			}
			if err != nil {
				yield(decided{}, err)
				return
			}
		}
	}
}

// merged yields what several partitions have, by the time of the request and then by partition; each stays in its own order,
// whatever clocks said.
func merged(parts []iter.Seq2[decided, error]) iter.Seq2[decided, error] {
	return func(yield func(decided, error) bool) {
		type source struct {
			next func() (decided, error, bool)
			head decided
			err  error // in the place of head, with a time before all others
			at   time.Time
		}
		var sources []*source
		advance := func(s *source) (more bool) {
			s.head, s.err, more = s.next()
			s.at = askedAt(&s.head.Message)
			return more
		}
		for _, part := range parts {
			next, stop := iter.Pull2(part)
			defer stop()
			if s := (&source{next: next}); advance(s) {
				sources = append(sources, s)
			}
		}
		for len(sources) > 0 {
			i := 0
			for j, s := range sources {
				if s.at.Before(sources[i].at) {
					i = j
				}
			}
			if !yield(sources[i].head, sources[i].err) {
				return
			}
			if !advance(sources[i]) {
				sources = slices.Delete(sources, i, i+1)
			}
		}
	}
}

// showLast shows the last lines before the heads.
func (t *tail) showLast(l *ledger.Ledger, heads map[int]uint64) error {
	var parts []iter.Seq2[decided, error]
	for _, p := range slices.Sorted(maps.Keys(heads)) {
		last, err := t.last(l, p, heads[p])
		if err != nil {
			return err
		}
		parts = append(parts, one(p, func(yield func([]events.Message, error) bool) { yield(last, nil) }))
	}
	var all []decided
	for d, err := range merged(parts) {
		if err != nil {
			return err
		}
		all = append(all, d)
	}
	for _, d := range all[max(0, len(all)-t.Lines):] {
		if err := t.printer(&d.Message, d.partition); err != nil {
			return err
		}
	}
	return nil
}

// last returns the last wanted messages of a partition up to a head. It looks back ever further, until it has enough.
func (t *tail) last(l *ledger.Ledger, p int, head uint64) (kept []events.Message, err error) {
	window := max(leastTail, uint64(t.Lines))
	for head > 0 && len(kept) < t.Lines {
		after := head - min(window, head)
		var found []events.Message
		for batch, err := range l.ReadTo(t.ctx, events.Decisions, p, t.subjects, after, head) {
			if err != nil {
				return nil, err
			}
			for _, m := range batch {
				if t.wants(&m) {
					found = append(found, m)
				}
			}
			found = found[max(0, len(found)-t.Lines):]
		}
		kept, head, window = append(found, kept...), after, 4*window
	}
	return kept, nil
}

// arrival is what a partition has next.
type arrival struct {
	partition int
	batch     []events.Message
	err       error
}

// live shows what is decided from now on, as it arrives, until ctx ends or a partition cannot be read.
func (t *tail) live(l *ledger.Ledger) error {
	ctx, cancel := context.WithCancel(t.ctx)
	arrived := make(chan arrival)
	var reading sync.WaitGroup
	for p, after := range t.after {
		reading.Go(func() {
			for batch, err := range l.Read(ctx, events.Decisions, p, after) {
				select {
				case arrived <- arrival{p, batch, err}:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	defer reading.Wait()
	defer cancel()
	for {
		select {
		case a := <-arrived:
			if a.err != nil {
				return a.err
			}
			for _, m := range a.batch {
				if err := t.take(a.partition, &m); err != nil {
					return err
				}
			}
			if err := t.out.Flush(); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
