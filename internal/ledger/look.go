package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
)

// Extent is how far the pair of a partition goes, and how much it holds.
type Extent struct {
	events.Heads
	RequestBytes  uint64
	DecisionBytes uint64
}

// Measure returns the extent of a partition.
func (l *Ledger) Measure(ctx context.Context, partition int) (Extent, error) {
	decisions, err := l.state(ctx, events.Decisions, partition) // first, as in Heads
	if err != nil {
		return Extent{}, err
	}
	requests, err := l.state(ctx, events.Requests, partition)
	return Extent{
		Heads:        events.Heads{Requests: requests.LastSeq, Decisions: decisions.LastSeq},
		RequestBytes: requests.Bytes, DecisionBytes: decisions.Bytes,
	}, err
}

// Span returns the first sequence of a stream that there is a message under, and the last.
func (l *Ledger) Span(ctx context.Context, stream events.Stream, partition int) (first, last uint64, err error) {
	state, err := l.state(ctx, stream, partition)
	return state.FirstSeq, state.LastSeq, err
}

// state returns what the server says of a stream.
func (l *Ledger) state(ctx context.Context, stream events.Stream, partition int) (jetstream.StreamState, error) {
	if err := l.check(); err != nil {
		return jetstream.StreamState{}, err
	}
	ctx, cancel := asking(ctx)
	defer cancel()
	info, err := l.streams[stream.Name(partition)].Info(ctx)
	if err != nil {
		return jetstream.StreamState{}, fmt.Errorf("%w: head of %s: %w", events.ErrUnavailable, stream.Name(partition), err)
	}
	return info.State, nil
}

// Next returns the first message of a stream after a sequence, or ErrNotFound where there is none.
func (l *Ledger) Next(ctx context.Context, stream events.Stream, partition int, after uint64) (events.Message, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	raw, err := l.streams[stream.Name(partition)].GetMsg(ctx, after+1, jetstream.WithGetMsgSubject(">"))
	return rawMessage(raw, err, stream.Name(partition))
}

// Last returns the last message of a stream under a subject, in which * stands for any one token, or ErrNotFound where
// there is none.
func (l *Ledger) Last(ctx context.Context, stream events.Stream, partition int, subject string) (events.Message, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	raw, err := l.streams[stream.Name(partition)].GetLastMsgForSubject(ctx, subject)
	return rawMessage(raw, err, stream.Name(partition))
}

func rawMessage(raw *jetstream.RawStreamMsg, err error, name string) (events.Message, error) {
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return events.Message{}, events.ErrNotFound
	case err != nil:
		return events.Message{}, fmt.Errorf("%w: read %s: %w", events.ErrUnavailable, name, err)
	}
	return events.Message{Subject: raw.Subject, Header: raw.Header, Data: raw.Data, Sequence: raw.Sequence}, nil
}
