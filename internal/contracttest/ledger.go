package contracttest

import (
	"context"
	"errors"
	"iter"

	"jobtally/internal/events"
)

// Ledger is what CheckLedger reads.
type Ledger interface {
	Heads(ctx context.Context, partition int) (events.Heads, error)
	ReadTo(ctx context.Context, stream events.Stream, partition int, filters []string, after, last uint64) iter.Seq2[[]events.Message, error]
}

// CheckLedger returns the types of all decisions that a ledger has, and of the events that come of them, and what in them is not
// as the contract says. What cannot be read is not checked: a test may be about just that.
func (e *Events) CheckLedger(ctx context.Context, l Ledger, partitions int) (types []string, wrong error) {
	for p := range partitions {
		heads, err := l.Heads(ctx, p)
		if err != nil {
			return types, wrong
		}
		for batch, err := range l.ReadTo(ctx, events.Decisions, p, nil, 0, heads.Decisions) {
			if err != nil {
				return types, wrong
			}
			for _, m := range batch {
				told, err := e.CheckDecision(m, p)
				types, wrong = append(types, told...), errors.Join(wrong, err)
			}
		}
	}
	return types, wrong
}
