// Package projections folds decisions into SQLite, answers from there, and runs the loop that decides requests.
//
// The file is a cache of a prefix of the ledger, and says which prefix: rows and position change in one transaction.
// A file that was lost is folded again from the ledger; a file that cannot be trusted is refused.
package projections

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"os"
	"runtime"
	"sync"
	"time"

	_ "github.com/mattn/go-sqlite3" // the driver

	"jobtally/internal/events"
)

//go:embed schema.sql
var schema string

// schemaVersion is the user_version of the file. It changes with schema.sql, and whenever Apply writes other rows.
const schemaVersion = 2

// busyTimeout is how long a connection waits for another that has the file locked.
const busyTimeout = 5 * time.Second

// ErrMismatch is the error of a projection that does not follow from the ledger before it. The message says how to
// mend it. Nothing is folded on a doubt.
var ErrMismatch = errors.New("the projection does not match the ledger")

// DB is an open projection. Reads may run at any time; Apply is the only writer.
type DB struct {
	path    string
	writing *sql.DB
	reading *sql.DB
	reads   readStatements

	loadMu sync.Mutex // held for the whole of a Load
	loader *sql.Conn  // the pinned reading connection of Load; owned by it
	loads  loadStatements

	mu     sync.Mutex // held for the whole of an Apply: there is one writer
	writer *sql.Conn  // the pinned connection of all writes; owned by Apply
	writes writeStatements
	bulks  bulkStatements

	erasing  []*sql.Stmt              // the deletions of everything of an account but its erasures
	foretold map[events.Position]bool // the erasures whose totals the file has before they are folded: that of an audit

	// commit is (*sql.Tx).Commit. A test puts one there that fails.
	commit func(*sql.Tx) error

	logLimit int64     // how large the write-ahead log may grow before it is emptied
	logHeld  time.Time // when a reader last kept it from being emptied; owned by Apply
	logDue   bool      // whether it has what was erased, and so must be emptied; owned by Apply

	cache *cache // of rows that every call reads; Apply tells it of each commit

	prepared []*sql.Stmt // all of the above

	partitions []*fold // by partition
}

// Open opens the projection of a ledger at path, and creates it when there is none. The error is ErrMismatch, with
// the remedy, for the projection of another ledger or of another version.
func Open(path, ledgerID string, partitions int) (*DB, error) {
	db := &DB{path: path, cache: newCache(), commit: (*sql.Tx).Commit, logLimit: logLimit}
	for _, step := range []func() error{
		db.connect, db.migrate,
		func() error { return db.claim(ledgerID, partitions) },
		db.prepare,
		func() error { return db.loadFolds(partitions) },
	} {
		if err := step(); err != nil {
			return nil, errors.Join(err, db.Close())
		}
	}
	return db, nil
}

// connect opens the one writing connection, with a cache of 32 MiB, and the pool of reading ones, with 4 MiB each. The
// pragmas stand in the DSN, so that every connection runs them. A commit survives the death of the process; after a
// power loss the file may be an older prefix, and what is missing is folded again.
func (db *DB) connect() (err error) {
	// The writer creates the file: with mode 0600, for it holds what people applied for.
	f, err := os.OpenFile(db.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("projection: %w", err)
	}
	f.Close()
	dsn := "file:" + (&url.URL{Path: db.path}).EscapedPath() + fmt.Sprintf("?_journal_mode=WAL&_busy_timeout=%d", busyTimeout.Milliseconds())
	if db.writing, err = sql.Open("sqlite3", dsn+"&_synchronous=NORMAL&_txlock=immediate&_cache_size=-32768&_secure_delete=true"); err != nil {
		return err
	}
	db.writing.SetMaxOpenConns(1)
	if db.writer, err = db.writing.Conn(context.Background()); err != nil {
		return db.fail(err)
	}
	if db.reading, err = sql.Open("sqlite3", dsn+"&mode=ro&_query_only=1&_cache_size=-4096"); err != nil {
		return err
	}
	readers := max(4, 2*runtime.NumCPU())
	db.reading.SetMaxOpenConns(readers + 1) // and the loader
	db.reading.SetMaxIdleConns(readers)
	if db.loader, err = db.reading.Conn(context.Background()); err != nil {
		return db.fail(err)
	}
	return nil
}

