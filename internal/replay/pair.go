package replay

import (
	"context"
	"iter"

	"jobtally/internal/events"
)

// Pair is a request and the decision on it.
type Pair struct {
	Position events.Position
	Month    events.Month // that it belongs to; empty where there is no decision

	// Asked and Decided are the messages, and void where there is none: a request that is undecided has no decision yet,
	// what was erased with its account has neither.
	Asked, Decided events.Message

	// Request and Decision are what they say. The body of a void is *events.Erased.
	Request  events.Request
	Decision events.Decision
}

// Undecided says whether the pair lacks its decision.
func (p *Pair) Undecided() bool { return p.Decided.Void() }

// Pairs yields the pairs of a partition after one sequence and up to another, in order: those of one account, or all
// where account is empty. Numbers to which there is neither request nor decision are left out. A request of a type that
// is not known has no body; any other that cannot be read, and a decision that cannot, is the error, which ends it.
func (s Source) Pairs(ctx context.Context, partition int, account string, after, last uint64) iter.Seq2[Pair, error] {
	return func(yield func(Pair, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		archives, err := s.Archives(ctx, partition)
		if err != nil {
			yield(Pair{}, err)
			return
		}
		m := merge{partition: partition, partitions: s.Partitions, archives: archives}
		requests := s.read(ctx, events.Requests, partition, account, after, last)
		defer requests.stop()
		decisions := s.read(ctx, events.Decisions, partition, account, after, last)
		defer decisions.stop()
		for {
			pair, more, err := m.next(requests, decisions)
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

// merge puts requests and decisions together.
type merge struct {
	partition, partitions int
	archives              []Archive
}

// next takes the next pair from the two. There is no more when both are at their end.
func (m *merge) next(requests, decisions *reader) (pair Pair, more bool, err error) {
	asked, err := requests.peek()
	if err != nil {
		return pair, false, err
	}
	decided, err := decisions.peek()
	if err != nil || asked == nil && decided == nil {
		return pair, false, err
	}
	sequence := first(asked, decided)
	pair = Pair{
		Position: events.Position{Partition: m.partition, Sequence: sequence},
		Asked:    requests.takeIf(sequence), Decided: decisions.takeIf(sequence),
	}
	return pair, true, m.decode(&pair)
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
	if p.Request, err = events.DecodeRequest(p.Asked, m.partition, m.partitions); err != nil {
		p.Request.Body = nil // a newer version asked: what it says is for that one to know
	}
	if p.Decision, err = events.DecodeDecision(p.Decided, m.partition); err != nil {
		return err
	}
	if !p.Undecided() {
		p.Month = monthOf(&p.Decision, m.archives)
	}
	return nil
}

// reader is one of the two streams.
type reader struct {
	ctx   context.Context
	pull  func() ([]events.Message, error, bool)
	stop  func()
	batch []events.Message
	ended bool
}

func (s Source) read(ctx context.Context, stream events.Stream, partition int, account string, after, last uint64) *reader {
	var subjects []string
	if account != "" {
		subjects = stream.SubjectsOf(account, partition)
	}
	r := &reader{ctx: ctx}
	r.pull, r.stop = iter.Pull2(s.ReadTo(ctx, stream, partition, subjects, after, last))
	return r
}

// peek returns the next message without taking it, and nil at the end.
func (r *reader) peek() (m *events.Message, err error) {
	for len(r.batch) == 0 && !r.ended {
		batch, err, ok := r.pull()
		if err != nil {
			return nil, err
		}
		r.batch, r.ended = batch, !ok
	}
	if len(r.batch) == 0 {
		return nil, r.ctx.Err()
	}
	return &r.batch[0], nil
}

// takeIf takes the next message if it has that sequence, or else a void of it.
func (r *reader) takeIf(sequence uint64) events.Message {
	if len(r.batch) == 0 || r.batch[0].Sequence != sequence {
		return events.Message{Sequence: sequence}
	}
	m := r.batch[0]
	r.batch = r.batch[1:]
	return m
}
