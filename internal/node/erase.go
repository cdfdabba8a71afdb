package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"jobtally/internal/events"
)

// removePoll is how often an operator looks how far the running service is with removing.
const removePoll = time.Second

// ErrNoAccount is the error of an account that is not there and never was.
var ErrNoAccount = errors.New("there is no such account")

// Erasure is the erasure of an account by an operator.
type Erasure struct {
	// Again says that the account is erased, or about to be, and that nothing was asked of it since: there is nothing to ask
	// for, only the removing to be finished.
	Again bool

	operator *Operator
	account  string
	last     events.Position // of the last request to erase it; no sequence where there is none
}

// Erasure returns the erasure of an account. The error is ErrNoAccount where nothing was ever asked of it. Nothing is done
// yet.
func (o *Operator) Erasure(ctx context.Context, account string) (*Erasure, error) {
	p := events.PartitionOf(account, o.Ledger.Partitions)
	e := &Erasure{operator: o, account: account, last: events.Position{Partition: p}}
	heads, err := o.Ledger.Heads(ctx, p)
	if err != nil {
		return nil, err
	}
	asked := false
	for batch, err := range o.Ledger.ReadTo(ctx, events.Requests, p, []string{events.Requests.SubjectOf(account, p)}, 0, heads.Requests) {
		if err != nil {
			return nil, err
		}
		for i := range batch {
			asked, e.Again = true, batch[i].Remains()
			if e.Again {
				e.last.Sequence = batch[i].Sequence
			}
		}
	}
	if !asked {
		return nil, fmt.Errorf("%w: nothing was ever asked of %s", ErrNoAccount, account)
	}
	return e, nil
}

// Decide returns the decision that erases the account: that on the request, or one that erases all there is already.
func (e *Erasure) Decide(ctx context.Context, r *events.Request) (d events.Decision, err error) {
	if e.Again {
		if d, err = e.operator.await(ctx, e.last); err != nil {
			return d, err
		}
		if _, erased := d.Body.(*events.AccountErased); erased {
			e.operator.settle(ctx, e.last)
			return d, nil
		}
		// A request that could not be read: it erased nothing.
	}
	return e.operator.Decide(ctx, r)
}

// Remove returns once nothing is left in the ledger of what the decision erased. Where the ledger is that of a running
// service, the service removes it, and the account's webhooks; where nothing runs both are removed here.
func (e *Erasure) Remove(ctx context.Context, d *events.Decision, progress func(removed, total int)) error {
	if !e.operator.foreign {
		_, err := e.operator.Ledger.Erase(ctx, e.account, d.Position.Sequence, progress)
		if err == nil && e.operator.Alone {
			err = e.operator.sweepWebhooks(ctx)
		}
		return err
	}
	ledger, total := seam(e.operator.Ledger, nil), 0
	for {
		left, err := ledger.Unremoved(ctx, e.account, d.Position)
		if err != nil || left == 0 {
			return err
		}
		total = max(total, left)
		progress(total-left, total)
		select {
		case <-time.After(removePoll):
		case <-ctx.Done():
			return errors.New("not waited for: the service goes on removing by itself")
		}
	}
}
