package node

import (
	"context"
	"fmt"
	"slices"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/projections"
)

// Append records a request durably and returns its position. The error is ErrUnavailable, with nothing recorded, also
// when the partition's projector is stopped or too many requests wait for it; and ErrUnknownOutcome.
func (n *Node) Append(ctx context.Context, r *events.Request) (events.Position, error) {
	partition := events.PartitionOf(r.Account, n.Ledger.Partitions)
	folded, err := n.admit(partition)
	if err != nil {
		return events.Position{}, err
	}
	position, err := n.Ledger.Append(ctx, r)
	if err != nil {
		return events.Position{}, err
	}
	return position, n.appended(position, folded)
}

// AppendAll records requests of one account likewise, as one group, and returns the position or the error of each. They are
// admitted together, or none is.
func (n *Node) AppendAll(ctx context.Context, requests []*events.Request) ([]events.Position, []error) {
	folded, err := n.admit(events.PartitionOf(requests[0].Account, n.Ledger.Partitions))
	if err != nil {
		return make([]events.Position, len(requests)), slices.Repeat([]error{err}, len(requests))
	}
	positions, errs := n.Ledger.AppendAll(ctx, requests)
	for i, position := range positions {
		if errs[i] == nil {
			errs[i] = n.appended(position, folded)
		}
	}
	return positions, errs
}

// admit returns up to where a partition is folded, or ErrUnavailable while it takes no requests.
func (n *Node) admit(partition int) (folded uint64, err error) {
	if n.Projection.Outdated() {
		return 0, fmt.Errorf("%w: %w", events.ErrUnavailable, n.renewal.progress())
	}
	if err := n.projectors[partition].Failure(); err != nil {
		// Not wrapped: that the outcome of a decision is unknown, say, is not so of this request.
		return 0, fmt.Errorf("%w: %v", events.ErrUnavailable, err)
	}
	folded = n.Projection.Folded(partition)
	return folded, n.backlogs[partition].check(folded, time.Now())
}

// appended takes in the position that a request was given, before which the partition was folded up to another.
func (n *Node) appended(position events.Position, folded uint64) error {
	if position.Sequence <= folded {
		return fmt.Errorf("%w: %w: it gave position %s, which is folded here: it lost requests",
			events.ErrUnknownOutcome, projections.ErrMismatch, position)
	}
	n.backlogs[position.Partition].add(position.Sequence, folded, time.Now())
	return nil
}
