package projections

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"strings"

	"jobtally/internal/events"
)

// readStatements run on the pool of reading connections.
type readStatements struct {
	decision, decisions, quota, job, tokens, firstMonth, history, month *sql.Stmt

	erased, lastErasures, erasures, lastDecision *sql.Stmt

	newest, updated, lookup, page, passing, allPassing, loose, chunks, words *sql.Stmt // of jobs

	account, list, issued, issuedOf *sql.Stmt // of accounts and their tokens
}

// loadStatements run on the pinned connection of Load. Those over a list take it as one JSON array and answer with the
// index of the element; CROSS JOIN keeps SQLite from scanning the table instead of the list.
type loadStatements struct {
	position, accounts, months, jobs, tracked, firstAnswers, tokensOf *sql.Stmt

	totals, leaves, monthsOf *sql.Stmt // for closing a month, and erasing an account
}

// writeStatements run on the pinned writing connection.
type writeStatements struct {
	token, revoke, position, openAccounts, limit, laterLimits, archive *sql.Stmt

	stored, update, remove, unindexed, chunk, block *sql.Stmt // of jobs

	seenMonths, firstDigests, otherDigests, erasure, erasedMonth *sql.Stmt // for erasing an account
}

// bulkStatements run there too. Each writes many rows.
type bulkStatements struct {
	decisions, jobs, months, days, totals, accounts bulk
}

// monthColumns are what a tally is read from.
const monthColumns = "requests, used, duplicated, rejected, repeated, first, last, digest"

const notErased = "type != '" + events.TypeAccountErased + "'"

// jobColumns are what a stored job is read from, given the decisions c that captured it and v that has its content.
const (
	jobColumns  = "jobs.sequence, jobs.id, jobs.version, jobs.changed, c.time, v.time, v.type, v.data"
	joinContent = ` JOIN decisions AS c ON c.partition = jobs.partition AND c.sequence = jobs.sequence
			JOIN decisions AS v ON v.partition = jobs.partition AND v.sequence = jobs.changed`
	selectJobs = "SELECT " + jobColumns + " FROM jobs" + joinContent

	// filters are the conditions of a JobQuery. The parameter of one that asks for nothing is NULL.
	filters = ` AND (?3 IS NULL OR status = ?3) AND (?4 IS NULL OR via = ?4) AND (?5 IS NULL OR month = ?5) AND (?6 IS NULL OR company = ?6)`

	// looseJobs are the jobs of an account that are not in the word index: those captured since, and those updated since.
	looseJobs = `SELECT jobs.sequence, v.data FROM (
			SELECT sequence, partition, changed FROM jobs WHERE account = ?1 AND sequence > ?2
			UNION ALL SELECT sequence, partition, changed FROM jobs INDEXED BY updated_jobs
			WHERE account = ?1 AND changed > ?2 AND version > 1 AND sequence <= ?2
		) AS jobs JOIN decisions AS v ON v.partition = jobs.partition AND v.sequence = jobs.changed`
)

const selectAccounts = `SELECT name, plan, quota_limit, o.time, p.partition, p.sequence, p.time, p.type, p.data FROM accounts
	JOIN decisions AS o ON o.partition = accounts.partition AND o.sequence = opened
	JOIN decisions AS p ON p.partition = accounts.partition AND p.sequence = planned`

const tokenColumns = "id, account, secret_hash, issued, scopes, name, last_four, expires, revoked"

const decisionColumns = "sequence, account, request_id, type, time, request_digest, digest, data"

