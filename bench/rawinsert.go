package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	_ "github.com/mattn/go-sqlite3" // the driver

	"jobtally/internal/node"
	"jobtally/internal/projections"
)

// writerPragmas are those of the projection's writing connection, in the form of the driver.
const writerPragmas = "?_journal_mode=WAL&_busy_timeout=5000&_cache_size=-32768&_synchronous=NORMAL&_txlock=immediate&_secure_delete=true"

func openSQLite(path, pragmas string) (*sql.DB, error) {
	db, err := sql.Open("sqlite3", "file:"+(&url.URL{Path: path}).EscapedPath()+pragmas)
	if err == nil {
		db.SetMaxOpenConns(1)
	}
	return db, err
}

// rawInserts inserts the rows of a folded projection into a fresh file. Only statements and commits are on the clock.
func (s *suite) rawInserts(ctx context.Context) (result sample, err error) {
	source, err := s.foldedFile(ctx)
	if err != nil {
		return result, err
	}
	d, err := s.million(ctx)
	if err != nil {
		return result, err
	}
	dir, remove := s.scratch.fresh("raw-insert")
	defer func() { err = errors.Join(err, remove()) }()
	if err := makeDir(dir); err != nil {
		return result, err
	}
	path := filepath.Join(dir, node.ProjectionFile)
	empty, err := projections.Open(path, d.ledgerID, 1) // makes the schema
	if err == nil {
		err = empty.Close()
	}
	if err != nil {
		return result, err
	}
	spent, err := insertAll(ctx, source, path, (s.size.decisions+foldBatch-1)/foldBatch)
	return sample{value: float64(s.size.decisions) / spent.Seconds()}, err
}

func insertAll(ctx context.Context, source, path string, batches int) (spent time.Duration, err error) {
	from, err := openSQLite(source, "?mode=ro&_query_only=1")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	from.SetMaxOpenConns(0) // a cursor for each table
	into, err := openSQLite(path, writerPragmas)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, into.Close()) }()
	conn, err := into.Conn(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	tables, err := openTables(ctx, from, conn)
	defer func() {
		for _, t := range tables {
			err = errors.Join(err, t.close())
		}
	}()
	if err != nil {
		return 0, err
	}
	for batch := range batches {
		took, err := insertBatch(ctx, conn, tables, batch, batches)
		if err = errors.Join(err, ctx.Err()); err != nil {
			return spent, err
		}
		spent += took
	}
	return spent, nil
}

// insertBatch inserts the share of each table that is one batch's, in one transaction with the position.
func insertBatch(ctx context.Context, conn *sql.Conn, tables []*table, batch, batches int) (took time.Duration, err error) {
	for _, t := range tables {
		if err := t.read(t.count * (batch + 1) / batches); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	tx, err := conn.BeginTx(context.Background(), nil)
	if err != nil {
		return 0, err
	}
	for _, t := range tables {
		for _, row := range t.rows {
			if _, err := t.insert.Exec(row...); err != nil {
				return 0, errors.Join(fmt.Errorf("insert into %s: %w", t.name, err), tx.Rollback())
			}
		}
	}
	if _, err := tx.Exec("REPLACE INTO partitions VALUES (0, ?, zeroblob(32), '', zeroblob(32))", (batch+1)*foldBatch); err != nil {
		return 0, errors.Join(err, tx.Rollback())
	}
	err = tx.Commit()
	return time.Since(began), err
}

// table is one table of the projection on its way from one file to another.
type table struct {
	name   string
	count  int // rows in all
	cursor *sql.Rows
	insert *sql.Stmt
	width  int // columns
	done   int
	rows   [][]any // of the batch
}

// openTables opens every table but those that a fresh projection has a row in already.
func openTables(ctx context.Context, from *sql.DB, into *sql.Conn) (tables []*table, err error) {
	names, err := columnsOf(ctx, from)
	if err != nil {
		return nil, err
	}
	for name, columns := range names {
		t := &table{name: name, width: len(columns)}
		tables = append(tables, t)
		if err := from.QueryRowContext(ctx, "SELECT count(*) FROM "+name).Scan(&t.count); err != nil {
			return tables, err
		}
		query := "SELECT * FROM " + name
		for _, column := range columns {
			if column == "sequence" { // in the order of the decisions, which scatters the keys as the fold does
				query += " ORDER BY sequence"
			}
		}
		if t.cursor, err = from.QueryContext(ctx, query); err != nil {
			return tables, err
		}
		places := strings.TrimSuffix(strings.Repeat("?, ", t.width), ", ")
		if t.insert, err = into.PrepareContext(ctx, "INSERT INTO "+name+" VALUES ("+places+")"); err != nil {
			return tables, err
		}
	}
	return tables, nil
}

// columnsOf returns the columns of each table.
func columnsOf(ctx context.Context, db *sql.DB) (map[string][]string, error) {
	rows, err := db.QueryContext(ctx, `SELECT t.name, c.name FROM sqlite_schema AS t, pragma_table_info(t.name) AS c
		WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%' AND t.name NOT IN ('ledger', 'partitions') ORDER BY t.name, c.cid`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns := map[string][]string{}
	for rows.Next() {
		var table, column string
		if err := rows.Scan(&table, &column); err != nil {
			return nil, err
		}
		columns[table] = append(columns[table], column)
	}
	return columns, rows.Err()
}

// read takes the rows from where the last batch ended up to the given number.
func (t *table) read(upTo int) error {
	for t.rows = t.rows[:0]; t.done < upTo && t.cursor.Next(); t.done++ {
		row := make([]any, t.width)
		into := make([]any, t.width)
		for i := range row {
			into[i] = &row[i]
		}
		if err := t.cursor.Scan(into...); err != nil {
			return err
		}
		t.rows = append(t.rows, row)
	}
	return t.cursor.Err()
}

func (t *table) close() (err error) {
	if t.cursor != nil {
		err = t.cursor.Close()
	}
	if t.insert != nil {
		err = errors.Join(err, t.insert.Close())
	}
	return err
}
