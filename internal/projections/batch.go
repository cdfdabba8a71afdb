package projections

import (
	"database/sql"
	"fmt"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// batch gathers the rows of the decisions that are folded in one transaction, so that a row that many of them change
// is written once, and many rows are written by one statement.
type batch struct {
	db *DB

	partition int
	to        FoldedTo // as the decisions so far leave it

	accounts map[string]*accountRow // the open ones among those of the decisions
	changed  []*accountRow          // the same, in the order of their first decisions, which is often that of the keys
	tallies  map[monthKey]*tally
	months   []*tally // the same, in the order of their first decisions
	days     gathered[dayKey, day]
	totals   gathered[events.Month, capture.Tally]

	decisions, jobs []any // the arguments of the rows, one after another
}

// accountRow is the row of an account, as the decisions so far leave it.
type accountRow struct {
	name, plan      string
	limit           int64
	digest          events.Digest
	opened, planned uint64
	indexed, loose  int64
}

type monthKey struct {
	account string
	month   events.Month
}

// tally is what a batch adds to a month of an account, and the count that its last decision saw.
type tally struct {
	monthKey
	capture.Tally
	extension int64 // captured jobs that came through the browser extension

	used    int64
	counted bool // whether a decision said what used is
}

// newBatch returns an empty batch, with the rows of the accounts that are open already.
func (db *DB) newBatch(to FoldedTo, decisions []events.Decision) (*batch, error) {
	b := &batch{
		db: db, partition: decisions[0].Position.Partition, to: to, accounts: make(map[string]*accountRow, len(decisions)), tallies: make(map[monthKey]*tally, len(decisions)),
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
		if err := rows.Scan(&row.name, &row.plan, &row.limit, &digest, &row.opened, &row.planned, &row.indexed, &row.loose); err != nil {
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

// fold takes a decision into the batch. What is rare it writes at once. Of what was erased there is nothing but the number.
func (b *batch) fold(d *events.Decision) error {
	b.to.Sequence = d.Position.Sequence
	if _, erased := d.Body.(*events.Erased); erased {
		return nil
	}
	if opened, ok := d.Body.(*events.AccountOpened); ok {
		if b.accounts[d.Account] != nil {
			return fmt.Errorf("%w: account %s is open already; %s", ErrMismatch, d.Account, b.db.remedy())
		}
		at := d.Position.Sequence
		b.add(&accountRow{name: d.Account, plan: opened.Plan, limit: opened.Limit, opened: at, planned: at, indexed: int64(at)})
	}
	if err := d.Verify(b.previous(d)); err != nil {
		return fmt.Errorf("%w: %w", ErrMismatch, err)
	}
	if account := b.accounts[d.Account]; account != nil {
		account.digest = d.Digest
	}
	b.to.Digest = b.to.Digest.Plus(d.Digest)
	t := b.tallyOf(d)
	payloadHash, err := b.foldBody(d, t)
	b.decisions = append(b.decisions, int64(d.Position.Partition), int64(d.Position.Sequence), d.Account, d.RequestID,
		events.TypeOf(d.Body), d.Time.Format(time.RFC3339Nano), d.RequestDigest[:], d.Digest[:], payloadHash, d.Data)
	if account := b.accounts[d.Account]; err == nil && account != nil && account.loose == chunkSize {
		return b.index(account)
	}
	return err
}

// previous returns the digest of the link before a decision, as capture.State.Previous does.
func (b *batch) previous(d *events.Decision) events.Digest {
	switch d.Body.(type) {
	case *events.MonthArchived:
		return b.to.Archive
	case *events.AccountErased:
		return events.Digest{}
	}
	if account := b.accounts[d.Account]; account != nil {
		return account.digest
	}
	return events.Digest{}
}

// foldBody returns the hash by which a retry is told from a reused key, where the decision is a first answer.
func (b *batch) foldBody(d *events.Decision, t *tally) (payloadHash []byte, err error) {
	switch body := d.Body.(type) {
	case *events.JobCaptured:
		b.capture(d, body)
		if body.Job.CapturedVia == extension {
			t.extension++
		}
		b.day(d, t).captured++
		return body.PayloadHash[:], b.count(t, body.Count, 1)
	case *events.JobCaptureDuplicated:
		b.day(d, t).duplicated++
		return body.PayloadHash[:], b.count(t, body.Count, 0)
	case *events.JobCaptureRejected:
		b.day(d, t).rejected++
		return body.PayloadHash[:], b.count(t, body.Count, 0)
	case *events.JobUpdated:
		err = b.updateJob(d, body)
	case *events.JobDeleted:
		err = b.deleteJob(d, body)
	case *events.AccountOpened:
		err = b.setLimit(d, body.Limit)
	case *events.PlanChanged:
		if account := b.accounts[d.Account]; account != nil {
			account.plan, account.limit, account.planned = body.Plan, body.Limit, d.Position.Sequence
			err = b.setLimit(d, body.Limit)
		}
	case *events.TokenIssued:
		err = b.issue(d, body)
	case *events.TokenRevoked:
		_, err = b.db.writes.revoke.Exec(body.TokenID, d.Account)
	case *events.MonthArchived:
		b.to.Archived, b.to.Archive = body.Month, d.Digest
		_, err = b.db.writes.archive.Exec(d.Position.Partition, string(body.Month), d.Position.Sequence)
	}
	return nil, err
}

// extension is the way through the browser extension: of two, the other is what remains.
const extension = "extension"

// setLimit notes what limit holds in the month of the decision. What is said of later months is of a clock that was ahead.
func (b *batch) setLimit(d *events.Decision, limit int64) error {
	month := capture.MonthOf(d, b.to.Archived)
	if _, err := b.db.writes.laterLimits.Exec(d.Account, string(month)); err != nil {
		return err
	}
	_, err := b.db.writes.limit.Exec(d.Account, string(month), limit)
	return err
}

// count checks what a decision says of used: it must follow from what the one before it said. The last of the batch is
// compared with the row.
func (b *batch) count(t *tally, c events.Count, captured int64) error {
	if t.counted && c.Used != t.used+captured {
		return b.miscounted(t.monthKey, t.used+captured, c.Used)
	}
	t.used, t.counted = c.Used, true
	return nil
}

func (b *batch) miscounted(key monthKey, used, said int64) error {
	return fmt.Errorf("%w: account %s has %d captures in %s, the decision says %d; %s",
		ErrMismatch, key.account, used, key.month, said, b.db.remedy())
}

// tallyOf counts a decision in its month: in the totals of the partition, and in the tally of the account, which it
// returns. The closing of a month is in neither, an erasure not in that of the account, which ends with it.
func (b *batch) tallyOf(d *events.Decision) *tally {
	month := capture.MonthOf(d, b.to.Archived)
	if _, closing := d.Body.(*events.MonthArchived); closing {
		return &tally{}
	}
	b.totals.at(month).Add(d)
	if d.Account == "" || erases(d) {
		return &tally{}
	}
	key := monthKey{d.Account, month}
	t := b.tallies[key]
	if t == nil {
		t = &tally{monthKey: key}
		b.tallies[key] = t
		b.months = append(b.months, t)
	}
	t.Add(d)
	return t
}

// write writes the rows that were gathered.
func (b *batch) write() error {
	if err := b.writeDecisions(); err != nil {
		return err
	}
	if err := b.writeMonths(); err != nil {
		return err
	}
	if err := b.writeDays(); err != nil {
		return err
	}
	if err := b.writeTotals(); err != nil {
		return err
	}
	args := make([]any, 0, len(b.changed)*b.db.bulks.accounts.width)
	for _, row := range b.changed {
		args = append(args, row.name, int64(b.partition), row.plan, row.limit, row.digest[:],
			int64(row.opened), int64(row.planned), row.indexed, row.loose)
	}
	return b.db.bulks.accounts.run(args, nil)
}

// writeDecisions writes the decisions so far, and the jobs that they captured.
func (b *batch) writeDecisions() error {
	if err := b.db.bulks.decisions.run(b.decisions, nil); err != nil {
		return err
	}
	b.decisions = b.decisions[:0]
	return b.writeJobs()
}

func (b *batch) writeJobs() error {
	if err := b.db.bulks.jobs.run(b.jobs, nil); err != nil {
		return err
	}
	b.jobs = b.jobs[:0]
	return nil
}

func (b *batch) writeMonths() error {
	args := make([]any, 0, len(b.months)*b.db.bulks.months.width)
	for _, t := range b.months {
		args = append(args, t.account, string(t.month), int64(t.First.Partition), t.Requests, t.Captured, t.Duplicated, t.Rejected,
			t.Repeated, t.extension, int64(t.First.Sequence), int64(t.Last.Sequence), t.Digest[:])
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
