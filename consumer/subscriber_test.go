package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/consumer"
	"jobtally/internal/events"
)

// bothWays runs a test with the checkpoint in the server, and with the caller.
func bothWays(t *testing.T, test func(t *testing.T, durable string)) {
	t.Run("durable", func(t *testing.T) { t.Parallel(); test(t, "d") })
	t.Run("kept by the caller", func(t *testing.T) { t.Parallel(); test(t, "") })
}

func TestAMessageSaysWhatItIs(t *testing.T) {
	bothWays(t, func(t *testing.T, durable string) {
		nc := connect(t, startServer(t))
		d := makeDecisions(t, nc, 1)
		d.capture(0, "anna", 1)
		messages := subscribe(t, newSubscriber(t, consumer.Config{Conn: nc, Durable: durable}), consumer.Decisions)
		msg := take(t, messages)
		want := map[string]string{
			consumer.MetadataPosition: "0-1", consumer.MetadataSequence: "1", consumer.MetadataDeliveries: "1",
			consumer.MetadataSubject: "jobs.0.anna.captured", consumer.MetadataStream: "DECISIONS_0",
			consumer.MetadataType: consumer.TypeJobCaptured, consumer.MetadataAccount: "anna",
			consumer.MetadataTime: "2026-11-22T17:00:00Z", "ce-sequence": "00000000000000000001", "ce-requestid": "key one",
		}
		for key, value := range want {
			if got := msg.Metadata.Get(key); got != value {
				t.Errorf("metadata %s is %q, want %q", key, got, value)
			}
		}
		if msg.UUID != "0-1" || !strings.HasPrefix(string(msg.Payload), `{"job_id":"j"`) {
			t.Errorf("the message is %s %s", msg.UUID, msg.Payload)
		}
	})
}

func TestOfAHeaderTheFirstValueCounts(t *testing.T) {
	bothWays(t, func(t *testing.T, durable string) {
		nc := connect(t, startServer(t))
		d := makeDecisions(t, nc, 1)
		d.publish(&nats.Msg{Subject: "jobs.0.anna.captured", Header: nats.Header{
			"ce-id": {"first", "second"}, "ce-note": {"50%", "%41"}, "position": {"7-7"}, "ce-none": {},
		}, Data: []byte("{}")})
		d.publish(&nats.Msg{Subject: "jobs.0.anna.captured"}) // no header, no data
		messages := subscribe(t, newSubscriber(t, consumer.Config{Conn: nc, Durable: durable}), "DECISIONS_0")
		msg := wantNext(t, messages, "0-1", 1)
		if msg.UUID != "first" || msg.Metadata.Get("ce-note") != "50%" {
			t.Errorf("the message is %s %v", msg.UUID, msg.Metadata)
		}
		msg.Ack()
		if msg = wantNext(t, messages, "0-2", 1); msg.UUID != "DECISIONS_0-2" {
			t.Errorf("the message is %s %v", msg.UUID, msg.Metadata)
		}
	})
}

// A nacked message rests, and holds up what is behind it in its partition, and nothing in any other.
func TestANackedMessageComesAgainBeforeThoseBehindIt(t *testing.T) {
	const delay = 300 * time.Millisecond
	bothWays(t, func(t *testing.T, durable string) {
		nc := connect(t, startServer(t))
		d := makeDecisions(t, nc, 2)
		d.capture(0, "anna", 2)
		config := consumer.Config{Conn: nc, Durable: durable, Delay: rest(delay)}
		messages := subscribe(t, newSubscriber(t, config), consumer.Decisions)
		msg := wantNext(t, messages, "0-1", 1)
		for times := 1; times <= 3; times++ {
			nackedAt := time.Now()
			msg.Nack()
			d.capture(1, "bert", 1)
			wantNext(t, messages, fmt.Sprint("1-", times), 1).Ack()
			msg = wantNext(t, messages, "0-1", times+1)
			if waited := time.Since(nackedAt); waited < delay {
				t.Errorf("it came again after %s, and was to rest for %s", waited, delay)
			}
		}
		msg.Ack()
		wantNext(t, messages, "0-2", 1).Ack()
	})
}

