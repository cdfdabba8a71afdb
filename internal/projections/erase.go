package projections

import (
	"database/sql"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// erase deletes the rows of an account, and takes its decisions out of the digest, before the decision that erased it is
// folded. This node may have folded all of these decisions, or not all, because they were gone from the ledger before it
// came to them: afterwards both have the same rows and the same digest.
func (db *DB) erase(to *FoldedTo, d *events.Decision, erased *events.AccountErased) error {
	if !db.foretold[d.Position] {
		if err := db.restoreTotals(d, erased); err != nil {
			return err
		}
	}
	for _, digests := range []*sql.Stmt{db.writes.firstDigests, db.writes.otherDigests} {
		err := query(digests, func(rows *sql.Rows) error {
			var digest sql.RawBytes
			err := rows.Scan(&digest)
			to.Digest = to.Digest.Minus(events.Digest(digest))
			return err
		}, d.Account)
		if err != nil {
			return err
		}
	}
	if err := db.deleteRows(d.Account); err != nil {
		return err
	}
	_, err := db.writes.erasure.Exec(d.Account, d.Position.Partition, d.Position.Sequence, erased.Requests)
	return err
}

// deleteRows deletes the rows of an account. Where there is any, the file is to be scrubbed of it: what says so is on disk
// before the rows are gone.
func (db *DB) deleteRows(account string) error {
	deleted := int64(0)
	for _, rows := range db.erasing {
		result, err := rows.Exec(account)
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		if err != nil {
			return err
		}
		deleted += n
	}
	if deleted == 0 && !exists(PartialPath(db.path)) { // what a rebuild left may have rows that this file never had
		return nil
	}
	db.scrubDue = true
	return db.markErasing()
}

// restoreTotals brings the totals to where they are with all decisions of the account, and keeps its leaves.
func (db *DB) restoreTotals(d *events.Decision, erased *events.AccountErased) error {
	seen := map[events.Month]capture.Tally{}
	err := query(db.writes.seenMonths, func(rows *sql.Rows) error {
		var month events.Month
		var t capture.Tally
		err := scanTally(rows.Scan, d.Position.Partition, &t, []any{&month})
		seen[month] = t
		return err
	}, d.Account)
	if err != nil {
		return err
	}
	for _, month := range erased.Months {
		missing := month.Totals
		was := seen[month.Month]
		missing.Requests -= was.Requests
		missing.Captured -= was.Captured
		missing.Duplicated -= was.Duplicated
		missing.Rejected -= was.Rejected
		missing.Repeated -= was.Repeated
		if err := db.bulks.totals.run(totalsRow(d.Position.Partition, month.Month, missing), nil); err != nil {
			return err
		}
		_, err := db.writes.erasedMonth.Exec(d.Position.Partition, string(month.Month), d.Account, d.Position.Sequence, month.Leaf[:])
		if err != nil {
			return err
		}
	}
	return nil
}