// fail says what to do about a file that cannot be trusted.
func (db *DB) fail(err error) error {
	if damaged(err) {
		return fmt.Errorf("%w: %s is damaged (%w); %s", ErrMismatch, db.path, err, db.remedy())
	}
	return fmt.Errorf("projection %s: %w", db.path, err)
}

func (db *DB) remedy() string {
	return fmt.Sprintf("stop jobtally, remove it with `rm -f %s %s-wal %s-shm` and start again: it is folded anew from the ledger",
		db.path, db.path, db.path)
}

// migrate creates the schema in an empty file and refuses any other version than its own.
func (db *DB) migrate() error {
	ctx := context.Background()
	var version, tables int
	if err := db.writer.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return db.fail(err)
	}
	if err := db.writer.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&tables); err != nil {
		return db.fail(err)
	}
	switch {
	case version == schemaVersion:
		return nil
	case version != 0 || tables != 0:
		return fmt.Errorf("%w: %s has schema version %d, this jobtally writes %d; %s",
			ErrMismatch, db.path, version, schemaVersion, db.remedy())
	}
	_, err := db.writer.ExecContext(ctx, fmt.Sprintf("BEGIN; %s; PRAGMA user_version = %d; COMMIT", schema, schemaVersion))
	if err != nil {
		return db.fail(err)
	}
	return nil
}

// claim ties the file to a ledger for good.
func (db *DB) claim(ledgerID string, partitions int) error {
	ctx := context.Background()
	_, err := db.writer.ExecContext(ctx,
		"INSERT INTO ledger (only, id, partitions) VALUES (1, ?, ?) ON CONFLICT DO NOTHING", ledgerID, partitions)
	if err != nil {
		return db.fail(err)
	}
	var id string
	var count int
	if err := db.writer.QueryRowContext(ctx, "SELECT id, partitions FROM ledger").Scan(&id, &count); err != nil {
		return db.fail(err)
	}
	if id != ledgerID || count != partitions {
		return fmt.Errorf("%w: %s is of ledger %s (partitions: %d), not of %s (partitions: %d); name the right data directory or NATS server, or %s",
			ErrMismatch, db.path, id, count, ledgerID, partitions, db.remedy())
	}
	return nil
}

func (db *DB) loadFolds(partitions int) error {
	for p := range partitions {
		to, err := db.foldedTo(p)
		if err != nil {
			return db.fail(err)
		}
		f := &fold{partition: p, at: to, waiting: map[uint64][]chan events.Decision{}}
		f.sequence.Store(to.Sequence)
		db.partitions = append(db.partitions, f)
	}
	return nil
}

// foldedTo reads how far the file says that a partition is folded.
func (db *DB) foldedTo(partition int) (to FoldedTo, err error) {
	row := db.writer.QueryRowContext(context.Background(), "SELECT "+foldedColumns+" FROM partitions WHERE partition = ?", partition)
	if err = scanFolded(row.Scan, &to); errors.Is(err, sql.ErrNoRows) {
		return FoldedTo{}, nil
	}
	return to, err
}

// Close folds the write-ahead log into the file and closes it.
func (db *DB) Close() error {
	var errs []error
	for _, stmt := range db.prepared { // a connection with an open statement stays open, and the log with it
		errs = append(errs, stmt.Close())
	}
	if db.loader != nil {
		errs = append(errs, db.loader.Close())
	}
	if db.reading != nil {
		errs = append(errs, db.reading.Close())
	}
	if db.writer != nil {
		errs = append(errs, db.writer.Close())
	}
	if db.writing != nil {
		errs = append(errs, db.writing.Close())
	}
	return errors.Join(errs...)
}
