package archive

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"jobtally/internal/events"
	"jobtally/internal/replay"
)

// Set is archives of adjoining months of one ledger, read as one.
type Set struct {
	months []opened // in order
}

// opened is an archive that is read.
type opened struct {
	dir string
	Manifest
}

func (o *opened) part(partition int) *Part {
	for i := range o.Parts {
		if o.Parts[i].Partition == partition {
			return &o.Parts[i]
		}
	}
	return nil
}

// Open reads the manifests of archives, given in any order. The error is one line that says what to name instead of them.
// It is for Verification to say whether they are sound.
func Open(dirs ...string) (*Set, error) {
	s := &Set{}
	for _, dir := range dirs {
		m, _, err := readManifest(dir)
		if err != nil {
			return nil, err
		}
		s.months = append(s.months, opened{dir: dir, Manifest: m})
	}
	slices.SortStableFunc(s.months, func(a, b opened) int { return cmp.Compare(a.Month, b.Month) })
	for i := 1; i < len(s.months); i++ {
		if err := adjoin(&s.months[i-1], &s.months[i]); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// adjoin returns an error unless one archive is of the month after the other's, of the same ledger.
func adjoin(a, b *opened) error {
	switch {
	case a.Ledger != b.Ledger || a.Partitions != b.Partitions:
		return fmt.Errorf("%s and %s are of two ledgers: replay one after the other", a.dir, b.dir)
	case a.Month == b.Month:
		return fmt.Errorf("%s and %s are both of %s: name one of them", a.dir, b.dir, a.Month)
	case a.Month.Next() != b.Month:
		return fmt.Errorf("%s and %s do not adjoin: name the archive of %s too", a.Month, b.Month, a.Month.Next())
	}
	for p := range a.Partitions {
		before, after := a.part(p), b.part(p)
		if after == nil {
			continue
		}
		of := after.Previous
		if (of == nil) != (before == nil) || of != nil && *of != before.Archived.Link {
			return fmt.Errorf("%s does not follow from %s in partition %d: one of them is of a copy of the ledger that went another way",
				b.dir, a.dir, p)
		}
	}
	return nil
}

// Dirs returns the directories in the order of their months.
func (s *Set) Dirs() (dirs []string) {
	for _, m := range s.months {
		dirs = append(dirs, m.dir)
	}
	return dirs
}

// Source returns what pairs are read from.
func (s *Set) Source() replay.Source {
	first := s.months[0]
	return replay.Source{
		ID: first.Ledger, Partitions: first.Partitions, Partial: true, ReadTo: s.ReadTo,
		Heads: func(_ context.Context, partition int) (heads events.Heads, err error) {
			for _, m := range s.months {
				if p := m.part(partition); p != nil {
					heads.Requests = max(heads.Requests, p.Last.Sequence)
				}
			}
			heads.Decisions = heads.Requests
			return heads, nil
		},
	}
}

// Heads returns up to where a partition is covered: the heads of a ledger that is decided again.
func (s *Set) Heads(ctx context.Context, partition int) (events.Heads, error) {
	covered, err := s.Covered(ctx, partition)
	return events.Heads{Requests: covered, Decisions: covered}, err
}

// Missing returns the month before the first, if any partition has such a month: what was decided in it is not known
// here.
func (s *Set) Missing() events.Month {
	for _, p := range s.months[0].Parts {
		if p.Previous != nil {
			return p.Previous.Month
		}
	}
	return ""
}

// Covered returns up to which sequence a partition is here from the first on, so that it can be decided again. After that
// numbers are missing: those of the beginning of a month, which were decided before the month before was archived, or those
// of accounts that were erased since, where what else is gone with them is not known here.
func (s *Set) Covered(ctx context.Context, partition int) (covered uint64, err error) {
	there, last := int64(0), uint64(0)
	for _, m := range s.months {
		if p := m.part(partition); p != nil {
			there, last = there+p.Requests+p.Erased, p.Last.Sequence
		}
	}
	if uint64(there) == last {
		if later, err := s.erasedLater(ctx, partition, last); err != nil || !later {
			return last, err
		}
	}
	for batch, err := range s.ReadTo(ctx, events.Requests, partition, nil, 0, last) {
		if err != nil {
			return 0, err
		}
		for _, m := range batch {
			if m.Sequence != covered+1 {
				return covered, nil
			}
			covered = m.Sequence
		}
	}
	return covered, ctx.Err()
}

// erasedLater says whether an account was erased after a sequence.
func (s *Set) erasedLater(ctx context.Context, partition int, last uint64) (bool, error) {
	for i := range s.months {
		p := s.months[i].part(partition)
		if p == nil || p.Erasures.Lines == 0 {
			continue
		}
		f := file{dir: s.months[i].dir, name: p.Erasures.Name, stream: events.Decisions, partition: partition}
		for m, err := range f.messages(ctx, last, math.MaxUint64) {
			return m.Sequence > last, err
		}
	}
	return false, nil
}