func TestAHandlerThatTakesLongerThanAckWaitKeepsItsMessage(t *testing.T) {
	t.Parallel()
	nc := connect(t, startServer(t))
	makeDecisions(t, nc, 1).capture(0, "anna", 2)
	config := consumer.Config{Conn: nc, Durable: "d", AckWait: ackWait}
	first := subscribe(t, newSubscriber(t, config), "DECISIONS_0")
	msg := wantNext(t, first, "0-1", 1)
	second := subscribe(t, newSubscriber(t, config), "DECISIONS_0")
	wantNothing(t, second, 2*ackWait)
	msg.Ack()
	select {
	case msg = <-first:
	case msg = <-second:
	case <-time.After(patience):
	}
	if p, err := consumer.PositionOf(msg); err != nil || p.Sequence != 2 || msg.Metadata.Get(consumer.MetadataDeliveries) != "1" {
		t.Errorf("the next message is %v, %v", msg, err)
	}
}

func TestSubscribersOfOneDurableShareItsMessagesInOrder(t *testing.T) {
	t.Parallel()
	const n, subscribers = 2_000, 3
	server := startServer(t)
	makeDecisions(t, connect(t, server), 1).capture(0, "anna", n)
	var mu sync.Mutex
	var order []uint64
	done := make(chan struct{})
	for range subscribers {
		messages := subscribe(t, newSubscriber(t, consumer.Config{Conn: connect(t, server), Durable: "d"}), "DECISIONS_0")
		go func() {
			for msg := range messages {
				mu.Lock()
				p, _ := consumer.PositionOf(msg)
				if order = append(order, p.Sequence); len(order) == n {
					close(done)
				}
				mu.Unlock()
				msg.Ack()
			}
		}()
	}
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("messages are missing")
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.IsSorted(order) || len(slices.Compact(order)) != n {
		t.Errorf("messages were handed out in this order: %v", order)
	}
}

// Close gives back what is not acked: the next subscriber has it at once, and not after AckWait, which is longer than
// this test.
func TestCloseUnderLoad(t *testing.T) {
	const closes = 200
	nc := connect(t, startServer(t))
	makeDecisions(t, nc, 2).capture(0, "anna", 50)
	config := consumer.Config{Conn: nc, Durable: "d", AckWait: 10 * time.Minute, CloseTimeout: -1, Delay: rest(0)}
	before := nc.NumSubscriptions()
	last := uint64(0)
	for i := range closes {
		s := newSubscriber(t, config)
		ctx, cancel := context.WithCancel(context.Background())
		messages, err := s.Subscribe(ctx, consumer.Decisions)
		if err != nil {
			t.Fatal(err)
		}
		if i%4 != 3 { // one in four is closed before anything comes
			msg := take(t, messages)
			if p, _ := consumer.PositionOf(msg); p.Sequence < last || p.Sequence > last+1 {
				t.Fatalf("%d comes after %d", p.Sequence, last)
			} else if i%8 == 0 {
				msg.Ack()
				last = p.Sequence
			}
		}
		if i%2 == 0 {
			cancel()
		}
		s.Close()
		cancel()
		wantClosed(t, messages)
	}
	wantNothingLeft(t, nc, before)
}

func TestAHandlerHasTimeToFinishWhenItsSubscriberCloses(t *testing.T) {
	nc := connect(t, startServer(t))
	makeDecisions(t, nc, 1).capture(0, "anna", 2)
	config := consumer.Config{Conn: nc, Durable: "d", CloseTimeout: patience}
	s := newSubscriber(t, config)
	messages := subscribe(t, s, "DECISIONS_0")
	msg := wantNext(t, messages, "0-1", 1)
	go func() {
		<-msg.Context().Done()
		msg.Ack()
	}()
	s.Close()
	wantClosed(t, messages)
	wantNext(t, subscribe(t, newSubscriber(t, config), "DECISIONS_0"), "0-2", 1).Ack()
}

