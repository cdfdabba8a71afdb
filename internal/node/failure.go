package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"jobtally/internal/ledger"
	"jobtally/internal/projections"
)

// failureFile is the name of the file in a data directory that says why partitions make no progress. It is there while
// a node runs of which one does not. One beside which no node runs was left by a process that was killed.
const failureFile = "failure.json"

// Failure is why a partition of a node makes no progress.
type Failure struct {
	Partition int       `json:"partition"`
	Since     time.Time `json:"since"`
	Reason    string    `json:"reason"`
}

// takeDir takes the data directory as ledger.LockDir does. What the last process said of itself is past.
func takeDir(dir string) (unlock func() error, err error) {
	if unlock, err = ledger.LockDir(dir); err != nil {
		return nil, err
	}
	if err := removeFailures(dir); err != nil {
		return nil, errors.Join(err, unlock())
	}
	return unlock, nil
}

func removeFailures(dir string) error {
	if err := os.Remove(filepath.Join(dir, failureFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// readFailures returns what the node that runs on a data directory says.
func readFailures(dir string) (failures []Failure, err error) {
	path := filepath.Join(dir, failureFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &failures); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return failures, nil
}

// failures leaves in the data directory why partitions make no progress, for operator commands to find.
type failures struct {
	dir string
	log *slog.Logger

	mu    sync.Mutex // held from the look at a projector until the file says what was seen
	known []Failure  // what the file says, in the order of partitions
}

// update notes what a projector says of its partition.
func (f *failures) update(projector *projections.Projector, partition int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := projector.Failure()
	i, known := slices.BinarySearchFunc(f.known, partition, func(k Failure, p int) int { return k.Partition - p })
	switch {
	case err == nil && !known, err != nil && known && f.known[i].Reason == err.Error():
		return
	case err == nil:
		f.known = slices.Delete(f.known, i, i+1)
	default:
		if !known {
			f.known = slices.Insert(f.known, i, Failure{Partition: partition})
		}
		f.known[i].Since, f.known[i].Reason = time.Now().UTC(), err.Error()
	}
	if err := f.write(); err != nil {
		f.log.Warn("operators cannot be told what fails", "error", err)
	}
}

// write has the file say what is known.
func (f *failures) write() error {
	if len(f.known) == 0 {
		return removeFailures(f.dir)
	}
	text, err := json.Marshal(f.known)
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(f.dir, failureFile), append(text, '\n'))
}

// unfinished is behind the name of a file that is being written anew.
const unfinished = ".new"

// replaceFile puts a whole file in the place of the one before: who reads meanwhile gets either.
func replaceFile(path string, text []byte) error {
	if err := os.WriteFile(path+unfinished, text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+unfinished, path)
}
