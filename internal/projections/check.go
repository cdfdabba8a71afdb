package projections

import (
	"context"
	"errors"
	"fmt"
	"time"

	"jobtally/internal/events"
)

// Check returns the heads of the partition, or ErrMismatch, with the remedy, for a projection that is not of a prefix
// of this ledger. Of a ledger that may answer from its past it says so only of what is found for as long as that may last.
func (p *Projector) Check(ctx context.Context) (events.Heads, error) {
	heads, err := p.check(ctx)
	if final(err) && p.ledger.Doubt > 0 {
		p.log.Warn("looking whether that stays so", "for", p.ledger.Doubt, "error", err)
	}
	for since := time.Now(); final(err) && time.Since(since) < p.ledger.Doubt && pause(ctx, retryAfter); {
		heads, err = p.check(ctx)
	}
	return heads, err
}

// check is Check of what the ledger says now.
func (p *Projector) check(ctx context.Context) (events.Heads, error) {
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
	return heads, p.checkDigest(ctx, min(folded, heads.Decisions), heads.Decisions)
}

// checkDigest compares the last decision that is both folded and in the ledger, given the head of that. What was erased with
// its account is in one of the two, or in none, and says nothing: then it is the last decision before that.
func (p *Projector) checkDigest(ctx context.Context, sequence, head uint64) error {
	if sequence == 0 {
		return nil
	}
	erased, err := p.lastErased(ctx, head)
	if err != nil {
		return err
	}
	for {
		compared, err := p.compareAt(ctx, sequence, erased)
		if err != nil || compared {
			return err
		}
		before, err := p.db.lastDecision(p.partition, sequence)
		if errors.Is(err, events.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		sequence = before.Position.Sequence
	}
}

// compareAt compares the decision at a sequence, and returns false where there is none because it was erased.
func (p *Projector) compareAt(ctx context.Context, sequence uint64, erased erasedAccounts) (compared bool, err error) {
	position := events.Position{Partition: p.partition, Sequence: sequence}
	m, err := p.ledger.Get(ctx, events.Decisions, position)
	if errors.Is(err, events.ErrNotFound) {
		return false, p.explainRemoved(ctx, position, erased)
	}
	if err != nil {
		return false, err
	}
	recorded, err := p.decodeDecision(m)
	if err != nil {
		return false, err
	}
	return p.compare(ctx, &recorded, erased)
}

// explainRemoved returns ErrGap unless the ledger lacks a decision because it was erased.
func (p *Projector) explainRemoved(ctx context.Context, position events.Position, erased erasedAccounts) error {
	folded, err := p.db.Decision(ctx, position)
	if err != nil && !errors.Is(err, events.ErrNotFound) {
		return err
	}
	if !erased.after(folded.Account, position.Sequence) { // of any account, where it was a void already when it was folded
		return fmt.Errorf("%w: message %d of %s was removed; restore it from a backup of the NATS server",
			events.ErrGap, position.Sequence, events.Decisions.Name(p.partition))
	}
	return nil
}

// compare refuses a decision of the ledger that is another one than was folded under its position. It returns false where
// none is there, because it was erased.
func (p *Projector) compare(ctx context.Context, recorded *events.Decision, erased erasedAccounts) (compared bool, err error) {
	if _, void := recorded.Body.(*events.Erased); void {
		return false, nil
	}
	folded, err := p.db.Decision(ctx, recorded.Position)
	if errors.Is(err, events.ErrNotFound) {
		if erased.erases(recorded) {
			return false, nil
		}
		return false, fmt.Errorf("%w: decision %s is not in %s; %s", ErrMismatch, recorded.Position, p.db.path, p.db.remedy())
	}
	if err == nil && recorded.Digest != folded.Digest {
		return false, fmt.Errorf("%w: decision %s is another one than was folded; %s", ErrDiffers, recorded.Position, p.db.removal())
	}
	return true, err
}

// erasedAccounts has the last erasure of each account that was erased.
type erasedAccounts map[string]uint64

// lastErased reads them, as far as they are folded here, or decided in the ledger up to a head: either may be ahead.
func (p *Projector) lastErased(ctx context.Context, head uint64) (erasedAccounts, error) {
	last := erasedAccounts{}
	folded, err := p.db.lastErasures(p.partition)
	if err != nil {
		return nil, err
	}
	for _, e := range folded {
		last[e.account] = e.position.Sequence
	}
	decided, err := p.ledger.Erasures(ctx, p.partition, head)
	for i := range decided {
		last[decided[i].Account] = max(last[decided[i].Account], decided[i].Position.Sequence)
	}
	return last, err
}

// after says whether an account, or any where it is empty, was erased after a sequence.
func (e erasedAccounts) after(account string, sequence uint64) bool {
	if account != "" {
		return e[account] > sequence
	}
	for _, erasure := range e {
		if erasure > sequence {
			return true
		}
	}
	return false
}

// erases says whether a decision is one of those that a later erasure removes.
func (e erasedAccounts) erases(d *events.Decision) bool {
	return d.Account != "" && e.after(d.Account, d.Position.Sequence) && !erases(d)
}

// Restore takes stock, and appends again what the projection has and the decisions lost.
func (p *Projector) Restore(ctx context.Context) error {
	heads, err := p.check(ctx)
	if err != nil {
		return err
	}
	return p.restore(ctx, heads.Decisions)
}

// restore appends again what the projection has and the decisions lost: their tail is not synced to disk, and may die
// with the server. The bytes and numbers are the same. What the projection erased meanwhile is made again.
func (p *Projector) restore(ctx context.Context, head uint64) error {
	for folded := p.db.Folded(p.partition); head < folded; {
		decisions, err := p.db.Decisions(ctx, p.partition, head, maxAppend)
		if err != nil {
			return err
		}
		if follow(events.Position{Partition: p.partition, Sequence: head}, decisions) != nil || len(decisions) == 0 {
			return p.remake(ctx, head)
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
