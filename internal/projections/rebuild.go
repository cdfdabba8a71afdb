package projections

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"jobtally/internal/events"
)

const (
	// followed is how many decisions may be missing when a file that is made counts as made: they come while it is folded,
	// and what takes it over folds the last of them.
	followed = 1024
	// levelTimeout bounds for how long folding stands still for a Replace.
	levelTimeout = 5 * time.Second
	// behindTimeout bounds for how long a projection may be behind the file that is to come in its place.
	behindTimeout = 5 * time.Second
)

var (
	// ErrUnderWay is the error of a rebuild while another one makes the same file.
	ErrUnderWay = errors.New("it is being folded anew already")
	// ErrAhead is the error of a rebuild of a projection that has decisions which the ledger lost.
	ErrAhead = errors.New("the projection is ahead of the decisions, whose last died with the server")
)

// Rebuild makes a projection anew from the decisions of a ledger, beside the one that serves, and puts it in its place.
// It runs the everyday code: Open, the fold of decisions, and Apply, which verifies each link of the chains and each count.
//
// What it does stands in the names of files, so that any process can go on with it: Make folds into PartialPath, from
// where that file is, and gives it, once it is whole, the name NextPath. From there Adopt takes it, in the process that
// serves, or Install, where none does; what came of it stands in verdictPath. A process that dies leaves one of these names,
// and the projection as it was.
type Rebuild struct {
	Path     string // of the projection
	LedgerID string
	Ledger   Ledger
	// Progress is told how many of the decisions are folded, after each batch.
	Progress func(folded, due uint64)

	// KeepWhenFull has Make leave what is folded where the disk is full: who cannot serve before it is whole gains nothing
	// by the room, and would fill it again.
	KeepWhenFull bool

	// step is called between the steps. A test ends the process there.
	step func(string)
	// free returns how many bytes the disk of a directory has free. Nil asks the system; a test puts one there.
	free func(dir string) (uint64, error)
}

// PartialPath is where the projection at a path is made anew.
func PartialPath(path string) string { return beside(path, "rebuild") }

// NextPath is where it waits to be put in place.
func NextPath(path string) string { return beside(path, "next") }

// verdictPath is where it stands what became of it.
func verdictPath(path string) string { return beside(path, "verdict") }

