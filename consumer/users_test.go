package consumer_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/consumer"
)

// durableOnly is a user who may ask for the messages of one durable consumer, acknowledge them and read its info, and nothing
// else, as `projector consumer add` makes them.
const durableOnly = `
      {
        user: only, password: secret
        permissions: {
          publish: ["$JS.LEDGER.API.CONSUMER.MSG.NEXT.DECISIONS_0.only", "$JS.LEDGER.API.CONSUMER.INFO.DECISIONS_0.only", "$JS.ACK.DECISIONS_0.only.>"]
          subscribe: "_INBOX_only.>"
        }
      }
      {
        # The same without the right to ask for messages.
        user: half, password: secret
        permissions: {
          publish: ["$JS.LEDGER.API.CONSUMER.INFO.DECISIONS_0.only", "$JS.ACK.DECISIONS_0.only.>"]
          subscribe: "_INBOX_half.>"
        }
      }`

// startGuarded starts a server with deploy/nats/jobtally.conf, and the users above beside the one that it has for consumers.
func startGuarded(t *testing.T) *server.Server {
	t.Helper()
	text, err := os.ReadFile("../deploy/nats/jobtally.conf")
	if err != nil {
		t.Fatal(err)
	}
	before, consumers, _ := strings.Cut(string(text), "  CONSUMERS {")
	consumers = strings.Replace(consumers, "    users: [", "    users: ["+durableOnly, 1)
	path := filepath.Join(t.TempDir(), "jobtally.conf")
	if err := os.WriteFile(path, []byte(before+"  CONSUMERS {"+consumers), 0o600); err != nil {
		t.Fatal(err)
	}
	options, err := server.ProcessConfigFile(path)
	if err != nil {
		t.Fatal(err)
	}
	options.Host, options.Port, options.StoreDir = "127.0.0.1", -1, t.TempDir()
	return startServerWith(t, options)
}

func connectAs(t *testing.T, s *server.Server, user string) *nats.Conn {
	t.Helper()
	return connect(t, s, nats.UserInfo(user, "secret"), nats.CustomInboxPrefix("_INBOX_"+user),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})) // the Subscriber tells what is not permitted
}

// makeGuarded makes the streams as the operator, and fills them as the projector.
func makeGuarded(t *testing.T, s *server.Server) *decisions {
	t.Helper()
	makeDecisions(t, connectAs(t, s, "operator"), 2)
	return &decisions{t: t, js: jetStream(t, connectAs(t, s, "projector"))}
}

func TestTheUserForConsumersReadsBothWays(t *testing.T) {
	t.Parallel()
	s := startGuarded(t)
	d := makeGuarded(t, s)
	d.capture(0, "anna", 3)
	for _, durable := range []string{"", "own"} {
		nc := connectAs(t, s, "consumer")
		config := consumer.Config{Conn: nc, Domain: consumer.Domain, Durable: durable, Delay: rest(0)}
		messages := subscribe(t, newSubscriber(t, config), consumer.Decisions)
		wantNext(t, messages, "0-1", 1).Nack()
		wantNext(t, messages, "0-1", 2).Ack()
		wantNext(t, messages, "0-2", 1).Ack()
		wantNext(t, messages, "0-3", 1).Ack()
	}
}

