package projections

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// roomReserve is what a rebuild leaves free beyond the size of a second projection: the service goes on writing meanwhile.
const roomReserve = 64 << 20

// ErrNoRoom is the error of a rebuild for which the disk has no room.
var ErrNoRoom = errors.New("the disk has no room for a second projection")

// checkRoom refuses to fold anew where the disk would be full before the end: then the service could not write either. The new
// file is about as large as the one that is there; what is folded of it already has its room.
func (r Rebuild) checkRoom() error {
	there, err := sizeOf(r.Path)
	if err != nil {
		return err
	}
	folded, err := sizeOf(PartialPath(r.Path))
	if err != nil {
		return err
	}
	look := r.free
	if look == nil {
		look = freeBytes
	}
	dir := filepath.Dir(r.Path)
	free, err := look(dir)
	if err != nil {
		return err
	}
	if needed := there - min(there, folded) + roomReserve; free < needed {
		return fmt.Errorf("%w: it needs %d MiB in %s, and %d MiB are free; free some space",
			ErrNoRoom, (needed+1<<20-1)>>20, dir, free>>20)
	}
	return nil
}

// sizeOf is that of a projection with its log, and 0 of one that is not there.
func sizeOf(path string) (size uint64, err error) {
	for _, suffix := range []string{"", "-wal"} {
		info, err := os.Stat(path + suffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		size += uint64(info.Size())
	}
	return size, nil
}

func freeBytes(dir string) (uint64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return s.Bavail * uint64(s.Bsize), nil
}

// giveBack removes what was folded when that has filled the disk: the service needs the room. The lock is held still.
func (p *partial) giveBack(full error) error {
	if p.db != nil {
		full = errors.Join(full, p.db.shut())
	}
	if err := discard(PartialPath(p.Path)); err != nil {
		return errors.Join(full, err)
	}
	return fmt.Errorf("%w (%w); what was folded is removed again, so that the service can write", ErrNoRoom, full)
}
