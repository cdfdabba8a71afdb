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
	digest, err := db.apply(f, decisions)
	if err != nil {
		return errors.Join(err, tx.Rollback())
	}
	// The commit point: before it nothing of the batch is there, after it all of it is, and the position says so.
	done := applied{decisions: decisions, digest: digest}
	if err := db.commit(tx); err != nil {
		f.unsettled = &done
		if db.settleFold(f) != nil || f.digest != digest {
			return db.fail(err)
		}
		return nil
	}
	db.finish(f, done)
	db.boundLog()
	return nil
}

// applied are decisions whose rows were written, and the digest of the partition with them.
type applied struct {
	decisions []events.Decision
	digest    events.Digest
}

// finish lets everyone know of a commit.
func (db *DB) finish(f *fold, done applied) {
	f.digest = done.digest
	db.cache.committed(done.decisions) // before anyone hears of the position
	f.advance(done.decisions)
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
	if to.Digest == f.unsettled.digest {
		db.finish(f, *f.unsettled)
	}
	f.unsettled = nil
	return nil
}

// apply writes the rows of a batch and its position. The statements run on the pinned connection, and so in its open
// transaction.
func (db *DB) apply(f *fold, decisions []events.Decision) (digest events.Digest, err error) {
	digest, sequence := f.digest, f.sequence.Load()
	for i := range decisions {
		d := &decisions[i]
		if sequence++; d.Position != (events.Position{Partition: f.partition, Sequence: sequence}) {
			return digest, fmt.Errorf("%w: decision %s came where %d-%d was due", ErrMismatch, d.Position, f.partition, sequence)
		}
		digest = events.Hash(digest[:], d.Digest[:])
	}
	return digest, db.writeRows(f.partition, decisions, digest)
}

// writeRows writes the rows of decisions, whose chains and counts it verifies, and the position after them.
func (db *DB) writeRows(partition int, decisions []events.Decision, digest events.Digest) error {
	b, err := db.newBatch(decisions)
	if err != nil {
		return db.fail(err)
	}
	for i := range decisions {
		if err := b.fold(&decisions[i]); err != nil {
			return db.fail(fmt.Errorf("decision %s: %w", decisions[i].Position, err))
		}
	}
	to := decisions[len(decisions)-1].Position
	if err := b.write(); err != nil {
		return db.fail(fmt.Errorf("decisions %s to %s: %w", decisions[0].Position, to, err))
	}
	if _, err := db.writes.position.Exec(partition, to.Sequence, digest[:]); err != nil {
		return db.fail(err)
	}
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
