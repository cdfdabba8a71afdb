package replay

import (
	"context"
	"iter"

	"jobtally/internal/events"
)

// reader is one of the two streams.
type reader struct {
	ctx   context.Context
	pull  func() ([]events.Message, error, bool)
	stop  func()
	batch []events.Message
	ended bool
}

func (p *Partition) read(ctx context.Context, stream events.Stream, account string, after, last uint64) *reader {
	var subjects []string
	if account != "" {
		subjects = []string{stream.SubjectOf(account, p.Number)}
	}
	r := &reader{ctx: ctx}
	r.pull, r.stop = iter.Pull2(p.source.ReadTo(ctx, stream, p.Number, subjects, after, last))
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
