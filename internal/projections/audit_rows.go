package projections

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"

	"jobtally/internal/events"
)

const (
	// catchUpRounds is how often an audit follows a projection that folds on, before it holds on to one position.
	catchUpRounds = 5
	// nearBy is how many decisions may remain to be decided again while it holds on: for so long the write-ahead log of
	// a running service grows.
	nearBy = 4096
)

var errReplaced = errors.New("the projection was replaced by an older one while it was audited: audit again")

// catchUp decides requests again until little is left up to where the projection is.
func (a *auditor) catchUp(ctx context.Context) error {
	for range catchUpRounds {
		positions, err := ReadPositions(a.Projection, a.Ledger.ID)
		if err != nil {
			return err
		}
		before := a.sum.Requests
		if err := a.walkTo(ctx, positions); err != nil || a.sum.Requests-before < nearBy {
			return err
		}
	}
	return nil
}

// walkTo decides requests again up to where partitions are folded. What is undecided on the way was decided once.
func (a *auditor) walkTo(ctx context.Context, folded map[int]FoldedTo) error {
	before := a.sum.Undecided
	for _, p := range a.partitions {
		if folded[p].Sequence < a.at[p] {
			return errReplaced
		}
		heads, err := a.Ledger.Heads(ctx, p)
		if err != nil {
			return err
		}
		if err := a.walk(ctx, p, min(folded[p].Sequence, heads.Requests), heads); err != nil {
			return err
		}
	}
	a.sum.Lost += a.sum.Undecided - before
	return nil
}

// compareRows compares every row of the projection with that of the scratch projection, at one position of each
// partition: one transaction reads the positions and the rows.
func (a *auditor) compareRows(ctx context.Context) (err error) {
	c, err := a.compareWith(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	positions, err := c.positions()
	if err != nil {
		return err
	}
	if err := a.walkTo(ctx, positions); err != nil {
		return err
	}
	for _, p := range a.partitions {
		if a.stopped[p] {
			a.sum.RowsSkipped = fmt.Sprintf("partition %d could not be decided again up to where it is folded", p)
			a.sum.Folded = nil
			return nil
		}
		c.leaveOut(p, positions[p].Sequence)
		a.sum.Folded = append(a.sum.Folded, events.Position{Partition: p, Sequence: positions[p].Sequence})
	}
	tables, err := c.tables()
	if err != nil {
		return err
	}
	for _, t := range tables {
		if err := c.compare(t); err != nil {
			return fmt.Errorf("compare the rows of %s: %w", t.name, err)
		}
	}
	if err := c.compareSchema(); err != nil {
		return err
	}
	return c.checkFile()
}

// comparison is a connection that reads the scratch projection, as main, and the one that is audited, as projection.
type comparison struct {
	*auditor
	ctx  context.Context
	pool *sql.DB
	conn *sql.Conn

	behind  map[int64]bool  // the partitions of which the projection has not folded an erasure
	leftOut map[string]bool // the accounts that it still has, and that cannot be decided again
}

// leaveOut leaves out the rows of the accounts that were erased beyond where a partition is folded.
func (c *comparison) leaveOut(p int, folded uint64) {
	for _, d := range c.erasures[p].decisions {
		if d.Position.Sequence > folded {
			c.behind[int64(p)], c.leftOut[d.Account] = true, true
			c.sum.RowsLeftOut = fmt.Sprintf("account %s, which was erased at %s, and the totals: the projection is folded up to %d", d.Account, d.Position, folded)
		}
	}
}

func (a *auditor) compareWith(ctx context.Context) (c *comparison, err error) {
	c = &comparison{auditor: a, ctx: ctx, behind: map[int64]bool{}, leftOut: map[string]bool{}}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("projection %s: %w", a.Projection, err), c.close())
		}
	}()
	if c.pool, err = sql.Open("sqlite3", readOnly(a.scratch.path)+fmt.Sprintf("&_query_only=1&_busy_timeout=%d", busyTimeout.Milliseconds())); err != nil {
		return c, err
	}
	if c.conn, err = c.pool.Conn(ctx); err != nil {
		return c, err
	}
	if _, err = c.conn.ExecContext(ctx, "ATTACH ? AS projection", readOnly(a.Projection)); err != nil {
		return c, err
	}
	var version int
	if err = c.conn.QueryRowContext(ctx, "PRAGMA projection.user_version").Scan(&version); err != nil {
		return c, err
	}
	if version != schemaVersion {
		return c, fmt.Errorf("%w: it has schema version %d, this jobtally compares %d: audit with the jobtally that wrote it",
			ErrMismatch, version, schemaVersion)
	}
	_, err = c.conn.ExecContext(ctx, "BEGIN") // what is read first of each file holds until the end
	return c, err
}

// readOnly is the name under which SQLite opens a file for reading only.
func readOnly(path string) string {
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?mode=ro"
}

// close ends the transaction with the connection: it only read.
func (c *comparison) close() (err error) {
	if c.conn != nil {
		err = c.conn.Close()
	}
	if c.pool != nil {
		err = errors.Join(err, c.pool.Close())
	}
	return err
}

// query hands each row of an answer to scan.
func (c *comparison) query(scan func(*sql.Rows) error, query string, args ...any) error {
	rows, err := c.conn.QueryContext(c.ctx, query, args...)
	return scanAll(rows, err, scan)
}

// positions are how far the projection is folded. The scratch projection is not looked at yet: it goes on to there.
func (c *comparison) positions() (map[int]FoldedTo, error) {
	positions := map[int]FoldedTo{}
	return positions, c.query(func(rows *sql.Rows) error {
		var partition int
		var to FoldedTo
		err := rows.Scan(&partition, &to.Sequence)
		positions[partition] = to
		return err
	}, "SELECT partition, sequence FROM projection.partitions")
}

// compareSchema reports tables, indexes and triggers that differ, are missing or should not be there, and another ledger's
// partitions: a file may have all its rows, and answer or count otherwise.
func (c *comparison) compareSchema() error {
	const of = `SELECT type || ' ' || name AS what, coalesce(sql, '') AS is_as FROM %s.sqlite_schema
		UNION ALL SELECT 'ledger', id || ', partitions: ' || partitions FROM %[1]s.ledger`
	return c.query(func(rows *sql.Rows) error {
		var what, expected, found string
		if err := rows.Scan(&what, &expected, &found); err != nil {
			return err
		}
		c.report(Difference{What: "the schema of the projection: " + what, Expected: expected, Found: found})
		return nil
	}, fmt.Sprintf(`SELECT coalesce(made.what, found.what), coalesce(made.is_as, 'none'), coalesce(found.is_as, 'none')
		FROM (`+of+`) AS made FULL JOIN (%s) AS found ON made.what = found.what
		WHERE made.is_as IS NOT found.is_as ORDER BY 1`, "main", fmt.Sprintf(of, "projection")))
}

// checkFile reports what SQLite finds wrong with the file: an index without one of its rows would hide it from Decide.
func (c *comparison) checkFile() error {
	return c.query(func(rows *sql.Rows) error {
		var problem string
		if err := rows.Scan(&problem); err != nil || problem == "ok" {
			return err
		}
		c.report(Difference{What: "the file of the projection", Expected: "ok", Found: problem})
		return nil
	}, "PRAGMA projection.integrity_check")
}
