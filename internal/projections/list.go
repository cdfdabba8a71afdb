package projections

import (
	"cmp"
	"context"
	"database/sql"
	"math"
	"slices"

	"jobtally/internal/capture"
)

// Jobs returns a page of an account's jobs, of one state of the file.
func (db *DB) Jobs(ctx context.Context, account string, q capture.JobQuery) (page capture.JobPage, err error) {
	if err := db.hold(&db.reads.newest); err != nil {
		return page, err
	}
	defer db.pass()
	tx, err := db.reading.BeginTx(context.WithoutCancel(ctx), nil)
	if err != nil {
		return page, db.fail(err)
	}
	defer tx.Rollback() // of nothing: it only reads
	l := listing{JobQuery: q, tx: tx, stmts: &db.reads, account: account}
	if l.Before == 0 {
		l.Before = math.MaxInt64
	}
	if err := l.read(); err != nil {
		return page, db.readError(err)
	}
	return l.page(), nil
}

// listing is the reading of a page.
type listing struct {
	capture.JobQuery
	tx      *sql.Tx
	stmts   *readStatements
	account string
	found   []storedJob // in order, and one more than the page has if there are more
}

func (l *listing) read() error {
	if l.Text != "" {
		return l.search()
	}
	if err := l.list(l.stmts.newest, !l.Updated); err != nil || !l.Updated {
		return err
	}
	// By their last change: those that were never updated stand where they were captured, the others have an index.
	if err := l.list(l.stmts.updated); err != nil {
		return err
	}
	slices.SortFunc(l.found, func(a, b storedJob) int { return cmp.Compare(b.changed, a.changed) })
	l.found = l.found[:min(len(l.found), l.Limit+1)]
	return nil
}

func (l *listing) list(stmt *sql.Stmt, more ...any) error {
	args := append([]any{l.account, int64(l.Before)}, l.filters()...)
	args = append(append(args, l.Limit+1), more...)
	rows, err := l.tx.Stmt(stmt).Query(args...)
	return scanAll(rows, err, l.take)
}

func (l *listing) take(rows *sql.Rows) error {
	job, err := scanJob(rows.Scan)
	if err == nil {
		l.found = append(l.found, job)
	}
	return err
}

// filters are the arguments of the filters.
func (l *listing) filters() []any {
	args := []any{nil, nil, nil, nil}
	for i, text := range []string{l.Status, l.CapturedVia, string(l.Month)} {
		if text != "" {
			args[i] = text
		}
	}
	if l.Company != "" {
		args[3] = companyKey(l.Company)
	}
	return args
}

func (l *listing) filtered() bool {
	return l.Status != "" || l.CapturedVia != "" || l.Month != "" || l.Company != ""
}

// maxPageText is how many bytes of long texts a page has, give or take a job: a hundred jobs may have 40 MB of them.
const maxPageText = 1 << 20

func (l *listing) page() (page capture.JobPage) {
	text := 0
	for i := range l.found {
		if i == l.Limit || text > maxPageText {
			last := l.found[i-1]
			page.Next = last.sequence
			if l.Updated {
				page.Next = last.changed
			}
			break
		}
		page.Jobs = append(page.Jobs, l.found[i].StoredJob)
		text += len(l.found[i].Description) + len(l.found[i].Notes)
	}
	return page
}
