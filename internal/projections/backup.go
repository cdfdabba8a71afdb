package projections

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Backup copies the projection at path, as it is at one moment, to a new file, and returns how far each of its partitions
// is folded there. It gets in nobody's way who reads or folds. Until the copy is whole and on the disk it has another name.
// With a ledger id it refuses the projection of another ledger.
func Backup(ctx context.Context, path, ledgerID, to string) (folded []FoldedTo, err error) {
	for _, file := range []string{path, filepath.Dir(to)} {
		if _, err := os.Stat(file); err != nil {
			return nil, err
		}
	}
	if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("%s: %w", to, fs.ErrExist), err)
	}
	unnamed, err := os.CreateTemp(filepath.Dir(to), filepath.Base(to)+".*") // with mode 0600
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, remove(unnamed.Name())) }()
	if err := unnamed.Close(); err != nil {
		return nil, err
	}
	if err := copyInto(ctx, path, ledgerID, unnamed.Name()); err != nil {
		return nil, fmt.Errorf("projection %s: %w", path, err)
	}
	if folded, err = positionsOf(unnamed.Name()); err != nil {
		return nil, err
	}
	if err := syncPath(unnamed.Name()); err != nil {
		return nil, err
	}
	// Rename would overwrite what was made there meanwhile. Not every file system has links.
	if err := os.Link(unnamed.Name(), to); errors.Is(err, fs.ErrExist) {
		return nil, err
	} else if err != nil {
		if err := os.Rename(unnamed.Name(), to); err != nil {
			return nil, err
		}
	}
	return folded, syncPath(filepath.Dir(to))
}

// copyInto writes the rows of one moment, and no room between them, into an empty file.
func copyInto(ctx context.Context, path, ledgerID, to string) (err error) {
	db, err := sql.Open("sqlite3", dsn(path, "mode=ro"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var id string
	if err := db.QueryRowContext(ctx, "SELECT id FROM ledger").Scan(&id); err != nil {
		return err
	}
	if ledgerID != "" && id != ledgerID {
		return fmt.Errorf("%w: it is of ledger %s, not %s", errOtherLedger, id, ledgerID)
	}
	_, err = db.ExecContext(ctx, "VACUUM INTO ?", to)
	if full(err) {
		err = fmt.Errorf("%w: free some space", err)
	}
	return err
}

// positionsOf returns how far each partition is folded in a file, from the first to the last.
func positionsOf(path string) (folded []FoldedTo, err error) {
	db, err := sql.Open("sqlite3", dsn(path, "mode=ro&immutable=1"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var partitions int
	if err := db.QueryRow("SELECT partitions FROM ledger").Scan(&partitions); err != nil {
		return nil, err
	}
	positions, err := readPositions(db)
	for p := range partitions {
		folded = append(folded, positions[p])
	}
	return folded, err
}