func TestClosedSubscriber(t *testing.T) {
	nc := connect(t, startServer(t))
	makeDecisions(t, nc, 1)
	s := newSubscriber(t, consumer.Config{Conn: nc})
	s.Close()
	s.Close()
	if _, err := s.Subscribe(context.Background(), "DECISIONS_0"); !errors.Is(err, consumer.ErrClosed) {
		t.Errorf("Subscribe says %v", err)
	}
}

func TestAConfigThatCannotBeMeantIsRefused(t *testing.T) {
	nc := connect(t, startServer(t))
	for _, config := range []consumer.Config{{}, {Conn: nc, Partitions: -1}} {
		if s, err := consumer.NewSubscriber(config); err == nil {
			s.Close()
			t.Errorf("%+v is accepted", config)
		}
	}
}

// The caller's checkpoint is asked for at each Subscribe, so that a subscription begins behind what was taken in last.
func TestTheCallerKeepsTheCheckpoint(t *testing.T) {
	nc := connect(t, startServer(t))
	d := makeDecisions(t, nc, 2)
	d.capture(0, "anna", 300)
	d.capture(1, "bert", 3)
	checkpoint := map[string]uint64{"DECISIONS_0": 250, "DECISIONS_1": 3}
	s := newSubscriber(t, consumer.Config{Conn: nc, Start: func(_ context.Context, stream string) (consumer.Start, error) {
		return consumer.After(checkpoint[stream]), nil
	}})
	for _, first := range []int{251, 261} {
		ctx, cancel := context.WithCancel(context.Background())
		messages, err := s.Subscribe(ctx, consumer.Decisions)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			wantNext(t, messages, fmt.Sprint("0-", first+i), 1).Ack()
			checkpoint["DECISIONS_0"]++
		}
		cancel()
		wantClosed(t, messages)
	}
	d.capture(1, "bert", 1)
	messages, err := s.Subscribe(context.Background(), "DECISIONS_1")
	if err != nil {
		t.Fatal(err)
	}
	wantNext(t, messages, "1-4", 1).Ack()
}

func TestStarts(t *testing.T) {
	bothWays(t, func(t *testing.T, durable string) {
		nc := connect(t, startServer(t))
		d := makeDecisions(t, nc, 1)
		d.capture(0, "anna", 3)
		for name, start := range map[string]consumer.Start{"0-1": consumer.Beginning, "0-3": consumer.After(2), "0-4": consumer.Now} {
			config := consumer.Config{Conn: nc, Start: func(context.Context, string) (consumer.Start, error) { return start, nil }}
			if durable != "" {
				config.Durable = "from_" + name
			}
			messages := subscribe(t, newSubscriber(t, config), "DECISIONS_0")
			if start == consumer.Now {
				wantNothing(t, messages, 50*time.Millisecond)
				d.capture(0, "anna", 1)
			}
			wantNext(t, messages, name, 1).Ack()
		}
	})
}

func TestFilters(t *testing.T) {
	bothWays(t, func(t *testing.T, durable string) {
		nc := connect(t, startServer(t))
		d := makeDecisions(t, nc, 2)
		d.capture(0, "anna", 1)
		d.capture(0, "carl", 1)
		d.decide(0, "carl", &events.JobDeleted{JobID: "j"})
		d.decide(0, "carl", &events.JobUpdated{JobID: "j"})
		config := consumer.Config{Conn: nc, Durable: durable, Filters: []string{"jobs.*.carl.captured", "jobs.*.carl.updated"}}
		messages := subscribe(t, newSubscriber(t, config), consumer.Decisions)
		wantNext(t, messages, "0-2", 1).Ack()
		wantNext(t, messages, "0-4", 1).Ack()
	})
}

