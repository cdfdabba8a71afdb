package replay

import (
	"context"
	"fmt"
	"iter"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// Pair is a request and the decision on it.
type Pair struct {
	Position events.Position
	Month    events.Month // that it belongs to; empty where there is no decision

	// Asked and Decided are the messages. That of a decision is void where there is none.
	Asked, Decided events.Message

	// Request and Decision are what they say. The body of a void is *events.Erased, that of a request of an unknown type nil.
	Request  events.Request
	Decision events.Decision
}

// Undecided says whether the pair lacks its decision.
func (p *Pair) Undecided() bool { return p.Decided.Void() }

// Pairs yields the pairs after one sequence and up to another, in order: those of one account, or all where account is
// empty. What was erased is left out. A request of a type that is not known has no body; any other that cannot be read, and
// a decision that cannot, is the error, which ends it. The error is ErrGap where a message is missing that no erasure
// explains.
func (p *Partition) Pairs(ctx context.Context, account string, after, last uint64) iter.Seq2[Pair, error] {
	return func(yield func(Pair, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		last := min(last, p.Heads.Requests)
		requests := p.read(ctx, events.Requests, account, after, last)
		defer requests.stop()
		decisions := p.read(ctx, events.Decisions, account, after, min(last, p.Heads.Decisions))
		defer decisions.stop()
		m := merge{Partition: *p, due: after}
		for {
			pair, more, err := m.next(ctx, requests, decisions)
			if err == nil && !more && account == "" {
				err = m.gap(ctx, last)
			}
			if err != nil {
				yield(Pair{}, err)
				return
			}
			if !more || !yield(pair, nil) {
				return
			}
		}
	}
}

// merge puts requests and decisions together. It learns of erasures that are newer than the partition that it was told of.
type merge struct {
	Partition
	due     uint64 // the last sequence that was due
	missing int64  // numbers so far without any message
}

// next takes the next pair from the two that is not erased. There is no more when both are at their end.
func (m *merge) next(ctx context.Context, requests, decisions *reader) (pair Pair, more bool, err error) {
	for {
		asked, err := requests.peek()
		if err != nil {
			return pair, false, err
		}
		decided, err := decisions.peek()
		if err != nil || asked == nil && decided == nil {
			return pair, false, err
		}
		sequence := first(asked, decided)
		m.missing, m.due = m.missing+int64(sequence-m.due-1), sequence
		pair = Pair{
			Position: events.Position{Partition: m.Number, Sequence: sequence},
			Asked:    requests.takeIf(sequence), Decided: decisions.takeIf(sequence),
		}
		if err := m.decode(&pair); err != nil {
			return pair, false, err
		}
		if erased, err := m.erased(ctx, &pair); !erased {
			return pair, err == nil, err
		}
	}
}

func first(asked, decided *events.Message) uint64 {
	switch {
	case asked == nil:
		return decided.Sequence
	case decided == nil:
		return asked.Sequence
	}
	return min(asked.Sequence, decided.Sequence)
}

func (m *merge) decode(p *Pair) (err error) {
	if p.Request, err = events.DecodeRequest(p.Asked, m.Number, m.source.Partitions); err != nil {
		p.Request.Body = nil // a newer version asked: what it says is for that one to know
	}
	if p.Decision, err = events.DecodeDecision(p.Decided, m.Number); err != nil {
		return err
	}
	if !p.Undecided() {
		p.Month = m.monthOf(&p.Decision)
	}
	return nil
}

// erased says whether a pair is to be left out: its account was erased, and its messages are removed one after another.
// One that lacks a message for another reason is the error.
func (m *merge) erased(ctx context.Context, p *Pair) (bool, error) {
	if p.Asked.Remains() || p.Decided.Remains() {
		return false, m.whole(p)
	}
	if m.isErased(p.account(), p.Position.Sequence) {
		return true, nil
	}
	lacks := m.whole(p)
	if lacks == nil {
		return false, nil
	}
	if err := m.renew(ctx); err != nil {
		return false, err
	}
	if m.isErased(p.account(), p.Position.Sequence) {
		return true, nil
	}
	return false, lacks
}

// whole returns ErrGap for a pair that lacks a message which was there.
func (m *merge) whole(p *Pair) error {
	switch {
	case p.Asked.Void():
		return fmt.Errorf("%w: request %s is missing: see `projector audit`", events.ErrGap, p.Position)
	case p.Decided.Void() && p.Position.Sequence <= m.Heads.Decisions:
		return fmt.Errorf("%w: decision %s is missing: see `projector audit`", events.ErrGap, p.Position)
	}
	return nil
}

func (p *Pair) account() string {
	if p.Asked.Void() {
		return p.Decision.Account
	}
	return p.Request.Account
}

// gap returns ErrGap when more numbers are missing up to the last than erasures explain.
func (m *merge) gap(ctx context.Context, last uint64) error {
	m.missing += int64(last - min(m.due, last))
	if m.source.Partial || m.missing <= m.erasable() {
		return nil
	}
	if err := m.renew(ctx); err != nil {
		return err
	}
	if unexplained := m.missing - m.erasable(); unexplained > 0 {
		return fmt.Errorf("%w: %d requests of partition %d are missing, with their decisions: see `projector audit`",
			events.ErrGap, unexplained, m.Number)
	}
	return nil
}

func (m *merge) erasable() (n int64) {
	for _, e := range m.Erasures {
		n += e.Requests
	}
	return n
}

// renew takes in the erasures that were decided since.
func (m *merge) renew(ctx context.Context) error {
	heads, err := m.source.Heads(ctx, m.Number)
	if err != nil {
		return err
	}
	m.Erasures, err = m.source.erasures(ctx, m.Number, heads.Decisions)
	return err
}

// OwnMonth returns the month that an undecided pair would belong to if it were decided now.
func (p *Partition) OwnMonth(pair *Pair) events.Month {
	month := events.MonthOf(pair.Request.Time)
	if asked, ok := pair.Request.Body.(*events.JobCaptureRequested); ok {
		month = asked.Month
	}
	if len(p.Archives) == 0 {
		return month
	}
	return capture.CountsIn(month, p.last().Month)
}
