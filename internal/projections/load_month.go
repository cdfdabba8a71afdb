package projections

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// loadClosing adds up a month that is to be closed. It goes through the accounts of the month in order, and keeps none:
// the memory that it takes does not depend on their number.
func (db *DB) loadClosing(state *capture.State, w wanted) error {
	if w.closing == nil {
		return nil
	}
	p := w.closing.Position.Partition
	var t events.Totals
	err := db.loads.totals.QueryRow(p, string(w.closes)).Scan(
		&t.Requests, &t.Captured, &t.Duplicated, &t.Rejected, &t.Repeated, &t.First.Sequence, &t.Last.Sequence)
	if err == nil {
		t.First.Partition, t.Last.Partition = p, p
	}
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	var leaves capture.Leaves
	err = query(db.loads.leaves, func(rows *sql.Rows) error {
		var account string
		var of capture.Tally
		var erased []byte // the leaf of an account that was erased since
		if err := scanTally(rows.Scan, p, &of, []any{&account, new(int64)}, &erased); err != nil {
			return err
		}
		if erased != nil {
			leaves.Add(events.Digest(erased))
		} else {
			leaves.Add(of.Leaf(account, w.closes))
		}
		return nil
	}, p, string(w.closes))
	state.Closing = leaves.Archive(w.closes, t)
	return err
}

// loadErasing adds up what stays of an account that is to be erased.
func (db *DB) loadErasing(state *capture.State, w wanted) error {
	if w.erasing == nil {
		return nil
	}
	erasing := &events.AccountErased{Months: []events.ErasedMonth{}}
	err := query(db.loads.monthsOf, func(rows *sql.Rows) error {
		var month events.Month
		var t capture.Tally
		if err := scanTally(rows.Scan, w.erasing.Position.Partition, &t, []any{&month}); err != nil {
			return err
		}
		erasing.Requests += t.Requests
		erasing.Months = append(erasing.Months, events.ErasedMonth{
			Month: month, Totals: t.Totals, Leaf: t.Leaf(w.erasing.Account, month),
		})
		return nil
	}, w.erasing.Account)
	state.Erasing = erasing
	return err
}

// firstMonth returns the earliest month of a partition that has requests, or nothing. That of the zero time, which a
// request has whose time cannot be read, is none.
func (db *DB) firstMonth(partition int) (events.Month, error) {
	if err := db.hold(&db.reads.firstMonth); err != nil {
		return "", err
	}
	defer db.pass()
	var month sql.Null[events.Month]
	err := db.reads.firstMonth.QueryRowContext(context.Background(), partition, string(events.MonthOf(time.Time{}))).Scan(&month)
	return month.V, db.readError(err)
}

// Erased says whether an account was ever erased.
func (db *DB) Erased(ctx context.Context, account string) (bool, error) {
	if err := db.hold(&db.reads.erased); err != nil {
		return false, err
	}
	defer db.pass()
	err := db.reads.erased.QueryRowContext(context.WithoutCancel(ctx), account).Scan(new(int))
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, db.readError(err)
}
