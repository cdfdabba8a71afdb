package projections

import (
	"context"
	"database/sql"
	"encoding/json"
	"slices"
	"strings"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// Month returns a month of an account, whether it has requests or not: its limit is the one of now from the current
// month on. The error is ErrNotFound when the account is not open.
//
// One statement reads it, and so as the decisions up to one position left it. Nobody hears of that position before this
// node has told it everywhere: what is read next, from memory too, is not behind it.
func (db *DB) Month(ctx context.Context, account string, month, current events.Month) (capture.AccountMonth, error) {
	m, err := db.readMonth(ctx, account, month, current)
	if err != nil {
		return m, err
	}
	return m, db.awaitFolded(ctx, m.At.Partition, m.At.Sequence)
}

func (db *DB) readMonth(ctx context.Context, account string, month, current events.Month) (m capture.AccountMonth, err error) {
	if err := db.hold(&db.reads.month); err != nil {
		return m, err
	}
	defer db.pass()
	partition := db.partitionOf(account)
	var days []byte
	row := db.reads.month.QueryRowContext(context.WithoutCancel(ctx), account, partition, string(current), string(month))
	if m, err = scanMonth(row.Scan, partition, &days); err == nil {
		err = json.Unmarshal(days, &m.Days)
		slices.SortFunc(m.Days, func(a, b capture.DayCount) int { return strings.Compare(a.Day, b.Day) })
	}
	return m, db.readError(err)
}

// Months returns up to limit months of an account before one, the latest first, without their days: the current one, and
// those before it that have requests; none when the account is not open. It reads as Month does.
func (db *DB) Months(ctx context.Context, account string, current, before events.Month, limit int) ([]capture.AccountMonth, error) {
	months, err := db.readMonths(ctx, account, current, before, limit)
	if err != nil || len(months) == 0 {
		return nil, err
	}
	return months, db.awaitFolded(ctx, months[0].At.Partition, months[0].At.Sequence)
}

func (db *DB) readMonths(ctx context.Context, account string, current, before events.Month, limit int) (months []capture.AccountMonth, err error) {
	if err := db.hold(&db.reads.history); err != nil {
		return nil, err
	}
	defer db.pass()
	partition := db.partitionOf(account)
	var none []byte
	rows, err := db.reads.history.QueryContext(context.WithoutCancel(ctx), account, partition, string(current), string(before), limit)
	err = scanAll(rows, err, func(rows *sql.Rows) error {
		m, err := scanMonth(rows.Scan, partition, &none)
		months = append(months, m)
		return err
	})
	return months, db.readError(err)
}

func (db *DB) partitionOf(account string) int { return events.PartitionOf(account, len(db.partitions)) }

// scanMonth reads the historyColumns and the days.
func scanMonth(scan func(...any) error, partition int, days *[]byte) (m capture.AccountMonth, err error) {
	var archived sql.Null[int64]
	var link, data []byte
	m.At.Partition = partition
	before := []any{&m.Month, &m.Begun, &m.At.Sequence, &m.Limit, &archived, &link, &data, &m.Extension}
	if err := scanTally(scan, partition, &m.Tally, before, days); err != nil || !archived.Valid {
		return m, err
	}
	body, err := events.DecodeBody(events.TypeMonthArchived, data)
	if err != nil {
		return m, err
	}
	m.Archive = &capture.MonthArchive{
		Position: events.Position{Partition: partition, Sequence: uint64(archived.V)}, Month: body.(*events.MonthArchived).Digest,
	}
	copy(m.Archive.Digest[:], link)
	return m, nil
}

// historyColumns are what scanMonth reads, of the wanted months of account ?1 in partition ?2, where ?3 is the current one.
const (
	historyColumns = `wanted.month, ` + begun + `, (SELECT sequence FROM partitions WHERE partition = ?2),
		CASE WHEN wanted.month >= ?3 THEN accounts.quota_limit ELSE coalesce(
			(SELECT quota_limit FROM limits WHERE account = ?1 AND month <= wanted.month ORDER BY month DESC LIMIT 1),
			(SELECT quota_limit FROM limits WHERE account = ?1 ORDER BY month LIMIT 1)) END,
		archives.sequence, decisions.digest, decisions.data, coalesce(extension, 0),
		coalesce(requests, 0), coalesce(used, 0), coalesce(duplicated, 0), coalesce(rejected, 0), coalesce(repeated, 0),
		coalesce(first, 0), coalesce(last, 0), months.digest`

	historyTables = `accounts CROSS JOIN wanted
		LEFT JOIN months ON months.account = ?1 AND months.month = wanted.month
		LEFT JOIN archives ON archives.partition = ?2 AND archives.month = wanted.month
		LEFT JOIN decisions ON decisions.partition = ?2 AND decisions.sequence = archives.sequence
		WHERE name = ?1`

	// begun is the month in which account ?1 was opened, or in which a clock that was behind counted a capture before.
	begun = `min((SELECT min(month) FROM limits WHERE account = ?1), coalesce((SELECT month FROM months
		WHERE account = ?1 AND used + duplicated + rejected + repeated > 0 ORDER BY month LIMIT 1), '9999-12'))`

	historyQuery = `WITH wanted(month) AS (
			SELECT ?3 WHERE ?3 < ?4
			UNION ALL SELECT month FROM months WHERE account = ?1 AND month < min(?3, ?4) AND month >= ` + begun + `
			ORDER BY 1 DESC LIMIT ?5)
		SELECT ` + historyColumns + `, NULL FROM ` + historyTables

	monthQuery = `WITH wanted(month) AS (SELECT ?4)
		SELECT ` + historyColumns + `, (SELECT json_group_array(json_object('Day', day, 'Captured', captured,
			'Duplicated', duplicated, 'Rejected', rejected)) FROM days WHERE account = ?1 AND days.month = ?4)
		FROM ` + historyTables
)
