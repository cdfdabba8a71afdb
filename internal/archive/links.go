package archive

import (
	"context"
	"fmt"

	"jobtally/internal/events"
	"jobtally/internal/replay"
)

const (
	// leastLook is how many decisions are looked through at first for links of chains, and mostLook at most at once.
	leastLook = 1 << 14
	mostLook  = 1 << 18
	// fewAccounts are looked for by name: the server finds their messages without reading all others.
	fewAccounts = 64
)

// links are the decisions that do not follow from one of the month, by account and sequence, with the digests from which
// they follow.
type links map[string]map[uint64]events.Digest

func (l links) want(d *events.Decision) {
	if l[d.Account] == nil {
		l[d.Account] = map[uint64]events.Digest{}
	}
	l[d.Account][d.Position.Sequence] = events.Digest{}
}

// search looks for links.
type search struct {
	replay.Source
	partition int
	links     links
	open      map[string][]uint64 // what is not found yet
}

// find fills in the links: each is the last decision of its account before it. It looks back from the last of them, for
// most accounts that ask in a month have asked shortly before it.
func (l links) find(ctx context.Context, s replay.Source, partition int) error {
	f := search{Source: s, partition: partition, links: l, open: map[string][]uint64{}}
	end := uint64(0)
	for name, wanted := range l {
		for sequence := range wanted {
			f.open[name] = append(f.open[name], sequence)
			end = max(end, sequence-1)
		}
	}
	for look := uint64(leastLook); len(f.open) > 0 && end > 0; look = min(2*look, mostLook) {
		begin, subjects := end-min(look, end), []string(nil)
		if len(f.open) <= fewAccounts {
			begin = 0
			for name := range f.open {
				subjects = append(subjects, events.Decisions.SubjectOf(name, partition))
			}
		}
		if err := f.look(ctx, subjects, begin, end); err != nil {
			return err
		}
		end = begin
	}
	for name, wanted := range f.open {
		return fmt.Errorf("decision %s of account %s follows from none that the ledger has: see `projector audit`",
			events.Position{Partition: partition, Sequence: wanted[0]}, name)
	}
	return ctx.Err()
}

// look looks through one stretch, which is before all that were looked through.
func (f *search) look(ctx context.Context, subjects []string, after, last uint64) error {
	found := map[string]map[uint64]bool{}
	for batch, err := range f.ReadTo(ctx, events.Decisions, f.partition, subjects, after, last) {
		if err != nil {
			return err
		}
		for _, m := range batch {
			if err := f.see(m, found); err != nil {
				return err
			}
		}
	}
	for name, at := range found {
		var open []uint64
		for _, sequence := range f.open[name] {
			if !at[sequence] {
				open = append(open, sequence)
			}
		}
		if f.open[name] = open; len(open) == 0 {
			delete(f.open, name)
		}
	}
	return ctx.Err()
}

// see takes a decision for what those after it follow from, until there is a later one.
func (f *search) see(m events.Message, found map[string]map[uint64]bool) error {
	d, err := events.DecodeDecision(m, f.partition)
	if err != nil {
		return err
	}
	if _, archives := d.Body.(*events.MonthArchived); archives {
		return nil
	}
	for _, sequence := range f.open[d.Account] {
		if d.Position.Sequence < sequence {
			f.links[d.Account][sequence] = d.Digest
			if found[d.Account] == nil {
				found[d.Account] = map[uint64]bool{}
			}
			found[d.Account][sequence] = true
		}
	}
	return nil
}
