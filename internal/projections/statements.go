package projections

import (
	"context"
	"database/sql"
)

// readStatements run on the pool of reading connections.
type readStatements struct {
	decision, decisions, quota, job, tokens *sql.Stmt
}

// loadStatements run on the pinned connection of Load. Those over a list take it as one JSON array and answer with the
// index of the element; CROSS JOIN keeps SQLite from scanning the table instead of the list.
type loadStatements struct {
	position, accounts, months, jobs, firstAnswers, tokensOf *sql.Stmt
}

// writeStatements run on the pinned writing connection.
type writeStatements struct {
	token, revoke, position, openAccounts *sql.Stmt
}

// bulkStatements run there too. Each writes many rows.
type bulkStatements struct {
	decisions, jobs, months, accounts bulk
}

const decisionColumns = "sequence, account, request_id, type, time, request_digest, digest, data"

func (db *DB) prepare() error {
	r, l, w := &db.reads, &db.loads, &db.writes
	for _, s := range []struct {
		on    preparer
		into  **sql.Stmt
		query string
	}{
		{db.loader, &l.position, `SELECT sequence FROM partitions WHERE partition = ?`},
		{db.loader, &l.accounts, `SELECT name, plan, quota_limit, digest
			FROM json_each(?) AS k CROSS JOIN accounts ON name = k.value`},
		{db.loader, &l.months, `SELECT k.key, used
			FROM json_each(?) AS k CROSS JOIN months ON account = k.value ->> 0 AND month = k.value ->> 1`},
		{db.loader, &l.jobs, `SELECT k.key, jobs.id
			FROM json_each(?) AS k CROSS JOIN jobs ON account = k.value ->> 0 AND url_key = unhex(k.value ->> 1)`},
		{db.loader, &l.firstAnswers, `SELECT k.key, partition, sequence, payload_hash
			FROM json_each(?) AS k CROSS JOIN decisions
			ON account = k.value ->> 0 AND request_id = k.value ->> 1 AND payload_hash IS NOT NULL`},
		{db.loader, &l.tokensOf, `SELECT k.key, revoked
			FROM json_each(?) AS k CROSS JOIN tokens ON account = k.value ->> 0 AND tokens.id = k.value ->> 1`},

		{db.reading, &r.decision, `SELECT ` + decisionColumns + ` FROM decisions WHERE partition = ? AND sequence = ?`},
		{db.reading, &r.decisions, `SELECT ` + decisionColumns + `
			FROM decisions WHERE partition = ? AND sequence > ? ORDER BY sequence LIMIT ?`},
		{db.reading, &r.quota, `SELECT quota_limit, coalesce(used, 0)
			FROM accounts LEFT JOIN months ON account = name AND month = ?2 WHERE name = ?1`},
		{db.reading, &r.job, `SELECT time, data
			FROM jobs JOIN decisions USING (partition, sequence) WHERE jobs.account = ? AND id = ?`},
		{db.reading, &r.tokens, `SELECT account, secret_hash, revoked FROM tokens WHERE id = ?`},

		{db.writer, &w.token, `INSERT INTO tokens (id, account, secret_hash, revoked) VALUES (?, ?, ?, 0)`},
		{db.writer, &w.revoke, `UPDATE tokens SET revoked = 1 WHERE id = ? AND account = ?`},
		{db.writer, &w.position, `INSERT INTO partitions (partition, sequence, digest) VALUES (?, ?, ?)
			ON CONFLICT DO UPDATE SET sequence = excluded.sequence, digest = excluded.digest`},
		{db.writer, &w.openAccounts, `SELECT name, plan, quota_limit, digest
			FROM json_each(?) AS k CROSS JOIN accounts ON name = k.value`},
	} {
		outdated := db.outdated.Load()
		if outdated && s.on != db.reading {
			continue // it is only read
		}
		stmt, err := s.on.PrepareContext(context.Background(), s.query)
		if outdated && err != nil {
			continue // what cannot be read there has to wait: see hold
		}
		if err != nil {
			return db.fail(err)
		}
		*s.into = stmt
		db.prepared = append(db.prepared, stmt)
	}
	if db.outdated.Load() {
		return nil
	}
	return db.prepareBulks()
}

func (db *DB) prepareBulks() (err error) {
	b := &db.bulks
	for _, s := range []struct {
		into  *bulk
		width int
		query string
	}{
		{&b.decisions, 10, `INSERT INTO decisions
			(partition, sequence, account, request_id, type, time, request_digest, digest, payload_hash, data) VALUES`},
		{&b.jobs, 6, `INSERT INTO jobs (account, id, url_key, month, partition, sequence) VALUES`},
		{&b.months, 6, `INSERT INTO months (account, month, used, duplicated, rejected, repeated) VALUES
			ON CONFLICT DO UPDATE SET used = used + excluded.used, duplicated = duplicated + excluded.duplicated,
			rejected = rejected + excluded.rejected, repeated = repeated + excluded.repeated
			RETURNING account, month, used`},
		{&b.accounts, 4, `INSERT INTO accounts (name, plan, quota_limit, digest) VALUES
			ON CONFLICT DO UPDATE SET plan = excluded.plan, quota_limit = excluded.quota_limit, digest = excluded.digest`},
	} {
		if *s.into, err = db.prepareBulk(s.query, s.width); err != nil {
			return db.fail(err)
		}
	}
	return nil
}

type preparer interface {
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
}
