package node

import (
	"context"

	"jobtally/internal/capture"
	"jobtally/internal/events"
	"jobtally/internal/replay"
)

// viaExtension is the way of capturing through the browser extension.
const viaExtension = "extension"

// Replay reads from the ledger what it has of a month of an account, up to the position at which the projection had it.
// The errors are those of replay.MonthAsOf.
func (n *Node) Replay(ctx context.Context, account string, m *capture.AccountMonth) (capture.ReplayedMonth, error) {
	l := n.Ledger
	source := replay.Source{ID: l.ID, Partitions: l.Partitions, Heads: l.Heads, ReadTo: l.ReadTo}
	sum, err := source.MonthAsOf(ctx, account, m.Month, m.First.Sequence, m.At)
	if err != nil {
		return capture.ReplayedMonth{}, err
	}
	replayed := capture.ReplayedMonth{
		MonthCount: capture.MonthCount{Tally: sum.Tally, Extension: sum.Via[viaExtension]},
		First:      events.Position{Partition: m.At.Partition, Sequence: sum.After + 1},
		Last:       events.Position{Partition: m.At.Partition, Sequence: sum.Last},
		Messages:   sum.Messages, Broken: sum.Broken,
	}
	for _, d := range sum.Days {
		replayed.Days = append(replayed.Days, capture.DayCount{Day: d.Date, Captured: d.Captured, Duplicated: d.Duplicated, Rejected: d.Rejected})
	}
	return replayed, nil
}
