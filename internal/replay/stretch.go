package replay

import (
	"context"
	"math"

	"jobtally/internal/events"
)

// Month returns the stretch in which all pairs of a month lie, after one number and up to another. It goes by what the
// archives say and by no clock: the times in requests are those of many nodes, and those of a stream change when it is
// restored from a copy.
func (p *Partition) Month(ctx context.Context, month events.Month) (after, last uint64, err error) {
	switch {
	case len(p.Archives) == 0:
		return 0, p.Heads.Requests, nil
	case month < p.Archives[0].Month:
		return 0, p.Archives[0].Position.Sequence, nil // what comes later counts in a month after that one
	case month > p.last().Month:
		after, err = p.opening(ctx)
		return after, p.Heads.Requests, err
	}
	for _, a := range p.Archives {
		if a.Month == month {
			return a.before(), a.Position.Sequence, nil
		}
	}
	return 0, p.Heads.Requests, nil // no month between two archived ones is not archived
}

// Since returns the number after which all pairs of a month and of any later one lie. So do all requests whose time is in
// such a month, for a request belongs to the month of its time or to a later one; only closings belong to one before.
func (p *Partition) Since(ctx context.Context, month events.Month) (after uint64, err error) {
	if len(p.Archives) == 0 || month < p.Archives[0].Month {
		return 0, nil
	}
	after, err = p.opening(ctx)
	for _, a := range p.Archives {
		if a.Month >= month {
			after = min(after, a.before())
		}
		if events.MonthOf(a.Asked) >= month {
			after = min(after, a.Position.Sequence-1)
		}
	}
	return after, err
}

// before returns the number before the first pair of the month: where it is empty, that is its closing.
func (a *Archive) before() uint64 {
	if a.First.Sequence == 0 {
		return a.Position.Sequence - 1
	}
	return a.First.Sequence - 1
}

// leastLook is how many decisions opening reads at once, at the least.
const leastLook = 64

// opening returns the number after which all pairs of open months lie. A month is closed some minutes after its end, so
// that some of these lie before the last closing, and a node whose clock is ahead may have asked long before that: how many
// there are follows from the totals of the archived months, and opening looks back until it has found as many. Where it
// cannot find them, since they were erased, it looks at everything; nothing is overlooked then either.
func (p *Partition) opening(ctx context.Context) (after uint64, err error) {
	if len(p.Archives) == 0 {
		return 0, nil
	}
	after, _, err = p.lookBack(ctx, math.MaxUint64)
	return after, err
}

// lookBack returns what opening does, unless it would have to look at more than so many decisions for that.
func (p *Partition) lookBack(ctx context.Context, most uint64) (after uint64, known bool, err error) {
	closed := p.last().Position.Sequence
	early, found := closed, uint64(0)
	for _, a := range p.Archives {
		early -= uint64(a.Requests) + 1 // the closing itself is not among its requests
	}
	early = min(early, closed) // totals that are too large are believed in nothing
	after = closed
	for look, end := 2*early+leastLook, closed; found != early && end > 0; look *= 2 {
		begin := end - min(look, end)
		if closed-begin > most {
			return 0, false, nil
		}
		first, n, err := p.open(ctx, begin, end)
		if err != nil {
			return 0, false, err
		}
		if n > 0 {
			after = first - 1
		}
		found, end = found+n, begin
	}
	return after, true, nil
}

// open returns the first and the number of the decisions of a stretch that are of no archived month.
func (p *Partition) open(ctx context.Context, after, last uint64) (first, n uint64, err error) {
	for batch, err := range p.source.ReadTo(ctx, events.Decisions, p.Number, nil, after, last) {
		if err != nil {
			return 0, 0, err
		}
		for _, m := range batch {
			d, err := events.DecodeDecision(m, p.Number)
			if err != nil {
				return 0, 0, err
			}
			if month := p.monthOf(&d); month >= p.Archives[0].Month && month <= p.last().Month {
				continue
			}
			if n++; n == 1 {
				first = m.Sequence
			}
		}
	}
	return first, n, ctx.Err()
}
