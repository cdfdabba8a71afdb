package relay

import (
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobtally/internal/events"
	"jobtally/internal/webhook"
)

// said is what a log says.
type said struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *said) Write(line []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(line)
}

func (s *said) has(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(s.text.String(), text)
}

// by writes by hand what lies beside the ledger.
func (r *Relay) by(t *testing.T, subject, data string) {
	t.Helper()
	must[uint64](t)(r.store.publish(within(t), &nats.Msg{Subject: subject, Data: []byte(data)}))
}

// TestARecordThatCannotBeReadHoldsUpItself has records of a newer version, and of a person, among the endpoints.
func TestARecordThatCannotBeReadHoldsUpItself(t *testing.T) {
	for name, record := range map[string]string{
		"no JSON": "x", "nothing": "", "null": "null", "another form": `{"url":["https://hooks.example"]}`,
		"another state": `{"url":"https://127.0.0.1:1","state":"paused","secrets":[{"value":"whsec_aaaa"}]}`,
		"no secret":     `{"url":"https://127.0.0.1:1","state":"enabled"}`,
		"no key":        `{"url":"https://127.0.0.1:1","state":"enabled","secrets":[{"value":"whsec_"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, rcv, ctx := newHouse(t), receive(t, nil), within(t)
			cfg := h.config()
			said := &said{}
			cfg.RootCAs, cfg.Log = rcv.trusted(), slog.New(slog.NewTextHandler(said, nil))
			r := open(t, cfg)
			bad := create(t, r, "demo", rcv.URL+"/bad")
			r.by(t, bucketSubject+keyOf("demo", bad.ID), record)
			r.by(t, bucketSubject+"Nobody."+bad.ID, record)
			run(t, cfg)
			good := create(t, r, "demo", rcv.URL)
			other := create(t, r, "other", rcv.URL)
			r.by(t, bucketSubject+keyOf("other", other.ID), record) // while it is followed
			h.capture(t, "other")
			h.capture(t, "demo")
			for g := rcv.next(t); g.id() != "evt_0-2"; { // other's may have come before
				g = rcv.next(t)
			}
			done(t, r, good)

			for _, want := range []string{"cannot be read: it is sent nothing", "webhook=" + bad.ID, "webhook=" + other.ID, "key=Nobody." + bad.ID} {
				until(t, want+" is in the log", func() bool { return said.has(want) })
			}
			all := must[[]webhook.Endpoint](t)(r.List(ctx, "demo"))
			if len(all) != 2 || all[0].State != good.State && all[1].State != good.State {
				t.Errorf("the list is %+v", all)
			}
			is := must[webhook.Endpoint](t)(r.Get(ctx, "demo", bad.ID))
			if is.State != webhook.Unreadable || is.Version <= bad.Version || is.CreatedAt.IsZero() {
				t.Errorf("it is %+v", is)
			}
			if c := must[Census](t)(r.Census(ctx)); c.ByState[webhook.Unreadable] != 2 || c.ByState[webhook.Enabled] != 1 {
				t.Errorf("the census is %+v", c)
			}
			if p := must[webhook.Progress](t)(r.Progress(ctx, is)); p.Pending != 1 {
				t.Errorf("its progress is %+v", p)
			}
			yes := true
			_, changing := r.Change(ctx, "demo", bad.ID, 0, webhook.Change{Enabled: &yes})
			_, rotating := r.Rotate(ctx, "demo", bad.ID, 0)
			_, testing := r.Test(ctx, "demo", bad.ID)
			_, redriving := r.Redrive(ctx, "demo", bad.ID, nil)
			redelivering := r.Redeliver(ctx, "demo", bad.ID, events.Position{Sequence: 1}, events.Position{Sequence: 2}, nil)
			for _, err := range []error{changing, rotating, testing, redriving, redelivering} {
				if !errors.Is(err, webhook.ErrUnreadable) {
					t.Error("it is done: ", err)
				}
			}

			t.Log("no sweep takes it away, nor what is not known, but the erasure of its account does")
			r.by(t, bucketSubject+"settings", "1")
			r.by(t, bucketSubject+keyOf("demo", good.ID)+".later", "2")
			ok(t, r.Sweep(ctx))
			for _, key := range []string{"settings", keyOf("demo", good.ID) + ".later", keyOf("demo", bad.ID)} {
				if _, err := last(ctx, r.store.bucket, bucketSubject+key); err != nil {
					t.Errorf("%s: %v", key, err)
				}
			}
			must[webhook.Endpoint](t)(r.Get(ctx, "demo", bad.ID))
			h.mu.Lock()
			h.erasures = append(h.erasures, events.Decision{Account: "other", Position: events.Position{Sequence: 1}, Time: time.Now().Add(time.Minute)})
			h.mu.Unlock()
			ok(t, r.Sweep(ctx))
			if _, err := r.Get(ctx, "other", other.ID); !errors.Is(err, events.ErrNotFound) {
				t.Errorf("that of the erased account: %v", err)
			}

			t.Log("it goes on where it stopped once it can be read")
			rcv.wantNothing(t)
			must[uint64](t)(r.store.write(ctx, keyOf("demo", bad.ID), toRecord(&bad), is.Version))
			rcv.wantIDs(t, "evt_0-2")
			ok(t, r.Remove(ctx, "demo", bad.ID, 0))
		})
	}
}

// TestNothingIsSentUnsigned has the only secret of an endpoint be one that has expired.
func TestNothingIsSentUnsigned(t *testing.T) {
	h, rcv := newHouse(t), receive(t, nil)
	cfg := h.config()
	cfg.RootCAs = rcv.trusted()
	r := open(t, cfg)
	e := create(t, r, "demo", rcv.URL)
	e.Secrets[0].ExpiresAt = time.Now().Add(-time.Minute)
	must[uint64](t)(r.store.write(within(t), keyOf("demo", e.ID), toRecord(&e), e.Version))
	if d := must[webhook.Delivery](t)(r.Test(within(t), "demo", e.ID)); d.Outcome != webhook.Failed || d.Error != "it has no secret that is valid: make another" {
		t.Errorf("the test is %+v", d)
	}
	rcv.wantNothing(t)
	must[webhook.Endpoint](t)(r.Rotate(within(t), "demo", e.ID, 0))
	if d := must[webhook.Delivery](t)(r.Test(within(t), "demo", e.ID)); d.Outcome != webhook.Accepted {
		t.Errorf("the test is %+v", d)
	}
}

// TestWhatCannotBeReadOfADelivery has the progress, the log and the poison queue be of a newer version.
func TestWhatCannotBeReadOfADelivery(t *testing.T) {
	h, mended, ctx := newHouse(t), atomic.Bool{}, within(t)
	rcv := receive(t, func(w http.ResponseWriter, id string) {
		if !mended.Load() {
			w.WriteHeader(http.StatusBadRequest)
		}
	})
	cfg := h.config()
	cfg.RootCAs, cfg.Schedule = rcv.trusted(), []time.Duration{0}
	r := open(t, cfg)
	e := create(t, r, "demo", rcv.URL)
	for _, subject := range []string{bucketSubject + keyOf("demo", e.ID) + progressSuffix, poisonPrefix + keyOf("demo", e.ID), deliveriesPrefix + keyOf("demo", e.ID)} {
		r.by(t, subject, "x")
	}
	if p := must[webhook.Progress](t)(r.Progress(ctx, e)); p.Waits == "" {
		t.Errorf("the progress is %+v", p)
	}
	run(t, cfg)
	h.capture(t, "demo")
	rcv.wantIDs(t, "evt_0-1")
	p := progressed(t, r, e, "it is given up", func(p webhook.Progress) bool { return p.Pending == 0 && p.Poisoned == 2 })
	if p.Waits != "" || p.ConsecutiveFailures != 1 {
		t.Errorf("the progress is %+v", p)
	}
	if all := must[[]webhook.Delivery](t)(r.Deliveries(ctx, "demo", e.ID, 0, 10)); len(all) != 1 {
		t.Errorf("the log is %+v", all)
	}
	mended.Store(true)
	if left, told := redrive(t, r, e); left != 1 || len(told) != 1 || told[0].MessageID != "evt_0-1" {
		t.Errorf("%d are left: %+v", left, told)
	}
}

// TestWhatIsDisabledIsSentNothingByAnOperator has an endpoint be disabled before, and in the middle of what an operator sends.
func TestWhatIsDisabledIsSentNothingByAnOperator(t *testing.T) {
	h, mended, ctx := newHouse(t), atomic.Bool{}, within(t)
	rcv := receive(t, func(w http.ResponseWriter, _ string) {
		if !mended.Load() {
			w.WriteHeader(http.StatusBadRequest)
		}
	})
	cfg := h.config()
	cfg.RootCAs, cfg.Schedule = rcv.trusted(), []time.Duration{0}
	r, _ := run(t, cfg)
	e := create(t, r, "demo", rcv.URL)
	h.capture(t, "demo")
	h.capture(t, "demo")
	rcv.wantIDs(t, "evt_0-1", "evt_0-2")
	progressed(t, r, e, "they are given up", func(p webhook.Progress) bool { return p.Pending == 0 && p.Poisoned == 2 })
	mended.Store(true)
	set := func(enabled bool) {
		must[webhook.Endpoint](t)(r.Change(ctx, "demo", e.ID, 0, webhook.Change{Enabled: &enabled}))
	}
	disable := func(webhook.Delivery) { set(false) }
	first, second := events.Position{Sequence: 1}, events.Position{Sequence: 2}
	for range 2 { // it is disabled by the first event that is sent, and then before
		if _, err := r.Redrive(ctx, "demo", e.ID, disable); !errors.Is(err, webhook.ErrNotEnabled) {
			t.Errorf("the poison queue: %v", err)
		}
	}
	rcv.wantIDs(t, "evt_0-1")
	set(true)
	for range 2 {
		if err := r.Redeliver(ctx, "demo", e.ID, first, second, disable); !errors.Is(err, webhook.ErrNotEnabled) {
			t.Errorf("once more: %v", err)
		}
	}
	rcv.wantIDs(t, "evt_0-1")
	rcv.wantNothing(t)
	set(true)
	if left, told := redrive(t, r, e); left != 0 || len(told) != 1 {
		t.Errorf("%d are left: %+v", left, told)
	}
}
