package consumer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The answers to a message of a durable consumer.
var (
	ack        = []byte("+ACK")
	nak        = []byte("-NAK")
	inProgress = []byte("+WPI")
)

// openDurable finds the durable consumer, or makes it where it was never found.
func (w *worker) openDurable(ctx context.Context) error {
	name := w.s.config.Durable
	found, err := w.s.js.Consumer(ctx, w.stream, name)
	if errors.Is(err, jetstream.ErrConsumerNotFound) && !w.begun {
		found, err = w.makeDurable(ctx)
	}
	if err != nil {
		err = lacksRight(w.s.config.Conn, "CONSUMER.INFO."+w.stream, err)
		return fmt.Errorf("durable consumer %s of %s: %w", name, w.stream, err)
	}
	config := found.CachedInfo().Config
	if err := w.fit(config); err != nil {
		return err
	}
	w.begun = true
	w.beat = config.AckWait / 3
	if w.pull, err = w.s.newPull(w.stream, name, 1); err == nil {
		w.pull.owed = w.owed
		w.pull.repeat()
	}
	return err
}

// makeDurable makes the consumer that keeps the order: of one message at a time, until that is acknowledged.
func (w *worker) makeDurable(ctx context.Context) (jetstream.Consumer, error) {
	config := jetstream.ConsumerConfig{
		Durable: w.s.config.Durable, FilterSubjects: w.filters(),
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: w.s.config.AckWait, MaxAckPending: 1, MaxDeliver: -1,
	}
	start, err := w.s.config.Start(ctx, w.stream)
	if err != nil {
		return nil, fmt.Errorf("where to start: %w", err)
	}
	switch start.kind {
	case fromNow:
		config.DeliverPolicy = jetstream.DeliverNewPolicy
	case fromAfter:
		if err := w.s.check(ctx, w.stream, start.sequence); err != nil {
			return nil, err
		}
		config.DeliverPolicy, config.OptStartSeq = jetstream.DeliverByStartSequencePolicy, start.sequence+1
	}
	made, err := w.s.js.CreateConsumer(ctx, w.stream, config)
	if errors.Is(err, jetstream.ErrConsumerExists) { // another was first
		return w.s.js.Consumer(ctx, w.stream, w.s.config.Durable)
	}
	return made, lacksRight(w.s.config.Conn, "CONSUMER.CREATE."+w.stream, err)
}

// fit returns ErrUnfit unless a consumer keeps the order and the checkpoint, skips nothing, and has what is wanted.
func (w *worker) fit(config jetstream.ConsumerConfig) error {
	filters := config.FilterSubjects
	if config.FilterSubject != "" {
		filters = []string{config.FilterSubject}
	}
	why := ""
	switch wanted := w.filters(); {
	case config.AckPolicy != jetstream.AckExplicitPolicy:
		why = "its ack policy is " + config.AckPolicy.String() + ", and has to be explicit"
	case config.MaxAckPending != 1:
		why = fmt.Sprintf("its max ack pending is %d, and has to be 1: with more the order does not survive a crash", config.MaxAckPending)
	case config.MaxDeliver > 0:
		why = fmt.Sprintf("its max deliver is %d, and has to be -1: it would skip a message after so many deliveries", config.MaxDeliver)
	case len(config.BackOff) > 0:
		why = "it has a backoff, which takes the place of the ack wait, and of the delay of what is nacked"
	case config.HeadersOnly:
		why = "it delivers headers only, and has to deliver what is decided"
	case config.MemoryStorage, config.InactiveThreshold > 0:
		why = "the server may forget it, and with it the checkpoint: it lies in memory, or has an inactive threshold"
	case config.PriorityPolicy != jetstream.PriorityPolicyNone:
		why = "it has priority groups, and is asked for messages without one"
	case len(wanted) > 0 && !sameSubjects(wanted, filters):
		why = fmt.Sprintf("it has the filters %v, not %v; filters are fixed when it is made", filters, wanted)
	}
	if why == "" {
		return nil
	}
	return fmt.Errorf("%w: %s of %s: %s", ErrUnfit, w.s.config.Durable, w.stream, why)
}

func sameSubjects(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// filters returns the filters for the stream: with its partition for the * of theirs.
func (w *worker) filters() (filters []string) {
	for _, filter := range w.s.config.Filters {
		root, rest, _ := strings.Cut(filter, ".*.")
		if p, ok := partitionOf(w.stream); ok && rest != "" && !strings.Contains(root, ".") {
			filter = root + "." + strconv.Itoa(p) + "." + rest
		}
		filters = append(filters, filter)
	}
	return filters
}

// deliver hands out a message of the durable consumer, and answers it.
func (w *worker) deliver(ctx context.Context, m *nats.Msg) error {
	meta, err := m.Metadata()
	if err != nil {
		return err
	}
	msg := newMessage(m, meta, int(meta.NumDelivered))
	switch w.hand(ctx, msg, func() { w.s.config.Conn.Publish(m.Reply, inProgress) }) {
	case acked:
		w.pull.answer(m, ack)
		return nil
	case nacked:
		if ctx.Err() == nil {
			w.pull.giveBack(m, w.s.config.Delay(msg, int(meta.NumDelivered)))
			return nil
		}
	}
	w.pull.answer(m, nak) // for another, or a later subscriber, at once
	return nil
}

func nakAfter(delay time.Duration) []byte {
	if delay <= 0 {
		return nak
	}
	return fmt.Appendf(nil, `%s {"delay":%d}`, nak, delay)
}

func partitionOf(stream string) (partition int, ok bool) {
	_, number, _ := strings.Cut(stream, "_")
	partition, err := strconv.Atoi(number)
	return partition, err == nil
}
