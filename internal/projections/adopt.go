package projections

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"jobtally/internal/events"
)

var discardLog = slog.New(slog.DiscardHandler)

// Adopt puts the file at NextPath in the place of the one that db has open, when it is what it should be, and leaves the
// verdict. An error says why db serves on with the file that it had: then there is no file at NextPath any more, but where
// ctx ended.
func (r Rebuild) Adopt(ctx context.Context, db *DB) (equal []events.Position, err error) {
	next, err := os.Stat(NextPath(r.Path))
	if err != nil {
		return nil, err
	}
	equal, err = r.adopt(ctx, db)
	if ctx.Err() != nil {
		return equal, err
	}
	return equal, r.conclude(Verdict{File: inode(next), Equal: equal}, err)
}

// conclude leaves the verdict. What was refused for what it is goes; what came at the wrong moment is kept, as a partial
// file that needs little to be whole again.
func (r Rebuild) conclude(v Verdict, err error) error {
	if err == nil {
		return v.write(r.Path)
	}
	v = Verdict{File: v.File, Refused: err.Error(), Differs: errors.Is(err, ErrDiffers)}
	if errors.Is(err, ErrMismatch) || exists(PartialPath(r.Path)) {
		return errors.Join(err, v.write(r.Path), discard(NextPath(r.Path)))
	}
	return errors.Join(err, v.write(r.Path), r.putBack())
}

// putBack makes a partial file of what was made, to go on with it. Without its log it would not be whole.
func (r Rebuild) putBack() error {
	next := NextPath(r.Path)
	if !exists(next) || emptyLog(next) != nil {
		return discard(next)
	}
	return os.Rename(next, PartialPath(r.Path))
}

func (r Rebuild) adopt(ctx context.Context, db *DB) (equal []events.Position, err error) {
	next, err := r.openNext(ctx)
	if err != nil {
		return nil, err
	}
	if !db.Outdated() {
		err = r.approach(ctx, next, db)
	}
	if err != nil {
		return nil, errors.Join(err, next.seal())
	}
	next.step = db.step
	return db.Replace(ctx, next, func(ctx context.Context, partition int, to uint64) error {
		ctx, cancel := context.WithTimeout(ctx, levelTimeout)
		defer cancel()
		err := r.projector(next, partition).foldTo(ctx, to)
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("the ledger did not give the last decisions within %s; run `projector rebuild` again", levelTimeout)
		}
		return err
	})
}

// openNext opens the file at NextPath, which may have lain there for long.
func (r Rebuild) openNext(ctx context.Context) (*DB, error) {
	if !exists(NextPath(r.Path)) {
		return nil, fs.ErrNotExist
	}
	next, err := open(NextPath(r.Path), r.LedgerID, r.Ledger.Partitions, "it is removed")
	if err != nil {
		return nil, err
	}
	if err := next.checkFile(ctx); err != nil {
		return nil, errors.Join(err, next.Close())
	}
	return next, nil
}

// approach folds what next lacks of db, but for what comes meanwhile; and where db is behind it waits for that.
func (r Rebuild) approach(ctx context.Context, next, db *DB) error {
	for partition := range db.partitions {
		if err := awaitFolded(ctx, db, partition, next.Folded(partition)); err != nil {
			return err
		}
		for near := false; !near; {
			before, to := next.Folded(partition), db.Folded(partition)
			heads, err := r.projector(next, partition).Check(ctx)
			if err != nil {
				return err
			}
			if heads.Decisions < to {
				return fmt.Errorf("%w in partition %d", ErrAhead, partition)
			}
			if err := r.projector(next, partition).foldTo(ctx, to); err != nil {
				return err
			}
			near = to-before <= followed
		}
	}
	return nil
}

// awaitFolded waits until a partition is folded as far as what is to come in its place. One that has stopped never is.
func awaitFolded(ctx context.Context, db *DB, partition int, sequence uint64) error {
	if sequence == 0 {
		return nil
	}
	waiting, cancel := context.WithTimeout(ctx, behindTimeout)
	defer cancel()
	db.Await(waiting, events.Position{Partition: partition, Sequence: sequence}) // the decision is of no interest
	if db.Folded(partition) < sequence {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%w: partition %d up to %d and %d: its projector has stopped; stop jobtally and run `projector rebuild` again",
			errBehind, partition, db.Folded(partition), sequence)
	}
	return nil
}

// Installed says what was put in place of what.
type Installed struct {
	Equal []events.Position // where the digests of both were equal
	// Uncompared is why nothing could be compared with the one that was there. It is empty where that was done.
	Uncompared string
}

// Install puts the file at NextPath in place, where no process serves from the projection: the caller has the lock of the
// data directory. What is there is brought up to the same position, and its digests are compared. Where it cannot be read,
// there is nothing to compare with, and what was folded from the ledger replaces it.
func (r Rebuild) Install(ctx context.Context) (done Installed, err error) {
	done, err = r.install(ctx)
	if ctx.Err() != nil || err == nil {
		return done, err
	}
	if errors.Is(err, ErrMismatch) {
		return done, errors.Join(err, discard(NextPath(r.Path)))
	}
	return done, errors.Join(err, r.putBack())
}

