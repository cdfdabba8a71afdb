package projections

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"jobtally/internal/events"
)

var errInjected = errors.New("injected")

// Now and then decisions are not appended as one: a part persists, or another projector was first.
func TestFaults(t *testing.T) {
	t.Parallel()
	type appendFunc = func(context.Context, int, uint64, []events.Message) error
	for name, inject := range map[string]func(appendFunc) appendFunc{
		"append persists a part, and fails": func(record appendFunc) appendFunc {
			return func(ctx context.Context, p int, after uint64, m []events.Message) error {
				return errors.Join(record(ctx, p, after, m[:(len(m)+1)/2]), errInjected)
			}
		},
		"append is fenced by the same decisions": func(record appendFunc) appendFunc {
			return func(ctx context.Context, p int, after uint64, m []events.Message) error {
				return errors.Join(record(ctx, p, after, m), record(ctx, p, after, m))
			}
		},
		"append is fenced by a part of them": func(record appendFunc) appendFunc {
			return func(ctx context.Context, p int, after uint64, m []events.Message) error {
				return errors.Join(record(ctx, p, after, m[:(len(m)+1)/2]), record(ctx, p, after, m))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			db, seam := h.open(t, "a"), h.seam()
			record, calls := seam.AppendDecisions, new(atomic.Int64)
			var next atomic.Uint64 // what an append that succeeded left to follow; 0 after one that failed
			seam.AppendDecisions = func(ctx context.Context, p int, after uint64, m []events.Message) (err error) {
				if want := next.Swap(0); want != 0 && after != want {
					t.Errorf("appends after %d, want after %d", after, want)
				}
				if n := calls.Add(1); n%2 == 0 || n > 4 { // every other time at first
					if err = record(ctx, p, after, m); err == nil {
						next.Store(after + uint64(len(m)))
					}
				} else {
					err = inject(record)(ctx, p, after, m)
				}
				if folded := db.Folded(0); folded > after {
					t.Errorf("folded up to %d before the append of what follows %d was over", folded, after)
				}
				return err
			}
			last := h.past(t, "first")
			r := run(t, db, seam, true)
			await(t, db, last)
			h.audit(t, db)
			last = h.past(t, "second")
			await(t, db, last)
			h.audit(t, db)
			if calls.Load() < 3 {
				t.Errorf("only %d appends: no fault was met", calls.Load())
			}

			t.Log("and the next start finds the same")
			r.stop(t)
			run(t, db, h.seam(), true)
			await(t, db, h.past(t, "third"))
			h.audit(t, db)
		})
	}
}

// While nothing was recorded, nothing is folded.
func TestNothingIsFoldedBeforeItIsRecorded(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	db, seam := h.open(t, "a"), h.seam()
	tried := make(chan struct{}, 1)
	seam.AppendDecisions = func(context.Context, int, uint64, []events.Message) error {
		select {
		case tried <- struct{}{}:
		default:
		}
		return errInjected
	}
	h.past(t, "past")
	r := run(t, db, seam, true)
	for range 2 { // the second try comes after the first has failed
		<-tried
	}
	r.stop(t)
	if at := db.Folded(0); at != 0 {
		t.Fatalf("folded up to %d, but nothing is decided", at)
	}
	if heads := h.heads(t); heads.Decisions != 0 {
		t.Fatalf("heads %+v", heads)
	}

	run(t, db, h.seam(), true)
	await(t, db, h.past(t, "more"))
	h.audit(t, db)
}

func TestReadsFail(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	db, seam := h.open(t, "a"), h.seam()
	heads, failed := seam.Heads, make(chan struct{}, 1)
	seam.Heads = func(ctx context.Context, partition int) (events.Heads, error) {
		select {
		case failed <- struct{}{}:
			return events.Heads{}, fmt.Errorf("%w: test", events.ErrUnavailable)
		default:
			return heads(ctx, partition)
		}
	}
	r := run(t, db, seam, true)
	await(t, db, h.past(t, "past"))
	h.audit(t, db)
	if err := r.Failure(); err != nil {
		t.Fatalf("still failing with %v", err)
	}
}

// A full disk stops the folding, not the service: with space it goes on by itself.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	db, seam := h.open(t, "a"), h.seam()
	rounds, heads := make(chan struct{}, 1000), seam.Heads
	seam.Heads = func(ctx context.Context, partition int) (events.Heads, error) {
		rounds <- struct{}{}
		return heads(ctx, partition)
	}
	setPages := func(n int) {
		db.mu.Lock() // the writer is Apply's
		defer db.mu.Unlock()
		_, err := db.writer.ExecContext(within(t), fmt.Sprintf("PRAGMA max_page_count = %d", n))
		ok(t, err)
	}
	r := run(t, db, seam, true)
	await(t, db, h.past(t, "before"))
	setPages(1) // SQLite makes of it what the file has already
	<-rounds    // the first
	last := h.past(t, "full")
	for range 2 { // a round begins after a failure, and so does the one after it
		<-rounds
	}
	if err := r.Failure(); err == nil || !strings.Contains(err.Error(), "full") {
		t.Fatalf("failure %v, want one that says that the disk is full", err)
	}
	if at := db.Folded(0); at >= last.Sequence {
		t.Fatalf("folded up to %d on a full disk", at)
	}

	setPages(1 << 30)
	await(t, db, last)
	await(t, db, h.past(t, "after"))
	h.audit(t, db)
	if err := r.Failure(); err != nil {
		t.Fatalf("still failing with %v", err)
	}
}
