package consumer_test

import (
	"context"
	"fmt"
	"log"

	"github.com/nats-io/nats.go"

	"jobtally/consumer"
)

// The server keeps the checkpoint: each message is acked when it is dealt with, and comes again when it is not.
func Example() {
	url, stop := exampleLedger()
	defer stop()

	nc, err := nats.Connect(url)
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	subscriber, err := consumer.NewSubscriber(consumer.Config{
		Conn: nc, Durable: "mailer", Filters: []string{"jobs.*.*.captured"},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer subscriber.Close()
	messages, err := subscriber.Subscribe(context.Background(), consumer.Decisions)
	if err != nil {
		log.Fatal(err)
	}
	for msg := range messages {
		var captured consumer.JobCaptured
		if err := (consumer.Marshaler{}).Unmarshal(msg, &captured); err != nil {
			msg.Nack()
			continue
		}
		fmt.Println(msg.Metadata.Get(consumer.MetadataPosition), msg.Metadata.Get(consumer.MetadataAccount), captured.Job.Title)
		msg.Ack()
		break // the ledger of this example has one
	}
	// Output: 0-1 anna Engineer
}

// The caller keeps the checkpoint: it says where to go on, and remembers the position of what it took in. Here that is a
// variable; README.md has a table of a database, and one transaction.
func ExampleAfter() {
	url, stop := exampleLedger()
	defer stop()
	checkpoint := map[string]uint64{"DECISIONS_0": 0}

	nc, err := nats.Connect(url)
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	subscriber, err := consumer.NewSubscriber(consumer.Config{
		Conn: nc,
		Start: func(_ context.Context, stream string) (consumer.Start, error) {
			return consumer.After(checkpoint[stream]), nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer subscriber.Close()
	messages, err := subscriber.Subscribe(context.Background(), "DECISIONS_0")
	if err != nil {
		log.Fatal(err)
	}
	msg := <-messages
	position, err := consumer.PositionOf(msg)
	if err != nil {
		log.Fatal(err)
	}
	checkpoint["DECISIONS_0"] = position.Sequence
	msg.Ack()
	fmt.Println("goes on after", position)
	// Output: goes on after 0-1
}
