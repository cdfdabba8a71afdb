package consumer_test

import (
	"context"
	"errors"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"jobtally/consumer"
	"jobtally/internal/events"
)

// pruneTo removes what is before a sequence, as an operator does who has the archives.
func (d *decisions) pruneTo(sequence uint64) {
	d.t.Helper()
	stream, err := d.js.Stream(context.Background(), "DECISIONS_0")
	if err == nil {
		err = stream.Purge(context.Background(), jetstream.WithPurgeSequence(sequence))
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *decisions) archive(month consumer.Month, first, last uint64) {
	d.t.Helper()
	d.decide(0, "", &events.MonthArchived{Month: month, Totals: events.Totals{
		First: consumer.Position{Sequence: first}, Last: consumer.Position{Sequence: last},
	}})
}

// Where decisions were pruned, whoever asks for them is told which archive has them.
func TestAPrunedStartNamesTheArchive(t *testing.T) {
	bothWays(t, func(t *testing.T, durable string) {
		nc := connect(t, startServer(t))
		d := makeDecisions(t, nc, 1)
		d.capture(0, "anna", 10)
		d.archive("2026-09", 1, 10)
		d.capture(0, "anna", 4)
		d.archive("2026-10", 9, 15) // the last two before September was closed count in October
		d.capture(0, "anna", 3)
		d.pruneTo(13)
		for asked, says := range map[uint64]string{
			1:  "position 0-1 was pruned, the first that is there is 0-13; the archive of a month before 2026-10 has it. Read the archive, and then start after 12",
			12: "position 0-12 was pruned, the first that is there is 0-13; the archive of 2026-10 has it. Read the archive, and then start after 12",
		} {
			config := consumer.Config{Conn: nc, Durable: durable, Start: after(asked - 1)}
			_, err := newSubscriber(t, config).Subscribe(context.Background(), "DECISIONS_0")
			pruned, ok := errors.AsType[*consumer.PrunedError](err)
			if !ok || pruned.Error() != says || pruned.Asked.Sequence != asked || pruned.First.Sequence != 13 {
				t.Errorf("after %d Subscribe says %v", asked-1, err)
			}
		}
		config := consumer.Config{Conn: nc, Durable: durable, Start: after(12)}
		wantNext(t, subscribe(t, newSubscriber(t, config), "DECISIONS_0"), "0-13", 1)
	})
}

// What is missing because its account was erased was not pruned.
func TestErasedAccountsLeaveNoPrunedStart(t *testing.T) {
	bothWays(t, func(t *testing.T, durable string) {
		nc := connect(t, startServer(t))
		d := makeDecisions(t, nc, 1)
		d.capture(0, "anna", 5)
		d.decide(0, "anna", &events.AccountErased{Requests: 5})
		d.capture(0, "bert", 1)
		d.pruneTo(6)
		config := consumer.Config{Conn: nc, Durable: durable, Start: after(2)}
		messages := subscribe(t, newSubscriber(t, config), "DECISIONS_0")
		wantNext(t, messages, "0-6", 1).Ack()
		wantNext(t, messages, "0-7", 1).Ack()
	})
}

// A position that the stream does not have yet would be waited for without a word.
func TestAStartBeyondTheStreamIsRefused(t *testing.T) {
	bothWays(t, func(t *testing.T, durable string) {
		nc := connect(t, startServer(t))
		makeDecisions(t, nc, 1).capture(0, "anna", 5)
		config := consumer.Config{Conn: nc, Durable: durable, Start: after(6)}
		if _, err := newSubscriber(t, config).Subscribe(context.Background(), "DECISIONS_0"); !errors.Is(err, consumer.ErrAhead) {
			t.Errorf("Subscribe says %v", err)
		}
	})
}
