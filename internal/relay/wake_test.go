package relay

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/webhook"
)

// TestWhatIsBroughtForwardIsSentAtOnce has an event rest at the server for an hour, with either of two relays, until somebody has
// its next attempt brought forward.
func TestWhatIsBroughtForwardIsSentAtOnce(t *testing.T) {
	yes, no := true, false
	for name, does := range map[string]func(*testing.T, *Relay, webhook.Endpoint){
		"enabled again": func(t *testing.T, r *Relay, e webhook.Endpoint) {
			must[webhook.Endpoint](t)(r.Change(within(t), "demo", e.ID, 0, webhook.Change{Enabled: &yes}))
		},
		"disabled and enabled": func(t *testing.T, r *Relay, e webhook.Endpoint) {
			must[webhook.Endpoint](t)(r.Change(within(t), "demo", e.ID, 0, webhook.Change{Enabled: &no}))
			must[webhook.Endpoint](t)(r.Change(within(t), "demo", e.ID, 0, webhook.Change{Enabled: &yes}))
		},
		"disabled for long, and enabled": func(t *testing.T, r *Relay, e webhook.Endpoint) {
			must[webhook.Endpoint](t)(r.Change(within(t), "demo", e.ID, 0, webhook.Change{Enabled: &no}))
			until(t, "nobody asks for its events", func() bool {
				durable := must[jetstream.Consumer](t)(r.store.decisions[0].Consumer(within(t), durableOf(e.ID)))
				return durable.CachedInfo().NumWaiting == 0
			})
			must[webhook.Endpoint](t)(r.Change(within(t), "demo", e.ID, 0, webhook.Change{Enabled: &yes}))
		},
		"a test is accepted": func(t *testing.T, r *Relay, e webhook.Endpoint) {
			must[webhook.Delivery](t)(r.Test(within(t), "demo", e.ID))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, down := newHouse(t), atomic.Bool{}
			down.Store(true)
			rcv := receive(t, func(w http.ResponseWriter, id string) {
				if down.Load() {
					w.WriteHeader(http.StatusBadGateway)
				}
			})
			cfg := h.config()
			cfg.RootCAs, cfg.Schedule, cfg.rest = rcv.trusted(), []time.Duration{0, time.Hour}, time.Hour
			r, _ := run(t, cfg)
			run(t, cfg)
			e := create(t, r, "demo", rcv.URL)
			h.capture(t, "demo")
			rcv.wantIDs(t, "evt_0-1")
			progressed(t, r, e, "it waits", func(p webhook.Progress) bool { return !p.NextAttempt.IsZero() })
			down.Store(false)
			does(t, r, e)
			for g := rcv.next(t); g.id() != "evt_0-1"; {
				g = rcv.next(t)
			}
			done(t, r, e)
		})
	}
}

// TestNothingThatIsGivenBackIsHeldUp has two relays give back one event again and again, at once and after a rest, while the server
// would give none that it takes for outstanding to anybody within an hour.
func TestNothingThatIsGivenBackIsHeldUp(t *testing.T) {
	h, failures := newHouse(t), atomic.Int32{}
	const times = 50
	rcv := receive(t, func(w http.ResponseWriter, _ string) {
		if failures.Add(1) <= times {
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	cfg := h.config()
	cfg.RootCAs, cfg.ackWait, cfg.Schedule = rcv.trusted(), time.Hour, make([]time.Duration, times+1)
	for i := 0; i < times; i += 2 {
		cfg.Schedule[i] = time.Millisecond
	}
	r, _ := run(t, cfg)
	run(t, cfg)
	e := create(t, r, "demo", rcv.URL)
	h.capture(t, "demo")
	p := done(t, r, e)
	if p.Poisoned != 0 || len(rcv.all) != times+1 {
		t.Errorf("after %d attempts the progress is %+v", len(rcv.all), p)
	}
}
