package ledger

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// ErrLocked is the error of LockDir when another process has the directory.
var ErrLocked = errors.New("another jobtally is running")

// LockDir takes the data directory for this process, and creates it if need be, until unlock is called or the
// process ends. nats-server has no lock of its own: two servers on one directory both assign the same sequences.
// The error is ErrLocked when the directory is taken.
func LockDir(dir string) (unlock func() error, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	syncFile(filepath.Dir(dir), (*os.File).Sync) // keeps a directory that was just made; a parent that cannot be opened was not made here
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w on %s", ErrLocked, dir)
		}
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return func() error {
		// Closing is not enough: a child that is just being forked holds the file for a moment, and with it the lock.
		return errors.Join(syscall.Flock(int(f.Fd()), syscall.LOCK_UN), f.Close())
	}, nil
}
