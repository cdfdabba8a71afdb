package replay

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// A client waits for a month of its account. These bound what is read for that.
const (
	mostLooked   = 20_000  // decisions of anybody, to find where the open months begin
	mostMessages = 250_000 // of the account: a month of 100,000 requests with its decisions, and what lies among them
)

// MonthAsOf is a month of an account, as the pairs up to a position add it up.
type MonthAsOf struct {
	Month
	After, Last uint64 // the stretch that was read
	Messages    int64  // of the account that were read there
}

// MonthAsOf adds up a month of an account from all its pairs up to a position: what a projection has of it that has folded
// so far, given the position of the first of these pairs as the projection has it, or 0. What came later is not counted.
// Where the month lies is asked of the archives, so that a projection that lost pairs at its end, or all, is found out.
//
// What is missing or does not follow is no error but Broken. The error is ErrNotFound when the account was erased after the
// position, ErrUnavailable while the ledger is behind it, and capture.ErrMonthTooLarge where more would have to be read than
// a client can wait for.
func (s Source) MonthAsOf(ctx context.Context, account string, month events.Month, first uint64, at events.Position) (sum MonthAsOf, err error) {
	p, err := s.counting(account, &sum.Messages).Partition(ctx, at.Partition)
	if err != nil {
		return sum, err
	}
	if p.Heads.Decisions < at.Sequence {
		return sum, fmt.Errorf("%w: it has decisions up to %d, and %s was folded", events.ErrUnavailable, p.Heads.Decisions, at)
	}
	if sum.After, sum.Last, err = p.reach(ctx, month, first); err != nil {
		return sum, err
	}
	sum.Last = min(sum.Last, at.Sequence)
	sum.Month, err = p.AccountMonth(ctx, account, month, sum.After, sum.Last)
	if errors.Is(err, events.ErrGap) {
		sum.Broken, err = err, nil
	}
	if err != nil {
		return sum, err
	}
	return sum, s.standing(ctx, account, at)
}

// reach returns the stretch in which an account has its pairs of a month, given where a projection has the first of them.
// Of a month that is open it begins behind the pairs of the archived ones, as their totals say. Where these do not tell soon,
// since pairs were erased or a clock was far ahead, it begins with the last archived month: an earlier pair is of a clock that
// was ahead by a month, and not looked for unless the projection has it. Its word makes the stretch longer, and never shorter.
func (p *Partition) reach(ctx context.Context, month events.Month, first uint64) (after, last uint64, err error) {
	if month < p.FirstOpen() || len(p.Archives) == 0 {
		return p.Month(ctx, month)
	}
	after, known, err := p.lookBack(ctx, mostLooked)
	if err != nil {
		return 0, 0, err
	}
	if !known {
		after = p.last().before()
		if first > 0 {
			after = min(after, first-1)
		}
	}
	return after, p.Heads.Decisions, nil
}

// counting returns the source with a count of the messages of an account that are read from it, which ends at mostMessages.
func (s Source) counting(account string, read *int64) Source {
	readTo := s.ReadTo
	s.ReadTo = func(ctx context.Context, stream events.Stream, partition int, subjects []string, after, last uint64) iter.Seq2[[]events.Message, error] {
		messages := readTo(ctx, stream, partition, subjects, after, last)
		if !slices.Equal(subjects, []string{stream.SubjectOf(account, partition)}) {
			return messages
		}
		return func(yield func([]events.Message, error) bool) {
			for batch, err := range messages {
				if *read += int64(len(batch)); *read > mostMessages && err == nil {
					batch, err = nil, fmt.Errorf("%w: more than %d messages of the account", capture.ErrMonthTooLarge, mostMessages)
				}
				if !yield(batch, err) {
					return
				}
			}
		}
	}
	return s
}

// standing returns ErrNotFound when an account was erased after a position. Its messages are removed from then on: what
// was read while that went on is nothing to go by.
func (s Source) standing(ctx context.Context, account string, at events.Position) error {
	heads, err := s.Heads(ctx, at.Partition)
	if err != nil {
		return err
	}
	subjects := []string{events.Decisions.SubjectOf(account, at.Partition)}
	for batch, err := range s.ReadTo(ctx, events.Decisions, at.Partition, subjects, at.Sequence, heads.Decisions) {
		if err != nil {
			return err
		}
		if slices.ContainsFunc(batch, func(m events.Message) bool { return m.Remains() }) {
			return fmt.Errorf("%w: account %s was erased", events.ErrNotFound, account)
		}
	}
	return ctx.Err()
}
