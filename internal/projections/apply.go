package projections

import (
	"context"
	"errors"
	"fmt"

	"github.com/mattn/go-sqlite3"

	"jobtally/internal/events"
)

// Apply folds decisions, which follow each other and the position, into the file: rows, digests and position in one
// transaction. It consults no rules, but refuses with ErrMismatch what does not follow: another position, a broken
// chain, a count that is not the decision's. On any error nothing has changed.
func (db *DB) Apply(partition int, decisions []events.Decision) error {
	if err := follow(events.Position{Partition: partition, Sequence: db.Folded(partition)}, decisions); err != nil {
		return err
	}
	return db.apply(partition, decisions)
}

// apply is Apply for decisions between whose numbers some may be left out.
func (db *DB) apply(partition int, decisions []events.Decision) error {
	if len(decisions) == 0 {
		return nil
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.writer == nil {
		return db.closed()
	}
	tx, err := db.writer.BeginTx(context.Background(), nil)
	if err != nil {
		return db.fail(err)
	}
	f := db.partitions[partition]
	to, err := db.write(partition, f.at, decisions)
	if err != nil {
		return errors.Join(err, tx.Rollback())
	}
	// The commit point: before it nothing of the batch is there, after it all of it is, and the position says so.
	done := applied{decisions: decisions, to: to}
	if err := db.commit(tx); err != nil {
		f.unsettled = &done
		if db.settleFold(f) != nil || f.at != to {
			return db.fail(err)
		}
		db.boundLog()
		return nil
	}
	db.finish(f, done)
	db.boundLog()
	return nil
}

// follow refuses decisions of which one is not at the position after the one before it.
func follow(after events.Position, decisions []events.Decision) error {
	for i := range decisions {
		if after.Sequence++; decisions[i].Position != after {
			return fmt.Errorf("%w: decision %s came where %s was due", ErrMismatch, decisions[i].Position, after)
		}
	}
	return nil
}

// applied are decisions whose rows were written, and what the file says with them.
type applied struct {
	decisions []events.Decision
	to        FoldedTo
}

// finish lets everyone know of a commit.
func (db *DB) finish(f *fold, done applied) {
	f.stand(done.to)
	db.cache.committed(done.decisions) // before anyone hears of the position
	f.advance(done.decisions)
	db.onFold(f.partition, done.decisions, done.to.Sequence)
	for i := range done.decisions {
		if erases(&done.decisions[i]) {
			db.onErasure()
			return
		}
	}
}

// settle finds out what became of a commit that failed, and finishes it if it is in the file all the same: a failure
// does not tell. Until that is known the position is not.
func (db *DB) settle(partition int) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.settleFold(db.partitions[partition])
}

func (db *DB) settleFold(f *fold) error {
	if f.unsettled == nil {
		return nil
	}
	to, err := db.foldedTo(f.partition)
	if err != nil {
		return db.fail(err)
	}
	if to == f.unsettled.to {
		db.finish(f, *f.unsettled)
	}
	f.unsettled = nil
	return nil
}

// write writes the rows of decisions, whose chains and counts it verifies, and the position after them, given the one
// before them. The statements run on the pinned connection, and so in its open transaction. An erasure divides them: the
// rows of those before it are there to be deleted.
func (db *DB) write(partition int, to FoldedTo, decisions []events.Decision) (FoldedTo, error) {
	for rest := decisions; len(rest) > 0; {
		if erased, ok := rest[0].Body.(*events.AccountErased); ok {
			if err := db.erase(&to, &rest[0], erased); err != nil {
				return to, db.fail(fmt.Errorf("decision %s: %w", rest[0].Position, err))
			}
		}
		next := 1
		for next < len(rest) && !erases(&rest[next]) {
			next++
		}
		if err := db.writeBatch(&to, rest[:next]); err != nil {
			return to, err
		}
		rest = rest[next:]
	}
	_, err := db.writes.position.Exec(partition, to.Sequence, to.Digest[:], string(to.Archived), to.Archive[:])
	if err != nil {
		return to, db.fail(err)
	}
	return to, nil
}

func erases(d *events.Decision) bool {
	_, ok := d.Body.(*events.AccountErased)
	return ok
}

func (db *DB) writeBatch(to *FoldedTo, decisions []events.Decision) error {
	b, err := db.newBatch(*to, decisions)
	if err != nil {
		return db.fail(err)
	}
	for i := range decisions {
		if err := b.fold(&decisions[i]); err != nil {
			return db.fail(fmt.Errorf("decision %s: %w", decisions[i].Position, err))
		}
	}
	if err := b.write(); err != nil {
		return db.fail(fmt.Errorf("decisions %s to %s: %w", decisions[0].Position, decisions[len(decisions)-1].Position, err))
	}
	*to = b.to
	return nil
}

// damaged says whether SQLite found the file corrupt, no database at all, or with rows that contradict a decision.
func damaged(err error) bool {
	var code sqlite3.Error
	return errors.As(err, &code) &&
		(code.Code == sqlite3.ErrCorrupt || code.Code == sqlite3.ErrNotADB || code.Code == sqlite3.ErrConstraint)
}

// full says whether there is no room on the disk.
func full(err error) bool {
	var code sqlite3.Error
	return errors.As(err, &code) && code.Code == sqlite3.ErrFull
}
