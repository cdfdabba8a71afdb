package projections

import (
	"context"
	"errors"
	"fmt"
	"time"

	"jobtally/internal/events"
)

// strayPause is for how long a projector lets come what was under way when an account was erased, before it has that
// erased too.
const strayPause = time.Second

// removeErased sees to it, while the projector decides, that nothing is left in the ledger of what was erased. It begins
// with all erasures that are folded, for any of them may have been cut short; two projectors may remove the same.
func (p *Projector) removeErased(ctx context.Context) {
	if p.ledger.Erase == nil {
		return
	}
	removed, failure := map[string]uint64{}, ""
	for ctx.Err() == nil {
		err := p.removeDue(ctx, removed)
		if err == nil {
			failure = ""
			p.awaitToRemove(ctx)
			continue
		}
		if ctx.Err() == nil && err.Error() != failure {
			failure = err.Error()
			p.log.Warn("what was erased could not be removed from the ledger; trying until it can", "error", err)
		}
		pause(ctx, retryAfter)
	}
}

func (p *Projector) awaitToRemove(ctx context.Context) {
	select {
	case <-p.toRemove:
	case <-ctx.Done():
	}
}

// noteToRemove has removeErased look again if decisions that are folded leave something to be removed.
func (p *Projector) noteToRemove(decisions []events.Decision) {
	for i := range decisions {
		if leavesToRemove(&decisions[i]) {
			select {
			case p.toRemove <- struct{}{}:
			default: // it will look
			}
			return
		}
	}
}

// leavesToRemove says whether there may be messages to remove once a decision is folded: by an erasure, or of a request
// that came for an account after it was erased.
func leavesToRemove(d *events.Decision) bool {
	switch b := d.Body.(type) {
	case *events.AccountErased:
		return true
	case *events.RequestRefused:
		return b.Reason == events.ReasonAccountUnknown || b.Reason == events.ReasonMalformed
	}
	return false
}

// removeDue removes what the erasures so far leave to be removed, and notes the erasures that are done with, by account.
func (p *Projector) removeDue(ctx context.Context, removed map[string]uint64) error {
	erasures, err := p.db.lastErasures(p.partition)
	if err != nil {
		return err
	}
	strays := false
	for _, e := range erasures {
		if removed[e.account] < e.position.Sequence {
			if err := p.remove(ctx, e); err != nil {
				return err
			}
			removed[e.account] = e.position.Sequence
		}
		strays = strays || e.strays
	}
	if !strays || !pause(ctx, strayPause) {
		return nil
	}
	return p.eraseStrays(ctx)
}

// remove removes what is left of one account. Mostly that is nothing: whether it is, the ledger is asked first, for
// removing takes a sync of the disk.
func (p *Projector) remove(ctx context.Context, e lastErasure) error {
	left, err := p.ledger.Unremoved(ctx, e.account, e.position)
	if err != nil || left == 0 {
		return err
	}
	n, err := p.ledger.Erase(ctx, e.account, e.position.Sequence, func(int, int) {})
	if err != nil {
		return fmt.Errorf("erasure %s: %w", e.position, err)
	}
	p.log.Info("erased account removed from the ledger", "erasure", e.position, "messages", n)
	return nil
}

// Unremoved returns how many messages of an account the ledger still has, of those that its erasure at a position removes.
func (l *Ledger) Unremoved(ctx context.Context, account string, erasure events.Position) (n int, err error) {
	for _, stream := range []events.Stream{events.Decisions, events.Requests} {
		subjects := []string{stream.SubjectOf(account, erasure.Partition)}
		for batch, err := range l.ReadTo(ctx, stream, erasure.Partition, subjects, 0, erasure.Sequence-1) {
			if err != nil {
				return n, err
			}
			for i := range batch {
				if !batch[i].Remains() {
					n++
				}
			}
		}
	}
	return n, nil
}

// eraseStrays asks for the erasure of accounts of which something came after they were erased: a capture that was under
// way then is refused, and its request, with all that it says, stands in the ledger all the same. An account that was
// opened again keeps what it has.
func (p *Projector) eraseStrays(ctx context.Context) error {
	erasures, err := p.db.lastErasures(p.partition)
	if err != nil {
		return err
	}
	for _, e := range erasures {
		if !e.strays {
			continue
		}
		position, err := p.ledger.AppendUnopened(ctx, &events.Request{
			Account: e.account, ID: "erase-after-" + e.position.String(), Time: p.ledger.Now().UTC(), Body: &events.AccountEraseRequested{},
		})
		if errors.Is(err, events.ErrFenced) {
			continue
		}
		if err != nil {
			return err
		}
		if _, err := p.db.Await(ctx, position); err != nil { // folded, it has this loop go round
			return err
		}
		p.log.Info("requests came for an erased account, and are erased too", "erasure", e.position, "again", position)
	}
	return nil
}

// lastErasure is the last erasure of an account.
type lastErasure struct {
	account  string
	position events.Position
	strays   bool // whether the account is not open, and something of it came since
}

func (db *DB) lastErasures(partition int) (erasures []lastErasure, err error) {
	if err := db.hold(&db.reads.lastErasures); err != nil {
		return nil, err
	}
	defer db.pass()
	rows, err := db.reads.lastErasures.QueryContext(context.Background(), partition)
	if err != nil {
		return nil, db.readError(err)
	}
	defer rows.Close()
	for rows.Next() {
		e := lastErasure{position: events.Position{Partition: partition}}
		if err := rows.Scan(&e.account, &e.position.Sequence, &e.strays); err != nil {
			return nil, db.readError(err)
		}
		erasures = append(erasures, e)
	}
	return erasures, db.readError(rows.Err())
}
