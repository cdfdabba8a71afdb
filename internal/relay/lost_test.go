package relay

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

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
