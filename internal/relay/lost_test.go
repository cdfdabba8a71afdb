package relay

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
	"jobtally/internal/webhook"
)

// TestAStreamThatIsDeletedIsMadeAnew has each stream of the webhooks deleted under a relay that runs, and the bucket made by
// somebody else before the relay looks.
func TestAStreamThatIsDeletedIsMadeAnew(t *testing.T) {
	for _, c := range []struct {
		stream string
		again  bool
	}{{bucketStream, false}, {bucketStream, true}, {deliveriesStream, false}, {poisonStream, false}} {
		t.Run(c.stream, func(t *testing.T) {
			t.Parallel()
			h, rcv := newHouse(t), receive(t, nil)
			cfg := h.config()
			cfg.RootCAs, cfg.look = rcv.trusted(), 50*time.Millisecond
			r := open(t, cfg)
			ended := make(chan error, 1)
			go func() { ended <- r.Run(context.Background()) }()
			create(t, r, "demo", rcv.URL)
			h.capture(t, "demo")
			rcv.wantIDs(t, "evt_0-1")
			js := must[jetstream.JetStream](t)(jetstream.New(h.conn))
			ok(t, js.DeleteStream(within(t), c.stream))
			if c.again {
				open(t, cfg)
			}
			select {
			case err := <-ended:
				if !errors.Is(err, errLost) {
					t.Errorf("it ended with %v", err)
				}
			case <-within(t).Done():
				t.Fatal("it goes on")
			}
			cfg.look = time.Hour
			r, _ = run(t, cfg)
			if c.stream == bucketStream {
				create(t, r, "demo", rcv.URL)
			}
			h.capture(t, "demo")
			rcv.wantIDs(t, "evt_0-2")
			if all := must[[]webhook.Endpoint](t)(r.All(within(t))); len(all) != 1 {
				t.Errorf("there are %d", len(all))
			}
		})
	}
}

// TestProgressWithoutAConsumer has the consumer of an endpoint lost that nobody sends to.
func TestProgressWithoutAConsumer(t *testing.T) {
	h, off := newHouse(t), false
	r := open(t, h.config())
	e := create(t, r, "demo", "https://hooks.example")
	must[webhook.Endpoint](t)(r.Change(within(t), "demo", e.ID, 0, webhook.Change{Enabled: &off}))
	h.capture(t, "demo")
	ok(t, r.dropDurable(within(t), e.ID, 0))
	progressed(t, r, e, "it is there again", func(p webhook.Progress) bool { return p.Pending == 1 })
	ok(t, r.Remove(within(t), "demo", e.ID, 0))
	if _, err := r.Progress(within(t), e); !errors.Is(err, events.ErrNotFound) {
		t.Errorf("once it is removed: %v", err)
	}
}
