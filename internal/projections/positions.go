package projections

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"

	"jobtally/internal/events"
)

// FoldedTo is how far a projection has folded a partition, and what it knows of it there.
type FoldedTo struct {
	Sequence uint64
	Digest   events.Digest // the sum of those of all decisions up to there that are not erased
	Archived events.Month  // the last month that is archived, or empty
	Archive  events.Digest // of the decision that archived it
}

// foldedColumns are what scanFolded reads.
const foldedColumns = "sequence, digest, archived, archive"

func scanFolded(scan func(...any) error, into *FoldedTo, more ...any) error {
	var digest, archive []byte
	err := scan(append(more, &into.Sequence, &digest, &into.Archived, &archive)...)
	copy(into.Digest[:], digest)
	copy(into.Archive[:], archive)
	return err
}

// ReadPositions returns how far the projection at path is, by partition, without getting in the way of the process
// that keeps it. It is nil when there is no such file, or one that is just being made, and the error is ErrMismatch when
// the file is of another ledger.
func ReadPositions(path, ledgerID string) (map[int]FoldedTo, error) {
	db, err := openToLook(path)
	if db == nil || err != nil {
		return nil, err
	}
	defer db.Close()
	var tables int
	if err := db.QueryRow("SELECT count(*) FROM sqlite_schema WHERE name = 'ledger'").Scan(&tables); err != nil {
		return nil, fmt.Errorf("projection %s: %w", path, err)
	}
	if tables == 0 {
		return nil, nil
	}
	var id string
	err = db.QueryRow("SELECT id FROM ledger").Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("projection %s: %w", path, err)
	}
	if id != ledgerID {
		return nil, fmt.Errorf("%w: %s is of ledger %s, not %s; name the data directory or the NATS server that belongs to it",
			errOtherLedger, path, id, ledgerID)
	}
	return readPositions(db)
}

// ReadVersion returns the schema version of the projection at path, and whether it is the one that this jobtally writes:
// the digests of two versions say nothing about each other. It is 0 when there is no such file.
func ReadVersion(path string) (version int, current bool, err error) {
	db, err := openToLook(path)
	if db == nil || err != nil {
		return 0, false, err
	}
	defer db.Close()
	if err := db.QueryRow("PRAGMA user_version").Scan(&version); err != nil {
		return 0, false, fmt.Errorf("projection %s: %w", path, err)
	}
	return version, version == schemaVersion, nil
}

// openToLook opens the file at path for reading, and returns nil when there is none. A file that no process has open has
// no log, and a reader that may not write could not remove the one that it made: so none is made.
func openToLook(path string) (*sql.DB, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath() + "?mode=ro&_query_only=1"
	if _, err := os.Stat(path + "-wal"); errors.Is(err, fs.ErrNotExist) {
		dsn += "&immutable=1"
	}
	return sql.Open("sqlite3", dsn)
}

func readPositions(db *sql.DB) (map[int]FoldedTo, error) {
	rows, err := db.Query("SELECT partition, " + foldedColumns + " FROM partitions")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	positions := map[int]FoldedTo{}
	for rows.Next() {
		var partition int
		var position FoldedTo
		if err := scanFolded(rows.Scan, &position, &partition); err != nil {
			return nil, err
		}
		positions[partition] = position
	}
	return positions, rows.Err()
}
