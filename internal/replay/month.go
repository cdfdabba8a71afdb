package replay

import (
	"context"
	"maps"
	"slices"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// Month is an account's part of a month, added up from its pairs.
type Month struct {
	capture.Tally
	Days []Day            // by the UTC days of the requests, in order; those with captures only
	Via  map[string]int64 // captured jobs by their captured_via

	// Broken tells of the first decision that does not follow from the one before it, and is nil where all do.
	Broken error
}

// Day is what became of the captures of one UTC day.
type Day struct {
	Date                           string // 2026-11-05
	Captured, Duplicated, Rejected int64
}

// AccountMonth adds up a month as Partition.AccountMonth does, of what is there when it begins.
func (s Source) AccountMonth(ctx context.Context, account string, month events.Month, after, last uint64) (Month, error) {
	p, err := s.Partition(ctx, events.PartitionOf(account, s.Partitions))
	if err != nil {
		return Month{}, err
	}
	return p.AccountMonth(ctx, account, month, after, last)
}

// AccountMonth adds up what belongs to a month of an account of the partition, given a stretch in which that lies, and
// follows the account's chain through the stretch. It reads the messages of the account there and no other; undecided
// requests do not count.
func (p *Partition) AccountMonth(ctx context.Context, account string, month events.Month, after, last uint64) (Month, error) {
	sum := newSummary(month)
	sum.chain.begun = after == 0 // the first decision of an account follows from nothing
	for pair, err := range p.Pairs(ctx, account, after, last) {
		if err != nil {
			return Month{}, err
		}
		if !pair.Undecided() {
			sum.add(&pair)
		}
	}
	return sum.result(), nil
}

// summary adds up a month.
type summary struct {
	Month
	of    events.Month
	days  map[string]*Day
	chain chain
}

func newSummary(of events.Month) *summary {
	return &summary{Month: Month{Via: map[string]int64{}}, of: of, days: map[string]*Day{}}
}

// add takes a decided pair of the account, which comes after all that were added before it.
func (s *summary) add(p *Pair) {
	if err := s.chain.follow(&p.Decision); err != nil && s.Broken == nil {
		s.Broken = err
	}
	if _, erased := p.Decision.Body.(*events.AccountErased); erased || p.Month != s.of {
		return // an erasure is of the month of its partition, and of no part of an account
	}
	s.Tally.Add(&p.Decision)
	switch b := p.Decision.Body.(type) {
	case *events.JobCaptured:
		s.day(p.Decision.Time).Captured++
		s.Via[b.Job.CapturedVia]++
	case *events.JobCaptureDuplicated:
		s.day(p.Decision.Time).Duplicated++
	case *events.JobCaptureRejected:
		s.day(p.Decision.Time).Rejected++
	}
}

func (s *summary) day(t time.Time) *Day {
	date := t.UTC().Format(time.DateOnly)
	if s.days[date] == nil {
		s.days[date] = &Day{Date: date}
	}
	return s.days[date]
}

func (s *summary) result() Month {
	for _, date := range slices.Sorted(maps.Keys(s.days)) {
		s.Days = append(s.Days, *s.days[date])
	}
	return s.Month
}

// chain follows the links of an account from any of them on.
type chain struct {
	begun    bool          // the link before the next decision is known
	open     bool          // the account is
	previous events.Digest // zero while it is not
}

// follow returns an error unless a decision follows from the one before it. The first may follow from what is not known.
func (c *chain) follow(d *events.Decision) error {
	if !c.begun {
		// Only a decision on an account that is not open follows from nothing.
		c.begun, c.open = true, d.Verify(events.Digest{}) != nil
		c.take(d)
		return nil
	}
	previous := c.previous
	if _, erased := d.Body.(*events.AccountErased); erased {
		previous = events.Digest{}
	}
	err := d.Verify(previous)
	c.take(d)
	return err
}

func (c *chain) take(d *events.Decision) {
	switch d.Body.(type) {
	case *events.AccountOpened:
		c.open = true
	case *events.AccountErased:
		c.open = false
	}
	if c.previous = (events.Digest{}); c.open {
		c.previous = d.Digest
	}
}
