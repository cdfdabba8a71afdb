package main

import (
	"context"

	"jobtally/internal/events"
	"jobtally/internal/node"
	"jobtally/internal/replay"
)

// after returns the positions after which a consumer begins that reads some partitions. The error says which archives have
// what is no longer in the ledger.
func (f *start) after(ctx context.Context, o *node.Operator, partitions []int) (after []events.Position, err error) {
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
		if err := unpruned(ctx, o.Ledger, at); err != nil {
			return nil, err
		}
		after = append(after, at)
	}
	return after, nil
}

// check refuses what cannot be meant.
func (f *start) check(o *node.Operator, partitions []int) error {
	switch {
	case f.position == nil:
	case f.position.Partition >= o.Ledger.Partitions:
		return usage("--from %s is no month, and no position of this ledger, whose partitions are 0 to %d", f.position, o.Ledger.Partitions-1)
	case len(partitions) > 1:
		return usage("--from %s is in one of %d partitions, and the consumer reads all: say a month, beginning or now, or name an account with --account",
			f.position, len(partitions))
	case f.position.Partition != partitions[0]:
		return usage("--from %s: the account is in partition %d", f.position, partitions[0])
	}
	return nil
}

// in returns the sequence after which the consumer begins in a partition.
func (f *start) in(ctx context.Context, p *replay.Partition) (after uint64, err error) {
	switch {
	case f.beginning:
		return 0, nil
	case f.month != "":
		after, _, err = p.Month(ctx, f.month)
		return min(after, p.Heads.Decisions), err
	case f.position == nil:
		return p.Heads.Decisions, nil
	case f.position.Sequence > p.Heads.Decisions:
		return 0, usage("--from %s is not there yet: the last decision is %s", f.position, events.Position{Partition: p.Number, Sequence: p.Heads.Decisions})
	}
	return f.position.Sequence, nil
}
