package ledger

import (
	"context"

	"jobtally/internal/events"
)

// Pruned returns the first number that the decisions of a partition go back to, where of those after a sequence some are
// missing before it that were not erased with their account; and 0 where none are.
func (l *Ledger) Pruned(ctx context.Context, after events.Position) (first uint64, err error) {
	state, err := l.state(ctx, events.Decisions, after.Partition)
	if err != nil || state.FirstSeq <= after.Sequence+1 {
		return 0, err
	}
	v, err := l.voids(ctx, events.Decisions, after.Partition)
	if err != nil || v.explain(after.Sequence+1, v.first-1) {
		return 0, err
	}
	return v.first, nil
}
