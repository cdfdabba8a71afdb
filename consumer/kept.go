package consumer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	keptBatch  = 100 // a server cuts off a client that is sent 64 MiB and more at once
	keptIdle   = 5 * time.Minute
	forgetTime = time.Second
)

var errMissed = errors.New("a message was lost on its way")

// openKept makes a consumer of what comes after the caller's checkpoint: one without acknowledgements, that the server may
// forget.
func (w *worker) openKept(ctx context.Context) error {
	config := jetstream.ConsumerConfig{
		FilterSubjects: w.filters(), AckPolicy: jetstream.AckNonePolicy,
		InactiveThreshold: keptIdle, MemoryStorage: true, Replicas: 1,
	}
	if !w.begun {
		start, err := w.s.config.Start(ctx, w.stream)
		if err != nil {
			return fmt.Errorf("where to start: %w", err)
		}
		if w.after, err = w.s.sequenceOf(ctx, w.stream, start); err != nil {
			return err
		}
	} else if err := w.s.check(ctx, w.stream, w.after); err != nil {
		return err
	}
	w.begun = true
	config.DeliverPolicy, config.OptStartSeq = jetstream.DeliverByStartSequencePolicy, w.after+1
	made, err := w.s.js.CreateConsumer(ctx, w.stream, config)
	if err != nil {
		return lacksRight(w.s.config.Conn, "CONSUMER.CREATE."+w.stream, err)
	}
	w.delivered = 0
	w.pull, err = w.s.newPull(w.stream, made.CachedInfo().Name, keptBatch)
	return err
}

// forget deletes the consumer, which the server would keep for a while. One that is not reached goes by itself.
func (w *worker) forget(name string) {
	if w.s.config.Conn.Status() != nats.CONNECTED {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), forgetTime)
	defer cancel()
	w.s.js.DeleteConsumer(ctx, w.stream, name)
}

// deliverKept hands out a message until it is acked: a nacked one again, in its place.
func (w *worker) deliverKept(ctx context.Context, m *nats.Msg) error {
	meta, err := m.Metadata()
	if err != nil {
		return err
	}
	if w.delivered++; meta.Sequence.Consumer != w.delivered {
		return fmt.Errorf("%w: %s, behind %d", errMissed, w.stream, w.after)
	}
	for deliveries := 1; ; deliveries++ {
		msg := newMessage(m, meta, deliveries)
		switch w.hand(ctx, msg, nil) {
		case acked:
			w.after = meta.Sequence.Stream
			return nil
		case dropped:
			return ctx.Err()
		}
		if sleep(ctx, w.s.config.Delay(msg, deliveries)); ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
