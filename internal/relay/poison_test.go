package relay

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/webhook"
)

// TestWhatIsGivenUpIsRedriven has one event be refused for good, and accepted later.
func TestWhatIsGivenUpIsRedriven(t *testing.T) {
	h := newHouse(t)
	var mended atomic.Bool
	rcv := receive(t, func(w http.ResponseWriter, id string) {
		if (id == "evt_0-1" || id == "evt_0-2") && !mended.Load() {
			w.WriteHeader(http.StatusBadRequest)
		}
	})
	cfg := h.config()
	cfg.RootCAs = rcv.trusted()
	r, _ := run(t, cfg)
	e := create(t, r, "demo", rcv.URL)
	for range 3 {
		h.capture(t, "demo")
	}
	rcv.wantIDs(t, "evt_0-1", "evt_0-1", "evt_0-1", "evt_0-2", "evt_0-2", "evt_0-2", "evt_0-3")
	progressed(t, r, e, "all are done with", func(p webhook.Progress) bool { return p.Pending == 0 && p.Poisoned == 2 })

	left, told := redrive(t, r, e)
	if left != 2 || len(told) != 2 || told[0].Outcome != webhook.Failed || told[0].Attempt != 4 || told[0].Cause != webhook.ByRedrive {
		t.Errorf("%d are left: %+v", left, told)
	}
	rcv.wantIDs(t, "evt_0-1", "evt_0-2")
	mended.Store(true)
	if left, told = redrive(t, r, e); left != 0 || len(told) != 2 || told[1].Outcome != webhook.Accepted || told[1].MessageID != "evt_0-2" {
		t.Errorf("%d are left: %+v", left, told)
	}
	rcv.wantIDs(t, "evt_0-1", "evt_0-2")
	if left, told = redrive(t, r, e); left != 0 || len(told) != 0 {
		t.Errorf("%d are left: %+v", left, told)
	}
}

func redrive(t *testing.T, r *Relay, e webhook.Endpoint) (left int, told []webhook.Delivery) {
	t.Helper()
	left = must[int](t)(r.Redrive(within(t), e.Account, e.ID, func(d webhook.Delivery) { told = append(told, d) }))
	return left, told
}

// TestRedeliveryIsMarked sends what was accepted once more, and ends at what is not.
func TestRedeliveryIsMarked(t *testing.T) {
	h := newHouse(t)
	var refused atomic.Pointer[string]
	rcv := receive(t, func(w http.ResponseWriter, id string) {
		if r := refused.Load(); r != nil && *r == id {
			w.WriteHeader(http.StatusBadRequest)
		}
	})
	cfg := h.config()
	cfg.RootCAs = rcv.trusted()
	r, _ := run(t, cfg)
	h.capture(t, "demo") // before the endpoint: it can be sent all the same
	e := create(t, r, "demo", rcv.URL)
	h.decide(t, "demo", captured(100))
	h.capture(t, "other")
	h.capture(t, "demo")
	rcv.wantIDs(t, "evt_0-2", "evt_0-2-threshold", "evt_0-4")

	at := func(n uint64) events.Position { return events.Position{Sequence: n} }
	var told []webhook.Delivery
	tell := func(d webhook.Delivery) { told = append(told, d) }
	ok(t, r.Redeliver(within(t), "demo", e.ID, at(1), at(3), tell))
	for _, id := range []string{"evt_0-1", "evt_0-2", "evt_0-2-threshold"} {
		g := rcv.next(t)
		if g.id() != id || g.header.Get("Webhook-Redelivery") != "true" {
			t.Errorf("got %v, want %s, marked", g.header, id)
		}
		ok(t, verify(t, e.Secrets[0], g))
	}
	if len(told) != 3 || told[0].Cause != webhook.ByRedeliver || told[0].Outcome != webhook.Accepted {
		t.Errorf("told %+v", told)
	}
	bad := "evt_0-2-threshold"
	refused.Store(&bad)
	err := r.Redeliver(within(t), "demo", e.ID, at(1), at(9), tell)
	if err == nil || !strings.Contains(err.Error(), "--from 0-2") {
		t.Errorf("the error is %v", err)
	}
	rcv.wantIDs(t, "evt_0-1", "evt_0-2", "evt_0-2-threshold")
	rcv.wantNothing(t)
	if err := r.Redeliver(within(t), "demo", e.ID, events.Position{Partition: 1, Sequence: 1}, at(9), tell); err == nil {
		t.Error("another partition is taken")
	}
}

// TestPoisonIsPutAsideOnce has a relay die after it put an event aside, and before it said so.
func TestPoisonIsPutAsideOnce(t *testing.T) {
	h, rcv := newHouse(t), receive(t, func(w http.ResponseWriter, _ string) { w.WriteHeader(http.StatusBadRequest) })
	cfg := h.config()
	cfg.RootCAs, cfg.Schedule = rcv.trusted(), []time.Duration{0}
	r := open(t, cfg)
	e := create(t, r, "demo", rcv.URL)
	h.capture(t, "demo")
	event := must[events.Event](t)(r.event(within(t), &e, &poisonRecord{Position: 1, Event: "0-1"}))
	w := &worker{relay: r}
	w.endpoint.Store(&e)
	ok(t, poisonQueue{r}.put(within(t), &attempt{worker: w, event: &event, given: &webhook.Delivery{Attempt: 1}}))
	run(t, cfg)
	rcv.wantIDs(t, "evt_0-1")
	p := done(t, r, e)
	if p.Poisoned != 1 {
		t.Errorf("it is there %d times", p.Poisoned)
	}
}
