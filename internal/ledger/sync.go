package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"jobtally/internal/events"
)

const blockSuffix = ".blk"

// syncer makes durable what the embedded server wrote of one stream. The server has written a message to the last
// block of the stream by the time it acknowledges it. It could sync by itself, but then each message costs an fsync of
// its own, or each atomic batch some milliseconds; here one fsync serves all who wait.
type syncer struct {
	dir   string // with the blocks of the stream: 1.blk, 2.blk and so on
	fsync func(*os.File) error

	erasures     atomic.Int32  // that are under way: meanwhile the server writes blocks anew, and removes empty ones
	acknowledged atomic.Uint64 // the highest sequence that the server is known to have written
	synced       atomic.Uint64 // the sequence up to which everything is on disk; moved under mu
	broken       atomic.Bool   // set with failed

	mu     sync.Mutex // held during a sync: whoever waits for it finds itself served by it, or is the next
	block  *os.File   // the last block that was synced; nil before the first message
	number int        // of that block
	failed error      // of the first sync that failed: none after it proves anything, for the kernel may have dropped what it could not write
}

func newSyncer(dir string) *syncer { return &syncer{dir: dir, fsync: (*os.File).Sync} }

// close refuses any further sync.
func (s *syncer) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail(fmt.Errorf("%w: it is closing", events.ErrUnavailable))
	s.release() // nothing was written through it
}

func (s *syncer) fail(err error) {
	s.failed = err
	s.broken.Store(true)
}

// check returns why nothing can be synced any more, without waiting for a sync, or nil.
func (s *syncer) check() error {
	if !s.broken.Load() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Errorf("%w: %w", events.ErrUnavailable, s.failed)
}

func (s *syncer) release() error {
	if s.block == nil {
		return nil
	}
	err := s.block.Close()
	s.block, s.number = nil, 0
	return err
}

// acknowledge notes that the server has written the stream up to a sequence.
func (s *syncer) acknowledge(sequence uint64) {
	for seen := s.acknowledged.Load(); seen < sequence && !s.acknowledged.CompareAndSwap(seen, sequence); {
		seen = s.acknowledged.Load()
	}
}

// sync returns nil once the stream is on disk up to a sequence, which the server must have written. Any error is for
// good, and says nothing of what is on disk.
func (s *syncer) sync(sequence uint64) error {
	s.acknowledge(sequence)
	if s.synced.Load() >= sequence {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.synced.Load() >= sequence || s.failed != nil {
		return s.failed
	}
	upTo := s.acknowledged.Load() // read before the blocks: what comes meanwhile is of the next sync
	if err := s.syncBlocks(); err != nil {
		return s.distrust(err)
	}
	s.synced.Store(upTo) // the commit point: the messages up to here may be answered, and decided
	return nil
}

func (s *syncer) distrust(err error) error {
	s.fail(fmt.Errorf("the disk does not keep what is written: %w; mend or replace it, restart the machine, which may remember what the disk does not have, and start again", err))
	return s.failed
}

// beginErasing returns once everything that the server wrote of the stream is on disk. Until as many calls of
// endErasing, each sync is of all blocks: one that the server wrote anew, and did not sync, must not take the place of
// one that was synced.
func (s *syncer) beginErasing() error {
	s.erasures.Add(1)
	return s.resync()
}

// endErasing returns once all blocks are on disk as they are now: without what was erased.
func (s *syncer) endErasing() error {
	defer s.erasures.Add(-1)
	return s.resync()
}

// resync syncs all blocks, and keeps none.
func (s *syncer) resync() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return s.failed
	}
	if err := errors.Join(s.syncAll(), s.release()); err != nil {
		return s.distrust(err)
	}
	return nil
}

// syncBlocks syncs the last block, with any that began since the last time, and the directory when one did.
func (s *syncer) syncBlocks() error {
	if s.block == nil || s.erasures.Load() > 0 || s.replaced() {
		return s.syncAll()
	}
	began := false
	for {
		next, err := os.OpenFile(s.path(s.number+1), os.O_RDWR, 0)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return err
		}
		began = true
		if err := errors.Join(s.fsync(s.block), s.block.Close()); err != nil {
			return errors.Join(err, next.Close())
		}
		s.block, s.number = next, s.number+1
	}
	if err := s.fsync(s.block); err != nil || !began {
		return err
	}
	return syncFile(s.dir, s.fsync)
}

// replaced says whether the block is no longer the file of that name: the server writes a block anew when messages were
// removed from it.
func (s *syncer) replaced() bool {
	known, err := s.block.Stat()
	if err != nil {
		return true
	}
	named, err := os.Stat(s.path(s.number))
	return err != nil || !os.SameFile(known, named)
}

// syncAll syncs every block and the directory, and keeps the last block.
func (s *syncer) syncAll() error {
	if err := s.release(); err != nil {
		return err
	}
	numbers, err := s.blocks()
	if err != nil {
		return err
	}
	if len(numbers) == 0 {
		return fmt.Errorf("no block in %s", s.dir)
	}
	for _, number := range numbers {
		block, err := os.OpenFile(s.path(number), os.O_RDWR, 0)
		if errors.Is(err, fs.ErrNotExist) {
			return s.syncAll() // the server removed it, for all its messages were erased; if it was the last, there is a new one
		}
		if err != nil {
			return err
		}
		if err := errors.Join(s.fsync(block), s.release()); err != nil {
			return errors.Join(err, block.Close())
		}
		s.block, s.number = block, number
	}
	return syncFile(s.dir, s.fsync)
}

// blocks returns the numbers of the blocks, in order.
func (s *syncer) blocks() (numbers []int, err error) {
	entries, err := os.ReadDir(s.dir)
	for _, entry := range entries {
		name, is := strings.CutSuffix(entry.Name(), blockSuffix)
		if number, err := strconv.Atoi(name); is && err == nil {
			numbers = append(numbers, number)
		}
	}
	slices.Sort(numbers)
	return numbers, err
}

func (s *syncer) path(number int) string {
	return filepath.Join(s.dir, strconv.Itoa(number)+blockSuffix)
}

// syncFile syncs a file or a directory.
func syncFile(path string, fsync func(*os.File) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(fsync(f), f.Close())
}

// syncTree syncs a directory and everything below it.
func syncTree(root string) error {
	root, err := filepath.EvalSymlinks(root) // a root that is a link would not be walked
	if err != nil {
		return err
	}
	return filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = syncFile(path, (*os.File).Sync)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the server replaces files of its own meanwhile
		}
		return err
	})
}
