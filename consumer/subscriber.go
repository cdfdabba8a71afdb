package consumer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The defaults of a Config.
const (
	DefaultAckWait      = 30 * time.Second
	DefaultCloseTimeout = 5 * time.Second
)

// Decisions is the topic of all partitions. A single one is the name of its stream, such as DECISIONS_3.
const Decisions = "DECISIONS"

var (
	// ErrClosed is the error of Subscribe on a Subscriber that was closed.
	ErrClosed = errors.New("the subscriber is closed")
	// ErrDeleted is the error of a subscription whose durable consumer, or stream, was deleted. The checkpoint went with it,
	// so the subscription ends: to make another in its place would repeat everything, or lose what is between.
	ErrDeleted = errors.New("it was deleted")
	// ErrUnfit is the error of Subscribe on a durable consumer that does not keep the order or the checkpoint, may skip a message, or
	// does not deliver what is wanted.
	ErrUnfit = errors.New("the durable consumer does not fit")
)

// Config says what a Subscriber reads, and who keeps its checkpoint.
type Config struct {
	// Conn is the connection, which stays the caller's: Close leaves it open. For a user of its own it needs
	// nats.CustomInboxPrefix("_INBOX_" + the name of the user), and on a cluster a nats.PingInterval of seconds: with the client
	// library's own, of two minutes, a server that hangs is left for another after six. Required.
	Conn *nats.Conn

	// Domain is the JetStream domain of the ledger, as a user sees it who has an account of its own: the constant Domain for one that
	// `projector consumer add` made and the user consumer of deploy/nats, empty for the users of the ledger itself.
	Domain string

	// Durable is the name of the durable consumer that keeps the checkpoint, in the server, one for each stream. One that is there
	// is bound to, which takes no right but to ask for its messages, acknowledge them and read its info; one that is
	// not is made. Subscribers that share a name share the messages, one at a time.
	//
	// Where it is empty the caller keeps the checkpoint, and Start tells it.
	Durable string

	// Start says where in a stream to begin. With a Durable it is asked when that has to be made; without, at each
	// Subscribe: it returns After what the caller's own transactions took in last. Default: Beginning.
	Start func(ctx context.Context, stream string) (Start, error)

	// Filters are the subjects of the messages wanted, with * for the partition, as in jobs.*.acme.captured or
	// jobs.*.*.>. Default: all, or those that the Durable was made with.
	Filters []string

	// Partitions is the number of partitions of the ledger, for the topic DECISIONS. Default: what the stream DECISIONS_0
	// says, which takes the right to read its info.
	Partitions int

	// AckWait is after how long without a sign of life the server gives the message of a Durable that this
	// call makes to another subscriber; one that is there keeps its own. While a handler works the subscriber gives signs of life, three
	// in that time. Default: DefaultAckWait.
	AckWait time.Duration

	// Delay returns how long a message rests that was nacked, after so many deliveries of it. The messages behind it in
	// its partition rest too: order has that price. Default: Backoff.
	Delay func(msg *message.Message, deliveries int) time.Duration

	// Wake has the message of a Durable that rests come again at once, each time something comes of it, and when the subscription
	// ends: for who learns by other ways that what it waits for is there. It is for one stream, and is never closed. Nothing is taken
	// from it while a message is in hand: give it room for one, and do not wait to send. Default: each rest lasts its Delay.
	Wake <-chan struct{}

	// CloseTimeout is how long Close, and the end of a subscription's context, wait for the handler of a message that it
	// has; the context of the message has ended by then. A message that is not acked in that time is given back, and is delivered again at once.
	// Default: DefaultCloseTimeout; negative: no time at all.
	CloseTimeout time.Duration

	// Logger is told what goes wrong and is tried again. Default: none.
	Logger watermill.LoggerAdapter
}

func (c *Config) setDefaults() {
	if c.Start == nil {
		c.Start = func(context.Context, string) (Start, error) { return Beginning, nil }
	}
	if c.AckWait == 0 {
		c.AckWait = DefaultAckWait
	}
	if c.Delay == nil {
		c.Delay = Backoff
	}
	if c.CloseTimeout == 0 {
		c.CloseTimeout = DefaultCloseTimeout
	}
	if c.Logger == nil {
		c.Logger = watermill.NopLogger{}
	}
}

// Backoff is the default Delay: it doubles from a second to a minute, and takes off up to half of that at random.
func Backoff(_ *message.Message, deliveries int) time.Duration {
	most := time.Minute
	if deliveries < 7 {
		most = min(most, time.Second<<max(0, deliveries-1))
	}
	return most - rand.N(most/2)
}

// Subscriber is a watermill message.Subscriber on the decision streams of a ledger. It may be used by several goroutines.
type Subscriber struct {
	config Config
	js     jetstream.JetStream

	closing context.Context
	close   context.CancelFunc

	mu      sync.Mutex
	closed  bool
	err     error
	running sync.WaitGroup // the goroutines of all subscriptions; added to under mu, while not closed
}

var _ message.Subscriber = (*Subscriber)(nil)