func TestADurableThatDoesNotFitIsRefused(t *testing.T) {
	nc := connect(t, startServer(t))
	d := makeDecisions(t, nc, 1)
	for _, test := range []struct {
		config jetstream.ConsumerConfig
		says   string
	}{
		{jetstream.ConsumerConfig{Durable: "many", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 10}, "max ack pending is 10"},
		{jetstream.ConsumerConfig{Durable: "all", AckPolicy: jetstream.AckAllPolicy, MaxAckPending: 1}, "ack policy"},
		{jetstream.ConsumerConfig{Durable: "few", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 1, MaxDeliver: 3}, "skip a message"},
		{jetstream.ConsumerConfig{Durable: "backing", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 1, BackOff: []time.Duration{time.Hour, time.Second}}, "backoff"},
		{jetstream.ConsumerConfig{Durable: "bare", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 1, HeadersOnly: true}, "headers only"},
		{jetstream.ConsumerConfig{Durable: "fleeting", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 1, MemoryStorage: true}, "may forget it"},
		{jetstream.ConsumerConfig{Durable: "idle", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 1, InactiveThreshold: time.Hour}, "may forget it"},
		{jetstream.ConsumerConfig{Durable: "grouped", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 1, PriorityPolicy: jetstream.PriorityPolicyOverflow, PriorityGroups: []string{"g"}}, "priority groups"},
		{jetstream.ConsumerConfig{Durable: "other", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 1, FilterSubject: "jobs.0.bert.>"}, "filters"},
	} {
		if _, err := d.js.CreateConsumer(context.Background(), "DECISIONS_0", test.config); err != nil {
			t.Fatal(err)
		}
		config := consumer.Config{Conn: nc, Durable: test.config.Durable, Filters: []string{"jobs.*.anna.>"}}
		_, err := newSubscriber(t, config).Subscribe(context.Background(), "DECISIONS_0")
		if !errors.Is(err, consumer.ErrUnfit) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("of %s Subscribe says %v", test.config.Durable, err)
		}
	}
}

// logged hands on what a Subscriber logs as an error.
type logged struct {
	watermill.NopLogger
	errors chan error
}

func (l logged) Error(_ string, err error, _ watermill.LogFields) { l.errors <- err }

// A topic that is misspelt, or a partition too many, was not deleted: nobody is to look for who did that.
func TestAStreamThatNeverWasIsNotCalledDeleted(t *testing.T) {
	t.Parallel()
	nc := connect(t, startServer(t))
	makeDecisions(t, nc, 1)
	for _, c := range []consumer.Config{{Conn: nc, Durable: "d", Partitions: 2}, {Conn: nc, Partitions: 2}} {
		_, err := newSubscriber(t, c).Subscribe(t.Context(), consumer.Decisions)
		if !errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, consumer.ErrDeleted) || !strings.Contains(err.Error(), "DECISIONS_1") {
			t.Errorf("with Durable %q Subscribe says %v", c.Durable, err)
		}
	}
}

func TestADeletedDurableEndsTheSubscriptionAndSaysSo(t *testing.T) {
	t.Parallel()
	nc := connect(t, startServer(t))
	d := makeDecisions(t, nc, 1)
	log := logged{errors: make(chan error, 100)}
	s := newSubscriber(t, consumer.Config{Conn: nc, Durable: "d", Logger: log})
	messages := subscribe(t, s, "DECISIONS_0")
	d.capture(0, "anna", 1)
	wantNext(t, messages, "0-1", 1).Ack()
	if err := d.js.DeleteConsumer(context.Background(), "DECISIONS_0", "d"); err != nil {
		t.Fatal(err)
	}
	wantClosed(t, messages)
	if err := s.Err(); !errors.Is(err, consumer.ErrDeleted) || !strings.Contains(err.Error(), "durable consumer d of DECISIONS_0") {
		t.Errorf("Err says %v", err)
	}
	if len(log.errors) == 0 {
		t.Error("nothing was logged")
	}
}

