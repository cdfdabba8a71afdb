package projections

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"jobtally/internal/events"
)

// foldTo folds the decisions that are in the ledger up to head, and not beyond.
func (p *Projector) foldTo(ctx context.Context, head uint64) error {
	folded := p.db.Folded(p.partition)
	if folded >= head {
		return nil
	}
	erased, err := p.lastErased(ctx, head)
	if err != nil {
		return err
	}
	for batch, err := range p.ledger.Read(ctx, events.Decisions, p.partition, folded) {
		if err != nil {
			return err
		}
		for len(batch) > 0 && batch[len(batch)-1].Sequence > head {
			batch = batch[:len(batch)-1]
		}
		if err := p.foldMessages(ctx, batch, erased); err != nil {
			return err
		}
		if p.db.Folded(p.partition) >= head {
			return nil
		}
	}
	return nil
}

// foldMessages folds decisions as the ledger has them. Those that are folded already must be the ones it has. What is of an
// account that was erased later is a void, also where it is not removed yet: before the reader began, this projection may
// have folded voids of the same account, from which it does not follow.
func (p *Projector) foldMessages(ctx context.Context, batch []events.Message, erased erasedAccounts) error {
	folded := p.db.Folded(p.partition)
	decisions := make([]events.Decision, 0, len(batch))
	for _, m := range batch {
		d, err := p.decodeDecision(m)
		if err != nil {
			return err
		}
		if erased.erases(&d) {
			d = events.Decision{Position: d.Position, Body: &events.Erased{}}
		}
		if d.Position.Sequence > folded {
			decisions = append(decisions, d)
		} else if _, err := p.compare(ctx, &d, erased); err != nil {
			return err
		}
	}
	return p.apply(decisions)
}

// decodeDecision reads a decision of the ledger. One that cannot be read stops the partition.
func (p *Projector) decodeDecision(m events.Message) (events.Decision, error) {
	d, err := events.DecodeDecision(m, p.partition)
	if errors.Is(err, events.ErrUnknownType) {
		return d, fmt.Errorf("%w; a newer jobtally wrote it: run that one", err)
	}
	if err != nil {
		return d, fmt.Errorf("%w: %w; restore %s from a backup of the NATS server", ErrMismatch, err, events.Decisions.Name(p.partition))
	}
	return d, nil
}

func (p *Projector) apply(decisions []events.Decision) error {
	began := time.Now()
	if err := p.db.Apply(p.partition, decisions); err != nil {
		return err
	}
	p.tellFolded(decisions, began)
	p.setFailure(nil)
	p.noteToRemove(decisions)
	return nil
}

var errImpatient = errors.New("requests stay undecided")

// standBy folds what another projector decides. It returns nil once requests stayed undecided for longer than patience.
func (p *Projector) standBy(ctx context.Context) error {
	heads, err := p.check(ctx)
	if err != nil {
		return err
	}
	return p.follow(ctx, heads.Decisions, patience)
}

// follow folds what others decide, given the head of their decisions. With a patience it returns nil once requests
// stayed undecided for that long. Where the projection is ahead of the head, it sees to it that the decisions which are
// made again there are the same.
func (p *Projector) follow(ctx context.Context, head uint64, patience time.Duration) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if patience > 0 {
		var watching sync.WaitGroup
		defer watching.Wait()
		defer cancel(nil)
		watching.Go(func() { p.watch(ctx, patience, cancel) })
	}
	erased, err := p.lastErased(ctx, head)
	if err != nil {
		return err
	}
	for batch, err := range p.ledger.Read(ctx, events.Decisions, p.partition, min(head, p.db.Folded(p.partition))) {
		if errors.Is(context.Cause(ctx), errImpatient) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := p.foldMessages(ctx, batch, erased); err != nil {
			return err
		}
	}
	return nil
}

// watch ends the following when nothing was decided for the length of patience although there is something to decide, or a
// month to close.
func (p *Projector) watch(ctx context.Context, patience time.Duration, cancel context.CancelCauseFunc) {
	for last := p.db.Folded(p.partition); pause(ctx, patience); {
		heads, err := p.ledger.Heads(ctx, p.partition)
		folded := p.db.Folded(p.partition)
		if err == nil && folded == last && heads.Decisions <= folded && (heads.Requests > folded || p.overdue()) {
			cancel(errImpatient)
			return
		}
		last = folded
	}
}
