package ledger

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
)

const (
	maxRead       = 512     // messages of one batch that Read yields
	maxReadLen    = 4 << 20 // bytes of one batch
	maxPulled     = 100     // messages under way from the server, which cuts off a client that is sent 64 MiB and more
	forgetTimeout = time.Second

	// nudge is after how long a wait for a message begins anew. The client library (nats.go 1.55.0) asks the server for
	// more when one begins, but not while its last question is on the way; so it can come to wait for what it never
	// asked for, until it misses two heartbeats: half a minute.
	nudge = 20 * time.Millisecond

	forEver time.Duration = math.MaxInt64 - nudge
)

// Read yields the messages of a stream after a sequence, in order and without a gap, in batches of what has arrived:
// one when the reader keeps up, up to 512 when it does not. It goes on into the live stream until ctx ends, and
// then, or on the first error, yields that error and stops. A lost connection is such an error: who knows what the
// server has when it is back.
//
// The reader is an ordered consumer, which has no acknowledgements: the position belongs to whoever reads.
func (l *Ledger) Read(ctx context.Context, stream events.Stream, partition int, after uint64) iter.Seq2[[]events.Message, error] {
	return func(yield func([]events.Message, error) bool) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer l.cancelWhenLost(cancel)()
		arrived, wait, err := l.pump(ctx, stream.Name(partition), after)
		defer func() { cancel(nil); wait() }()
		for err == nil {
			var batch []events.Message
			if batch, err = gather(ctx, arrived, after, stream.Name(partition)); len(batch) > 0 {
				after = batch[len(batch)-1].Sequence
				if !yield(batch, nil) {
					return
				}
			}
		}
		yield(nil, err)
	}
}

// cancelWhenLost cancels a reader when the connection is lost, until stop is called.
func (l *Ledger) cancelWhenLost(cancel context.CancelCauseFunc) (stop func()) {
	lost := l.nc.StatusChanged(nats.RECONNECTING, nats.CLOSED)
	go func() {
		if _, changed := <-lost; changed {
			cancel(fmt.Errorf("%w: the connection to the NATS server was lost", events.ErrUnavailable))
		}
	}()
	return func() { l.nc.RemoveStatusListener(lost) } // which closes the channel
}

type arrival struct {
	message events.Message
	err     error
}

// pump starts the goroutine that takes messages from the consumer, so that a batch can be gathered without waiting
// for a message that may not come. It alone uses the iterator, whose Stop must not run beside its Next. wait
// returns once it ended.
func (l *Ledger) pump(ctx context.Context, name string, after uint64) (arrived <-chan arrival, wait func(), err error) {
	consumer, err := l.consumer(ctx, name, after, nil)
	if err != nil {
		return nil, func() {}, err
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(maxPulled))
	if err != nil {
		return nil, func() {}, fmt.Errorf("%w: read %s: %w", events.ErrUnavailable, name, err)
	}
	var running sync.WaitGroup
	out := make(chan arrival, maxRead)
	running.Go(func() {
		defer l.forget(name, consumer)
		defer messages.Stop()
		for {
			a := next(ctx, messages, name)
			select {
			case out <- a:
			case <-ctx.Done():
				return
			}
			if a.err != nil {
				return
			}
		}
	})
	return out, running.Wait, nil
}

// forget deletes the consumer of a reader that ended. Left to itself the server would keep it for five minutes.
func (l *Ledger) forget(name string, consumer jetstream.Consumer) {
	ctx, cancel := context.WithTimeout(context.Background(), forgetTimeout)
	defer cancel()
	l.js.DeleteConsumer(ctx, name, consumer.CachedInfo().Name) // one that is not reached goes by itself
}

// consumer returns an ordered consumer of the messages after a sequence: all of them, or those under the filters.
func (l *Ledger) consumer(ctx context.Context, name string, after uint64, filters []string) (jetstream.Consumer, error) {
	consumer, err := l.js.OrderedConsumer(ctx, name, jetstream.OrderedConsumerConfig{
		FilterSubjects: filters,
		DeliverPolicy:  jetstream.DeliverByStartSequencePolicy, OptStartSeq: after + 1,
		MaxResetAttempts: 1, // the client would try for ever, and not notice that ctx ended; whoever reads tries again
	})
	if err != nil {
		return nil, fmt.Errorf("%w: read %s: %w", events.ErrUnavailable, name, err)
	}
	return consumer, nil
}

func next(ctx context.Context, messages jetstream.MessagesContext, name string) arrival {
	msg, err := nextWithin(ctx, messages, forEver)
	if ctx.Err() != nil {
		return arrival{err: context.Cause(ctx)}
	}
	if err != nil {
		return arrival{err: fmt.Errorf("%w: read %s: %w", events.ErrUnavailable, name, err)}
	}
	meta, err := msg.Metadata()
	if err != nil {
		return arrival{err: fmt.Errorf("read %s: %w", name, err)}
	}
	return arrival{message: eventMessage(msg, meta)}
}

// nextWithin returns the next message, or nats.ErrTimeout when none arrives for the length of patience, or once ctx ended.
func nextWithin(ctx context.Context, messages jetstream.MessagesContext, patience time.Duration) (msg jetstream.Msg, err error) {
	for waited := time.Duration(0); waited < patience; waited += nudge {
		msg, err = messages.Next(jetstream.NextMaxWait(nudge))
		if !errors.Is(err, nats.ErrTimeout) || ctx.Err() != nil {
			break
		}
	}
	return msg, err
}

func eventMessage(msg jetstream.Msg, meta *jetstream.MsgMetadata) events.Message {
	return events.Message{Subject: msg.Subject(), Header: msg.Headers(), Data: msg.Data(), Sequence: meta.Sequence.Stream}
}

// gather waits for one message and takes what else is there. An error may come with the messages before it.
func gather(ctx context.Context, arrived <-chan arrival, after uint64, name string) (batch []events.Message, err error) {
	size := 0
	select {
	case a := <-arrived:
		for {
			if a.err != nil {
				return batch, a.err
			}
			if after++; a.message.Sequence != after {
				return batch, fmt.Errorf("%w: %s goes from %d to %d", events.ErrGap, name, after-1, a.message.Sequence)
			}
			batch, size = append(batch, a.message), size+len(a.message.Data)
			if len(batch) == maxRead || size >= maxReadLen {
				return batch, nil
			}
			select {
			case a = <-arrived:
			default:
				return batch, nil
			}
		}
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