// NewSubscriber returns a Subscriber. It asks the server nothing.
func NewSubscriber(config Config) (*Subscriber, error) {
	if config.Conn == nil {
		return nil, errors.New("a subscriber needs Conn, a connection to the NATS server")
	}
	if config.Partitions < 0 {
		return nil, fmt.Errorf("a ledger has no %d Partitions", config.Partitions)
	}
	config.setDefaults()
	js, err := newJetStream(config.Conn, config.Domain)
	if err != nil {
		return nil, err
	}
	s := &Subscriber{config: config, js: js}
	s.closing, s.close = context.WithCancel(context.Background())
	return s, nil
}

func newJetStream(nc *nats.Conn, domain string) (jetstream.JetStream, error) {
	if domain == "" {
		return jetstream.New(nc)
	}
	return jetstream.NewWithDomain(nc, domain)
}

// Subscribe returns a channel of the messages of a topic: of one stream, or of all partitions where the topic is
// DECISIONS. Of each stream there is one message at a time: the next comes when this one is acked. So an account's
// messages are in order, and partitions go on side by side. A message that is nacked comes again after its Delay, and
// those behind it in its stream wait for it.
//
// The channel is closed when ctx ends, when the Subscriber is closed, or when nothing more can come of one of the streams: none is
// left out unnoticed. Err says why then.
// A connection that is lost, a server that restarts or changes its leader only interrupts it, and is told to the Logger.
//
// The error is ErrClosed, ErrUnfit, a *PrunedError or ErrAhead, or says what the server did not answer, or not permit.
func (s *Subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.closing, cancel)
	end := func() { stop(); cancel() }
	out := make(chan *message.Message)
	workers, err := s.workers(ctx, topic, out)
	if err == nil {
		err = s.run(ctx, workers, end, func() { end(); close(out) })
	}
	if err != nil {
		end()
		if s.closing.Err() != nil {
			err = ErrClosed
		}
		return nil, fmt.Errorf("subscribe to %s: %w", topic, err)
	}
	return out, nil
}

// workers returns an opened worker for each stream of a topic, or none.
func (s *Subscriber) workers(ctx context.Context, topic string, out chan<- *message.Message) (workers []*worker, err error) {
	streams, err := s.streams(ctx, topic)
	if err != nil {
		return nil, err
	}
	for _, stream := range streams {
		w := &worker{s: s, stream: stream, out: out}
		if err := w.open(ctx); err != nil {
			discard(workers)
			return nil, err
		}
		workers = append(workers, w)
	}
	return workers, nil
}

func discard(workers []*worker) {
	for _, w := range workers {
		w.shut()
	}
}

// streams returns the names of the streams of a topic.
func (s *Subscriber) streams(ctx context.Context, topic string) (streams []string, err error) {
	if topic != Decisions {
		return []string{topic}, nil
	}
	partitions := s.config.Partitions
	if partitions == 0 {
		if partitions, err = s.partitions(ctx); err != nil {
			return nil, err
		}
	}
	for p := range partitions {
		streams = append(streams, fmt.Sprintf("%s_%d", Decisions, p))
	}
	return streams, nil
}

// run starts the workers. One that ends by itself ends the others: that a partition is missing would go unnoticed. What is done
// last is done when all of them have ended, or not at all with an error.
func (s *Subscriber) run(ctx context.Context, workers []*worker, end, last func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		discard(workers)
		return ErrClosed
	}
	var all sync.WaitGroup
	for _, w := range workers {
		all.Go(func() {
			if err := w.run(ctx); err != nil {
				s.failed(w.stream, err)
				end()
			}
		})
	}
	s.running.Go(func() {
		all.Wait()
		last()
	})
	return nil
}

func (s *Subscriber) failed(stream string, err error) {
	s.config.Logger.Error("The subscription ended", err, watermill.LogFields{"stream": stream, "durable": s.config.Durable})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = errors.Join(s.err, fmt.Errorf("%s: %w", stream, err))
}

// Err returns why subscriptions ended by themselves: nothing but what was asked for ended them where it is nil. Whoever waits for a watermill Router asks when it has returned.
func (s *Subscriber) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Close ends all subscriptions, and returns when their channels are closed and no goroutine is left. It waits up to
// CloseTimeout for handlers, and gives back what is not acked. It always returns nil.
func (s *Subscriber) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.close()
	s.running.Wait()
	return nil
}

// lacksRight adds to the error of a question without an answer that the user may not ask it, or be answered: a server does not
// answer what it does not permit, it tells the connection.
func lacksRight(nc *nats.Conn, subject string, err error) error {
	last := nc.LastError()
	if !errors.Is(last, nats.ErrPermissionViolation) ||
		!errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, nats.ErrTimeout) && !errors.Is(err, errSilence) {
		return err
	}
	switch said := last.Error(); {
	case strings.Contains(said, `Subscription to "`+inboxes(nc)):
		return fmt.Errorf("the NATS user lacks a right, that to be answered where this connection is (see nats.CustomInboxPrefix): %w: %w", last, err)
	case strings.Contains(said, subject):
		return fmt.Errorf("the NATS user lacks a right: %w: %w", last, err)
	}
	return err
}

// inboxes is what the subjects begin with under which a connection is answered.
func inboxes(nc *nats.Conn) string {
	prefix, _, _ := strings.Cut(nc.NewInbox(), ".")
	return prefix + "."
}
