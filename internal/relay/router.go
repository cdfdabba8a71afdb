package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/consumer"
	"jobtally/internal/events"
	"jobtally/internal/webhook"
)

const (
	closeTimeout = 10 * time.Second
	retryPause   = time.Second // after a failure of the server
	lookEvery    = 30 * time.Second
)

// Run sends events to the endpoints that are enabled, as they come, change and go, until ctx ends. An attempt that is under
// way then gets a moment to end; what it was about is given back. Any number of relays run on one server.
//
// The error, where what Open opened is not there any more, is errLost: another Open makes it anew.
func (r *Relay) Run(ctx context.Context) error {
	router, err := r.router()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	var lost error
	running.Go(func() {
		lost = r.awaitLoss(ctx)
		cancel()
	})
	running.Go(func() {
		select {
		case <-router.Running():
			(&switchboard{relay: r, router: router, workers: map[string]*worker{}}).run(ctx)
		case <-ctx.Done():
		}
	})
	running.Go(func() { r.sweepWhenTold(ctx) })
	err = router.Run(ctx)
	cancel()
	running.Wait()
	return errors.Join(err, lost)
}

// awaitLoss returns an error once a stream of the store was deleted, and nil when ctx ends. Who follows one would wait for it
// for ever, or for numbers that the one in its place has not got to.
func (r *Relay) awaitLoss(ctx context.Context) error {
	for {
		if pause(ctx, r.cfg.look); ctx.Err() != nil {
			return nil
		}
		if err := r.store.lost(ctx); err != nil {
			return err
		}
	}
}

func (r *Relay) router() (*message.Router, error) {
	// What the router says of each handler that comes and goes is of no use to whoever runs jobtally.
	logger := watermill.NewSlogLoggerWithLevelMapping(r.cfg.Log, map[slog.Level]slog.Level{slog.LevelInfo: slog.LevelDebug})
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: closeTimeout}, logger)
	if err != nil {
		return nil, err
	}
	router.AddMiddleware(middleware.Recoverer)
	// A router ends with its last handler, and there may be no endpoint yet, or no more.
	router.AddConsumerHandler("stay", "nothing", idle{}, func(*message.Message) error { return nil })
	return router, nil
}

// idle is a subscriber to nothing.
type idle struct{}

// Subscribe returns a channel that is closed when ctx ends.
func (idle) Subscribe(ctx context.Context, _ string) (<-chan *message.Message, error) {
	nothing := make(chan *message.Message)
	context.AfterFunc(ctx, func() { close(nothing) })
	return nothing, nil
}

// Close does nothing.
func (idle) Close() error { return nil }

// switchboard has a handler run for each endpoint that is enabled. One goroutine uses it.
type switchboard struct {
	relay   *Relay
	router  *message.Router
	workers map[string]*worker // by the key of the endpoint
	started int                // handlers
}

// run follows the bucket until ctx ends.
func (b *switchboard) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := b.follow(ctx); err != nil && ctx.Err() == nil {
			b.relay.cfg.Log.Warn("the webhooks cannot be read; trying until they can", "error", err)
		}
		pause(ctx, retryPause)
	}
}

// errMissed is the error of a change that was sent, and did not come.
var errMissed = errors.New("a change was missed")

// follow takes in what is there, and then each change. Where one is missed, or the server does not answer, it ends: all is taken
// in again then. An ordered consumer would not end with ctx while it tries to go on.
func (b *switchboard) follow(ctx context.Context) error {
	changes, err := b.relay.store.bucket.CreateConsumer(ctx, jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy, FilterSubject: bucketSubject + ">",
		AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1, InactiveThreshold: awayAtMost,
	})
	if err != nil {
		return err
	}
	defer letGo(b.relay.store.bucket, changes)
	messages, err := changes.Messages()
	if err != nil {
		return err
	}
	defer messages.Stop()
	seen, pending := map[string]bool{}, changes.CachedInfo().NumPending
	for n := uint64(1); ; n++ {
		if pending == 0 && seen != nil {
			if err := b.stopUnseen(ctx, seen); err != nil {
				return err
			}
			seen = nil
		}
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		if meta.Sequence.Consumer != n {
			return errMissed
		}
		if pending = meta.NumPending; seen != nil {
			seen[strings.TrimPrefix(m.Subject(), bucketSubject)] = true
		}
		if err := b.take(ctx, m, meta); err != nil {
			return err
		}
	}
}

// stopUnseen stops the handlers of endpoints that are not there any more: they were removed while nobody followed. Who leads the
// bucket is asked: in a cluster, the server that has the consumer may be behind, and tell of the others once it has them.
func (b *switchboard) stopUnseen(ctx context.Context, seen map[string]bool) error {
	for key, w := range b.workers {
		if seen[key] {
			continue
		}
		_, err := last(ctx, b.relay.store.bucket, bucketSubject+key)
		if err == nil {
			continue
		}
		if !errors.Is(err, events.ErrNotFound) {
			return err
		}
		w.handler.Stop()
		delete(b.workers, key)
	}
	return nil
}

