// Package replay reads again what a ledger, or an exported month of one, holds: requests and decisions in pairs, those of
// a month, an account, or a stretch. It decides nothing and folds nothing.
package replay

import (
	"context"
	"fmt"
	"iter"
	"sort"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// Source is where pairs are read from, as function values: the streams of a ledger, or the files of an archive.
type Source struct {
	ID         string // of the ledger
	Partitions int
	// Heads returns the last sequences of the pair of a partition.
	Heads func(ctx context.Context, partition int) (events.Heads, error)
	// ReadTo yields the messages there are after one sequence up to another, in order; those under the subjects, or all
	// where there are none.
	ReadTo func(ctx context.Context, stream events.Stream, partition int, subjects []string, after, last uint64) iter.Seq2[[]events.Message, error]
}

// Archive is an archived month of a partition.
type Archive struct {
	events.MonthArchived
	Position events.Position // of the decision that archived it
	Link     events.Digest   // its digest: the link of the chain of months
}

// Archives returns the archived months of a partition, in order. It reads these decisions and no other.
func (s Source) Archives(ctx context.Context, partition int) (archives []Archive, err error) {
	heads, err := s.Heads(ctx, partition)
	if err != nil {
		return nil, err
	}
	subjects := []string{events.ArchivesSubject(partition)}
	for batch, err := range s.ReadTo(ctx, events.Decisions, partition, subjects, 0, heads.Decisions) {
		if err != nil {
			return nil, err
		}
		for _, m := range batch {
			d, err := events.DecodeDecision(m, partition)
			if err != nil {
				return nil, err
			}
			archived, ok := d.Body.(*events.MonthArchived)
			if !ok {
				return nil, fmt.Errorf("decision %s stands under the subject of an archived month, and is none", d.Position)
			}
			archives = append(archives, Archive{MonthArchived: *archived, Position: d.Position, Link: d.Digest})
		}
	}
	return archives, nil
}

// monthOf returns the month that a decision belongs to, given all archived months of its partition.
func monthOf(d *events.Decision, archives []Archive) events.Month {
	before := sort.Search(len(archives), func(i int) bool { return archives[i].Position.Sequence >= d.Position.Sequence })
	if before == 0 {
		return capture.MonthOf(d, "")
	}
	return capture.MonthOf(d, archives[before-1].Month)
}