func beside(path, extension string) string {
	return strings.TrimSuffix(path, filepath.Ext(path)) + "." + extension
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Made says what was folded.
type Made struct {
	Decisions uint64 // folded, all in all
	Resumed   uint64 // of these by a rebuild that did not come to its end
	Discarded string // why what that one left could not be used; empty where there was nothing, or it was used
	Seconds   float64
	Info      fs.FileInfo // of the file, whatever its name becomes
}

// Make folds the decisions that the ledger has into the partial file, and leaves it at NextPath. When ctx ends before, what
// is folded stays, and the next Make goes on from there. The error is ErrNoRoom where the disk has no room for a second
// projection: before anything is folded, or, where it was filled meanwhile, with what was folded removed again.
func (r Rebuild) Make(ctx context.Context) (m Made, err error) {
	began := time.Now()
	if err := r.waiting(); err != nil { // before a file is made
		return m, err
	}
	if err := r.checkRoom(); err != nil {
		return m, err
	}
	p, err := r.begin(ctx)
	if err != nil {
		return m, err
	}
	defer func() {
		if full(err) && !r.KeepWhenFull {
			m, err = Made{}, p.giveBack(err)
		}
		err = errors.Join(err, p.end())
	}()
	m.Discarded = p.discarded
	m.Resumed = p.db.folded()
	err = p.fold(ctx)
	if m.Decisions = p.db.folded(); err != nil {
		return m, r.contradicted(err)
	}
	if err := p.db.checkFile(ctx); err != nil {
		return m, err
	}
	if err := p.db.seal(); err != nil {
		return m, err
	}
	r.at("sealed")
	if m.Info, err = p.lock.Stat(); err != nil {
		return m, err
	}
	if err := os.Rename(p.db.path, NextPath(r.Path)); err != nil {
		return m, err
	}
	r.at("next")
	m.Seconds = time.Since(began).Seconds()
	return m, syncPath(filepath.Dir(r.Path))
}

func (r Rebuild) at(step string) {
	if r.step != nil {
		r.step(step)
	}
}

// partial is the file while it is made.
type partial struct {
	Rebuild
	lock      *os.File // the same file; who has its lock makes it
	db        *DB
	discarded string
}

// begin opens the partial file, and makes a new one where there is none that can be gone on with.
func (r Rebuild) begin(ctx context.Context) (p *partial, err error) {
	p = &partial{Rebuild: r}
	for {
		if p.lock, err = lockFile(PartialPath(r.Path)); err != nil {
			return nil, err
		}
		p.db, err = open(PartialPath(r.Path), r.LedgerID, r.Ledger.Partitions, r.mend())
		if err == nil {
			err = p.check(ctx)
		}
		if err == nil {
			err = r.waiting() // only who has the lock gives that name
		}
		if err == nil {
			return p, p.forgetVerdict()
		}
		if full(err) && !r.KeepWhenFull {
			return nil, errors.Join(p.giveBack(err), p.end())
		}
		unusable := errors.Is(err, ErrMismatch) && p.discarded == ""
		if unusable {
			p.discarded = err.Error()
			err = discard(PartialPath(r.Path))
		}
		if err := errors.Join(err, p.end()); err != nil {
			return nil, err
		}
	}
}

// waiting refuses to make a file while one that was made waits.
func (r Rebuild) waiting() error {
	if exists(NextPath(r.Path)) {
		return fmt.Errorf("%w: %s waits for the service to put it in place; wait for that, or see its log", ErrUnderWay, NextPath(r.Path))
	}
	return nil
}

// forgetVerdict removes a verdict of this very file: one that was refused and is gone on with, or one that had its inode. That
// of another file stays, for who made that waits for it. One that cannot be read, after a power failure, is of no use.
func (p *partial) forgetVerdict() error {
	info, err := p.lock.Stat()
	if err != nil {
		return err
	}
	if v, err := ReadVerdict(p.Path, info); v == nil && err == nil {
		return nil
	}
	return remove(verdictPath(p.Path))
}

// mend is what to do when decisions do not follow from each other: folding them again does not help.
func (r Rebuild) mend() string {
	return "the decisions of the ledger do not follow from each other"
}

// contradicted says where to look when the ledger contradicts itself: folding it again comes to the same end.
func (r Rebuild) contradicted(err error) error {
	if !errors.Is(err, ErrMismatch) && !errors.Is(err, events.ErrGap) {
		return err
	}
	return fmt.Errorf("%w: `projector audit --data %s` tells where", err, filepath.Dir(r.Path))
}

// check refuses a partial file that is not of a prefix of the ledger.
func (p *partial) check(ctx context.Context) error {
	for partition := range p.Ledger.Partitions {
		if _, err := p.projector(p.db, partition).Check(ctx); err != nil {
			return err
		}
	}
	return nil
}

// end closes what is open, and lets go of the file last.
func (p *partial) end() error {
	if p.db == nil {
		return p.lock.Close()
	}
	err := p.db.shut()
	return errors.Join(err, p.lock.Close())
}

// fold folds until it is near the heads, which may move meanwhile.
func (p *partial) fold(ctx context.Context) error {
	for near := false; !near; {
		due, before := make([]uint64, p.Ledger.Partitions), p.db.folded()
		for partition := range due {
			heads, err := p.Ledger.Heads(ctx, partition)
			if err != nil {
				return err
			}
			due[partition] = heads.Decisions
		}
		for partition, head := range due {
			watched := p.Rebuild
			watched.Ledger.Read = p.watch(sum(due))
			if err := watched.projector(p.db, partition).foldTo(ctx, head); err != nil {
				return err
			}
		}
		p.told(sum(due))
		near = p.db.folded()-before <= followed
	}
	return nil
}

// watch tells of the progress before each batch that is read.
func (p *partial) watch(due uint64) func(context.Context, events.Stream, int, uint64) iter.Seq2[[]events.Message, error] {
	return func(ctx context.Context, stream events.Stream, partition int, after uint64) iter.Seq2[[]events.Message, error] {
		return func(yield func([]events.Message, error) bool) {
			for batch, err := range p.Ledger.Read(ctx, stream, partition, after) {
				p.told(due)
				p.at("folding")
				if !yield(batch, err) {
					return
				}
			}
		}
	}
}

func (p *partial) told(due uint64) {
	if p.Progress != nil {
		p.Progress(p.db.folded(), due)
	}
}

// projector is one that only folds.
func (r Rebuild) projector(db *DB, partition int) *Projector {
	return NewProjector(db, r.Ledger, partition, false, discardLog)
}

// folded is the number of decisions that are folded, in all partitions.
func (db *DB) folded() (n uint64) {
	for p := range db.partitions {
		n += db.Folded(p)
	}
	return n
}

func sum(numbers []uint64) (total uint64) {
	for _, n := range numbers {
		total += n
	}
	return total
}

// checkFile has SQLite look through the whole file: an index without one of its rows would hide it from Decide.
func (db *DB) checkFile(ctx context.Context) error {
	var found string
	if err := db.writer.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&found); err != nil {
		return db.fail(err)
	}
	if found != "ok" {
		return fmt.Errorf("%w: %s is damaged (%s); %s", ErrMismatch, db.path, found, db.remedy())
	}
	return nil
}

