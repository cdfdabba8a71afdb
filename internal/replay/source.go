// Package replay reads again what a ledger, or an exported month of one, holds: requests and decisions in pairs, those of
// a month, an account, or a stretch. It decides nothing and folds nothing.
package replay

import (
	"context"
	"iter"

	"jobtally/internal/events"
)

// Source is where pairs are read from, as function values: the streams of a ledger, or the files of an archive.
type Source struct {
	ID         string // of the ledger
	Partitions int
	// Partial says that numbers may be missing by right: what is read is some months of a ledger, and proved otherwise.
	Partial bool
	// Heads returns the last sequences of the pair of a partition.
	Heads func(ctx context.Context, partition int) (events.Heads, error)
	// ReadTo yields the messages there are after one sequence up to another, in order; those under the subjects, or all
	// where there are none.
	ReadTo func(ctx context.Context, stream events.Stream, partition int, subjects []string, after, last uint64) iter.Seq2[[]events.Message, error]
}

// Archives returns the archived months of a partition, in order. It reads these decisions and no other.
func (s Source) Archives(ctx context.Context, partition int) ([]Archive, error) {
	heads, err := s.Heads(ctx, partition)
	if err != nil {
		return nil, err
	}
	return s.archives(ctx, partition, heads.Decisions)
}

// Pairs yields the pairs of a partition as Partition.Pairs does, of what is there when it begins.
func (s Source) Pairs(ctx context.Context, partition int, account string, after, last uint64) iter.Seq2[Pair, error] {
	return func(yield func(Pair, error) bool) {
		p, err := s.Partition(ctx, partition)
		if err != nil {
			yield(Pair{}, err)
			return
		}
		p.Pairs(ctx, account, after, last)(yield)
	}
}
