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
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	_ "github.com/mattn/go-sqlite3" // the driver

	"jobtally/internal/events"
)

//go:embed schema.sql
var schema string

// schemaVersion is the user_version of the file. It changes with schema.sql, and whenever Apply writes other rows.
const schemaVersion = 4

// busyTimeout is how long a connection waits for another that has the file locked.
const busyTimeout = 5 * time.Second

// DB is an open projection. Reads may run at any time; Apply is the only writer. The file that it has open may be
// replaced by another one under the same name, which nobody notices who reads or folds.
type DB struct {
	path     string
	mend     string // what to do about a file that cannot be trusted
	ledgerID string

	loadMu sync.Mutex   // held for the whole of a Load
	tryMu  sync.Mutex   // held by the one Try that may be in a Load, or wait for it
	mu     sync.Mutex   // held for the whole of an Apply: there is one writer
	gate   sync.RWMutex // read-held for the whole of a read of the file or the cache; see hold
	pass   func()       // gate.RUnlock
	file                // what is replaced: under mu, loadMu and gate at once

	foretold map[events.Position]bool // the erasures whose totals the file has before they are folded: that of an audit

	// commit is (*sql.Tx).Commit. A test puts one there that fails.
	commit func(*sql.Tx) error
	// step is called between the steps of a Replace. A test ends the process there.
	step func(string)

	logLimit int64     // how large the write-ahead log may grow before it is emptied
	logHeld  time.Time // when a reader last kept it from being emptied; owned by Apply

	// What of the file is still to be scrubbed of what was erased: guarded by mu.
	scrubDue   bool
	scrubAfter time.Time   // not before this, so that folding has its turn
	scrubTimer *time.Timer // nil where none runs
	ended      bool        // Close was called

	onErasure func()                                                      // is called after each commit that erases an account
	onFold    func(partition int, decisions []events.Decision, to uint64) // is called after each commit, and each jump

	cache *cache // of rows that every call reads; Apply tells it of each commit; replaced with the file

	partitions []*fold // by partition

	outdated atomic.Bool   // the file is of another version: it is only read, where it can be
	replaced chan struct{} // closed and made anew at each Replace; guarded by gate
}

// file is the open file: connections and the statements on them.
type file struct {
	// raw is the same file. It is open for as long as the connections are: POSIX takes all locks of a process on a file when
	// the process closes it once.
	raw *os.File

	reading *sql.DB
	reads   readStatements

	loader *sql.Conn // the pinned reading connection of Load; owned by it
	loads  loadStatements

	writing *sql.DB
	writer  *sql.Conn // the pinned connection of all writes; owned by Apply
	writes  writeStatements
	bulks   bulkStatements
	erasing []*sql.Stmt // the deletions of everything of an account but its erasures

	prepared []*sql.Stmt // all of the above
}

// Open opens the projection of a ledger at path, and creates it when there is none. The error is ErrMismatch, with
// the remedy, for one that is damaged or of another ledger, and a *VersionError for one of another version.
func Open(path, ledgerID string, partitions int) (*DB, error) {
	return open(path, ledgerID, partitions, fmt.Sprintf("run `projector rebuild --data %s`, which folds it anew from the ledger", filepath.Dir(path)))
}

