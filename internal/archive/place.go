package archive

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// ErrExists is the error of exporting to what exists.
var ErrExists = errors.New("it exists")

// unfinishedName is the directory beside dir that becomes it.
func unfinishedName(dir string) string {
	return filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir)+".unfinished")
}

// place makes a directory that appears whole or not at all. It is written under another name beside, which is removed when
// that fails; what a process that was killed left there is replaced by the next.
func place(dir string, write func(unfinished string) error) (err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(dir); err == nil {
		return fmt.Errorf("%w: %s; name a directory that does not, for an archive is never written over", ErrExists, dir)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	unfinished := unfinishedName(dir)
	release, err := begin(unfinished)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	if err := finish(unfinished, dir, write); err != nil {
		// Nobody looks for people's data there. It goes while it is still held: then it is nobody else's.
		return errors.Join(err, os.RemoveAll(unfinished))
	}
	return syncDir(filepath.Dir(dir))
}

func finish(unfinished, dir string, write func(unfinished string) error) error {
	if err := write(unfinished); err != nil {
		return err
	}
	if err := syncDir(unfinished); err != nil {
		return err
	}
	return os.Rename(unfinished, dir) // the commit point: from here on there is an archive
}

// begin makes the unfinished directory anew, and keeps others from doing so until release. A process that ends releases it.
func begin(dir string) (release func() error, err error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%w: make the directory above it first", err)
	}
	held, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	release = func() error { return errors.Join(syscall.Flock(int(held.Fd()), syscall.LOCK_UN), held.Close()) }
	if err := lock(held); err != nil {
		held.Close()
		return nil, err
	}
	left, err := os.ReadDir(dir)
	for _, entry := range left {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, entry.Name())))
	}
	if err != nil {
		return nil, errors.Join(err, release())
	}
	return release, nil
}

// lock keeps other exports from a directory that is open. It may be gone: the one that had it removed or renamed it.
func lock(dir *os.File) error {
	err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err != nil && !errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("lock %s: %w", dir.Name(), err)
	}
	if err == nil {
		held, err := dir.Stat()
		if err != nil {
			return err
		}
		if there, err := os.Lstat(dir.Name()); err == nil && os.SameFile(held, there) {
			return nil
		}
	}
	return fmt.Errorf("another export is writing %s: wait for it", dir.Name())
}

// writeFile writes a file and puts it on disk.
func writeFile(dir, name string, text []byte) error {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