func (db *DB) prepare() error {
	r, l, w := &db.reads, &db.loads, &db.writes
	for _, s := range []struct {
		on    preparer
		into  **sql.Stmt
		query string
	}{
		{db.loader, &l.position, `SELECT ` + foldedColumns + ` FROM partitions WHERE partition = ?`},
		{db.loader, &l.accounts, `SELECT name, plan, quota_limit, digest
			FROM json_each(?) AS k CROSS JOIN accounts ON name = k.value`},
		{db.loader, &l.months, `SELECT k.key, used
			FROM json_each(?) AS k CROSS JOIN months ON account = k.value ->> 0 AND month = k.value ->> 1`},
		{db.loader, &l.jobs, `SELECT k.key, jobs.id
			FROM json_each(?) AS k CROSS JOIN jobs ON account = k.value ->> 0 AND url_key = unhex(k.value ->> 1)`},
		{db.loader, &l.tracked, `SELECT k.key, version, d.type, d.data
			FROM json_each(?) AS k CROSS JOIN jobs ON jobs.account = k.value ->> 0 AND jobs.id = k.value ->> 1
			JOIN decisions AS d ON d.partition = jobs.partition AND d.sequence = jobs.changed`},
		{db.loader, &l.firstAnswers, `SELECT k.key, partition, sequence, payload_hash
			FROM json_each(?) AS k CROSS JOIN decisions
			ON account = k.value ->> 0 AND request_id = k.value ->> 1 AND payload_hash IS NOT NULL`},
		{db.loader, &l.tokensOf, `SELECT k.key, revoked
			FROM json_each(?) AS k CROSS JOIN tokens ON account = k.value ->> 0 AND tokens.id = k.value ->> 1`},

		{db.loader, &l.totals, `SELECT requests, captured, duplicated, rejected, repeated, first, last
			FROM totals WHERE partition = ? AND month = ?`},
		{db.loader, &l.leaves, `SELECT account, ` + fmt.Sprint(math.MaxInt64) + ` AS sequence, ` + monthColumns + `, NULL AS leaf
			FROM months WHERE partition = ?1 AND month = ?2
			UNION ALL SELECT account, sequence, 0, 0, 0, 0, 0, 0, 0, NULL, leaf
			FROM erased_months WHERE partition = ?1 AND month = ?2 ORDER BY account, sequence`},
		{db.loader, &l.monthsOf, `SELECT month, ` + monthColumns + ` FROM months WHERE account = ? ORDER BY month`},

		{db.reading, &r.decision, `SELECT ` + decisionColumns + ` FROM decisions WHERE partition = ? AND sequence = ?`},
		{db.reading, &r.decisions, `SELECT ` + decisionColumns + `
			FROM decisions WHERE partition = ? AND sequence > ? ORDER BY sequence LIMIT ?`},
		{db.reading, &r.quota, `SELECT quota_limit, coalesce(used, 0)
			FROM accounts LEFT JOIN months ON account = name AND month = ?2 WHERE name = ?1`},
		{db.reading, &r.job, selectJobs + ` WHERE jobs.account = ? AND id = ?`},
		{db.reading, &r.newest, selectJobs + ` WHERE jobs.account = ?1 AND jobs.sequence < ?2 AND (?8 OR version = 1)` + filters +
			` ORDER BY jobs.sequence DESC LIMIT ?7`},
		{db.reading, &r.updated, selectJobs + ` WHERE jobs.account = ?1 AND changed < ?2 AND version > 1` + filters +
			` ORDER BY changed DESC LIMIT ?7`},
		{db.reading, &r.lookup, `SELECT k.key, ` + jobColumns + `
			FROM json_each(?2) AS k CROSS JOIN jobs ON jobs.account = ?1 AND url_key = unhex(k.value)` + joinContent},
		{db.reading, &r.page, `SELECT ` + jobColumns + `
			FROM json_each(?2) AS k CROSS JOIN jobs ON jobs.account = ?1 AND jobs.sequence = k.value` + joinContent},
		{db.reading, &r.passing, `SELECT jobs.sequence, changed
			FROM json_each(?2) AS k CROSS JOIN jobs ON jobs.account = ?1 AND jobs.sequence = k.value WHERE 1` + filters},
		{db.reading, &r.allPassing, `SELECT jobs.sequence, changed FROM jobs WHERE jobs.account = ?1` + filters},
		{db.reading, &r.loose, strings.ReplaceAll(looseJobs, "?2", "(SELECT indexed FROM accounts WHERE name = ?1)")},
		{db.reading, &r.chunks, `SELECT chunk, jobs FROM chunks WHERE account = ? AND chunk < ? ORDER BY chunk DESC LIMIT ?`},
		{db.reading, &r.words, `SELECT c.chunk, block FROM chunks AS c CROSS JOIN words AS w ON w.account = c.account AND w.chunk = c.chunk
			AND first >= coalesce((SELECT max(first) FROM words WHERE account = c.account AND chunk = c.chunk AND first <= ?2), '')
			AND first < ?2 || char(1114111) WHERE c.account = ?1 AND c.chunk BETWEEN ?3 AND ?4`},
		{db.reading, &r.account, selectAccounts + ` WHERE name = ?`},
		{db.reading, &r.list, selectAccounts + ` WHERE name > ? ORDER BY name LIMIT ?`},
		{db.reading, &r.issued, `SELECT ` + tokenColumns + ` FROM tokens WHERE account = ? AND id > ? ORDER BY id LIMIT ?`},
		{db.reading, &r.issuedOf, `SELECT tokens.id FROM json_each(?) AS k CROSS JOIN tokens ON tokens.id = k.value`},
		{db.reading, &r.tokens, `SELECT ` + tokenColumns + ` FROM tokens WHERE id = ?`},
		{db.reading, &r.firstMonth, `SELECT min(month) FROM totals WHERE partition = ? AND month > ?`},
		{db.reading, &r.erased, `SELECT 1 FROM erasures WHERE account = ? LIMIT 1`},
		{db.reading, &r.history, historyQuery},
		{db.reading, &r.month, monthQuery},
		{db.reading, &r.lastErasures, `SELECT account, max(sequence),
			NOT EXISTS (SELECT 1 FROM accounts WHERE name = account) AND EXISTS (SELECT 1 FROM months WHERE months.account = erasures.account)
			FROM erasures WHERE partition = ? GROUP BY account`},
		{db.reading, &r.erasures, `SELECT ` + decisionColumns + `
			FROM erasures JOIN decisions USING (partition, sequence, account) WHERE account = ? ORDER BY sequence`},
		{db.reading, &r.lastDecision, `SELECT ` + decisionColumns + `
			FROM decisions WHERE partition = ? AND sequence < ? ORDER BY sequence DESC LIMIT 1`},

		{db.writer, &w.token, `INSERT INTO tokens (id, account, secret_hash, issued, scopes, name, last_four, expires, revoked)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)`},
		{db.writer, &w.revoke, `UPDATE tokens SET revoked = 1 WHERE id = ? AND account = ?`},
		{db.writer, &w.position, `INSERT INTO partitions (partition, sequence, digest, archived, archive) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT DO UPDATE SET sequence = excluded.sequence, digest = excluded.digest,
			archived = excluded.archived, archive = excluded.archive`},
		{db.writer, &w.stored, `SELECT sequence, version, changed FROM jobs WHERE account = ? AND id = ?`},
		{db.writer, &w.update, `UPDATE jobs SET version = version + 1, changed = ?, status = ?, company = ? WHERE account = ? AND sequence = ?`},
		{db.writer, &w.remove, `DELETE FROM jobs WHERE account = ? AND sequence = ?`},
		{db.writer, &w.unindexed, looseJobs},
		{db.writer, &w.chunk, `INSERT INTO chunks (account, chunk, jobs) VALUES (?, ?, ?)`},
		{db.writer, &w.block, `INSERT INTO words (account, chunk, first, block) VALUES (?, ?, ?, ?)`},
		{db.writer, &w.openAccounts, `SELECT name, plan, quota_limit, digest, opened, planned, indexed, loose
			FROM json_each(?) AS k CROSS JOIN accounts ON name = k.value`},
		{db.writer, &w.limit, `INSERT OR REPLACE INTO limits (account, month, quota_limit) VALUES (?, ?, ?)`},
		{db.writer, &w.laterLimits, `DELETE FROM limits WHERE account = ? AND month > ?`},
		{db.writer, &w.archive, `INSERT INTO archives (partition, month, sequence) VALUES (?, ?, ?)`},
		{db.writer, &w.erasure, `INSERT INTO erasures (account, partition, sequence, requests) VALUES (?, ?, ?, ?)`},
		{db.writer, &w.erasedMonth, `INSERT INTO erased_months (partition, month, account, sequence, leaf) VALUES (?, ?, ?, ?, ?)`},
		{db.writer, &w.seenMonths, `SELECT month, ` + monthColumns + ` FROM months WHERE account = ? ORDER BY month`},
		{db.writer, &w.firstDigests, `SELECT digest FROM decisions WHERE account = ? AND payload_hash IS NOT NULL`},
		{db.writer, &w.otherDigests, `SELECT digest FROM decisions WHERE account = ? AND payload_hash IS NULL AND ` + notErased},
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
	if err := db.prepareErase(); err != nil {
		return err
	}
	return db.prepareBulks()
}

// prepareErase prepares the deletions: everything of an account but its erasures.
func (db *DB) prepareErase() error {
	for _, rows := range []string{
		"decisions WHERE account = ? AND payload_hash IS NOT NULL", "decisions WHERE account = ? AND payload_hash IS NULL AND " + notErased,
		"jobs WHERE account = ?", "months WHERE account = ?", "days WHERE account = ?", "limits WHERE account = ?",
		"chunks WHERE account = ?", "words WHERE account = ?", "tokens WHERE account = ?", "accounts WHERE name = ?",
	} {
		stmt, err := db.writer.PrepareContext(context.Background(), "DELETE FROM "+rows)
		if err != nil {
			return db.fail(err)
		}
		db.erasing = append(db.erasing, stmt)
		db.prepared = append(db.prepared, stmt)
	}
	return nil
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
		{&b.jobs, 11, `INSERT INTO jobs (account, sequence, partition, id, url_key, month, version, changed, status, via, company) VALUES`},
		{&b.months, 12, `INSERT INTO months
			(account, month, partition, requests, used, duplicated, rejected, repeated, extension, first, last, digest) VALUES
			ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, used = used + excluded.used,
			duplicated = duplicated + excluded.duplicated, rejected = rejected + excluded.rejected,
			repeated = repeated + excluded.repeated, extension = extension + excluded.extension,
			last = excluded.last, digest = excluded.digest
			RETURNING account, month, used`},
		{&b.days, 6, `INSERT INTO days (account, month, day, captured, duplicated, rejected) VALUES
			ON CONFLICT DO UPDATE SET captured = captured + excluded.captured, duplicated = duplicated + excluded.duplicated,
			rejected = rejected + excluded.rejected`},
		{&b.totals, 9, `INSERT INTO totals
			(partition, month, requests, captured, duplicated, rejected, repeated, first, last) VALUES
			ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, captured = captured + excluded.captured,
			duplicated = duplicated + excluded.duplicated, rejected = rejected + excluded.rejected,
			repeated = repeated + excluded.repeated, first = min(first, excluded.first), last = max(last, excluded.last)`},
		{&b.accounts, 9, `INSERT INTO accounts (name, partition, plan, quota_limit, digest, opened, planned, indexed, loose) VALUES
			ON CONFLICT DO UPDATE SET plan = excluded.plan, quota_limit = excluded.quota_limit, digest = excluded.digest,
			planned = excluded.planned, indexed = excluded.indexed, loose = excluded.loose`},
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
