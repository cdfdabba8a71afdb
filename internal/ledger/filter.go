package ledger

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
)

// stallTimeout is how long ReadTo waits for a message that is there, before it looks whether it can be had at all.
const stallTimeout = time.Second

// ReadTo yields the messages of a stream after one sequence and up to another that is not beyond the head, in order, in
// batches of up to 512 messages, and ends; those under the given subjects, or all where none are given. Unlike Read it makes
// nothing of gaps: which numbers are due is for the caller to know. On an error it yields that and stops.
func (l *Ledger) ReadTo(ctx context.Context, stream events.Stream, partition int, subjects []string, after, last uint64) iter.Seq2[[]events.Message, error] {
	return func(yield func([]events.Message, error) bool) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer l.cancelWhenLost(cancel)()
		r := stretch{l: l, name: stream.Name(partition), filters: subjects, after: after, last: last}
		// A consumer that found the end is followed by one more, which starts there and has nothing pending: what a
		// server says in passing of what is pending may fall short.
		for more := true; more && r.after < r.last; {
			var err error
			if more, err = r.read(ctx, yield); err != nil {
				yield(nil, err)
				return
			}
		}
	}
}

// stretch is what of a stream is still to be read.
type stretch struct {
	l           *Ledger
	name        string
	filters     []string
	after, last uint64
}

// read yields what one consumer has, up to the last. It says whether to go on with another.
func (r *stretch) read(ctx context.Context, yield func([]events.Message, error) bool) (more bool, err error) {
	consumer, err := r.l.consumer(ctx, r.name, r.after, r.filters)
	if err != nil {
		return false, err
	}
	defer r.l.forget(r.name, consumer)
	if consumer.CachedInfo().NumPending == 0 {
		if r.l.Replicas == 1 {
			return false, nil
		}
		// The server that has the consumer may be behind the one that leads the stream. It tells the rest once it has it.
		if next, err := r.next(ctx); err != nil || next > r.last {
			return false, err
		}
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(maxPulled))
	if err != nil {
		return false, fmt.Errorf("%w: read %s: %w", events.ErrUnavailable, r.name, err)
	}
	defer messages.Stop()
	for pending := uint64(1); pending > 0 && r.after < r.last; {
		var batch []events.Message
		batch, pending, err = r.gather(ctx, messages)
		if len(batch) > 0 && !yield(batch, nil) {
			return false, nil
		}
		if errors.Is(err, errStalled) {
			return true, r.skip(ctx)
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

var errStalled = errors.New("nothing arrives of what is pending")

// gather takes messages until a batch is full, the last is reached, or nothing is pending. What arrived comes with an
// error too.
func (r *stretch) gather(ctx context.Context, messages jetstream.MessagesContext) (batch []events.Message, pending uint64, err error) {
	size := 0
	for pending = 1; pending > 0 && r.after < r.last && len(batch) < maxRead && size < maxReadLen; {
		msg, err := nextWithin(ctx, messages, stallTimeout)
		switch {
		case ctx.Err() != nil:
			return batch, 0, context.Cause(ctx)
		case errors.Is(err, nats.ErrTimeout):
			return batch, 0, errStalled
		case err != nil:
			return batch, 0, fmt.Errorf("%w: read %s: %w", events.ErrUnavailable, r.name, err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return batch, 0, fmt.Errorf("read %s: %w", r.name, err)
		}
		pending, r.after, size = meta.NumPending, meta.Sequence.Stream, size+len(msg.Data())
		if r.after <= r.last {
			batch = append(batch, eventMessage(msg, meta))
		}
	}
	return batch, pending, nil
}

// skip goes past messages that the server counts and cannot deliver, for what is on its disk is damaged: those before
// the next that it can. A server that was only slow has that one right there.
func (r *stretch) skip(ctx context.Context) error {
	next, err := r.next(ctx)
	if err == nil {
		r.after = next - 1
	}
	return err
}

// next returns the number of the next message that whoever leads the stream has, or the one after the last.
func (r *stretch) next(ctx context.Context) (uint64, error) {
	filters, next := r.filters, r.last+1
	if len(filters) == 0 {
		filters = []string{">"}
	}
	ctx, cancel := asking(ctx)
	defer cancel()
	for _, filter := range filters {
		raw, err := r.l.streams[r.name].GetMsg(ctx, r.after+1, jetstream.WithGetMsgSubject(filter))
		switch {
		case err == nil:
			next = min(next, raw.Sequence)
		case !errors.Is(err, jetstream.ErrMsgNotFound):
			return 0, fmt.Errorf("%w: read %s: %w", events.ErrUnavailable, r.name, err)
		}
	}
	return next, nil
}
