package projections

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

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
	if err := tx.Commit(); err != nil && !db.committed(f, digest) {
		return db.fail(err)
	}
	f.digest = digest
	f.advance(decisions)
	return nil
}

// committed says whether a commit that failed is in the file all the same: a failure does not tell.
func (db *DB) committed(f *fold, digest events.Digest) bool {
	to, err := db.foldedTo(f.partition)
	return err == nil && to.Digest == digest
}

// apply writes the rows of a batch. The statements run on the pinned connection, and so in its open transaction.
func (db *DB) apply(f *fold, decisions []events.Decision) (digest events.Digest, err error) {
	chains, err := db.chains(decisions)
	if err != nil {
		return digest, db.fail(err)
	}
	b := batch{db: db, chains: chains, months: map[monthKey]*tally{}}
	digest, sequence := f.digest, f.sequence
	for i := range decisions {
		d := &decisions[i]
		if sequence++; d.Position != (events.Position{Partition: f.partition, Sequence: sequence}) {
			return digest, fmt.Errorf("%w: decision %s came where %d-%d was due", ErrMismatch, d.Position, f.partition, sequence)
		}
		if err := b.fold(d); err != nil {
			return digest, db.fail(fmt.Errorf("decision %s: %w", d.Position, err))
		}
		digest = events.Hash(digest[:], d.Digest[:])
	}
	if err := b.finish(); err != nil {
		return digest, db.fail(err)
	}
	if _, err := db.writes.position.Exec(f.partition, sequence, digest[:]); err != nil {
		return digest, db.fail(err)
	}
	return digest, nil
}

// chains returns the last link of the chain of each account in the batch that is open already.
func (db *DB) chains(decisions []events.Decision) (map[string]events.Digest, error) {
	names, chains := []string{}, map[string]events.Digest{}
	for i := range decisions {
		if name := decisions[i].Account; name != "" {
			if _, seen := chains[name]; !seen {
				chains[name] = events.Digest{}
				names = append(names, name)
			}
		}
	}
	clear(chains)
	err := each(db.writes.chains, names, func(rows *sql.Rows) error {
		var name string
		var digest []byte
		if err := rows.Scan(&name, &digest); err != nil {
			return err
		}
		chains[name] = events.Digest(digest)
		return nil
	})
	return chains, err
}

// batch gathers what many decisions change in one row, so that the row is written once.
type batch struct {
	db     *DB
	chains map[string]events.Digest // of the open accounts
	months map[monthKey]*tally
}

type monthKey struct {
	account string
	month   events.Month
}

// tally is what a batch adds to a month, and the count that its last decision saw.
type tally struct {
	captured, duplicated, rejected, repeated int64

	used    int64
	counted bool // whether a decision said what used is
}

// fold writes the rows of one decision that it shares with no other.
func (b *batch) fold(d *events.Decision) error {
	if opened, ok := d.Body.(*events.AccountOpened); ok {
		if _, err := b.db.writes.account.Exec(d.Account, opened.Plan, opened.Limit); err != nil {
			return err
		}
		b.chains[d.Account] = events.Digest{}
	}
	previous, open := b.chains[d.Account]
	if err := d.Verify(previous); err != nil {
		return fmt.Errorf("%w: %w", ErrMismatch, err)
	}
	if open {
		b.chains[d.Account] = d.Digest
	}
	payloadHash, err := b.foldBody(d)
	if err != nil {
		return err
	}
	_, err = b.db.writes.decision.Exec(d.Position.Partition, d.Position.Sequence, d.Account, d.RequestID,
		events.TypeOf(d.Body), d.Time.Format(time.RFC3339Nano), d.RequestDigest[:], d.Digest[:], payloadHash, d.Data)
	return err
}

// foldBody returns the hash by which a retry is told from a reused key, where the decision is a first answer.
func (b *batch) foldBody(d *events.Decision) (payloadHash []byte, err error) {
	switch body := d.Body.(type) {
	case *events.JobCaptured:
		_, err = b.db.writes.job.Exec(d.Account, body.JobID, urlKey(body.CanonicalURL), string(body.Month),
			d.Position.Partition, d.Position.Sequence)
		return body.PayloadHash[:], errors.Join(err, b.count(d, body.Count, tally{captured: 1}))
	case *events.JobCaptureDuplicated:
		return body.PayloadHash[:], b.count(d, body.Count, tally{duplicated: 1})
	case *events.JobCaptureRejected:
		return body.PayloadHash[:], b.count(d, body.Count, tally{rejected: 1})
	case *events.JobCaptureRepeated:
		b.tally(d.Account, body.Month).repeated++
	case *events.PlanChanged:
		_, err = b.db.writes.plan.Exec(body.Plan, body.Limit, d.Account)
	case *events.TokenIssued:
		_, err = b.db.writes.token.Exec(body.TokenID, d.Account, body.SecretHash[:])
	case *events.TokenRevoked:
		_, err = b.db.writes.revoke.Exec(body.TokenID, d.Account)
	}
	return nil, err
}

// count adds a decision to its month. What the decision says of used must follow from what the one before it said;
// the last of the batch is compared with the row.
func (b *batch) count(d *events.Decision, c events.Count, add tally) error {
	t := b.tally(d.Account, c.Month)
	if t.counted && c.Used != t.used+add.captured {
		return b.miscounted(d.Account, c.Month, t.used+add.captured, c.Used)
	}
	t.captured, t.duplicated, t.rejected = t.captured+add.captured, t.duplicated+add.duplicated, t.rejected+add.rejected
	t.used, t.counted = c.Used, true
	return nil
}

func (b *batch) miscounted(account string, month events.Month, used, said int64) error {
	return fmt.Errorf("%w: account %s has %d captures in %s, the decision says %d; %s",
		ErrMismatch, account, used, month, said, b.db.remedy())
}

func (b *batch) tally(account string, month events.Month) *tally {
	key := monthKey{account, month}
	if b.months[key] == nil {
		b.months[key] = &tally{}
	}
	return b.months[key]
}

// finish writes the rows that decisions share.
func (b *batch) finish() error {
	for key, t := range b.months {
		var used int64
		err := b.db.writes.month.QueryRow(key.account, string(key.month), t.captured, t.duplicated, t.rejected, t.repeated).Scan(&used)
		if err != nil {
			return err
		}
		if t.counted && used != t.used {
			return b.miscounted(key.account, key.month, used, t.used)
		}
	}
	for account, digest := range b.chains {
		if _, err := b.db.writes.chain.Exec(digest[:], account); err != nil {
			return err
		}
	}
	return nil
}

// damaged says whether SQLite found the file corrupt, no database at all, or with rows that contradict a decision.
func damaged(err error) bool {
	var code sqlite3.Error
	return errors.As(err, &code) &&
		(code.Code == sqlite3.ErrCorrupt || code.Code == sqlite3.ErrNotADB || code.Code == sqlite3.ErrConstraint)
}
