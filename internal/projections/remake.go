package projections

import (
	"context"
	"errors"
	"fmt"

	"jobtally/internal/events"
)

// remake makes decisions again that neither the ledger nor the projection has: the ledger lost its tail, and with it the
// erasure of an account, whose decisions before that the projection does not have any more. Nothing was removed from the
// requests then, for that begins when the erasure is on disk. So they are decided once more, on what a projection of its
// own makes of the decisions that the ledger has. What both projections have must be the same.
func (p *Projector) remake(ctx context.Context, head uint64) (err error) {
	path := p.remakePath()
	if err := discard(path); err != nil {
		return err
	}
	db, err := open(path, p.db.ledgerID, p.ledger.Partitions, "it is removed")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close(), discard(path)) }()
	r := remaking{p: p, again: NewProjector(db, p.ledger, p.partition, false, p.log)}
	if err := r.again.foldTo(ctx, head); err != nil {
		return err
	}
	if r.erased, err = p.lastErased(ctx, head); err != nil {
		return err
	}
	p.log.Info("making lost decisions again", "from", head+1, "to", p.db.Folded(p.partition))
	return r.decide(ctx, head)
}

// remakePath is where the projection of a remake is, if one is under way or was cut short.
func (p *Projector) remakePath() string {
	return beside(p.db.path, fmt.Sprintf("remake-%d", p.partition))
}

// remaking is a remake under way.
type remaking struct {
	p     *Projector
	again *Projector // of the projection of its own

	erased erasedAccounts
}

// decide decides the requests from the head up to where the projection is folded.
func (r *remaking) decide(ctx context.Context, head uint64) error {
	var flight inFlight
	partition := r.p.partition
	last := r.p.db.Folded(partition)
	for batch, err := range r.p.ledger.Read(ctx, events.Requests, partition, head) {
		if err != nil {
			return err
		}
		batch = batch[:min(uint64(len(batch)), last-r.again.db.Folded(partition))]
		requests, unreadable := r.again.decodeRequests(batch)
		for _, part := range parts(requests) {
			decisions, err := r.again.decideBatch(ctx, part, &flight)
			if err != nil {
				return err
			}
			if err := r.record(ctx, decisions); err != nil {
				return err
			}
		}
		if unreadable != nil || r.again.db.Folded(partition) == last {
			return unreadable
		}
	}
	return nil
}

// record appends decisions that were made again, if they are those that were folded.
func (r *remaking) record(ctx context.Context, decisions []events.Decision) error {
	for i := range decisions {
		if _, err := r.p.compare(ctx, &decisions[i], r.erased); err != nil {
			return err
		}
	}
	if err := r.p.ledger.AppendDecisions(ctx, r.p.partition, decisions[0].Position.Sequence-1, messages(decisions)); err != nil {
		return err
	}
	return r.again.db.Apply(r.p.partition, decisions)
}
