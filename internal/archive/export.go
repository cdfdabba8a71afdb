package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/replay"
)

// ErrNoMonth is the error of exporting a month that can never be exported, or not for months to come.
var ErrNoMonth = errors.New("no month to export")

// Export is the export of a month.
type Export struct {
	Source replay.Source
	Month  events.Month
	Now    time.Time
	// Progress takes how many of the requests are done: first as they are written, then once more as they are proved.
	Progress func(done, all int64)

	most int // accounts at once; 0 is mostAccounts
}

// plan is what is to be exported.
type plan struct {
	Export
	parts []planned
	done  int64
	all   int64
}

// planned is a partition as it was when the export began.
type planned struct {
	*replay.Partition
	archive  replay.Archive
	previous *replay.Archive
}

// Run writes the archive of the month to a directory that does not exist. It reads what the month has of the ledger, and
// where chains come from before it. What is written is proved before it gets its name: a month that does not add up to
// what archived it is not exported.
func (e Export) Run(ctx context.Context, dir string) (s Summary, err error) {
	p, err := e.plan(ctx)
	if err != nil {
		return s, err
	}
	err = place(dir, func(unfinished string) error {
		if err := p.write(ctx, unfinished); err != nil {
			return err
		}
		s, err = p.prove(ctx, unfinished)
		return err
	})
	return s, err
}

// plan finds out whether the month can be exported, and of which partitions.
func (e Export) plan(ctx context.Context) (*plan, error) {
	p := &plan{Export: e}
	p.most = cmp.Or(e.most, mostAccounts)
	if _, err := events.ParseMonth(string(e.Month)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoMonth, err)
	}
	var open *replay.Partition
	first := events.Month("")
	for number := range e.Source.Partitions {
		partition, err := e.Source.Partition(ctx, number)
		if err != nil {
			return nil, err
		}
		if len(partition.Archives) > 0 && (first == "" || partition.Archives[0].Month < first) {
			first = partition.Archives[0].Month
		}
		if p.take(partition) {
			continue
		}
		if open == nil {
			if has, err := e.has(ctx, partition); err != nil {
				return nil, err
			} else if has {
				open = partition
			}
		}
	}
	if first == "" {
		earliest, err := e.earliest(ctx)
		if err != nil {
			return nil, err
		}
		if e.Month < earliest {
			return nil, fmt.Errorf("%w: %s is before the first month of the ledger, which is %s", ErrNoMonth, e.Month, earliest)
		}
	}
	return p, p.refusal(first, open)
}

// earliest returns the first month of which a ledger has anything, or nothing.
func (e Export) earliest(ctx context.Context) (earliest events.Month, err error) {
	for number := range e.Source.Partitions {
		partition, err := e.Source.Partition(ctx, number)
		if err != nil {
			return "", err
		}
		first, err := partition.First(ctx)
		if err != nil {
			return "", err
		}
		if first != "" && (earliest == "" || first < earliest) {
			earliest = first
		}
	}
	return earliest, nil
}

// take plans a partition in which the month is archived.
func (p *plan) take(partition *replay.Partition) bool {
	for i, a := range partition.Archives {
		if a.Month != p.Month {
			continue
		}
		of := planned{Partition: partition, archive: a}
		if i > 0 {
			of.previous = &partition.Archives[i-1]
		}
		p.parts, p.all = append(p.parts, of), p.all+a.Requests+1 // with the closing itself
		return true
	}
	return false
}

// has says whether a partition in which the month is not archived has anything of it.
func (e Export) has(ctx context.Context, partition *replay.Partition) (bool, error) {
	after, last, err := partition.Month(ctx, e.Month)
	if err != nil {
		return false, err
	}
	for pair, err := range partition.Pairs(ctx, "", after, last) {
		if err != nil {
			return false, err
		}
		month := pair.Month
		if pair.Undecided() {
			month = partition.OwnMonth(&pair)
		}
		if month == e.Month {
			return true, nil
		}
	}
	return false, ctx.Err()
}

// refusal is why the month cannot be exported, or nil, given the first month that is archived anywhere and a partition in
// which it is still open. The clock only says which of the reasons it is: it is the ledger that says what is archived.
func (p *plan) refusal(first events.Month, open *replay.Partition) error {
	begins, ends := p.Month.Start(), p.Month.Next().Start()
	switch {
	case len(p.parts) > 0 && open == nil:
		return nil
	case p.Now.Before(begins):
		return fmt.Errorf("%w: %s begins on %s, and ends on %s", ErrNoMonth, p.Month, begins.Format(time.DateOnly), ends.Format(time.DateOnly))
	case p.Now.Before(ends):
		return fmt.Errorf("%s lasts until %s: it can be exported when it is archived, shortly after that", p.Month, ends.Format(time.RFC3339))
	case first != "" && p.Month < first:
		return fmt.Errorf("%w: %s is before the first month that was archived, %s", ErrNoMonth, p.Month, first)
	case open != nil:
		return fmt.Errorf("%s is over, and not archived yet in partition %d: a projector that decides it archives it; see `projector status`",
			p.Month, open.Number)
	}
	return fmt.Errorf("%s is not archived in any partition: a projector that decides archives each month in which there was something, and those after it",
		p.Month)
}

func (p *plan) write(ctx context.Context, dir string) error {
	m := Manifest{
		Format: format, Version: version, Ledger: p.Source.ID, Partitions: p.Source.Partitions, Month: p.Month, Parts: []Part{},
	}
	for i := range p.parts {
		part, err := p.writePart(ctx, &p.parts[i], dir)
		if err != nil {
			return fmt.Errorf("partition %d: %w", p.parts[i].Number, err)
		}
		m.Parts = append(m.Parts, part)
	}
	text := m.text()
	if err := writeFile(dir, manifestName, text); err != nil {
		return err
	}
	return writeFile(dir, sumsName, m.sums(text))
}

// prove verifies what was written.
func (p *plan) prove(ctx context.Context, dir string) (Summary, error) {
	var first *Difference
	summary, err := Verification{
		most: p.most,
		Report: func(d Difference) {
			if first == nil {
				first = &d
			}
		},
		Progress: func(done, all int64) { p.Progress(p.all+done, 2*p.all) },
	}.Run(ctx, dir)
	if err != nil || summary.Differences == 0 {
		return summary, err
	}
	return summary, fmt.Errorf("what the ledger has of %s is not what was archived (%d differences, the first: %s): if an account was erased meanwhile, export again; else see `projector audit`",
		p.Month, summary.Differences, first)
}
