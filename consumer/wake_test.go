package consumer_test

import (
	"context"
	"testing"
	"time"

	"jobtally/consumer"
)

// TestAMessageThatRestsIsRoused has one that was nacked for an hour come again once something is sent, and to a later
// subscriber once the subscription ended.
func TestAMessageThatRestsIsRoused(t *testing.T) {
	t.Parallel()
	nc := connect(t, startServer(t))
	makeDecisions(t, nc, 1).capture(0, "anna", 2)
	wake := make(chan struct{})
	config := consumer.Config{Conn: nc, Durable: "d", Delay: rest(time.Hour), Wake: wake, AckWait: time.Hour}
	first, err := consumer.NewSubscriber(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	messages, err := first.Subscribe(ctx, "DECISIONS_0")
	if err != nil {
		t.Fatal(err)
	}
	for times := range 20 {
		wantNext(t, messages, "0-1", times+1).Nack()
		wake <- struct{}{} // which is taken once the message rests
	}
	wantNext(t, messages, "0-1", 21).Nack()
	cancel()
	wantClosed(t, messages)
	messages = subscribe(t, newSubscriber(t, config), "DECISIONS_0")
	wantNext(t, messages, "0-1", 22).Ack()
	wantNext(t, messages, "0-2", 1).Ack()
}
