package consumer_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/consumer"
)

// TestWatermillSuite holds the Subscriber to what watermill asks of any, with what it promises with a durable consumer.
func TestWatermillSuite(t *testing.T) {
	nc := connect(t, startServer(t))
	make := func(t *testing.T, durable string) (message.Publisher, message.Subscriber) {
		return &publisher{js: jetStream(t, nc)}, subscriberOfSuite(t, nc, durable)
	}
	features := tests.Features{ConsumerGroups: true, GuaranteedOrder: true, Persistent: true, ForceShort: true} // of 10,000 messages it loses patience
	tests.TestPubSub(t, features,
		func(t *testing.T) (message.Publisher, message.Subscriber) { return make(t, "suite") }, make)
}

// ... and without: each subscriber begins at the beginning then.
func TestWatermillSuiteWithTheCheckpointOfTheCaller(t *testing.T) {
	nc := connect(t, startServer(t))
	features := tests.Features{GuaranteedOrder: true, Persistent: true, NewSubscriberReceivesOldMessages: true, ForceShort: true}
	tests.TestPubSub(t, features, func(t *testing.T) (message.Publisher, message.Subscriber) {
		return &publisher{js: jetStream(t, nc)}, subscriberOfSuite(t, nc, "")
	}, nil)
}

// The suite's own stress test runs all of it ten times at once; here it is four, and the short form.
func TestWatermillStressSuite(t *testing.T) {
	t.Setenv("STRESS_TEST_COUNT", "4")
	nc := connect(t, startServer(t))
	make := func(t *testing.T, durable string) (message.Publisher, message.Subscriber) {
		return &publisher{js: jetStream(t, nc)}, subscriberOfSuite(t, nc, durable)
	}
	features := tests.Features{ConsumerGroups: true, GuaranteedOrder: true, Persistent: true, ForceShort: true}
	tests.TestPubSubStressTest(t, features,
		func(t *testing.T) (message.Publisher, message.Subscriber) { return make(t, "suite") }, make)
}

// subscriberOfSuite is a Subscriber that makes the stream of a topic before the suite publishes to it.
func subscriberOfSuite(t *testing.T, nc *nats.Conn, durable string) message.Subscriber {
	return withStreams{t, nc, newSubscriber(t, consumer.Config{
		Conn: nc, Durable: durable, CloseTimeout: 50 * time.Millisecond,
		Delay: func(*message.Message, int) time.Duration { return 0 },
	})}
}

type withStreams struct {
	t  *testing.T
	nc *nats.Conn
	*consumer.Subscriber
}

func (s withStreams) SubscribeInitialize(topic string) error {
	_, err := jetStream(s.t, s.nc).CreateOrUpdateStream(context.Background(), jetstream.StreamConfig{Name: topic, Subjects: []string{topic}})
	return err
}

// publisher publishes to the stream that is called as the topic, in the form of decisions.
type publisher struct{ js jetstream.JetStream }

func (p *publisher) Publish(topic string, messages ...*message.Message) error {
	var errs []error
	for _, msg := range messages {
		m := nats.NewMsg(topic)
		for name, value := range msg.Metadata {
			m.Header[name] = []string{value}
		}
		m.Header["ce-id"], m.Data = []string{msg.UUID}, msg.Payload
		_, err := p.js.PublishMsg(context.Background(), m)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (p *publisher) Close() error { return nil }
