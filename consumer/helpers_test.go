package consumer_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/consumer"
	"jobtally/internal/events"
)

// patience is how long a test waits for what has to come.
const patience = 3 * time.Minute

// startServer starts a NATS server with JetStream.
func startServer(t testing.TB) *server.Server {
	t.Helper()
	return startServerWith(t, &server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir()})
}

func startServerWith(t testing.TB, options *server.Options) *server.Server {
	t.Helper()
	options.NoLog, options.NoSigs = true, true
	options.JetStreamMaxMemory, options.JetStreamMaxStore = 256<<20, 4<<30
	s, err := server.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		t.Fatal("the NATS server is not ready")
	}
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return s
}

func connect(t testing.TB, s *server.Server, options ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(s.ClientURL(), append(options, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func jetStream(t testing.TB, nc *nats.Conn) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func newSubscriber(t testing.TB, config consumer.Config) *consumer.Subscriber {
	t.Helper()
	if config.CloseTimeout == 0 {
		config.CloseTimeout = -1 // what a test has in hand in the end it acks no more
	}
	s, err := consumer.NewSubscriber(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func subscribe(t testing.TB, s *consumer.Subscriber, topic string) <-chan *message.Message {
	t.Helper()
	messages, err := s.Subscribe(context.Background(), topic)
	if err != nil {
		t.Fatal(err)
	}
	return messages
}

// decisions are the streams of a ledger's decisions.
type decisions struct {
	t  testing.TB
	js jetstream.JetStream
}

func makeDecisions(t testing.TB, nc *nats.Conn, partitions int) *decisions {
	t.Helper()
	d := &decisions{t: t, js: jetStream(t, nc)}
	for p := range partitions {
		_, err := d.js.CreateStream(context.Background(), jetstream.StreamConfig{
			Name: events.Decisions.Name(p), Subjects: events.Decisions.Subjects(p),
			Metadata: map[string]string{"jobtally_partitions": strconv.Itoa(partitions)},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// decide appends a decision to a partition, under its next number.
func (d *decisions) decide(partition int, account string, body events.DecisionBody) events.Position {
	d.t.Helper()
	stream, err := d.js.Stream(context.Background(), events.Decisions.Name(partition))
	if err != nil {
		d.t.Fatal(err)
	}
	position := events.Position{Partition: partition, Sequence: stream.CachedInfo().State.LastSeq + 1}
	d.publish(sealed(position, account, body))
	return position
}

// sealed returns the message of a decision.
func sealed(position events.Position, account string, body events.DecisionBody) *nats.Msg {
	decision := events.Decision{
		Position: position, Account: account, RequestID: "key one", Time: time.Date(2026, 11, 22, 17, 0, 0, 0, time.UTC), Body: body,
	}
	decision.Seal(events.Digest{})
	m := decision.Message()
	return &nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data}
}

func (d *decisions) publish(m *nats.Msg) {
	d.t.Helper()
	if _, err := d.js.PublishMsg(context.Background(), m); err != nil {
		d.t.Fatal(err)
	}
}

// capture appends so many captures of an account.
func (d *decisions) capture(partition int, account string, n int) {
	d.t.Helper()
	for range n {
		d.decide(partition, account, &events.JobCaptured{JobID: "j", Job: events.Job{Title: "Engineer"}, Count: events.Count{Month: "2026-11"}})
	}
}

// take returns the next message, which is in nobody's hands yet.
func take(t testing.TB, messages <-chan *message.Message) *message.Message {
	t.Helper()
	select {
	case msg, ok := <-messages:
		if !ok {
			t.Fatal("the channel is closed")
		}
		return msg
	case <-time.After(patience):
		t.Fatal("no message comes")
	}
	return nil
}

// wantNext takes the next message, which has to be the one of a position, delivered so often.
func wantNext(t testing.TB, messages <-chan *message.Message, position string, deliveries int) *message.Message {
	t.Helper()
	msg := take(t, messages)
	got := msg.Metadata.Get(consumer.MetadataPosition) + ", delivery " + msg.Metadata.Get(consumer.MetadataDeliveries)
	if want := fmt.Sprintf("%s, delivery %d", position, deliveries); got != want {
		t.Fatalf("the next message is %s, want %s", got, want)
	}
	return msg
}

// wantNothing waits for a time in which no message may come.
func wantNothing(t testing.TB, messages <-chan *message.Message, during time.Duration) {
	t.Helper()
	select {
	case msg, ok := <-messages:
		if ok {
			t.Fatalf("message %s comes, and none should", msg.UUID)
		}
		t.Fatal("the channel is closed")
	case <-time.After(during):
	}
}

func wantClosed(t testing.TB, messages <-chan *message.Message) {
	t.Helper()
	for {
		select {
		case _, ok := <-messages:
			if !ok {
				return
			}
		case <-time.After(patience):
			t.Fatal("the channel is not closed")
		}
	}
}

// wantNothingLeft waits until no goroutine of the package runs, and the connection has no more subscriptions than before.
func wantNothingLeft(t testing.TB, nc *nats.Conn, before int) {
	t.Helper()
	stacks := make([]byte, 1<<20)
	for giveUp := time.Now().Add(patience); ; runtime.Gosched() {
		running := string(stacks[:runtime.Stack(stacks, true)])
		if !strings.Contains(running, "jobtally/consumer.(") && nc.NumSubscriptions() <= before {
			return
		}
		if time.Now().After(giveUp) {
			t.Fatalf("%d subscriptions are left, %d were there before, and these goroutines run:\n%s", nc.NumSubscriptions(), before, running)
		}
	}
}

func after(sequence uint64) func(context.Context, string) (consumer.Start, error) {
	return func(context.Context, string) (consumer.Start, error) { return consumer.After(sequence), nil }
}

func rest(d time.Duration) func(*message.Message, int) time.Duration {
	return func(*message.Message, int) time.Duration { return d }
}

// exampleLedger is a ledger with one capture.
func exampleLedger() (url string, stop func()) {
	dir, err := os.MkdirTemp("", "jobtally-")
	if err != nil {
		panic(err)
	}
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: dir, NoLog: true, NoSigs: true})
	if err != nil {
		panic(err)
	}
	s.Start()
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		panic(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		panic(err)
	}
	_, err = js.CreateStream(context.Background(), jetstream.StreamConfig{
		Name: events.Decisions.Name(0), Subjects: events.Decisions.Subjects(0), Metadata: map[string]string{"jobtally_partitions": "1"},
	})
	if err != nil {
		panic(err)
	}
	m := sealed(events.Position{Sequence: 1}, "anna", &events.JobCaptured{Job: events.Job{Title: "Engineer"}, Count: events.Count{Month: "2026-11"}})
	if _, err := js.PublishMsg(context.Background(), m); err != nil {
		panic(err)
	}
	return s.ClientURL(), func() { s.Shutdown(); s.WaitForShutdown(); os.RemoveAll(dir) }
}
