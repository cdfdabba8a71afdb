package projections

import (
	"context"
	"database/sql"
	"errors"
	"sync/atomic"
	"testing"

	"jobtally/internal/events"
)

// commitFaults are the ways in which a commit fails.
var commitFaults = map[string]struct {
	commit   func(*sql.Tx) error
	persists bool
}{
	"with nothing stored": {func(tx *sql.Tx) error { return errors.Join(tx.Rollback(), errInjected) }, false},
	"but persists":        {func(tx *sql.Tx) error { return errors.Join(tx.Commit(), errInjected) }, true},
}

// A failed commit does not say whether it is in the file. The file does: whoever waits is answered once it is there,
// and not before.
func TestCommitFails(t *testing.T) {
	t.Parallel()
	decisions := history(t)
	const before = 5
	for name, fault := range commitFaults {
		for size, batch := range map[string][]events.Decision{"one decision": decisions[before : before+1], "many decisions": decisions[before:]} {
			t.Run(name+", "+size, func(t *testing.T) {
				t.Parallel()
				undisturbed, db := newDB(t), newDB(t)
				ok(t, undisturbed.Apply(0, decisions[:before]))
				ok(t, db.Apply(0, decisions[:before]))
				f := db.partitions[0]
				waiting := []chan events.Decision{f.register(batch[0].Position.Sequence), f.register(batch[len(batch)-1].Position.Sequence)}
				db.commit = fault.commit
				err := db.Apply(0, batch)
				db.commit = (*sql.Tx).Commit

				if !fault.persists {
					wantErr(t, err, errInjected)
					wantSame(t, db, undisturbed)
					if len(waiting[0])+len(waiting[1]) != 0 {
						t.Fatal("somebody was handed a decision that is not in the file")
					}
					err = db.Apply(0, batch)
				}
				ok(t, err)
				ok(t, undisturbed.Apply(0, batch))
				wantSame(t, db, undisturbed)
				for i, want := range []events.Decision{batch[0], batch[len(batch)-1]} {
					if n := len(waiting[i]); n != 1 {
						t.Fatalf("answered %d times", n)
					}
					if got := <-waiting[i]; got.Digest != want.Digest {
						t.Fatalf("answered with %s, want %s", got.Position, want.Position)
					}
				}
				again := openDB(t, db.path) // and the file says the same to the next process
				wantSame(t, again, undisturbed)
			})
		}
	}
}

// When the file cannot be read either, nothing is known until it can. Then whoever waits is answered.
func TestCommitOfUnknownOutcome(t *testing.T) {
	t.Parallel()
	decisions := history(t)
	for name, fault := range commitFaults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			undisturbed, db := newDB(t), newDB(t)
			ok(t, undisturbed.Apply(0, decisions))
			alter := func(query string) {
				t.Helper()
				_, err := db.writer.ExecContext(context.Background(), query)
				ok(t, err)
			}
			db.commit = func(tx *sql.Tx) error {
				err := fault.commit(tx)
				alter("ALTER TABLE partitions RENAME TO hidden")
				return err
			}
			waiting := db.partitions[0].register(1)
			wantErr(t, db.Apply(0, decisions), errInjected)
			db.commit = (*sql.Tx).Commit
			if err := db.settle(0); err == nil || len(waiting) != 0 || db.Folded(0) != 0 {
				t.Fatalf("settled with %v, folded up to %d", err, db.Folded(0))
			}
			alter("ALTER TABLE hidden RENAME TO partitions")
			ok(t, db.settle(0))
			if fault.persists != (db.Folded(0) > 0) {
				t.Fatalf("folded up to %d", db.Folded(0))
			}
			ok(t, db.Apply(0, decisions[db.Folded(0):]))
			if d := <-waiting; d.Digest != decisions[0].Digest {
				t.Fatalf("answered with %s", d.Position)
			}
			wantSame(t, db, undisturbed)
		})
	}
}

// wantSame compares all that two projections say.
func wantSame(t *testing.T, got, want *DB) {
	t.Helper()
	gotAt, gotDigest := got.Digest(0)
	wantAt, wantDigest := want.Digest(0)
	if gotAt != wantAt || gotDigest != wantDigest {
		t.Fatalf("digest %s at %d, want %s at %d", gotDigest, gotAt, wantDigest, wantAt)
	}
	if g, w := dump(t, got), dump(t, want); g != w {
		t.Fatalf("rows\n%s\nwant\n%s", g, w)
	}
}

// Under a projector every other commit fails at first. It goes on, and who waits is answered.
func TestProjectorGoesOnAfterFailedCommits(t *testing.T) {
	t.Parallel()
	for name, fault := range commitFaults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			db, undisturbed := h.open(t, "a"), h.open(t, "undisturbed")
			var commits atomic.Int64
			db.commit = func(tx *sql.Tx) error {
				if n := commits.Add(1); n%2 == 0 || n > 6 {
					return tx.Commit()
				}
				return fault.commit(tx)
			}
			r := run(t, db, h.seam(), true)
			run(t, undisturbed, h.seam(), false)
			var last events.Position
			for _, prefix := range []string{"first", "second", "third"} {
				last = h.past(t, prefix)
				if d := await(t, db, last); d.Position != last {
					t.Fatalf("answered with %s, want %s", d.Position, last)
				}
			}
			await(t, undisturbed, last)
			h.audit(t, db, undisturbed)
			wantSame(t, db, undisturbed)
			if commits.Load() < 3 {
				t.Errorf("only %d commits: no fault was met", commits.Load())
			}
			if err := r.Failure(); err != nil {
				t.Errorf("still failing with %v", err)
			}
			if n := len(db.partitions[0].waiting); n != 0 {
				t.Errorf("%d positions are still waited for", n)
			}
			r.stop(t)
			_, err := db.Await(context.Background(), last) // folded: it waits for nobody
			ok(t, err)
		})
	}
}
