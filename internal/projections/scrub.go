package projections

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// SQLite writes zeros over what is deleted (secure_delete), but not over the copies of rows that it leaves behind when it
// divides a page: they stay in the space between the cell pointers and the cells, which belongs to none. So after an
// erasure that space is written over in the whole file, by the form of its pages: https://sqlite.org/fileformat2.html.
const (
	headerLen = 100 // bytes of the first page before its b-tree
	leafLen   = 8   // bytes of the header of a leaf
	innerLen  = 12

	scrubChunk = 1 << 20
	// scrubShare is how many times longer than one scrub the next waits.
	scrubShare = 10
)

// erasingSuffix is that of a file that is there from before rows are erased until the projection is scrubbed.
const erasingSuffix = "-erasing"

// Erasing says whether the files of the projection at path still have what was erased. A reader may hold its log, or
// somebody what a rebuild left: it is tried again each second, and at the next start.
func Erasing(path string) bool { return exists(path + erasingSuffix) }

func (db *DB) erasingPath() string { return db.path + erasingSuffix }

func (db *DB) markErasing() error {
	f, err := os.OpenFile(db.erasingPath(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("projection: %w", err)
	}
	return errors.Join(f.Sync(), f.Close(), syncPath(filepath.Dir(db.path)))
}

// scrubLater scrubs the file in a while, for it may be that nobody ever applies anything again.
func (db *DB) scrubLater() {
	if db.scrubTimer != nil {
		return
	}
	db.scrubTimer = time.AfterFunc(max(logPause, time.Until(db.scrubAfter)), func() {
		db.mu.Lock()
		defer db.mu.Unlock()
		db.scrubTimer = nil
		if !db.ended && db.writer != nil {
			db.boundLog()
		}
	})
}

// scrub writes over what belongs to no row. The log is empty, and nobody but the caller may fill it: what is written is in
// the file alone, and no reader looks at the bytes that change. An error leaves it due.
func (db *DB) scrub() {
	began := time.Now()
	err := errors.Join(db.scrubFile(), db.forgetPartial())
	db.scrubAfter = time.Now().Add(scrubShare * time.Since(began))
	if err == nil && remove(db.erasingPath()) == nil {
		db.scrubDue = false
	}
}

// scrubNow scrubs a file that is to be closed, if it is due.
func (db *DB) scrubNow() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if !db.scrubDue {
		return nil
	}
	db.scrubAfter = time.Time{}
	if db.checkpoint(); db.scrubDue {
		return fmt.Errorf("projection %s still has what was erased: somebody reads there", db.path)
	}
	return nil
}

// forgetPartial removes the projection that a rebuild left which did not come to its end: it may have what was erased. One
// that is under way folds the erasure, or is cut short and found at a later try.
func (db *DB) forgetPartial() error {
	partial := PartialPath(db.path)
	if db.path != beside(db.path, "db") || !exists(partial) {
		return nil
	}
	lock, err := lockFile(partial)
	if err != nil {
		return err
	}
	return errors.Join(discard(partial), lock.Close())
}

func (db *DB) scrubFile() error {
	// The writer may have pages in memory as they were before, and would write them so.
	if _, err := db.writer.ExecContext(context.Background(), "PRAGMA shrink_memory"); err != nil {
		return err
	}
	var header [headerLen]byte
	if _, err := db.raw.ReadAt(header[:], 0); err != nil {
		return err
	}
	size := int64(binary.BigEndian.Uint16(header[16:]))
	if size == 1 {
		size = 1 << 16
	}
	pages, vacuums := binary.BigEndian.Uint32(header[28:]), binary.BigEndian.Uint32(header[52:])
	if size < 512 || size > scrubChunk || pages >= 1<<25 || vacuums != 0 {
		return fmt.Errorf("projection %s is of another form than this jobtally writes, or too long: it has %d pages of %d bytes; rebuild it", db.path, pages, size)
	}
	chunk := make([]byte, scrubChunk)
	for at := int64(0); ; at += scrubChunk {
		n, err := db.raw.ReadAt(chunk, at)
		for page := int64(0); page+size <= int64(n); page += size {
			start, end := gap(chunk[page:page+size], at+page == 0)
			if err := db.clear(chunk[page+start:page+end], at+page+start); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return db.raw.Sync()
		}
		if err != nil {
			return err
		}
	}
}

// gap returns the space of a page between its cell pointers and its cells. It is empty for a page that is none of a b-tree:
// such a one begins with the number of another, and so with a 0 or 1 in a file of less than 2^25 pages.
func gap(page []byte, first bool) (start, end int64) {
	header := 0
	if first {
		header = headerLen
	}
	length := leafLen
	switch page[header] {
	case 2, 5:
		length = innerLen
	case 10, 13:
	default:
		return 0, 0
	}
	cells := int(binary.BigEndian.Uint16(page[header+3:]))
	content := int(binary.BigEndian.Uint16(page[header+5:]))
	if content == 0 {
		content = 1 << 16
	}
	if start := header + length + 2*cells; start <= content && content <= len(page) {
		return int64(start), int64(content)
	}
	return 0, 0
}

// clear writes zeros over bytes of the file that are not zeros.
func (db *DB) clear(bytes []byte, at int64) error {
	for i := range bytes {
		if bytes[i] != 0 {
			clear(bytes)
			_, err := db.raw.WriteAt(bytes, at)
			return err
		}
	}
	return nil
}
