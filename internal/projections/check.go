package projections

import (
	"context"
	"errors"
	"fmt"

	"jobtally/internal/events"
)

// Check returns the heads of the partition, or ErrMismatch, with the remedy, for a projection that is not of a prefix
// of this ledger.
func (p *Projector) Check(ctx context.Context) (events.Heads, error) {
	if err := p.db.settle(p.partition); err != nil {
		return events.Heads{}, err
	}
	heads, err := p.ledger.Heads(ctx, p.partition)
	if err != nil {
		return heads, err
	}
	folded := p.db.Folded(p.partition)
	if heads.Decisions > heads.Requests {
		return heads, fmt.Errorf("%w: partition %d has decisions up to %d, but requests only up to %d: requests were lost, as a sync policy weaker than always allows; restore %s from a backup of the NATS server",
			ErrMismatch, p.partition, heads.Decisions, heads.Requests, events.Requests.Name(p.partition))
	}
	if folded > heads.Requests {
		return heads, fmt.Errorf("%w: partition %d is folded up to %d, but has requests only up to %d; %s",
			ErrDiffers, p.partition, folded, heads.Requests, p.db.removal())
	}
	return heads, p.checkDigest(ctx, min(folded, heads.Decisions))
}

// checkDigest compares the last decision that is both folded and in the ledger.
func (p *Projector) checkDigest(ctx context.Context, sequence uint64) error {
	if sequence == 0 {
		return nil
	}
	position := events.Position{Partition: p.partition, Sequence: sequence}
	m, err := p.ledger.Get(ctx, events.Decisions, position)
	if errors.Is(err, events.ErrNotFound) {
		return fmt.Errorf("%w: message %d of %s was removed; restore it from a backup of the NATS server",
			events.ErrGap, sequence, events.Decisions.Name(p.partition))
	}
	if err != nil {
		return err
	}
	recorded, err := p.decodeDecision(m)
	if err != nil {
		return err
	}
	return p.compare(ctx, &recorded)
}

// compare refuses a decision of the ledger that is another one than was folded under its position.
func (p *Projector) compare(ctx context.Context, recorded *events.Decision) error {
	folded, err := p.db.Decision(ctx, recorded.Position)
	if errors.Is(err, events.ErrNotFound) {
		return fmt.Errorf("%w: decision %s is not in %s; %s", ErrMismatch, recorded.Position, p.db.path, p.db.remedy())
	}
	if err == nil && recorded.Digest != folded.Digest {
		return fmt.Errorf("%w: decision %s is another one than was folded; %s", ErrDiffers, recorded.Position, p.db.removal())
	}
	return err
}

// Restore takes stock, and appends again what the projection has and the decisions lost.
func (p *Projector) Restore(ctx context.Context) error {
	heads, err := p.Check(ctx)
	if err != nil {
		return err
	}
	return p.restore(ctx, heads.Decisions)
}

// restore appends again what the projection has and the decisions lost: their tail is not synced to disk, and may die
// with the server. The bytes and numbers are the same.
func (p *Projector) restore(ctx context.Context, head uint64) error {
	for folded := p.db.Folded(p.partition); head < folded; {
		decisions, err := p.db.Decisions(ctx, p.partition, head, maxAppend)
		if err != nil {
			return err
		}
		if err := p.checkRequests(ctx, head, decisions); err != nil {
			return err
		}
		if err := p.ledger.AppendDecisions(ctx, p.partition, head, messages(decisions)); err != nil {
			return err
		}
		p.log.Info("appended lost decisions again", "from", head+1, "to", head+uint64(len(decisions)))
		head += uint64(len(decisions))
	}
	return nil
}

// checkRequests refuses decisions that are not on the requests under their numbers: the ledger may have lost those, and
// taken others since.
func (p *Projector) checkRequests(ctx context.Context, after uint64, decisions []events.Decision) error {
	for batch, err := range p.ledger.Read(ctx, events.Requests, p.partition, after) {
		if err != nil {
			return err
		}
		for _, m := range batch {
			d := decisions[0]
			r, err := events.DecodeRequest(m, p.partition, p.ledger.Partitions)
			if err == nil && r.Digest != d.RequestDigest {
				return fmt.Errorf("%w: decision %s is on another request than the ledger has there: requests were lost after they were decided; %s",
					ErrDiffers, d.Position, p.db.removal())
			}
			if decisions = decisions[1:]; err != nil || len(decisions) == 0 {
				return err
			}
		}
	}
	return nil
}