func TestAUserOfOneDurableNeedsNoOtherRight(t *testing.T) {
	t.Parallel()
	s := startGuarded(t)
	d := makeGuarded(t, s)
	_, err := jetStream(t, connectAs(t, s, "operator")).CreateConsumer(context.Background(), "DECISIONS_0", jetstream.ConsumerConfig{
		Durable: "only", FilterSubjects: []string{"jobs.0.anna.>"}, AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 1, MaxDeliver: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	d.capture(0, "anna", 2)
	d.capture(0, "bert", 1)
	d.capture(0, "anna", 1)
	nc := connectAs(t, s, "only")
	config := consumer.Config{Conn: nc, Domain: consumer.Domain, Durable: "only", Delay: rest(0)}
	first := newSubscriber(t, config)
	messages := subscribe(t, first, "DECISIONS_0")
	wantNext(t, messages, "0-1", 1).Nack()
	wantNext(t, messages, "0-1", 2).Ack()
	wantNext(t, messages, "0-2", 1)
	first.Close() // which gives it back
	messages = subscribe(t, newSubscriber(t, config), "DECISIONS_0")
	wantNext(t, messages, "0-2", 2).Ack()
	wantNext(t, messages, "0-4", 1).Ack()
	if err := nc.LastError(); err != nil {
		t.Errorf("it asked for something that it may not: %v", err)
	}
}

// What is decided behind a subscriber that was closed waits for the next one, at once: no question is left that the server would
// answer into nothing. A user of an account of its own closes in the middle of asking.
func TestACloseLeavesNoQuestionBehind(t *testing.T) {
	t.Parallel()
	s := startGuarded(t)
	d := makeGuarded(t, s)
	_, err := jetStream(t, connectAs(t, s, "operator")).CreateConsumer(context.Background(), "DECISIONS_0", jetstream.ConsumerConfig{
		Durable: "only", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 10 * time.Minute, MaxAckPending: 1, MaxDeliver: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	nc := connectAs(t, s, "only")
	for i := range 100 {
		d.capture(0, "anna", 1)
		only := newSubscriber(t, consumer.Config{Conn: nc, Domain: consumer.Domain, Durable: "only"})
		wantNext(t, subscribe(t, only, "DECISIONS_0"), fmt.Sprint("0-", i+1), 1).Ack()
		only.Close()
	}
}

// A server does not answer what it does not permit. Who lacks a right is told so, whatever time there is.
func TestAMissingRightIsTold(t *testing.T) {
	t.Parallel()
	s := startGuarded(t)
	makeGuarded(t, s).capture(0, "anna", 1)
	for topic, says := range map[string]string{
		"DECISIONS_0":      "CONSUMER.INFO.DECISIONS_0.mine",
		consumer.Decisions: "unless Partitions says it: stream DECISIONS_0: the NATS user lacks a right: nats: permissions violation: Permissions Violation for Publish to \"$JS.LEDGER.API.STREAM.INFO.DECISIONS_0",
	} {
		t.Run(topic, func(t *testing.T) {
			t.Parallel()
			config := consumer.Config{Conn: connectAs(t, s, "only"), Domain: consumer.Domain, Durable: "mine"}
			wantNoRight(t, config, topic, says)
		})
	}
	t.Run("without the prefix", func(t *testing.T) {
		t.Parallel()
		nc := connect(t, s, nats.UserInfo("only", "secret"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
		config := consumer.Config{Conn: nc, Domain: consumer.Domain, Durable: "only"}
		wantNoRight(t, config, "DECISIONS_0", "(see nats.CustomInboxPrefix): nats: permissions violation: Permissions Violation for Subscription to \"_INBOX.")
	})
}

func wantNoRight(t *testing.T, config consumer.Config, topic, says string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := newSubscriber(t, config).Subscribe(ctx, topic)
	if err == nil || !strings.Contains(err.Error(), "lacks a right") || !strings.Contains(err.Error(), says) || ctx.Err() != nil {
		t.Errorf("Subscribe says %v, %v", err, ctx.Err())
	}
}

// The right to ask for messages is noticed only when they are asked for: then the log has it.
func TestAMissingRightToMessagesIsTold(t *testing.T) {
	t.Parallel()
	s := startGuarded(t)
	makeGuarded(t, s).capture(0, "anna", 1)
	if _, err := jetStream(t, connectAs(t, s, "operator")).CreateConsumer(context.Background(), "DECISIONS_0", jetstream.ConsumerConfig{
		Durable: "only", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 1,
	}); err != nil {
		t.Fatal(err)
	}
	log := logged{errors: make(chan error, 100)}
	config := consumer.Config{Conn: connectAs(t, s, "half"), Domain: consumer.Domain, Durable: "only", Logger: log}
	subscribe(t, newSubscriber(t, config), "DECISIONS_0")
	if err := <-log.errors; !strings.Contains(err.Error(), "lacks a right") || !strings.Contains(err.Error(), "CONSUMER.MSG.NEXT.DECISIONS_0.only") {
		t.Errorf("the log says %v", err)
	}
}
