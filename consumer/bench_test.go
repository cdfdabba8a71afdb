package consumer_test

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"jobtally/consumer"
	"jobtally/internal/events"
)

// BenchmarkSubscriber measures messages of the size of a capture through a Subscriber whose reader acks at once, in the process of the server.
func BenchmarkSubscriber(b *testing.B) {
	for _, durable := range []string{"d", ""} {
		for _, partitions := range []int{1, 4} {
			b.Run(fmt.Sprintf("durable=%t/partitions=%d", durable != "", partitions), func(b *testing.B) {
				nc := connect(b, startServer(b))
				d := makeDecisions(b, nc, partitions)
				fill(b, d, b.N, partitions)
				messages := subscribe(b, newSubscriber(b, consumer.Config{Conn: nc, Durable: durable}), consumer.Decisions)
				b.ResetTimer()
				for range b.N {
					take(b, messages).Ack()
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
			})
		}
	}
}

func fill(b *testing.B, d *decisions, n, partitions int) {
	b.Helper()
	body := &events.JobCaptured{Job: events.Job{Title: "Engineer", SourceURL: "https://example.org/1"}}
	js, err := jetstream.New(d.js.Conn(), jetstream.WithPublishAsyncMaxPending(1000))
	if err != nil {
		b.Fatal(err)
	}
	for i := range n {
		if _, err := js.PublishMsgAsync(sealed(events.Position{Partition: i % partitions, Sequence: 1}, "anna", body)); err != nil {
			b.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
}
