package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// So often, and with such pauses, LockDir tries again: Locked holds the lock for less.
const (
	lookTries = 20
	lookPause = 5 * time.Millisecond
)

// LockFile is the file of a data directory whose lock the process has that works there. It stays when that ends.
const LockFile = "lock"

// ErrLocked is the error of LockDir when another process has the directory.
var ErrLocked = errors.New("another jobtally is running")

// LockDir takes the data directory for this process, and creates it if need be, until unlock is called or the
// process ends. nats-server has no lock of its own: two servers on one directory both assign the same sequences.
// The error is ErrLocked when the directory is taken.
func LockDir(dir string) (unlock func() error, err error) {
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, LockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := lock(f); err != nil {
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

// lock takes the lock on a file, which somebody who looks may hold for a moment.
func lock(f *os.File) (err error) {
	for range lookTries {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		time.Sleep(lookPause)
	}
	return err
}

// Locked says whether a process has the data directory. It changes nothing there.
func Locked(dir string) (bool, error) {
	f, err := os.Open(filepath.Join(dir, LockFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("data directory: %w", err)
	}
	defer f.Close()
	// There is no asking who has a lock but by taking it. Shared, it does not keep others from asking.
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return false, syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
}

// makeDir makes a directory, and its parents where they are missing, so that a power failure leaves them.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if err := makeDir(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncFile(parent, (*os.File).Sync)
}