// open is Open with what to do about a file that cannot be trusted.
func open(path, ledgerID string, partitions int, mend string) (*DB, error) {
	db := unopened(path, ledgerID, mend)
	for _, step := range []func() error{
		db.connect, db.migrate,
		func() error { return db.claim(partitions) },
		db.prepare,
		func() error { return db.loadFolds(partitions) },
	} {
		if err := step(); err != nil {
			return nil, errors.Join(err, db.Close())
		}
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	db.scrubDue = exists(db.erasingPath()) // of a process that was killed
	db.boundLog()
	return db, nil
}

func unopened(path, ledgerID, mend string) *DB {
	db := &DB{
		path: path, mend: mend, ledgerID: ledgerID, cache: newCache(), commit: (*sql.Tx).Commit, step: func(string) {}, onErasure: func() {},
		onFold:   func(int, []events.Decision, uint64) {},
		logLimit: logLimit, replaced: make(chan struct{}),
	}
	db.pass = db.gate.RUnlock
	return db
}

// connect opens the one writing connection, with a cache of 32 MiB, and the pool of reading ones, with 4 MiB each. The
// pragmas stand in the DSN, so that every connection runs them. A commit survives the death of the process; after a
// power loss the file may be an older prefix, and what is missing is folded again.
func (db *DB) connect() (err error) {
	// The writer creates the file: with mode 0600, for it holds what people applied for.
	if db.raw, err = os.OpenFile(db.path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return fmt.Errorf("projection: %w", err)
	}
	if db.writing, err = sql.Open("sqlite3", dsn(db.path, "_journal_mode=WAL&_synchronous=NORMAL&_txlock=immediate&_cache_size=-32768&_secure_delete=true")); err != nil {
		return err
	}
	db.writing.SetMaxOpenConns(1)
	if db.writer, err = db.writing.Conn(context.Background()); err != nil {
		return db.fail(err)
	}
	if err := db.connectReaders("_journal_mode=WAL"); err != nil {
		return err
	}
	if db.loader, err = db.reading.Conn(context.Background()); err != nil {
		return db.fail(err)
	}
	return nil
}

func (db *DB) connectReaders(pragmas string) (err error) {
	if db.reading, err = sql.Open("sqlite3", dsn(db.path, pragmas+"&mode=ro&_query_only=1&_cache_size=-4096")); err != nil {
		return err
	}
	readers := max(4, 2*runtime.NumCPU())
	db.reading.SetMaxOpenConns(readers + 1) // and the loader
	db.reading.SetMaxIdleConns(readers)
	return nil
}

func dsn(path, parameters string) string {
	return "file:" + (&url.URL{Path: path}).EscapedPath() + fmt.Sprintf("?_busy_timeout=%d&", busyTimeout.Milliseconds()) + parameters
}

// fail says what to do about a file that cannot be trusted.
func (db *DB) fail(err error) error {
	if damaged(err) {
		return fmt.Errorf("%w: %s is damaged (%w); %s", ErrMismatch, db.path, err, db.remedy())
	}
	if full(err) {
		return fmt.Errorf("projection %s: %w: free some space", db.path, err)
	}
	return fmt.Errorf("projection %s: %w", db.path, err)
}

// remedy is what to do about a file that is damaged, or whose rows contradict each other.
func (db *DB) remedy() string { return db.mend }

// removal is what to do about a file that is of another past than the ledger: to compare it with one that is folded anew
// finds that too, and nothing is replaced on a doubt.
func (db *DB) removal() string {
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
		return &VersionError{Path: db.path, Version: version, remedy: db.remedy()}
	}
	_, err := db.writer.ExecContext(ctx, fmt.Sprintf("BEGIN; %s; PRAGMA user_version = %d; COMMIT", schema, schemaVersion))
	if err != nil {
		return db.fail(err)
	}
	return nil
}

// claim ties the file to a ledger for good.
func (db *DB) claim(partitions int) error {
	_, err := db.writer.ExecContext(context.Background(),
		"INSERT INTO ledger (only, id, partitions) VALUES (1, ?, ?) ON CONFLICT DO NOTHING", db.ledgerID, partitions)
	if err != nil {
		return db.fail(err)
	}
	return db.checkLedger(db.writer, partitions)
}

// checkLedger refuses the projection of another ledger.
func (db *DB) checkLedger(on queryer, partitions int) error {
	var id string
	var count int
	if err := on.QueryRowContext(context.Background(), "SELECT id, partitions FROM ledger").Scan(&id, &count); err != nil {
		return db.fail(err)
	}
	if id != db.ledgerID || count != partitions {
		return fmt.Errorf("%w: %s is of ledger %s (partitions: %d), not of %s (partitions: %d); name the right data directory or NATS server, or %s",
			errOtherLedger, db.path, id, count, db.ledgerID, partitions, db.removal())
	}
	return nil
}

type queryer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func (db *DB) loadFolds(partitions int) error {
	for p := range partitions {
		to, err := db.foldedTo(p)
		if err != nil {
			return db.fail(err)
		}
		db.partitions = append(db.partitions, newFold(p, to))
	}
	return nil
}

func newFold(partition int, to FoldedTo) *fold {
	f := &fold{partition: partition, waiting: map[uint64][]chan events.Decision{}}
	f.stand(to)
	f.sequence.Store(to.Sequence)
	return f
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
	db.mu.Lock()
	defer db.mu.Unlock()
	db.ended = true
	return db.file.close()
}

func (f *file) close() error {
	var errs []error
	for _, stmt := range f.prepared { // a connection with an open statement stays open, and the log with it
		errs = append(errs, stmt.Close())
	}
	if f.loader != nil {
		errs = append(errs, f.loader.Close())
	}
	if f.reading != nil {
		errs = append(errs, f.reading.Close())
	}
	if f.writer != nil {
		errs = append(errs, f.writer.Close())
	}
	if f.writing != nil {
		errs = append(errs, f.writing.Close())
	}
	if f.raw != nil {
		errs = append(errs, f.raw.Close())
	}
	return errors.Join(errs...)
}
