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

// FoldedTo is how far a projection has folded a partition, and the digest of all decisions up to there.
type FoldedTo struct {
	Sequence uint64
	Digest   events.Digest
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
		return nil, fmt.Errorf("%w: %s is of ledger %s, not %s", errOtherLedger, path, id, ledgerID)
	}
	return readPositions(db)
}

func readPositions(db *sql.DB) (map[int]FoldedTo, error) {
	rows, err := db.Query("SELECT partition, sequence, digest FROM partitions")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	positions := map[int]FoldedTo{}
	for rows.Next() {
		var partition int
		var position FoldedTo
		var digest []byte
		if err := rows.Scan(&partition, &position.Sequence, &digest); err != nil {
			return nil, err
		}
		copy(position.Digest[:], digest)
		positions[partition] = position
	}
	return positions, rows.Err()
}
