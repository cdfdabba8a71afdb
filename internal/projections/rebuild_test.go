package projections

import (
	"context"
	"iter"
	"slices"

	"jobtally/internal/events"
)

// rebuild folds the ledger of a service anew, with a function that is called between the steps.
func (s *service) rebuild(step func(string)) Rebuild {
	return Rebuild{Path: s.path("projection"), LedgerID: s.ID, Ledger: s.house.seam(), step: step}
}

// rebuildOf folds decisions that are in no ledger.
func rebuildOf(path string, decisions []events.Decision) Rebuild {
	head := uint64(len(decisions))
	recorded := messages(decisions)
	for i := range recorded {
		recorded[i].Sequence = uint64(i + 1)
	}
	return Rebuild{Path: path, LedgerID: "the-ledger", Ledger: Ledger{
		Partitions: 1,
		Heads: func(context.Context, int) (events.Heads, error) {
			return events.Heads{Requests: head, Decisions: head}, nil
		},
		Get: func(_ context.Context, _ events.Stream, p events.Position) (events.Message, error) {
			return recorded[p.Sequence-1], nil
		},
		Read: func(_ context.Context, _ events.Stream, _ int, after uint64) iter.Seq2[[]events.Message, error] {
			return func(yield func([]events.Message, error) bool) { yield(slices.Clone(recorded[after:]), nil) }
		},
	}}
}
