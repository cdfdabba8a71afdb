package relay

import (
	"context"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/webhook"
)

// TestNothingIsStoppedByWhatAServerDoesNotHaveYet has the one that follows the bucket come back to a server of a cluster that is
// behind: it tells of no webhook, or of how one was.
func TestNothingIsStoppedByWhatAServerDoesNotHaveYet(t *testing.T) {
	h, rcv := newHouse(t), receive(t, nil)
	cfg := h.config()
	cfg.RootCAs = rcv.trusted()
	r := open(t, cfg)
	router := runRouter(t, r)
	b := &switchboard{relay: r, router: router, workers: map[string]*worker{}}
	e := create(t, r, "demo", rcv.URL)
	key := keyOf(e.Account, e.ID)
	ok(t, b.switchTo(within(t), key, &e))
	h.capture(t, "demo")
	rcv.wantIDs(t, "evt_0-1")

	ok(t, b.stopUnseen(within(t), map[string]bool{}))
	older := e
	older.State, older.Version = webhook.Disabled, e.Version-1
	ok(t, b.switchTo(within(t), key, &older))
	h.capture(t, "demo")
	rcv.wantIDs(t, "evt_0-2")

	t.Log("one that is stopped may be told of again, as it was, before it ended")
	done(t, r, e) // an attempt that is cut short would be made twice
	b.workers[key].handler.Stop()
	delete(b.workers, key)
	ok(t, b.switchTo(within(t), key, &e))
	h.capture(t, "demo")
	rcv.wantIDs(t, "evt_0-3")

	ok(t, r.Remove(within(t), e.Account, e.ID, 0))
	ok(t, b.stopUnseen(within(t), map[string]bool{}))
	if len(b.workers) != 0 {
		t.Error("one that is removed goes on")
	}
}

// behind is a stream whose consumers are with a server of a cluster that has nothing of it yet.
type behind struct{ jetstream.Stream }

func (b behind) CreateConsumer(ctx context.Context, cfg jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	cfg.FilterSubject = "nothing"
	return b.Stream.CreateConsumer(ctx, cfg)
}

// TestARemovedWebhookLeavesNothingOnAServerThatIsBehind has what is to be written over be found by who leads the streams.
func TestARemovedWebhookLeavesNothingOnAServerThatIsBehind(t *testing.T) {
	h, rcv := newHouse(t), receive(t, nil)
	cfg := h.config()
	cfg.RootCAs = rcv.trusted()
	r := open(t, cfg)
	e := create(t, r, "demo", rcv.URL)
	for range 3 {
		must[webhook.Delivery](t)(r.Test(within(t), e.Account, e.ID))
		must[webhook.Endpoint](t)(r.Change(within(t), e.Account, e.ID, 0, webhook.Change{Description: new(string)}))
	}
	r.store.bucket, r.store.deliveries = behind{r.store.bucket}, behind{r.store.deliveries}
	ok(t, r.Remove(within(t), e.Account, e.ID, 0))
	ok(t, r.Sweep(within(t)))
	for subject, n := range must[map[string]uint64](t)(counts(within(t), r.store.bucket, bucketSubject+">")) {
		if n > 1 {
			t.Errorf("%d revisions stay under %s", n, subject)
		}
	}
	if left := must[map[string]uint64](t)(counts(within(t), r.store.deliveries, deliveriesPrefix+">")); len(left) > 0 {
		t.Errorf("deliveries stay: %v", left)
	}
}

// runRouter returns a router that runs until the test ends.
func runRouter(t *testing.T, r *Relay) *message.Router {
	t.Helper()
	router := must[*message.Router](t)(r.router())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- router.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	<-router.Running()
	return router
}
