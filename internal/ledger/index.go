package ledger

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	stoppedFile = "stopped"  // in the store: there while the server is stopped, and everything it wrote is on disk
	streamIndex = "index.db" // what nats-server remembers of a stream beside its blocks
)

// forgetIndexes removes the indexes of the request streams below store, unless the server was stopped in order. After a
// power failure, or in a copy of a directory in use, an index may be newer than the blocks, and the server would take
// the messages that it names, and that nobody was answered for, to be deleted: a gap for ever. It makes a missing index
// anew from the blocks.
func forgetIndexes(store string) error {
	switch err := os.Remove(filepath.Join(store, stoppedFile)); {
	case err == nil:
		return syncFile(store, (*os.File).Sync) // or it could come back, beside an index that is newer then
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	indexes, err := filepath.Glob(filepath.Join(store, "jetstream", "*", "streams", "REQUESTS_*", "msgs", streamIndex))
	if err != nil {
		return err
	}
	for _, index := range indexes {
		if err := os.Remove(index); err != nil {
			return err
		}
	}
	return nil
}

// trustIndexes notes that the server was stopped in order, once everything that it wrote is on disk.
func trustIndexes(store string) error {
	if err := syncTree(store); err != nil {
		return err
	}
	stopped := filepath.Join(store, stoppedFile)
	if err := os.WriteFile(stopped, nil, 0o600); err != nil {
		return err
	}
	return errors.Join(syncFile(stopped, (*os.File).Sync), syncFile(store, (*os.File).Sync))
}
