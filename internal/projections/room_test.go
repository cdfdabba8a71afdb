package projections

import (
	"context"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/mattn/go-sqlite3"

	"jobtally/internal/events"
)

// Nothing is folded where the disk would be full before the end. What is folded already has its room.
func TestRebuildNeedsRoom(t *testing.T) {
	t.Parallel()
	_, s := newTracker(t, 1, 20)
	size := must[uint64](t)(sizeOf(s.db.path))
	if size <= uint64(must[os.FileInfo](t)(os.Stat(s.db.path)).Size()) {
		t.Fatalf("%d bytes are without the log", size)
	}
	free := size + roomReserve - 1
	r := s.rebuild(nil)
	r.free = func(dir string) (uint64, error) {
		if dir != s.dir {
			t.Errorf("asked for the disk of %s", dir)
		}
		return free, nil
	}
	_, err := r.Make(within(t))
	wantErr(t, err, ErrNoRoom)
	if !strings.Contains(err.Error(), "it needs 65 MiB in "+s.dir+", and 64 MiB are free") || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q", err)
	}
	if exists(PartialPath(s.db.path)) {
		t.Error("a file was made")
	}
	ok(t, os.WriteFile(PartialPath(s.db.path), []byte("x"), 0o600))
	must[Made](t)(r.Make(within(t)))

	if there, err := freeBytes(s.dir); err != nil || there == 0 {
		t.Errorf("the disk of the test has %d bytes free, %v", there, err)
	}
}

// A disk that is filled by a rebuild has room again after it, unless nobody serves who needs it.
func TestRebuildThatFillsTheDisk(t *testing.T) {
	t.Parallel()
	for name, keep := range map[string]bool{"beside a service": false, "before one can serve": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, s := newTracker(t, 1, 400)
			r := s.rebuild(nil)
			r.KeepWhenFull = keep
			r.free = func(string) (uint64, error) { return 1 << 40, nil }
			fillable(t, &r)
			made, err := r.Make(within(t))
			if !full(err) || errors.Is(err, ErrNoRoom) == keep || strings.Contains(err.Error(), "\n") {
				t.Fatalf("made with %v", err)
			}
			left := must[[]string](t)(filepath.Glob(PartialPath(r.Path) + "*"))
			if (len(left) > 0) != keep || (made.Decisions > 0) != keep {
				t.Errorf("left %q, made %+v", left, made)
			}
		})
	}
}

// fillable has a rebuild fold on a disk of its own that is too small, or, where none can be mounted, fail as on one.
func fillable(t *testing.T, r *Rebuild) {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=512k"); err == nil {
		t.Cleanup(func() { ok(t, syscall.Unmount(dir, 0)) })
		r.Path = filepath.Join(dir, "projection.db")
		return
	}
	read, batches := r.Ledger.Read, 0
	r.Ledger.Read = func(ctx context.Context, stream events.Stream, partition int, after uint64) iter.Seq2[[]events.Message, error] {
		return func(yield func([]events.Message, error) bool) {
			for batch, err := range read(ctx, stream, partition, after) {
				if batches++; batches > 3 {
					batch, err = nil, sqlite3.Error{Code: sqlite3.ErrFull}
				}
				if !yield(batch, err) {
					return
				}
			}
		}
	}
}
