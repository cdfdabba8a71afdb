package projections

import (
	"database/sql"
	"fmt"
	"time"

	"jobtally/internal/events"
)

// batch gathers the rows of the decisions that are folded in one transaction, so that a row that many of them change
// is written once, and many rows are written by one statement.
type batch struct {
	db       *DB
	accounts map[string]*accountRow // the open ones among those of the decisions
	changed  []*accountRow          // the same, in the order of their first decisions, which is often that of the keys
	tallies  map[monthKey]*tally
	months   []*tally // the same, in the order of their first decisions

	decisions, jobs []any // the arguments of the rows, one after another
}

// accountRow is the row of an account, as the decisions so far leave it.
type accountRow struct {
	name, plan string
	limit      int64
	digest     events.Digest
}

type monthKey struct {
	account string
	month   events.Month
}

// tally is what a batch adds to a month, and the count that its last decision saw.
type tally struct {
	monthKey
	captured, duplicated, rejected, repeated int64

	used    int64
	counted bool // whether a decision said what used is
}

// newBatch returns an empty batch, with the rows of the accounts that are open already.
func (db *DB) newBatch(decisions []events.Decision) (*batch, error) {
	b := &batch{
		db: db, accounts: make(map[string]*accountRow, len(decisions)), tallies: make(map[monthKey]*tally, len(decisions)),
		decisions: make([]any, 0, len(decisions)*db.bulks.decisions.width), jobs: make([]any, 0, len(decisions)*db.bulks.jobs.width),
	}
	names, seen := make([]string, 0, len(decisions)), make(map[string]bool, len(decisions))
	for i := range decisions {
		if name := decisions[i].Account; name != "" && !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	err := each(db.writes.openAccounts, names, func(rows *sql.Rows) error {
		var row accountRow
		var digest sql.RawBytes
		if err := rows.Scan(&row.name, &row.plan, &row.limit, &digest); err != nil {
			return err
		}
		copy(row.digest[:], digest)
		b.add(&row)
		return nil
	})
	return b, err
}

func (b *batch) add(row *accountRow) {
	b.accounts[row.name] = row
	b.changed = append(b.changed, row)
}

// fold takes a decision into the batch. What is rare it writes at once.
func (b *batch) fold(d *events.Decision) error {
	if opened, ok := d.Body.(*events.AccountOpened); ok {
		if b.accounts[d.Account] != nil {
			return fmt.Errorf("%w: account %s is open already; %s", ErrMismatch, d.Account, b.db.remedy())
		}
		b.add(&accountRow{name: d.Account, plan: opened.Plan, limit: opened.Limit})
	}
	var previous events.Digest // an account that is not open has no chain
	account := b.accounts[d.Account]
	if account != nil {
		previous = account.digest
	}
	if err := d.Verify(previous); err != nil {
		return fmt.Errorf("%w: %w", ErrMismatch, err)
	}
	if account != nil {
		account.digest = d.Digest
	}
	payloadHash, err := b.foldBody(d)
	b.decisions = append(b.decisions, int64(d.Position.Partition), int64(d.Position.Sequence), d.Account, d.RequestID,
		events.TypeOf(d.Body), d.Time.Format(time.RFC3339Nano), d.RequestDigest[:], d.Digest[:], payloadHash, d.Data)
	return err
}

// foldBody returns the hash by which a retry is told from a reused key, where the decision is a first answer.
func (b *batch) foldBody(d *events.Decision) (payloadHash []byte, err error) {
	switch body := d.Body.(type) {
	case *events.JobCaptured:
		b.jobs = append(b.jobs, d.Account, body.JobID, urlKey(body.CanonicalURL), string(body.Month),
			int64(d.Position.Partition), int64(d.Position.Sequence))
		return body.PayloadHash[:], b.count(d, body.Count, tally{captured: 1})
	case *events.JobCaptureDuplicated:
		return body.PayloadHash[:], b.count(d, body.Count, tally{duplicated: 1})
	case *events.JobCaptureRejected:
		return body.PayloadHash[:], b.count(d, body.Count, tally{rejected: 1})
	case *events.JobCaptureRepeated:
		b.tally(d.Account, body.Month).repeated++
	case *events.PlanChanged:
		if account := b.accounts[d.Account]; account != nil {
			account.plan, account.limit = body.Plan, body.Limit
		}
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
		return b.miscounted(t.monthKey, t.used+add.captured, c.Used)
	}
	t.captured, t.duplicated, t.rejected = t.captured+add.captured, t.duplicated+add.duplicated, t.rejected+add.rejected
	t.used, t.counted = c.Used, true
	return nil
}

func (b *batch) miscounted(key monthKey, used, said int64) error {
	return fmt.Errorf("%w: account %s has %d captures in %s, the decision says %d; %s",
		ErrMismatch, key.account, used, key.month, said, b.db.remedy())
}

func (b *batch) tally(account string, month events.Month) *tally {
	key := monthKey{account, month}
	t := b.tallies[key]
	if t == nil {
		t = &tally{monthKey: key}
		b.tallies[key] = t
		b.months = append(b.months, t)
	}
	return t
}

// write writes the rows that were gathered.
func (b *batch) write() error {
	if err := b.db.bulks.decisions.run(b.decisions, nil); err != nil {
		return err
	}
	if err := b.db.bulks.jobs.run(b.jobs, nil); err != nil {
		return err
	}
	if err := b.writeMonths(); err != nil {
		return err
	}
	args := make([]any, 0, len(b.changed)*b.db.bulks.accounts.width)
	for _, row := range b.changed {
		args = append(args, row.name, row.plan, row.limit, row.digest[:])
	}
	return b.db.bulks.accounts.run(args, nil)
}

func (b *batch) writeMonths() error {
	args := make([]any, 0, len(b.months)*b.db.bulks.months.width)
	for _, t := range b.months {
		args = append(args, t.account, string(t.month), t.captured, t.duplicated, t.rejected, t.repeated)
	}
	return b.db.bulks.months.run(args, func(rows *sql.Rows) error {
		var account, month string
		var used int64
		if err := rows.Scan(&account, &month, &used); err != nil {
			return err
		}
		t := b.tallies[monthKey{account, events.Month(month)}]
		if t.counted && used != t.used {
			return b.miscounted(t.monthKey, used, t.used)
		}
		return nil
	})
}
