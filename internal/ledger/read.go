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

	// nudge is after how long a wait for a message begins anew for the first time, and then after longer and longer. The
	// client library (nats.go 1.55.0) asks the server for more when one begins, but not while its last question is on the
	// way; so it can come to wait for what it never asked for.
	nudge = 20 * time.Millisecond

	// heartbeat is how often the server says that it still has a question. Twice as long without is how the library learns
	// that the consumer, or the question, was lost with a server of a cluster that this connection is not to. It counts from
	// the beginning of a wait: longestWait has to be longer.
	heartbeat   = 2 * time.Second
	longestWait = 3 * heartbeat

	forEver time.Duration = math.MaxInt64 - nudge

	// createSubject is where a server is asked for a consumer.
	createSubject = "$JS.API.CONSUMER.CREATE."
)

// Read yields the messages of a stream after a sequence, in order and without a gap, in batches of what has arrived:
// one when the reader keeps up, up to 512 when it does not. Where messages were erased with their account it yields
// voids under their numbers. It goes on into the live stream until ctx ends, and then, or on the first error, yields
// that error and stops. A lost connection is such an error: who knows what the server has when it is back.
//
// The reader is an ordered consumer, which has no acknowledgements: the position belongs to whoever reads.
func (l *Ledger) Read(ctx context.Context, stream events.Stream, partition int, after uint64) iter.Seq2[[]events.Message, error] {
	return func(yield func([]events.Message, error) bool) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer l.cancelWhenLost(cancel)()
		r := reader{l: l, stream: stream, partition: partition, after: after}
		wait, err := r.start(ctx)
		defer func() { cancel(nil); wait() }()
		for err == nil {
			var batch []events.Message
			if batch, err = r.gather(ctx); len(batch) > 0 && !yield(batch, nil) {
				return
			}
		}
		yield(nil, err)
	}
}

// reader is a Read under way.
type reader struct {
	l         *Ledger
	stream    events.Stream
	partition int
	after     uint64 // the last number that was gathered
	arrived   <-chan arrival

	voids   *voids  // nil until the first gap
	held    arrival // if holding: what comes after a gap that is being filled
	holding bool
}

func (r *reader) name() string { return r.stream.Name(r.partition) }

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

// start starts the goroutine that takes messages from the consumer, so that a batch can be gathered without waiting
// for a message that may not come. It alone uses the iterator, whose Stop must not run beside its Next. wait
// returns once it ended.
func (r *reader) start(ctx context.Context) (wait func(), err error) {
	name := r.name()
	consumer, err := r.l.consumer(ctx, name, r.after, nil)
	if err != nil {
		return func() {}, err
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(maxPulled), jetstream.PullHeartbeat(heartbeat))
	if err != nil {
		return func() {}, fmt.Errorf("%w: read %s: %w", events.ErrUnavailable, name, err)
	}
	var running sync.WaitGroup
	out := make(chan arrival, maxRead)
	running.Go(func() {
		defer r.l.forget(name, consumer)
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
	r.arrived = out
	return running.Wait, nil
}

// forget deletes the consumer of a reader that ended. Left to itself the server would keep it for five minutes.
func (l *Ledger) forget(name string, consumer jetstream.Consumer) {
	ctx, cancel := context.WithTimeout(context.Background(), forgetTimeout)
	defer cancel()
	l.js.DeleteConsumer(ctx, name, consumer.CachedInfo().Name) // one that is not reached goes by itself
}

// consumer returns an ordered consumer of the messages after a sequence: all of them, or those under the filters. One
// that is asked for while ctx ends may be made all the same: then it is forgotten when the server says so.
func (l *Ledger) consumer(ctx context.Context, name string, after uint64, filters []string) (jetstream.Consumer, error) {
	var consumer jetstream.Consumer
	made := make(chan error, 1)
	go func() {
		creating, cancel := context.WithTimeout(context.WithoutCancel(ctx), ackTimeout)
		defer cancel()
		var err error
		consumer, err = l.js.OrderedConsumer(creating, name, jetstream.OrderedConsumerConfig{
			FilterSubjects: filters,
			DeliverPolicy:  jetstream.DeliverByStartSequencePolicy, OptStartSeq: after + 1,
			MaxResetAttempts: 1, // the client would try for ever, and not notice that ctx ended; whoever reads tries again
		})
		made <- err
	}()
	select {
	case err := <-made:
		if err != nil {
			return nil, fmt.Errorf("%w: read %s: %w", events.ErrUnavailable, name, explain(l.nc, createSubject+name, err))
		}
		return consumer, nil
	case <-ctx.Done():
		go func() {
			if <-made == nil {
				l.forget(name, consumer)
			}
		}()
		return nil, context.Cause(ctx)
	}
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
	msg, err = messages.Next(jetstream.NextMaxWait(nudge)) // a context costs more, and most messages are there already
	wait := nudge
	for waited := nudge; errors.Is(err, nats.ErrTimeout) && ctx.Err() == nil && waited < patience; waited += wait {
		wait = min(4*wait, longestWait, patience-waited)
		attempt, cancel := context.WithTimeout(ctx, wait)
		msg, err = messages.Next(jetstream.NextContext(attempt))
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			err = nats.ErrTimeout
		}
	}
	return msg, err
}

func eventMessage(msg jetstream.Msg, meta *jetstream.MsgMetadata) events.Message {
	return events.Message{Subject: msg.Subject(), Header: msg.Headers(), Data: msg.Data(), Sequence: meta.Sequence.Stream}
}

// gather waits for a message and takes it with all that has arrived behind it, up to a full batch. What it has comes
// with an error too.
func (r *reader) gather(ctx context.Context) (batch []events.Message, err error) {
	a, err := r.next(ctx)
	if err != nil {
		return nil, err
	}
	for size := 0; ; {
		if a.err != nil {
			return batch, a.err
		}
		if a.message.Sequence != r.after+1 {
			if batch, err = r.fill(ctx, batch, a); err != nil || len(batch) == maxRead {
				return batch, err
			}
		}
		if r.voids != nil && r.voids.hides(&a.message) {
			a.message = events.Message{Sequence: a.message.Sequence}
		}
		r.after = a.message.Sequence
		batch, size = append(batch, a.message), size+len(a.message.Data)
		if len(batch) == maxRead || size >= maxReadLen {
			return batch, nil
		}
		select {
		case a = <-r.arrived:
		default:
			return batch, nil
		}
	}
}

// next returns the message that a gap was found before, or waits for one to arrive.
func (r *reader) next(ctx context.Context) (arrival, error) {
	if r.holding {
		r.holding = false
		return r.held, nil
	}
	select {
	case a := <-r.arrived:
		return a, nil
	case <-ctx.Done():
		return arrival{}, context.Cause(ctx)
	}
}
