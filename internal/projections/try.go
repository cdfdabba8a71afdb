package projections

import (
	"context"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// Try returns the decisions that requests of one account would get if they were the next, in order. Nothing is recorded. They
// are decided as any other requests are, on what is folded. The error is ErrUnavailable while the file is only read. It must
// not hold off a Replace, which waits for that with the lock of a Load taken: the Load is enough. However many try, those who
// decide wait for the Load of one.
func (db *DB) Try(_ context.Context, requests []*events.Request) ([]events.Decision, error) {
	partition := events.PartitionOf(requests[0].Account, len(db.partitions))
	decoded := make([]events.Request, len(requests))
	for i, r := range requests {
		m := r.Message(len(db.partitions))
		m.Sequence = uint64(i + 1) // a number to decode it with; the real one follows
		var err error
		if decoded[i], err = events.DecodeRequest(m, partition, len(db.partitions)); err != nil {
			return nil, err
		}
	}
	db.tryMu.Lock()
	state, position, err := db.Load(partition, decoded)
	db.tryMu.Unlock()
	if err != nil {
		return nil, err
	}
	decisions := make([]events.Decision, len(decoded))
	for i := range decoded {
		decoded[i].Position.Sequence = position + uint64(i) + 1
		decisions[i] = capture.Decide(state, &decoded[i])
		state.Fold(&decisions[i])
	}
	return decisions, nil
}
