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
// that keeps it. It is empty when there is no such file, and ErrMismatch when the file is of another ledger.
func ReadPositions(path, ledgerID string) (map[int]FoldedTo, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	db, err := sql.Open("sqlite3", "file:"+(&url.URL{Path: path}).EscapedPath()+"?mode=ro&_query_only=1")
	if err != nil {
		return nil, err
	}
	defer db.Close()
	var id string
	if err := db.QueryRow("SELECT id FROM ledger").Scan(&id); err != nil {
		return nil, fmt.Errorf("projection %s: %w", path, err)
	}
	if id != ledgerID {
		return nil, fmt.Errorf("%w: %s is of ledger %s, not %s", ErrMismatch, path, id, ledgerID)
	}
	return readPositions(db)
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