// take takes in a revision of a key.
func (b *switchboard) take(ctx context.Context, m jetstream.Msg, meta *jetstream.MsgMetadata) error {
	key := strings.TrimPrefix(m.Subject(), bucketSubject)
	account, id, rest, is := cutKey(key)
	if w := b.workers[keyOf(account, id)]; is && w != nil && startsAfresh(rest, m.Data()) {
		w.rouse()
	}
	if !is && m.Headers().Get(operationHeader) == "" {
		b.relay.cfg.Log.Warn("the bucket of webhooks has a key that is of none: it is left alone", "key", key)
	}
	if !is || rest != "" {
		return nil
	}
	var e webhook.Endpoint
	if m.Headers().Get(operationHeader) == "" {
		var err error
		if e, err = b.relay.endpointOf(account, id, m.Data(), meta.Sequence.Stream, meta.Timestamp); err != nil {
			b.relay.cfg.Log.Warn("a webhook cannot be read: it is sent nothing until a newer version reads it, or it is removed", "webhook", id, "error", err)
		}
	} else {
		b.relay.Erased()                                 // what it leaves is swept away,
		time.AfterFunc(grace+retryPause, b.relay.Erased) // and what an attempt that is under way still writes
	}
	return b.switchTo(ctx, key, &e)
}

// startsAfresh says whether something of an endpoint is written that says that its next attempt is due.
func startsAfresh(rest string, data []byte) bool {
	var p progressRecord
	return "."+rest == progressSuffix && json.Unmarshal(data, &p) == nil && p.NextAttempt.IsZero()
}

// switchTo has a handler run for an endpoint if it is enabled, and none otherwise.
func (b *switchboard) switchTo(ctx context.Context, key string, e *webhook.Endpoint) error {
	w := b.workers[key]
	if w != nil && e.ID != "" {
		if e.Version < w.endpoint.Load().Version {
			return nil // of a server that is behind
		}
		w.endpoint.Store(e)
	}
	switch {
	case e.State == webhook.Enabled && w == nil:
		w, err := b.start(ctx, e)
		if err != nil {
			return err
		}
		b.workers[key] = w
	case e.State != webhook.Enabled && w != nil:
		w.handler.Stop()
		delete(b.workers, key)
	}
	return nil
}

func (b *switchboard) start(ctx context.Context, e *webhook.Endpoint) (*worker, error) {
	w := &worker{relay: b.relay, wake: make(chan struct{}, 1)}
	w.endpoint.Store(e)
	poison, err := middleware.PoisonQueueWithFilter(poisonQueue{b.relay}, poisonStream, isExhausted)
	if err != nil {
		return nil, err
	}
	w.deliver = poison(w.attempt)
	subscriber, err := consumer.NewSubscriber(consumer.Config{
		Conn: b.relay.cfg.Conn, Durable: durableOf(e.ID), AckWait: b.relay.cfg.ackWait,
		Filters: filterOf(e.Account, e.After.Partition),
		Start: func(context.Context, string) (consumer.Start, error) { // one that was lost is made again as it was made
			return consumer.After(e.After.Sequence), nil
		},
		Wake:  w.wake,
		Delay: func(*message.Message, int) time.Duration { return time.Duration(w.rest.Load()) },
	})
	if err != nil {
		return nil, err
	}
	// One that is stopped and started again goes by another name: the one before may not have ended yet.
	b.started++
	w.handler = b.router.AddConsumerHandler(fmt.Sprint(durableOf(e.ID), "@", b.started), events.Decisions.Name(e.After.Partition),
		patient{subscriber, b.relay.cfg.Log}, w.handle)
	return w, b.router.RunHandlers(ctx)
}

// patient subscribes until it works, and again whenever the subscription ends by itself: the router would give up on all
// endpoints for one.
type patient struct {
	*consumer.Subscriber
	log *slog.Logger
}

// Subscribe returns a channel of messages that is closed when ctx ends.
func (s patient) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	out := make(chan *message.Message)
	go func() {
		defer close(out)
		for ctx.Err() == nil {
			if err := s.pass(ctx, topic, out); err != nil && ctx.Err() == nil && !errors.Is(err, consumer.ErrClosed) {
				s.log.Warn("a webhook is sent nothing until its consumer answers", "error", err)
			}
			pause(ctx, retryPause)
		}
	}()
	return out, nil
}

// pass passes on the messages of one subscription.
func (s patient) pass(ctx context.Context, topic string, out chan<- *message.Message) error {
	messages, err := s.Subscriber.Subscribe(ctx, topic)
	if err != nil {
		return err
	}
	for m := range messages {
		select {
		case out <- m:
		case <-ctx.Done():
			m.Nack()
		}
	}
	return s.Err()
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
