package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	// markFile tells a directory of the bench from anything else.
	markFile    = "jobtally-bench"
	freshPrefix = ".jobtally-bench-"
)

// scratch is a directory on a real disk that belongs to one run of the bench.
type scratch struct {
	path       string
	fileSystem string
	mark       *os.File // held locked for as long as the bench runs
	keep       bool     // the directory was there before, and stays, empty
	made       int      // sub-directories so far
}

// openScratch takes a scratch directory that lies on a disk: memory is not taken for one.
func openScratch(named string) (*scratch, error) {
	s, err := takeScratch(named)
	if err != nil {
		return nil, err
	}
	if s.fileSystem, err = fileSystemOf(s.path); err == nil && (s.fileSystem == "tmpfs" || s.fileSystem == "ramfs") {
		err = fmt.Errorf("%s is in memory (%s), where an fsync costs nothing; name a directory on a disk with --dir", s.path, s.fileSystem)
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// takeScratch takes a directory for this run: a fresh one beside the checkout, or the one that is named, which must
// be new, empty, or left over by a bench that was cut short.
func takeScratch(named string) (s *scratch, err error) {
	s = &scratch{path: named}
	if s.path == "" {
		s.path, err = os.MkdirTemp(besideCheckout(), freshPrefix+"*")
	}
	if err != nil {
		return nil, err
	}
	if s.path, err = filepath.Abs(s.path); err != nil {
		return nil, err
	}
	if err := s.claim(); err != nil {
		return nil, err
	}
	return s, s.empty()
}

// claim refuses a directory that holds anything but the mark of a bench, and locks that.
func (s *scratch) claim() error {
	entries, err := os.ReadDir(s.path)
	s.keep = err == nil && len(entries) == 0 && !strings.HasPrefix(filepath.Base(s.path), freshPrefix)
	if errors.Is(err, os.ErrNotExist) {
		err = os.MkdirAll(s.path, 0o700)
	}
	if err != nil {
		return err
	}
	mark := filepath.Join(s.path, markFile)
	if _, err := os.Stat(mark); len(entries) > 0 && err != nil {
		return fmt.Errorf("%s is not empty, and not of the bench: name another directory", s.path)
	}
	if s.mark, err = os.OpenFile(mark, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	if err := syscall.Flock(int(s.mark.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return errors.Join(fmt.Errorf("another bench runs in %s: %w", s.path, err), s.mark.Close())
	}
	return nil
}

// empty removes everything but the mark.
func (s *scratch) empty() error {
	entries, err := os.ReadDir(s.path)
	for _, entry := range entries {
		if entry.Name() != markFile {
			err = errors.Join(err, os.RemoveAll(filepath.Join(s.path, entry.Name())))
		}
	}
	return err
}

// close removes what the bench has made.
func (s *scratch) close() error {
	err := errors.Join(s.empty(), os.Remove(s.mark.Name()), s.mark.Close())
	if !s.keep {
		err = errors.Join(err, os.Remove(s.path))
	}
	return err
}

// fresh returns the path of a directory that is not there yet, and remove, which removes it.
func (s *scratch) fresh(name string) (path string, remove func() error) {
	s.made++
	path = filepath.Join(s.path, fmt.Sprintf("%03d-%s", s.made, name))
	return path, func() error { return os.RemoveAll(path) }
}

// copyOf returns a fresh copy of a directory, written to disk, so that the copying does not disturb what follows.
func (s *scratch) copyOf(dir string) (path string, remove func() error, err error) {
	path, remove = s.fresh("copy")
	if err := os.CopyFS(path, os.DirFS(dir)); err != nil {
		return "", nil, errors.Join(err, remove())
	}
	syscall.Sync()
	return path, remove, nil
}

// besideCheckout returns the directory for temporary files if it is on the disk of the checkout, and else the
// checkout, taken to be the working directory.
func besideCheckout() string {
	var here, temp syscall.Stat_t
	if syscall.Stat(".", &here) == nil && syscall.Stat(os.TempDir(), &temp) == nil && here.Dev == temp.Dev {
		return os.TempDir()
	}
	return "."
}

// fileSystemOf names the type of the file system of a path: of the mount point that is the longest prefix of it.
func fileSystemOf(path string) (kind string, err error) {
	path, err = filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", err
	}
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	defer f.Close()
	longest := 0
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text()) // device, mount point, type, options
		if len(fields) < 3 || len(fields[1]) < longest {
			continue
		}
		if point := strings.TrimSuffix(fields[1], "/") + "/"; strings.HasPrefix(path+"/", point) {
			longest, kind = len(fields[1]), fields[2]
		}
	}
	return kind, lines.Err()
}
