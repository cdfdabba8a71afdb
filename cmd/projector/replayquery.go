package main

import (
	"context"
	"fmt"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/replay"
)

// bound is one end of what is replayed: a position, an instant, or a day in UTC.
type bound struct {
	position events.Position
	instant  time.Time // of a day its beginning
	day      bool
}

// UnmarshalText reads 0-17, 2026-10-05 or 2026-10-05T08:00:00Z.
func (b *bound) UnmarshalText(text []byte) (err error) {
	s := string(text)
	if _, err := events.ParseMonth(s); err == nil {
		return fmt.Errorf("%q is a month: name it with --month, or one of its days", s)
	}
	if b.position, err = events.ParsePosition(s); err == nil {
		return nil
	}
	if b.instant, err = time.Parse(time.DateOnly, s); err == nil {
		b.day = true
		return nil
	}
	if b.instant, err = time.Parse(time.RFC3339Nano, s); err == nil {
		return nil
	}
	return fmt.Errorf("%q is neither a position, such as 0-17, nor a time, such as 2026-10-05 or 2026-10-05T08:00:00Z", s)
}

func (b *bound) isPosition() bool { return b.position.Sequence > 0 }

// end returns the instant at which the bound is over.
func (b *bound) end() time.Time {
	switch {
	case b.instant.IsZero():
		return time.Time{}
	case b.day:
		return b.instant.AddDate(0, 0, 1)
	}
	return b.instant.Add(1)
}

// query is what is to be replayed: everything that all of it allows.
type query struct {
	month       events.Month    // or empty
	account     string          // or empty
	first, last events.Position // or zero
	from, end   time.Time       // or zero; the end is exclusive
}

// query checks what can be checked without the ledger.
func (c *replayCmd) query(now time.Time) (q query, err error) {
	q = query{
		month: c.Month, account: c.Account, first: c.From.position, last: c.Until.position,
		from: c.From.instant, end: c.Until.end(),
	}
	if c.Account != "" {
		if err := events.ValidAccount(c.Account); err != nil {
			return q, usage("%w", err)
		}
	}
	switch {
	case q == query{}:
		return q, usage("say what to replay with --month, --account, --from or --until")
	case c.Month > events.MonthOf(now):
		return q, usage("%s is in the future", c.Month)
	case c.From.isPosition() && c.Until.isPosition() && q.first.Partition != q.last.Partition:
		return q, usage("--from %s and --until %s are of two partitions: replay one after the other, or name times", q.first, q.last)
	case c.From.isPosition() && c.Until.isPosition() && q.first.Sequence > q.last.Sequence,
		!q.from.IsZero() && !q.end.IsZero() && !q.from.Before(q.end):
		return q, usage("--from comes after --until")
	}
	return q, nil
}

// stretch is the part of a partition in which everything lies that is asked for.
type stretch struct {
	*replay.Partition
	after, last uint64
}

func (s *stretch) length() uint64 { return s.last - min(s.after, s.last) }

// stretches returns that of each partition that is concerned.
func (q *query) stretches(ctx context.Context, source replay.Source) (stretches []stretch, err error) {
	numbers, err := q.partitions(source.Partitions)
	if err != nil {
		return nil, err
	}
	for _, n := range numbers {
		p, err := source.Partition(ctx, n)
		if err != nil {
			return nil, err
		}
		stretches = append(stretches, stretch{Partition: p})
	}
	for i := range stretches {
		if err := q.narrow(ctx, &stretches[i]); err != nil {
			return nil, err
		}
	}
	return stretches, nil
}

// partitions returns the numbers of the partitions that are concerned.
func (q *query) partitions(of int) (numbers []int, err error) {
	for n := range of {
		if q.account != "" && events.PartitionOf(q.account, of) != n {
			continue
		}
		numbers = append(numbers, n)
	}
	for _, p := range []events.Position{q.first, q.last} {
		switch {
		case p.Sequence == 0:
			continue
		case p.Partition >= of:
			return nil, usage("%s is in no partition of this ledger: they are 0 to %d", p, of-1)
		case q.account != "" && numbers[0] != p.Partition:
			return nil, usage("account %s is in partition %d, and %s is not", q.account, numbers[0], p)
		}
		numbers = []int{p.Partition}
	}
	return numbers, nil
}

// narrow makes the stretch as short as it can be known to be.
func (q *query) narrow(ctx context.Context, s *stretch) (err error) {
	s.last = s.Heads.Requests
	switch {
	case q.first.Sequence > s.last:
		return usage("--from %s is not there yet: partition %d has %d requests", q.first, s.Number, s.last)
	case q.month != "":
		s.after, s.last, err = s.Month(ctx, q.month)
	case !q.from.IsZero():
		s.after, err = s.Since(ctx, events.MonthOf(q.from))
	}
	if q.first.Sequence > 0 {
		s.after = max(s.after, q.first.Sequence-1)
	}
	if q.last.Sequence > 0 {
		s.last = min(s.last, q.last.Sequence)
	}
	return err
}

// checkMonth refuses a month of which nothing was found, when it is before the first of the partitions.
func (q *query) checkMonth(ctx context.Context, stretches []stretch) error {
	earliest := events.Month("")
	for _, s := range stretches {
		if len(s.Archives) > 0 && s.Archives[0].Month <= q.month {
			return nil
		}
		first, err := s.First(ctx)
		if err != nil {
			return err
		}
		if first != "" && (earliest == "" || first < earliest) {
			earliest = first
		}
	}
	if q.month < earliest {
		return usage("%s is before the first month of the ledger, which is %s", q.month, earliest)
	}
	return nil
}

// matches says whether a pair is asked for. One that is undecided belongs to the month in which it asks to count.
func (q *query) matches(p *replay.Partition, pair *replay.Pair) bool {
	month := pair.Month
	if pair.Undecided() {
		month = p.OwnMonth(pair)
	}
	at := pair.Request.Time
	return (q.month == "" || month == q.month) &&
		(q.from.IsZero() || !at.Before(q.from)) && (q.end.IsZero() || at.Before(q.end))
}

// erasedOf returns how many positions of what is asked for were erased, given how many of the stretch are there. Of a month
// or an account only the erasures themselves know.
func (q *query) erasedOf(s stretch, there uint64) (n int64) {
	if q.month == "" && q.account == "" {
		return int64(s.length() - there)
	}
	for _, e := range s.Erasures {
		if q.account != "" && q.account != e.Account {
			continue
		}
		if q.month == "" {
			n += e.Requests
		}
		for _, m := range e.Months {
			if m.Month == q.month {
				n += m.Requests
			}
		}
	}
	return n
}