func (r Rebuild) install(ctx context.Context) (done Installed, err error) {
	next, err := r.openNext(ctx)
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, next.Close()) }()
	heads, err := r.levelNext(ctx, next)
	if err != nil {
		return done, err
	}
	old, unreadable, err := r.openOld(ctx)
	if err != nil {
		return done, err
	}
	if old != nil {
		done.Equal, unreadable, err = r.compareWith(ctx, old, next, heads)
	}
	if err := errors.Join(err, next.seal()); err != nil {
		return done, err
	}
	r.at("compared")
	done.Uncompared = unreadable
	return done, r.putInPlace(next.path, unreadable)
}

// putInPlace gives the file its name. Of one that can be read the log goes into it first, so that it is whole until then.
func (r Rebuild) putInPlace(next, unreadable string) error {
	if err := emptyLog(r.Path); err != nil && unreadable == "" {
		return fmt.Errorf("projection %s: %w", r.Path, err)
	}
	if err := errors.Join(remove(r.Path+"-wal"), remove(r.Path+"-shm")); err != nil {
		return err
	}
	r.at("shut")
	if err := os.Rename(next, r.Path); err != nil {
		return err
	}
	r.at("renamed")
	return settle(r.Path)
}

// levelNext folds next up to the heads.
func (r Rebuild) levelNext(ctx context.Context, next *DB) (heads []uint64, err error) {
	for partition := range r.Ledger.Partitions {
		p := r.projector(next, partition)
		at, err := p.Check(ctx)
		if err != nil {
			return nil, err
		}
		if err := p.foldTo(ctx, at.Decisions); err != nil {
			return nil, err
		}
		heads = append(heads, at.Decisions)
	}
	return heads, nil
}

// Examine returns why the projection cannot be replaced, before anything is folded: it is of another ledger, or of another
// past, or ahead of the decisions.
func (r Rebuild) Examine(ctx context.Context) error {
	old, _, err := r.openOld(ctx)
	if err != nil || old == nil {
		return err
	}
	return old.Close()
}

// openOld opens the projection that is there, or says why it cannot be read.
func (r Rebuild) openOld(ctx context.Context) (old *DB, unreadable string, err error) {
	if !exists(r.Path) {
		return nil, "there was no " + r.Path, nil
	}
	old, err = open(r.Path, r.LedgerID, r.Ledger.Partitions, "it is replaced")
	var version *VersionError
	switch {
	case errors.As(err, &version):
		return nil, fmt.Sprintf("%s had schema version %d, and this one has %d", r.Path, version.Version, schemaVersion), r.examineOutdated(ctx)
	case errors.Is(err, errOtherLedger):
		return nil, "", err
	case errors.Is(err, ErrMismatch):
		return nil, err.Error(), nil
	case err != nil:
		return nil, "", err
	}
	for partition := range r.Ledger.Partitions {
		heads, err := r.projector(old, partition).Check(ctx)
		if err == nil {
			err = behindDecisions(partition, old.Folded(partition), heads)
		}
		if unreadable, err = judge(err); unreadable != "" || err != nil {
			old.Close() // how it closes is no matter
			return nil, unreadable, err
		}
	}
	return old, "", nil
}

// examineOutdated looks at what any version tells: of which ledger it is, and how far it is folded.
func (r Rebuild) examineOutdated(ctx context.Context) error {
	old, err := OpenOutdated(r.Path, r.LedgerID, r.Ledger.Partitions)
	if errors.Is(err, errOtherLedger) {
		return err
	}
	if err != nil {
		return nil // it cannot be read
	}
	defer old.Close()
	for partition := range old.partitions {
		heads, err := r.Ledger.Heads(ctx, partition)
		if err == nil {
			err = behindDecisions(partition, old.Folded(partition), heads)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// behindDecisions refuses a projection that has what the ledger lost, and is to get again from there.
func behindDecisions(partition int, folded uint64, heads events.Heads) error {
	if folded <= heads.Decisions {
		return nil
	}
	return fmt.Errorf("%w: partition %d is folded up to %d and decided up to %d; start jobtally once, which appends them again, and run this again",
		ErrAhead, partition, folded, heads.Decisions)
}

// judge tells a projection that cannot be trusted, and so is nothing to compare with, from one of another past and from a
// failure.
func judge(err error) (unreadable string, _ error) {
	if errors.Is(err, ErrMismatch) && !errors.Is(err, ErrDiffers) {
		return err.Error(), nil
	}
	return "", err
}

// compareWith brings the projection that is there up to the same position, as the next start would, and compares.
func (r Rebuild) compareWith(ctx context.Context, old, next *DB, heads []uint64) (equal []events.Position, unreadable string, err error) {
	for partition, head := range heads {
		if err = r.projector(old, partition).foldTo(ctx, head); err == nil {
			err = old.compare(old.partitions[partition], next.partitions[partition])
		}
		if unreadable, err = judge(err); unreadable != "" || err != nil {
			break
		}
		if head > 0 {
			equal = append(equal, events.Position{Partition: partition, Sequence: head})
		}
	}
	closed := old.Close()
	if unreadable != "" {
		return nil, unreadable, nil // and how it closes is no matter either
	}
	return equal, "", errors.Join(err, closed)
}

// TakeBack makes a partial file of one that was made and that nobody is there to take: a process died.
func (r Rebuild) TakeBack() error {
	if !exists(NextPath(r.Path)) {
		return nil
	}
	return errors.Join(discard(PartialPath(r.Path)), r.putBack())
}
