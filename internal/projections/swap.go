package projections

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"jobtally/internal/events"
)

// reopenEvery is after how long a file that could not be opened is tried again: for lack of room or of descriptors, since
// it was open a moment before.
const reopenEvery = 50 * time.Millisecond

// errBehind is the error of a file that is not where the one is in whose place it is to come, or the other way round.
var errBehind = errors.New("the one that serves and the one folded anew are not at one position")

// errInUse is the error of a file that somebody else has open. Who writes there too would delete, by its name, the log of
// the file that came in its place.
var errInUse = errors.New("another process has it open: end that, and run `projector rebuild` again")

// hold has a Replace wait until pass is called. The error is ErrUnavailable where the file, of another version, does not
// have what the statement reads. Every read begins with it: no other statement is of the file that is open.
func (db *DB) hold(of **sql.Stmt) error {
	db.gate.RLock()
	if *of == nil {
		db.gate.RUnlock()
		return db.closed()
	}
	return nil
}

// closed is the error while the file of this version is not open.
func (db *DB) closed() error {
	return fmt.Errorf("%w: %s is being folded anew", events.ErrUnavailable, db.path)
}

// Outdated says whether the file is of another version: it is read where that is possible, and nothing is folded, until
// another one is put in its place.
func (db *DB) Outdated() bool { return db.outdated.Load() }

// Replaced returns what is closed once another file was put in the place of this one.
func (db *DB) Replaced() <-chan struct{} {
	db.gate.RLock()
	defer db.gate.RUnlock()
	return db.replaced
}

// OpenOutdated opens a projection that an older jobtally wrote, to read what can be read there until another one is put
// in its place. It folds nothing. Of what it cannot tell how far it is folded it counts as not folded.
func OpenOutdated(path, ledgerID string, partitions int) (*DB, error) {
	db := unopened(path, ledgerID, fmt.Sprintf("run `projector rebuild --data %s`, which folds it anew from the ledger", filepath.Dir(path)))
	db.outdated.Store(true)
	err := db.reopen()
	if err == nil {
		err = db.checkLedger(db.reading, partitions)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	folded := readSequences(db.reading)
	for p := range partitions {
		db.partitions = append(db.partitions, newFold(p, FoldedTo{Sequence: folded[p]}))
	}
	return db, nil
}

// readSequences returns how far the partitions are folded in a file of any version. It is empty where that cannot be told.
func readSequences(db *sql.DB) map[int]uint64 {
	sequences := map[int]uint64{}
	rows, err := db.Query("SELECT partition, sequence FROM partitions")
	err = scanAll(rows, err, func(rows *sql.Rows) error {
		var partition int
		var sequence uint64
		err := rows.Scan(&partition, &sequence)
		sequences[partition] = sequence
		return err
	})
	if err != nil {
		return nil
	}
	return sequences
}

// Blind takes an outdated file for one in which nothing is folded, and reads nothing there: it is further than what will
// be put in its place.
func (db *DB) Blind() {
	db.gate.Lock()
	defer db.gate.Unlock()
	db.reads = readStatements{}
	for _, f := range db.partitions {
		f.sequence.Store(0)
	}
}

// reopen opens the file as it is.
func (db *DB) reopen() error {
	if db.outdated.Load() {
		return errors.Join(db.connectReaders(""), db.prepare())
	}
	for _, step := range []func() error{db.connect, db.migrate, db.prepare} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// Replace puts next, a projection of the same ledger that is open at another path, in the place of this one and under
// its name. level folds next up to a position and not beyond; Replace calls it while nothing is folded here, and refuses
// with ErrDiffers when the digests are not equal then. So whoever reads finds the same rows before and after, and waits
// only while files are closed, renamed and opened. It returns where the digests were equal. Next is closed in any case.
//
// In the place of an outdated file comes one that is at least as far. Digests of two versions are not compared, for their
// rows mean different things: that next follows from the ledger, every link and count of it, Apply has verified.
//
// The commit point is the renaming: what a process that dies before it leaves is the file that was, and after it the next,
// both whole and without a log.
func (db *DB) Replace(ctx context.Context, next *DB, level func(ctx context.Context, partition int, to uint64) error) (equal []events.Position, err error) {
	was, equal, err := db.replace(ctx, next, level)
	if was != nil {
		err = errors.Join(err, was.Close())
	}
	return equal, err
}

// replace returns the file that was, still open: freeing the room of a large one takes long, and nobody is to wait for that.
func (db *DB) replace(ctx context.Context, next *DB, level func(ctx context.Context, partition int, to uint64) error) (was *os.File, equal []events.Position, err error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	equal, err = db.level(ctx, next, level)
	if err := errors.Join(err, next.seal()); err != nil {
		return nil, nil, err
	}
	db.step("sealed")
	db.lightenLog()
	db.loadMu.Lock()
	defer db.loadMu.Unlock()
	db.gate.Lock()
	defer db.gate.Unlock()
	if was, err = db.leave(); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("projection %s: %w", db.path, err), db.comeBack(ctx))
	}
	db.step("shut")
	if err := os.Rename(next.path, db.path); err != nil {
		return nil, nil, errors.Join(err, was.Close(), db.comeBack(ctx))
	}
	db.step("renamed")
	err = settle(db.path)
	db.outdated.Store(false)
	db.cache = newCache()
	for i, f := range db.partitions {
		f.take(next.partitions[i])
		db.onFold(i, nil, f.sequence.Load())
	}
	err = errors.Join(err, db.comeBack(ctx))
	close(db.replaced)
	db.replaced = make(chan struct{})
	return was, equal, err
}

