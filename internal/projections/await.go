package projections

import (
	"context"
	"sync"
	"sync/atomic"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// fold is how far a partition is folded, and who waits for it to go further.
type fold struct {
	partition int
	at        FoldedTo // what the file says; owned by Apply, which changes it with stand
	unsettled *applied // what a commit of unknown outcome was to fold; nil while there is none; owned by Apply

	archived atomic.Pointer[events.Month]      // of at, for whoever asks; nil before the first
	sequence atomic.Uint64                     // moved under mu
	mu       sync.Mutex                        // guards the field below
	waiting  map[uint64][]chan events.Decision // by sequence; each channel has room for the one decision it gets
}

// Folded returns the last sequence of the partition that this projection has folded.
func (db *DB) Folded(partition int) uint64 {
	return db.partitions[partition].sequence.Load()
}

// Digest returns the position of a partition and the digest of all decisions up to there.
func (db *DB) Digest(partition int) (uint64, events.Digest) {
	db.mu.Lock() // Apply owns the digest
	defer db.mu.Unlock()
	return db.Folded(partition), db.partitions[partition].at.Digest
}

// Archived returns the last month of a partition that is archived, or nothing.
func (db *DB) Archived(partition int) events.Month {
	if month := db.partitions[partition].archived.Load(); month != nil {
		return *month
	}
	return ""
}

// CountsIn returns the month in which a capture of an account counts that is stamped with a month: a later one, where that
// is archived already.
func (db *DB) CountsIn(account string, month events.Month) events.Month {
	return capture.CountsIn(month, db.Archived(db.partitionOf(account)))
}

// OnFold has f called after each commit, in order, with the decisions of a partition that were folded and the sequence up to
// which they go; and without decisions where another file came in the place of this one, which has that sequence. Call it
// before anything is folded; f waits for nothing.
func (db *DB) OnFold(f func(partition int, decisions []events.Decision, to uint64)) { db.onFold = f }

// stand notes what the file says.
func (f *fold) stand(at FoldedTo) {
	f.at = at
	if at.Archived != "" {
		f.archived.Store(&at.Archived)
	}
}

// awaitFolded returns nil once a partition is folded up to a sequence, or the context's error.
func (db *DB) awaitFolded(ctx context.Context, partition int, sequence uint64) error {
	f := db.partitions[partition]
	folded := f.register(sequence)
	if folded == nil {
		return nil
	}
	select {
	case <-folded:
		return nil
	case <-ctx.Done():
		f.unregister(sequence, folded)
		return context.Cause(ctx)
	}
}

// Await returns the decision at a position once it is folded here: whoever has waited reads what it wrote. The
// error is ErrNotFound for what was erased since, and the context's when that ends first.
func (db *DB) Await(ctx context.Context, p events.Position) (events.Decision, error) {
	if p.Partition >= len(db.partitions) {
		return events.Decision{}, events.ErrNotFound
	}
	f := db.partitions[p.Partition]
	folded := f.register(p.Sequence)
	if folded == nil {
		return db.Decision(ctx, p)
	}
	select {
	case d, handed := <-folded:
		if !handed { // a file came in the place of the one before that is further
			return db.Decision(ctx, p)
		}
		if _, erased := d.Body.(*events.Erased); erased {
			return events.Decision{}, events.ErrNotFound
		}
		return d, nil
	case <-ctx.Done():
		f.unregister(p.Sequence, folded)
		return events.Decision{}, ctx.Err()
	}
}

// register returns a channel on which the decision will come, or nil when it is folded already.
func (f *fold) register(sequence uint64) chan events.Decision {
	f.mu.Lock()
	defer f.mu.Unlock()
	if sequence <= f.sequence.Load() {
		return nil
	}
	c := make(chan events.Decision, 1)
	f.waiting[sequence] = append(f.waiting[sequence], c)
	return c
}

func (f *fold) unregister(sequence uint64, c chan events.Decision) {
	f.mu.Lock()
	defer f.mu.Unlock()
	kept := f.waiting[sequence][:0]
	for _, other := range f.waiting[sequence] {
		if other != c {
			kept = append(kept, other)
		}
	}
	f.waiting[sequence] = kept
	if len(kept) == 0 {
		delete(f.waiting, sequence)
	}
}

// advance moves the position over decisions that were just committed, and hands them to whoever waits.
func (f *fold) advance(decisions []events.Decision) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range decisions {
		f.sequence.Store(d.Position.Sequence)
		for _, c := range f.waiting[d.Position.Sequence] {
			c <- d
		}
		delete(f.waiting, d.Position.Sequence)
	}
}