// lockFile opens a file, which it makes if need be, and takes its lock: that of the file which has the name now.
func lockFile(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			f.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				return nil, fmt.Errorf("%w: wait for the other rebuild, or end it and run this one again", ErrUnderWay)
			}
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		mine, err := f.Stat()
		if named, other := os.Stat(path); err == nil && other == nil && os.SameFile(mine, named) {
			return f, nil
		}
		f.Close() // it was renamed or removed in between
	}
}

// discard removes a projection.
func discard(path string) error {
	return errors.Join(remove(path), remove(path+"-wal"), remove(path+"-shm"), remove(path+erasingSuffix)) // in this order: a log alone is nothing
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Verdict is what became of a file that was made, in verdictPath.
type Verdict struct {
	// File is the inode of the one that was made. It has that until the verdict is written, so no other one has it before.
	File uint64 `json:"file"`
	// Equal are the positions at which the digests of both files were equal, when the one came in the place of the other.
	Equal []events.Position `json:"equal,omitempty"`
	// Refused is why it did not. Then the one that was there serves on.
	Refused string `json:"refused,omitempty"`
	// Differs says that it did not because the digests differ.
	Differs bool `json:"differs,omitempty"`
}

// Err returns the refusal, which is ErrDiffers if the digests do.
func (v Verdict) Err() error {
	if v.Refused == "" {
		return nil
	}
	return refusal(v)
}

type refusal Verdict

// Error returns the reason.
func (r refusal) Error() string { return r.Refused }

// Is says whether the digests differ.
func (r refusal) Is(target error) bool { return r.Differs && target == ErrDiffers }

func inode(info fs.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Ino }

// ReadVerdict returns the verdict on a file that was made, or nil while there is none: that of an earlier file may come after
// the next one was begun.
func ReadVerdict(path string, made fs.FileInfo) (*Verdict, error) {
	text, err := os.ReadFile(verdictPath(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var v Verdict
	if err := json.Unmarshal(text, &v); err != nil || v.File != inode(made) {
		return nil, err
	}
	return &v, nil
}

// write leaves the verdict, whole or not at all.
func (v Verdict) write(path string) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	unnamed := verdictPath(path) + ".new"
	if err := os.WriteFile(unnamed, append(text, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(unnamed, verdictPath(path))
}
