package projections

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// The queries below are short, and go-sqlite3 pays a goroutine for each context that can be cancelled. So they run
// to their end.

// Quota returns an account's count in a month. The error is ErrNotFound when the account was never opened.
func (db *DB) Quota(ctx context.Context, account string, month events.Month) (capture.Quota, error) {
	if err := db.hold(&db.reads.quota); err != nil {
		return capture.Quota{}, err
	}
	defer db.pass()
	of := db.cache.quotas.of(account)
	of.mu.Lock()
	defer of.mu.Unlock()
	if q, kept := of.rows[account]; kept && q.Month == month {
		return q, nil
	}
	q := capture.Quota{Month: month}
	err := db.reads.quota.QueryRowContext(context.WithoutCancel(ctx), account, string(month)).Scan(&q.Limit, &q.Used)
	if err != nil {
		return q, db.readError(err)
	}
	of.keep(account, q)
	return q, nil
}

// Tokens returns the tokens issued under an id: one, none, or in theory more, since each partition issues its own.
// The slice is shared: it is for reading only.
func (db *DB) Tokens(ctx context.Context, id string) ([]capture.Token, error) {
	if err := db.hold(&db.reads.tokens); err != nil {
		return nil, err
	}
	defer db.pass()
	of := db.cache.tokens.of(id)
	of.mu.Lock()
	defer of.mu.Unlock()
	if tokens, kept := of.rows[id]; kept {
		return tokens, nil
	}
	tokens, err := db.readTokens(ctx, id)
	if err == nil && len(tokens) > 0 {
		of.keep(id, tokens)
	}
	return tokens, err
}

func (db *DB) readTokens(ctx context.Context, id string) ([]capture.Token, error) {
	rows, err := db.reads.tokens.QueryContext(context.WithoutCancel(ctx), id)
	if err != nil {
		return nil, db.readError(err)
	}
	return db.scanTokens(rows)
}

// Decision returns the decision at a position. The error is ErrNotFound when it is not folded: a commit is in the file
// a moment earlier, and what it changed must not be seen here before it is everywhere.
func (db *DB) Decision(ctx context.Context, p events.Position) (events.Decision, error) {
	if err := db.hold(&db.reads.decision); err != nil {
		return events.Decision{}, err
	}
	defer db.pass()
	if p.Partition >= len(db.partitions) || p.Sequence > db.Folded(p.Partition) {
		return events.Decision{}, events.ErrNotFound
	}
	row := db.reads.decision.QueryRowContext(context.WithoutCancel(ctx), p.Partition, p.Sequence)
	d, err := scanDecision(row.Scan, p.Partition)
	return d, db.readError(err)
}

// Decisions returns up to limit decisions of a partition after a sequence, in order.
func (db *DB) Decisions(ctx context.Context, partition int, after uint64, limit int) (decisions []events.Decision, err error) {
	if err := db.hold(&db.reads.decisions); err != nil {
		return nil, err
	}
	defer db.pass()
	rows, err := db.reads.decisions.QueryContext(context.WithoutCancel(ctx), partition, after, limit)
	if err != nil {
		return nil, db.readError(err)
	}
	return db.scanDecisions(rows, partition)
}

func (db *DB) scanDecisions(rows *sql.Rows, partition int) (decisions []events.Decision, err error) {
	defer rows.Close()
	for rows.Next() {
		d, err := scanDecision(rows.Scan, partition)
		if err != nil {
			return nil, db.readError(err)
		}
		decisions = append(decisions, d)
	}
	return decisions, db.readError(rows.Err())
}

// lastDecision returns the last decision of a partition before a sequence that is not erased, or ErrNotFound.
func (db *DB) lastDecision(partition int, before uint64) (events.Decision, error) {
	if err := db.hold(&db.reads.lastDecision); err != nil {
		return events.Decision{}, err
	}
	defer db.pass()
	d, err := scanDecision(db.reads.lastDecision.QueryRow(partition, before).Scan, partition)
	return d, db.readError(err)
}

// Erasures returns the decisions that erased an account, in order.
func (db *DB) Erasures(ctx context.Context, account string) ([]events.Decision, error) {
	if err := db.hold(&db.reads.erasures); err != nil {
		return nil, err
	}
	defer db.pass()
	rows, err := db.reads.erasures.QueryContext(context.WithoutCancel(ctx), account)
	if err != nil {
		return nil, db.readError(err)
	}
	return db.scanDecisions(rows, events.PartitionOf(account, len(db.partitions)))
}

func scanDecision(scan func(...any) error, partition int) (d events.Decision, err error) {
	var ceType, at string
	var requestDigest, digest []byte
	d.Position.Partition = partition
	if err := scan(&d.Position.Sequence, &d.Account, &d.RequestID, &ceType, &at, &requestDigest, &digest, &d.Data); err != nil {
		return d, err
	}
	copy(d.RequestDigest[:], requestDigest)
	copy(d.Digest[:], digest)
	if d.Time, err = parseTime(at); err != nil {
		return d, err
	}
	d.Body, err = events.DecodeBody(ceType, d.Data)
	return d, err
}

func (db *DB) readError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sql.ErrNoRows):
		return events.ErrNotFound
	}
	return db.fail(err)
}

func parseTime(text string) (time.Time, error) { return time.Parse(time.RFC3339Nano, text) }