// A partition that can be read no more ends the subscription, so that somebody looks: the others would go on without it for ever.
func TestADeletedDurableOfOnePartitionEndsTheSubscription(t *testing.T) {
	t.Parallel()
	nc := connect(t, startServer(t))
	d := makeDecisions(t, nc, 2)
	s := newSubscriber(t, consumer.Config{Conn: nc, Durable: "d"})
	messages := subscribe(t, s, consumer.Decisions)
	if err := d.js.DeleteConsumer(context.Background(), "DECISIONS_1", "d"); err != nil {
		t.Fatal(err)
	}
	wantClosed(t, messages)
	if err := s.Err(); !errors.Is(err, consumer.ErrDeleted) || !strings.Contains(err.Error(), "of DECISIONS_1") {
		t.Errorf("Err says %v", err)
	}
	d.capture(0, "anna", 1)
	wantNext(t, subscribe(t, newSubscriber(t, consumer.Config{Conn: nc, Durable: "d"}), "DECISIONS_0"), "0-1", 1).Ack()
}

func TestAConnectionThatIsClosedEndsTheSubscriptionAndSaysSo(t *testing.T) {
	bothWays(t, func(t *testing.T, durable string) {
		nc := connect(t, startServer(t))
		makeDecisions(t, nc, 1)
		s := newSubscriber(t, consumer.Config{Conn: nc, Durable: durable})
		messages := subscribe(t, s, "DECISIONS_0")
		nc.Close()
		wantClosed(t, messages)
		if err := s.Err(); !errors.Is(err, nats.ErrConnectionClosed) {
			t.Errorf("Err says %v", err)
		}
	})
}

func TestAUserWhoIsLetInNoLongerIsToldSo(t *testing.T) {
	t.Parallel()
	before := &server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), Users: []*server.User{
		{Username: "own", Password: "secret"}, {Username: "reader", Password: "secret"},
	}}
	s := startServerWith(t, before)
	makeDecisions(t, connect(t, s, nats.UserInfo("own", "secret")), 1)
	reader := newSubscriber(t, consumer.Config{Conn: connect(t, s, nats.UserInfo("reader", "secret")), Durable: "d"})
	messages := subscribe(t, reader, "DECISIONS_0")
	after := before.Clone()
	after.Users[1].Password = "another"
	if err := s.ReloadOptions(after); err != nil {
		t.Fatal(err)
	}
	wantClosed(t, messages)
	if err := reader.Err(); !errors.Is(err, nats.ErrConnectionClosed) || !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("Err says %v", err)
	}
}

// The server is stopped and started again while a message is in hand, and while none is.
func TestASubscriptionGoesOnWhenTheServerWasRestarted(t *testing.T) {
	bothWays(t, func(t *testing.T, durable string) {
		options := &server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir()}
		s := startServerWith(t, options)
		nc := connect(t, s, nats.ReconnectBufSize(-1))
		d := makeDecisions(t, nc, 1)
		config := consumer.Config{Conn: nc, Durable: durable, AckWait: 10 * time.Minute}
		messages := subscribe(t, newSubscriber(t, config), "DECISIONS_0")
		options.Port = s.Addr().(*net.TCPAddr).Port
		for i := range 3 {
			for nc.FlushTimeout(patience) != nil {
				runtime.Gosched() // it connects again
			}
			d.capture(0, "anna", 2)
			msg := wantNext(t, messages, fmt.Sprint("0-", 2*i+1), 1)
			s.Shutdown()
			s.WaitForShutdown()
			msg.Ack()
			s = startServerWith(t, options)
			wantNext(t, messages, fmt.Sprint("0-", 2*i+2), 1).Ack()
		}
	})
}
