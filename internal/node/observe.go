package node

import (
	"context"
	"errors"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/ledger"
	"jobtally/internal/projections"
)

// Observer is told what the parts of a node do.
type Observer struct {
	Ledger    ledger.Observer
	Projector projections.Observer
}

// Lag is how far a partition is behind on a node.
type Lag struct {
	Undecided uint64        // requests without a decision
	Unfolded  uint64        // requests that are not folded here, decided or not
	Age       time.Duration // of the oldest of these, by its own time; 0 where there is none, or its clock was ahead
	Failing   bool          // its projector makes no progress
}

// Lag returns how far a partition is behind now. The error is that of a ledger that does not answer.
func (n *Node) Lag(ctx context.Context, partition int) (lag Lag, err error) {
	lag.Failing = n.projectors[partition].Failure() != nil
	folded := n.Projection.Folded(partition) // read before the heads, or it could seem to be ahead
	heads, err := n.Ledger.Heads(ctx, partition)
	if err != nil {
		return lag, err
	}
	lag.Undecided = heads.Requests - min(heads.Requests, heads.Decisions)
	lag.Unfolded = heads.Requests - min(heads.Requests, folded)
	if lag.Unfolded == 0 {
		return lag, nil
	}
	oldest, err := n.Ledger.Next(ctx, events.Requests, partition, folded)
	if errors.Is(err, events.ErrNotFound) { // erased, all that is left
		return lag, nil
	}
	if err != nil {
		return lag, err
	}
	r, _ := events.DecodeRequest(oldest, partition, n.Ledger.Partitions) // what cannot be read has no time
	lag.Age = time.Duration(age(r.Time) * float64(time.Second))
	return lag, nil
}

// LogBytes is the size of the write-ahead log of the projection.
func (n *Node) LogBytes() int64 { return size(n.rebuild.Path + "-wal") }
