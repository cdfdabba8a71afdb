package projections

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"jobtally/internal/events"
)

func TestAwait(t *testing.T) {
	t.Parallel()
	db, decisions := newDB(t), history(t)
	ok(t, db.Apply(0, decisions[:2]))

	t.Log("what is folded is there at once")
	if d := await(t, db, decisions[1].Position); d.Digest != decisions[1].Digest {
		t.Fatalf("decision %+v", d)
	}

	t.Log("what is not yet comes to everyone who waits, and can be read by then")
	type answer struct {
		d    events.Decision
		err  error
		used int64
	}
	const waiters = 50
	answers, ctx := make(chan answer, 2*waiters), within(t)
	for i := range 2 * waiters {
		position := decisions[2+i%2*3].Position // two positions of one batch
		go func() {
			d, err := db.Await(ctx, position)
			q, err2 := db.Quota(ctx, "demo", november)
			answers <- answer{d, errors.Join(err, err2), q.Used}
		}()
	}
	awaitWaiting(t, db, 2*waiters)
	ok(t, db.Apply(0, decisions[2:6]))
	for range 2 * waiters {
		a := <-answers
		ok(t, a.err)
		if want := decisions[a.d.Position.Sequence-1]; a.d.Digest != want.Digest || a.used != 5 {
			t.Fatalf("decision %s with %d used afterwards", a.d.Position, a.used)
		}
	}

	t.Log("who gives up leaves nothing behind, and takes nothing from who waits on")
	patient := make(chan answer, 1)
	position := decisions[6].Position
	go func() {
		d, err := db.Await(ctx, position)
		patient <- answer{d: d, err: err}
	}()
	given, cancel := context.WithCancel(ctx)
	gone := make(chan error, waiters+1)
	for range waiters {
		go func() {
			_, err := db.Await(given, position)
			gone <- err
		}()
	}
	go func() {
		_, err := db.Await(given, decisions[9].Position) // alone
		gone <- err
	}()
	awaitWaiting(t, db, waiters+2)
	cancel()
	for range waiters + 1 {
		wantErr(t, <-gone, context.Canceled)
	}
	awaitWaiting(t, db, 1)
	ok(t, db.Apply(0, decisions[6:7]))
	if a := <-patient; a.err != nil || a.d.Digest != decisions[6].Digest {
		t.Fatalf("decision %+v, error %v", a.d, a.err)
	}
	if n := len(db.partitions[0].waiting); n != 0 {
		t.Fatalf("%d positions are still waited for", n)
	}

	t.Log("a partition that is not there has nothing to wait for")
	_, err := db.Await(ctx, events.Position{Partition: 1, Sequence: 1})
	wantErr(t, err, events.ErrNotFound)
}

// awaitWaiting returns once n are waiting.
func awaitWaiting(t *testing.T, db *DB, n int) {
	t.Helper()
	f := db.partitions[0]
	until(t, fmt.Sprintf("%d waiters", n), func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		waiting := 0
		for _, channels := range f.waiting {
			waiting += len(channels)
		}
		return waiting == n
	})
}
