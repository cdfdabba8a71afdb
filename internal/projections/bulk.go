package projections

import (
	"context"
	"database/sql"
	"encoding/json"
	"strings"
)

// bulk is a statement on many rows of one table, prepared for each of a few numbers of rows.
type bulk struct {
	width int // arguments of a row
	stmts [len(bulkRows)]*sql.Stmt
}

// bulkRows are the numbers of rows of one statement, from most to one, so that any number is a sum of them. What a
// statement costs beside its rows is small against 64 of them.
var bulkRows = [...]int{64, 8, 1}

// prepareBulk prepares a statement in which VALUES stands for the rows.
func (db *DB) prepareBulk(query string, width int) (bulk, error) {
	b := bulk{width: width}
	row := "(" + strings.Repeat("?, ", width-1) + "?)"
	for i, n := range bulkRows {
		stmt, err := db.writer.PrepareContext(context.Background(),
			strings.Replace(query, "VALUES", "VALUES "+strings.Repeat(row+", ", n-1)+row, 1))
		if err != nil {
			return b, err
		}
		b.stmts[i] = stmt
		db.prepared = append(db.prepared, stmt)
	}
	return b, nil
}

// run runs the statement on rows, given as their arguments one after another, and scans each row that it returns.
func (b *bulk) run(args []any, scan func(*sql.Rows) error) error {
	for i, n := range bulkRows {
		for ; len(args) >= n*b.width; args = args[n*b.width:] {
			if err := query(b.stmts[i], scan, args[:n*b.width]...); err != nil {
				return err
			}
		}
	}
	return nil
}

// each runs a statement on a list, as JSON, and scans each row of the answer.
func each[T any](stmt *sql.Stmt, list []T, scan func(*sql.Rows) error) error {
	if len(list) == 0 {
		return nil
	}
	text, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return query(stmt, scan, string(text))
}

// query runs a statement to its end and scans each row that it returns. Statements that write come here too, for the
// driver hands all arguments of a query to SQLite in one call, and those of an Exec one by one.
func query(stmt *sql.Stmt, scan func(*sql.Rows) error, args ...any) error {
	rows, err := stmt.QueryContext(context.Background(), args...)
	return scanAll(rows, err, scan)
}

// scanAll scans each row that a query returned, if it did not fail.
func scanAll(rows *sql.Rows, err error, scan func(*sql.Rows) error) error {
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
