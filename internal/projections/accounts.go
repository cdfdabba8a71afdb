package projections

import (
	"context"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// Account returns an account that is open, or ErrNotFound.
func (db *DB) Account(ctx context.Context, name string) (capture.StoredAccount, error) {
	if err := db.hold(&db.reads.account); err != nil {
		return capture.StoredAccount{}, err
	}
	defer db.pass()
	account, err := scanAccount(db.reads.account.QueryRowContext(context.WithoutCancel(ctx), name).Scan)
	return account, db.readError(err)
}

// Accounts returns up to limit accounts that are open, in the order of their names, after one.
func (db *DB) Accounts(ctx context.Context, after string, limit int) (accounts []capture.StoredAccount, err error) {
	if err := db.hold(&db.reads.list); err != nil {
		return nil, err
	}
	defer db.pass()
	rows, err := db.reads.list.QueryContext(context.WithoutCancel(ctx), after, limit)
	if err != nil {
		return nil, db.readError(err)
	}
	defer rows.Close()
	for rows.Next() {
		account, err := scanAccount(rows.Scan)
		if err != nil {
			return nil, db.readError(err)
		}
		accounts = append(accounts, account)
	}
	return accounts, db.readError(rows.Err())
}

// scanAccount reads what selectAccounts selects.
func scanAccount(scan func(...any) error) (a capture.StoredAccount, err error) {
	var opened, planned, ceType string
	var data []byte
	err = scan(&a.Name, &a.Plan, &a.Limit, &opened, &a.PlanPosition.Partition, &a.PlanPosition.Sequence, &planned, &ceType, &data)
	if err != nil {
		return a, err
	}
	if a.OpenedAt, err = parseTime(opened); err != nil {
		return a, err
	}
	if a.PlanAt, err = parseTime(planned); err != nil {
		return a, err
	}
	body, err := events.DecodeBody(ceType, data)
	switch b := body.(type) {
	case *events.AccountOpened:
		a.PlanSetBy = b.Who
	case *events.PlanChanged:
		a.PlanSetBy = b.Who
	}
	return a, err
}

// TokensOf returns up to limit tokens of an account, revoked ones included, in the order of their ids, after one.
func (db *DB) TokensOf(ctx context.Context, account, after string, limit int) ([]capture.Token, error) {
	if err := db.hold(&db.reads.issued); err != nil {
		return nil, err
	}
	defer db.pass()
	rows, err := db.reads.issued.QueryContext(context.WithoutCancel(ctx), account, after, limit)
	if err != nil {
		return nil, db.readError(err)
	}
	return db.scanTokens(rows)
}
