package projections

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"jobtally/internal/events"
)

// fault is what happens at a site, once it is armed, to one batch of a size: to one call, or to as many request appends.
type fault struct {
	site, kind string
	size       int

	least         atomic.Int64 // requests that are held back until there are so many, so that they are decided as one batch
	armed         atomic.Bool
	calls         atomic.Int64   // at the site, since it is armed
	arrived, done sync.WaitGroup // for those that meet the fault
}

func newFault(site, kind string, size int) *fault {
	f := &fault{site: site, kind: kind, size: size}
	f.arrived.Add(f.victims())
	f.done.Add(f.victims())
	return f
}

func (f *fault) victims() int {
	if f.site == requestAppend {
		return f.size
	}
	return 1
}

func (f *fault) kills() bool { return f.kind == killedBefore || f.kind == killedAfter }

func (f *fault) happened() bool { return f.calls.Load() >= int64(f.victims()) }

// batchUp has requests decided in batches of the size.
func (f *fault) batchUp() { f.least.Store(int64(f.size)) }

// arm has the fault happen to what comes now. Requests that meet one are not decided before it is over.
func (f *fault) arm() {
	if f.site == requestAppend {
		f.least.Store(int64(2 * f.size))
	}
	f.armed.Store(true)
}

// meet makes a call at a site, unless the fault happens to it. How a call fails that did nothing is the site's to say.
func (f *fault) meet(site string, call, fail func() error) error {
	if f == nil || site != f.site || !f.armed.Load() || f.calls.Add(1) > int64(f.victims()) {
		return call()
	}
	f.arrived.Done()
	f.arrived.Wait()
	defer f.least.Store(1)
	switch f.kind {
	case fails:
		return fail()
	case persists:
		if err := call(); err != nil {
			return err
		}
		return fmt.Errorf("%w: %w", events.ErrUnknownOutcome, errInjected)
	case killedBefore:
		die()
	case killedAfter:
		if err := call(); err != nil {
			return err
		}
		f.done.Done()
		f.done.Wait()
		die()
	}
	panic(f.kind)
}

// die ends the process as the kernel ends one for lack of memory: nothing is closed, flushed or answered.
func die() {
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal comes any moment
}

// The wrappers of the three sites, and of the reading that decides what is one batch.

func (f *fault) appendRequest(record func(context.Context, *events.Request) (events.Position, error)) func(context.Context, *events.Request) (events.Position, error) {
	return func(ctx context.Context, r *events.Request) (position events.Position, err error) {
		err = f.meet(requestAppend, func() (err error) { position, err = record(ctx, r); return err }, func() error {
			return fmt.Errorf("%w: %w", events.ErrUnavailable, errInjected)
		})
		return position, err
	}
}

func (f *fault) appendDecisions(t *testing.T, db *DB, record appendDecisions) appendDecisions {
	atStart := db.Folded(0) // what the ledger lost since of that is recorded again
	return func(ctx context.Context, p int, after uint64, m []events.Message) error {
		if folded := db.Folded(p); folded > max(after, atStart) {
			t.Errorf("folded up to %d before what follows %d was recorded", folded, after)
		}
		if f != nil && f.armed.Load() && !f.happened() && f.site != requestAppend && len(m) != f.size {
			t.Errorf("a batch of %d decisions, want %d", len(m), f.size)
		}
		return f.meet(decisionAppend, func() error { return record(ctx, p, after, m) }, func() error { return errInjected })
	}
}

type appendDecisions = func(ctx context.Context, partition int, after uint64, decisions []events.Message) error

func (f *fault) commit(tx *sql.Tx) error {
	return f.meet(sqliteCommit, tx.Commit, func() error { return errors.Join(tx.Rollback(), errInjected) })
}

type readMessages = func(ctx context.Context, stream events.Stream, partition int, after uint64) iter.Seq2[[]events.Message, error]

func (f *fault) read(read readMessages) readMessages {
	return func(ctx context.Context, stream events.Stream, p int, after uint64) iter.Seq2[[]events.Message, error] {
		return func(yield func([]events.Message, error) bool) {
			var held []events.Message
			for batch, err := range read(ctx, stream, p, after) {
				if held = append(held, batch...); err == nil && stream == events.Requests && f != nil && int64(len(held)) < f.least.Load() {
					continue
				}
				if !yield(held, err) {
					return
				}
				held = nil
			}
		}
	}
}
