package projections

import (
	"database/sql"
	"encoding/hex"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// table is a table of the projection. What it consists of is read from the schema: a new column is audited with the
// others.
type table struct {
	name          string
	columns, keys []string
	account       string // the column of the account; empty where there is none
}

// tables are those whose rows follow from requests.
func (c *comparison) tables() (tables []table, err error) {
	err = c.query(func(rows *sql.Rows) error {
		var name, column string
		var key bool
		if err := rows.Scan(&name, &column, &key); err != nil {
			return err
		}
		if len(tables) == 0 || tables[len(tables)-1].name != name {
			tables = append(tables, table{name: name})
		}
		t := &tables[len(tables)-1]
		t.columns = append(t.columns, column)
		if key {
			t.keys = append(t.keys, column)
		}
		if column == "account" || name == "accounts" && column == "name" {
			t.account = column
		}
		return nil
	}, `SELECT t.name, c.name, c.pk > 0 FROM main.sqlite_schema AS t, pragma_table_info(t.name) AS c
		WHERE t.type = 'table' AND t.name != 'ledger' ORDER BY t.name, c.cid`)
	if c.Account != "" { // the rest is not of one account
		tables = slices.DeleteFunc(tables, func(t table) bool { return t.account == "" })
	}
	return tables, err
}

// compare reports the rows of a table that differ, that are missing, and that should not be there. Each file is read
// once in the order of the primary key, and looked up in by it: nothing is gathered.
func (c *comparison) compare(t table) error {
	if err := c.count(t); err != nil {
		return err
	}
	if err := c.query(func(rows *sql.Rows) error { return c.scan(t, rows) }, t.differing()); err != nil {
		return err
	}
	only, args := "", []any{}
	if c.Account != "" {
		only, args = fmt.Sprintf(" AND found.%s = ?", t.account), []any{c.Account}
	}
	return c.query(func(rows *sql.Rows) error { return c.scan(t, rows) }, t.extra()+only, args...)
}

func (c *comparison) count(t table) error {
	var rows uint64
	err := c.conn.QueryRowContext(c.ctx, "SELECT count(*) FROM main."+t.name).Scan(&rows)
	c.sum.Rows += rows
	return err
}

func (t table) differing() string {
	unequal := []string{"found." + t.keys[0] + " IS NULL"}
	for _, column := range t.columns {
		unequal = append(unequal, fmt.Sprintf("found.%[1]s IS NOT made.%[1]s", column))
	}
	return fmt.Sprintf("SELECT %s, %s FROM main.%s AS made LEFT JOIN projection.%s AS found ON %s WHERE %s",
		t.list("made."), t.list("found."), t.name, t.name, t.onKeys(), strings.Join(unequal, " OR "))
}

func (t table) extra() string {
	return fmt.Sprintf("SELECT %s, %s FROM projection.%s AS found LEFT JOIN main.%s AS made ON %s WHERE made.%s IS NULL",
		t.list("made."), t.list("found."), t.name, t.name, t.onKeys(), t.keys[0])
}

func (t table) list(of string) string { return of + strings.Join(t.columns, ", "+of) }

func (t table) onKeys() string {
	var equal []string
	for _, key := range t.keys {
		equal = append(equal, fmt.Sprintf("found.%[1]s = made.%[1]s", key))
	}
	return strings.Join(equal, " AND ")
}

// scan reports a row that differs.
func (c *comparison) scan(t table, rows *sql.Rows) error {
	values, into := make([]any, 2*len(t.columns)), make([]any, 2*len(t.columns))
	for i := range values {
		into[i] = &values[i]
	}
	if err := rows.Scan(into...); err != nil {
		return err
	}
	c.reportRow(t, values[:len(t.columns)], values[len(t.columns):])
	return nil
}

func (c *comparison) reportRow(t table, made, found []any) {
	row := made
	if t.value(made, t.keys[0]) == nil {
		row = found
	}
	account, _ := t.value(row, t.account).(string)
	partition, _ := t.value(row, "partition").(int64)
	if c.leftOut[account] || c.behind[partition] && (t.name == "totals" || t.name == "partitions") {
		return
	}
	d := Difference{Position: c.position(t, row, account), Account: account, What: t.label(row)}
	d.Month = c.month(t, row, d.Position)
	switch {
	case t.value(made, t.keys[0]) == nil:
		d.What, d.Expected, d.Found = d.What+" follows from no request", "none", t.text(found)
	case t.value(found, t.keys[0]) == nil:
		d.What, d.Expected, d.Found = d.What+" is missing", t.text(made), "none"
	default:
		var columns []string
		for i, column := range t.columns {
			if reflect.DeepEqual(made[i], found[i]) {
				continue
			}
			if columns = append(columns, column); len(columns) == 1 {
				d.Expected, d.Found = show(column, made[i]), show(column, found[i])
			}
		}
		d.What += ": " + strings.Join(columns, ", ")
	}
	c.report(d)
}

// position is that of the row's decision, or where the partition of its account is folded.
func (c *comparison) position(t table, row []any, account string) events.Position {
	partition, has := t.value(row, "partition").(int64)
	sequence, both := t.value(row, "sequence").(int64)
	if has && both {
		return events.Position{Partition: int(partition), Sequence: uint64(sequence)}
	}
	p := events.PartitionOf(account, c.Ledger.Partitions)
	return events.Position{Partition: p, Sequence: c.foldedTo(p)}
}

// month is that of the row, or of its decision, where it has one.
func (c *comparison) month(t table, row []any, of events.Position) events.Month {
	if month, has := t.value(row, "month").(string); has {
		return events.Month(month)
	}
	if _, has := t.value(row, "sequence").(int64); !has || t.name == "partitions" {
		return ""
	}
	d, err := c.scratch.Decision(c.ctx, of)
	if err != nil {
		return "" // it was not made again: that is a difference of its own
	}
	var archived sql.Null[events.Month]
	c.conn.QueryRowContext(c.ctx, "SELECT max(month) FROM main.archives WHERE partition = ? AND sequence < ?", of.Partition, of.Sequence).Scan(&archived)
	return capture.MonthOf(&d, archived.V)
}

// value is that of a column in a row, and nil where the table has no such column.
func (t table) value(row []any, column string) any {
	if i := slices.Index(t.columns, column); i >= 0 {
		return row[i]
	}
	return nil
}

// label names a row by what of its key is neither account nor position.
func (t table) label(row []any) string {
	label := "row of " + t.name
	for _, key := range t.keys {
		if key != t.account && key != "partition" && key != "sequence" {
			label += " " + show(key, t.value(row, key))
		}
	}
	return label
}

func (t table) text(row []any) string {
	var fields []string
	for i, column := range t.columns {
		fields = append(fields, column+" "+show(column, row[i]))
	}
	return strings.Join(fields, ", ")
}

// show writes a value for people. Of what is no text only data is one.
func show(column string, value any) string {
	switch v := value.(type) {
	case nil:
		return "NULL"
	case []byte:
		if column == "data" {
			return string(v)
		}
		return hex.EncodeToString(v)
	}
	return fmt.Sprint(value)
}