// lightenLog puts what is in the log into the file, as far as nobody reads there, so that closing it finds little to do.
func (db *DB) lightenLog() {
	if db.writer != nil {
		db.writer.ExecContext(context.Background(), "PRAGMA wal_checkpoint(PASSIVE)") // what stands in the way is met again
	}
}

// leave closes the file, with its log in it, and returns it as nothing but a file. Closing that one would end the locks of
// a connection of this process: so it is opened after the last of them, and closed before the next.
func (db *DB) leave() (was *os.File, err error) {
	if err := errors.Join(db.shut(), emptyLog(db.path)); err != nil {
		return nil, err
	}
	return os.Open(db.path)
}

// level sees to it that next is where this one is.
func (db *DB) level(ctx context.Context, next *DB, level func(ctx context.Context, partition int, to uint64) error) (equal []events.Position, err error) {
	for i, f := range db.partitions {
		if err := db.settleFold(f); err != nil {
			return nil, err
		}
		at, other := events.Position{Partition: i, Sequence: f.sequence.Load()}, next.partitions[i]
		if db.outdated.Load() {
			if other.sequence.Load() < at.Sequence {
				return nil, fmt.Errorf("%w: up to %s and %d", errBehind, at, other.sequence.Load())
			}
			continue
		}
		if err := level(ctx, i, at.Sequence); err != nil {
			return nil, err
		}
		if err := db.compare(f, other); err != nil {
			return nil, err
		}
		if at.Sequence > 0 {
			equal = append(equal, at)
		}
	}
	return equal, nil
}

// compare refuses a partition that is folded to another digest.
func (db *DB) compare(f, other *fold) error {
	at := events.Position{Partition: f.partition, Sequence: f.sequence.Load()}
	if other.sequence.Load() != at.Sequence {
		return fmt.Errorf("%w: up to %s and %d", errBehind, at, other.sequence.Load())
	}
	if f.at != other.at {
		return fmt.Errorf("%w: at %s the digest of %s is %s, and folded anew it is %s: `projector audit --data %s` tells which is wrong; where it is the projection, %s",
			ErrDiffers, at, db.path, f.at.Digest, other.at.Digest, filepath.Dir(db.path), db.removal())
	}
	return nil
}

// take takes over where another file is. Whoever waits for what is folded there finds it there.
func (f *fold) take(other *fold) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stand(other.at)
	f.sequence.Store(other.sequence.Load())
	for sequence, waiting := range f.waiting {
		if sequence > f.sequence.Load() {
			continue
		}
		for _, c := range waiting {
			close(c)
		}
		delete(f.waiting, sequence)
	}
}

// shut closes the file. Nothing of it is prepared after that.
func (db *DB) shut() error {
	err := db.file.close()
	db.file = file{}
	return err
}

// comeBack opens the file that is there, and tries until it is open: whoever reads waits. Only ctx ends that.
func (db *DB) comeBack(ctx context.Context) error {
	for {
		err := db.reopen()
		if err == nil {
			return nil
		}
		err = errors.Join(err, db.shut())
		if !pause(ctx, reopenEvery) {
			return err
		}
	}
}

// seal closes a projection that another process is to open, or this one under another name: all of it is in the file then,
// and on the disk.
func (db *DB) seal() error {
	if err := errors.Join(db.scrubNow(), db.shut()); err != nil {
		return err
	}
	if err := emptyLog(db.path); err != nil {
		return fmt.Errorf("projection %s: %w", db.path, err)
	}
	return syncPath(db.path)
}

// emptyLog sees to it that a closed file has no log. The last connection that can write removes it, when it closes; so one
// that is there still is held by another process, or by nobody who could.
func emptyLog(path string) error {
	if _, err := os.Stat(path + "-wal"); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	db, err := sql.Open("sqlite3", dsn(path, "mode=rw"))
	if err != nil {
		return err
	}
	_, err = db.Exec("PRAGMA wal_checkpoint(TRUNCATE)")
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	if _, err := os.Stat(path + "-wal"); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errInUse
}

// settle finishes the renaming of a sealed file to where one without a log was. A log that is there was made in between by
// somebody who opened the one that was, and is empty.
func settle(path string) error {
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return syncPath(filepath.Dir(path))
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
