package consumer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	askTimeout = 5 * time.Second // for an answer of the server
	firstRest  = 100 * time.Millisecond
	longRest   = 5 * time.Second // between attempts to go on

	// believed is how often in a row a server says that a consumer is not there until that is believed: one that starts
	// may not know of it yet.
	believed = 3
)

// worker hands out the messages of one stream, one at a time. One goroutine uses it.
type worker struct {
	s      *Subscriber
	stream string
	out    chan<- *message.Message

	pull      *pull
	owed      *nats.Msg     // the answer of the last pull that the server did not confirm
	beat      time.Duration // between signs of life for the message of a durable consumer; 0 without one
	after     uint64        // where the caller keeps the checkpoint: the last sequence that was acked
	begun     bool          // whether after is known
	moved     bool          // something was delivered since the last failure
	delivered uint64        // by the consumer that was made for the caller's checkpoint
}

// open makes ready to pull: finds or makes the consumer.
func (w *worker) open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if w.s.config.Durable != "" {
		return w.openDurable(ctx)
	}
	return w.openKept(ctx)
}

// shut gives back what came meanwhile, and leaves nothing behind.
func (w *worker) shut() {
	if w.pull == nil {
		return
	}
	if w.s.config.Wake != nil {
		w.pull.rouse()
	}
	w.owed = w.pull.owed
	for _, m := range w.pull.close() {
		if w.s.config.Durable != "" {
			w.s.config.Conn.Publish(m.Reply, nak)
		}
	}
	if w.s.config.Durable == "" {
		w.forget(w.pull.consumer)
	}
	w.pull = nil
}

// run hands out messages until ctx ends, or nothing more can come: then it returns why.
func (w *worker) run(ctx context.Context) error {
	defer w.shut()
	rest, gone := firstRest, 0
	for {
		err := w.serve(ctx)
		if ctx.Err() != nil {
			return nil
		}
		w.shut()
		if gone++; !errors.Is(err, ErrDeleted) {
			gone = 0
		}
		if final(err) || gone == believed {
			return whyClosed(w.s.config.Conn, err)
		}
		if w.moved {
			rest, w.moved = firstRest, false
		}
		w.s.config.Logger.Error("The subscription is interrupted, and goes on", err, watermill.LogFields{
			"stream": w.stream, "durable": w.s.config.Durable, "after": rest.String(),
		})
		sleep(ctx, rest)
		rest = min(2*rest, longRest)
	}
}

// final says whether it is of no use to try again.
func final(err error) bool {
	_, pruned := errors.AsType[*PrunedError](err)
	return pruned || errors.Is(err, ErrUnfit) || errors.Is(err, nats.ErrConnectionClosed)
}

// whyClosed adds to the error of a connection that was closed what it was closed for, such as a user who is let in no longer.
func whyClosed(nc *nats.Conn, err error) error {
	last := nc.LastError()
	if last == nil || !errors.Is(err, nats.ErrConnectionClosed) {
		return err
	}
	return fmt.Errorf("%w: %w", err, last)
}

// serve hands out messages until something fails.
func (w *worker) serve(ctx context.Context) error {
	if w.pull == nil {
		if err := w.open(ctx); err != nil {
			return deleted(err)
		}
	}
	for {
		m, err := w.pull.next(ctx)
		if err != nil {
			return err
		}
		w.moved = true
		if w.s.config.Durable != "" {
			err = w.deliver(ctx, m)
		} else {
			err = w.deliverKept(ctx, m)
		}
		if err != nil {
			return err
		}
	}
}

// verdict is what became of a message that was handed out.
type verdict int

const (
	acked verdict = iota
	nacked
	dropped // ctx ended first
)

// hand hands a message out and returns what became of it. Where there is a beat it gives a sign of life with each.
func (w *worker) hand(ctx context.Context, msg *message.Message, alive func()) verdict {
	held, cancel := context.WithCancel(ctx)
	defer cancel()
	msg.SetContext(held)
	var ticks <-chan time.Time
	if w.beat > 0 {
		ticker := time.NewTicker(w.beat)
		defer ticker.Stop()
		ticks = ticker.C
	}
	out, ended := w.out, ctx.Done()
	var late <-chan time.Time
	for {
		select {
		case out <- msg:
			out = nil
		case <-msg.Acked():
			return acked
		case <-msg.Nacked():
			return nacked
		case <-ticks:
			alive()
		case <-ended:
			if out != nil || w.s.config.CloseTimeout < 0 {
				return dropOf(msg)
			}
			ended, late = nil, time.After(w.s.config.CloseTimeout)
		case <-late:
			return dropOf(msg)
		}
	}
}

// dropOf returns what becomes of a message that is waited for no longer. It may have been acked just before.
func dropOf(msg *message.Message) verdict {
	select {
	case <-msg.Acked():
		return acked
	default:
		return dropped
	}
}

// sleep waits, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// deleted makes ErrDeleted of the answers that say that a consumer, or its stream, is not there any more.
func deleted(err error) error {
	if errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("%w: %w", ErrDeleted, err)
	}
	return err
}
