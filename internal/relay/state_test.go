package relay

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
	"jobtally/internal/webhook"
)

// TestStateSurvivesARestart stops everything while an event waits for its next attempt.
func TestStateSurvivesARestart(t *testing.T) {
	dir, down, clock := t.TempDir(), atomic.Bool{}, &clock{at: time.Now().UTC()}
	rcv := receive(t, func(w http.ResponseWriter, _ string) {
		if down.Load() {
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	configOf := func(h *house) Config {
		cfg := h.config()
		cfg.RootCAs, cfg.Now, cfg.Schedule = rcv.trusted(), clock.now, DefaultSchedule()
		return cfg
	}
	h := openHouse(t, dir)
	r, stop := run(t, configOf(h))
	e := create(t, r, "demo", rcv.URL)
	h.capture(t, "demo")
	rcv.wantIDs(t, "evt_0-1")
	down.Store(true)
	h.capture(t, "demo")
	rcv.wantIDs(t, "evt_0-2")
	before := progressed(t, r, e, "it waits", func(p webhook.Progress) bool { return p.ConsecutiveFailures == 1 })
	stop()
	h.close()

	h = openHouse(t, dir)
	r, _ = run(t, configOf(h))
	e = must[webhook.Endpoint](t)(r.Get(within(t), "demo", e.ID))
	after := must[webhook.Progress](t)(r.Progress(within(t), e))
	if before != after || after.LastSuccess.IsZero() || after.Attempts != 1 {
		t.Errorf("the progress was %+v, and is %+v", before, after)
	}
	h.rested(t, e, 2)
	rcv.wantNothing(t)
	down.Store(false)
	clock.pass(6 * time.Second)
	rcv.wantIDs(t, "evt_0-2")
	all := must[[]webhook.Delivery](t)(r.Deliveries(within(t), "demo", e.ID, 0, 10))
	until(t, "it is in the log", func() bool {
		all = must[[]webhook.Delivery](t)(r.Deliveries(within(t), "demo", e.ID, 0, 10))
		return len(all) == 3 && all[0].Attempt == 2 && all[0].Outcome == webhook.Accepted
	})
}

// TestTwoRelaysShareTheWork has both be told of each other's failures.
func TestTwoRelaysShareTheWork(t *testing.T) {
	h := newHouse(t)
	var mu sync.Mutex
	tries := map[string]int{}
	rcv := receive(t, func(w http.ResponseWriter, id string) {
		mu.Lock()
		defer mu.Unlock()
		if tries[id]++; tries[id] < 3 {
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	cfg := h.config()
	cfg.RootCAs = rcv.trusted()
	r, _ := run(t, cfg)
	_, stop := run(t, cfg)
	e := create(t, r, "demo", rcv.URL)
	const captures = 20
	for i := range captures {
		h.capture(t, "demo")
		if i == captures/2 {
			stop() // whatever it held is given back
		}
	}
	for i := range captures {
		id := "evt_0-" + strconv.Itoa(i+1)
		rcv.wantIDs(t, id, id, id)
	}
	if p := done(t, r, e); p.Poisoned != 0 {
		t.Errorf("the progress is %+v", p)
	}
	rcv.wantNothing(t)
}

// TestNothingIsSentForWhatIsReadAgain reads all decisions beside a relay, as a replay and a rebuild do.
func TestNothingIsSentForWhatIsReadAgain(t *testing.T) {
	h, rcv := newHouse(t), receive(t, nil)
	cfg := h.config()
	cfg.RootCAs = rcv.trusted()
	r, _ := run(t, cfg)
	e := create(t, r, "demo", rcv.URL)
	h.capture(t, "demo")
	rcv.wantIDs(t, "evt_0-1")
	for range 2 {
		if ids := h.eventIDs(t, "demo"); len(ids) != 1 {
			t.Errorf("read %v", ids)
		}
	}
	h.capture(t, "demo")
	rcv.wantIDs(t, "evt_0-2")
	done(t, r, e)
	rcv.wantNothing(t)
}

// TestADecisionThatIsLostIsNoErasedOne reads one that was erased, one that the server has not though it has later ones, and one that
// it has not, or not any more.
func TestADecisionThatIsLostIsNoErasedOne(t *testing.T) {
	h := newHouse(t)
	r := open(t, h.config())
	for range 2 {
		h.capture(t, "demo")
	}
	ok(t, r.store.decisions[0].DeleteMsg(within(t), 1))
	for _, p := range []uint64{1, 3} {
		if _, err := r.decision(within(t), "demo", events.Position{Sequence: p}); !errors.Is(err, events.ErrUnavailable) {
			t.Errorf("the one that is not there, %d: %v", p, err)
		}
	}
	h.decide(t, "demo", &events.AccountErased{})
	if _, err := r.decision(within(t), "demo", events.Position{Sequence: 1}); !errors.Is(err, events.ErrNotFound) {
		t.Errorf("the one that was erased: %v", err)
	}
}

// failing fails the writing of what it is told, before or after it is done.
type failing struct {
	jetstream.JetStream
	subject string
	after   bool
	left    atomic.Int32
}

func (f *failing) PublishMsg(ctx context.Context, m *nats.Msg, options ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	if !strings.HasPrefix(m.Subject, f.subject) || f.left.Add(-1) < 0 {
		return f.JetStream.PublishMsg(ctx, m, options...)
	}
	if f.after {
		if _, err := f.JetStream.PublishMsg(ctx, m, options...); err != nil {
			return nil, err
		}
	}
	return nil, nats.ErrTimeout
}

// unanswered makes streams, and does not say so.
type unanswered struct{ jetstream.JetStream }

func (u unanswered) CreateStream(ctx context.Context, config jetstream.StreamConfig) (jetstream.Stream, error) {
	if _, err := u.JetStream.CreateStream(ctx, config); err != nil {
		return nil, err
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestAStreamThatIsMadeWithoutAnAnswer has a stream be made as a cluster does that answers only one of those who ask for it.
func TestAStreamThatIsMadeWithoutAnAnswer(t *testing.T) {
	h := newHouse(t)
	js := must[jetstream.JetStream](t)(jetstream.New(h.conn))
	stream := must[jetstream.Stream](t)(openStream(within(t), unanswered{js}, jetstream.StreamConfig{Name: "made", Subjects: []string{"made"}}, 1))
	if name := stream.CachedInfo().Config.Name; name != "made" {
		t.Errorf("it is %s", name)
	}
}

// TestWritesThatFail has each write fail once, or be done and seem to fail, while an event is refused and then accepted.
func TestWritesThatFail(t *testing.T) {
	for _, subject := range []string{bucketSubject, poisonPrefix, deliveriesPrefix} {
		for _, after := range []bool{false, true} {
			t.Run(subject+strconv.FormatBool(after), func(t *testing.T) {
				t.Parallel()
				h := newHouse(t)
				rcv := receive(t, func(w http.ResponseWriter, id string) {
					if id == "evt_0-1" {
						w.WriteHeader(http.StatusBadRequest)
					}
				})
				cfg := h.config()
				cfg.RootCAs, cfg.Schedule = rcv.trusted(), make([]time.Duration, 2)
				r := open(t, cfg)
				e := create(t, r, "demo", rcv.URL)
				fault := &failing{JetStream: r.store.js, subject: subject, after: after}
				fault.left.Store(1)
				r.store.js = fault
				ctx, cancel := context.WithCancel(within(t))
				ended := make(chan error, 1)
				go func() { ended <- r.Run(ctx) }()
				h.capture(t, "demo")
				h.capture(t, "demo")
				p := done(t, r, e)
				if p.Poisoned != 1 || p.ConsecutiveFailures != 0 || fault.left.Load() > 0 {
					t.Errorf("the progress is %+v", p)
				}
				rcv.wantIDs(t, "evt_0-1", "evt_0-1")
				for g := rcv.next(t); g.id() != "evt_0-2"; g = rcv.next(t) {
					if g.id() != "evt_0-1" || subject != poisonPrefix {
						t.Errorf("got %s", g.id())
					}
				}
				cancel()
				ok(t, <-ended)
			})
		}
	}
}

func TestEndpointsAreChanged(t *testing.T) {
	h := newHouse(t)
	r := open(t, h.config())
	ctx := within(t)
	h.capture(t, "demo")
	e := create(t, r, "demo", "https://hooks.example/a", "jobtally.job")
	if e.After != (events.Position{Sequence: 1}) || e.State != webhook.Enabled || !validID(e.ID) || len(e.Secrets) != 1 || !strings.HasPrefix(e.Secrets[0].Value, "whsec_") {
		t.Errorf("made %+v", e)
	}
	url, text, off := "https://hooks.example/b", "for the list", false
	changed := must[webhook.Endpoint](t)(r.Change(ctx, "demo", e.ID, e.Version, webhook.Change{URL: &url, Description: &text, Enabled: &off, Types: &[]string{}}))
	if got := must[webhook.Endpoint](t)(r.Get(ctx, "demo", e.ID)); got.URL != url || got.Description != text || got.State != webhook.Disabled ||
		len(got.Types) != 0 || got.Version != changed.Version || got.After != e.After || got.Secrets[0] != e.Secrets[0] {
		t.Errorf("changed to %+v", got)
	}
	if _, err := r.Change(ctx, "demo", e.ID, e.Version, webhook.Change{}); !errors.Is(err, webhook.ErrVersion) {
		t.Errorf("the version before: %v", err)
	}
	bad := "https://127.0.0.1:x"
	var told *webhook.URLError
	if _, err := r.Change(ctx, "demo", e.ID, 0, webhook.Change{URL: &bad}); !errors.As(err, &told) {
		t.Errorf("a bad URL: %v", err)
	}
	for _, of := range []struct{ account, id string }{{"other", e.ID}, {"demo", "wh_x"}, {"demo", "*"}, {"demo", e.ID + ".progress"}, {"", e.ID}, {"*", e.ID}} {
		if _, err := r.Get(ctx, of.account, of.id); !errors.Is(err, events.ErrNotFound) {
			t.Errorf("%v: %v", of, err)
		}
	}
	for range webhook.MaxPerAccount - 1 {
		create(t, r, "demo", url)
	}
	if _, err := r.Create(ctx, "demo", url, "", nil); !errors.Is(err, webhook.ErrTooMany) {
		t.Errorf("one too many: %v", err)
	}
	create(t, r, "other", url)
	if err := r.Remove(ctx, "demo", e.ID, e.Version); !errors.Is(err, webhook.ErrVersion) {
		t.Errorf("the version before was removed: %v", err)
	}
	ok(t, r.Remove(ctx, "demo", e.ID, changed.Version))
	if all := must[[]webhook.Endpoint](t)(r.List(ctx, "demo")); len(all) != webhook.MaxPerAccount-1 {
		t.Errorf("%d are left", len(all))
	}
	if all := must[[]webhook.Endpoint](t)(r.All(ctx)); len(all) != webhook.MaxPerAccount {
		t.Errorf("%d are left of all", len(all))
	}
	if err := r.Remove(ctx, "demo", e.ID, 0); !errors.Is(err, events.ErrNotFound) {
		t.Errorf("removed again: %v", err)
	}
	if _, err := r.store.decisions[0].Consumer(ctx, durableOf(e.ID)); !errors.Is(err, jetstream.ErrConsumerNotFound) {
		t.Errorf("its consumer: %v", err)
	}
}

// TestManyAreRegisteredAtOnce leaves as many as an account may have.
func TestManyAreRegisteredAtOnce(t *testing.T) {
	h := newHouse(t)
	r := open(t, h.config())
	var registering sync.WaitGroup
	for range 3 * webhook.MaxPerAccount {
		registering.Go(func() {
			if _, err := r.Create(within(t), "demo", "https://hooks.example", "", nil); err != nil && !errors.Is(err, webhook.ErrTooMany) {
				t.Error(err)
			}
		})
	}
	registering.Wait()
	if all := must[[]webhook.Endpoint](t)(r.List(within(t), "demo")); len(all) != webhook.MaxPerAccount {
		t.Errorf("%d are there", len(all))
	}
}

// TestWebhooksLeaveRoomForReaders has more consumers than a server takes unless it is told otherwise.
func TestWebhooksLeaveRoomForReaders(t *testing.T) {
	h := newHouse(t)
	r := open(t, h.config())
	for range 1001 {
		must[jetstream.Consumer](t)(r.store.decisions[0].CreateConsumer(within(t), jetstream.ConsumerConfig{MemoryStorage: true, AckPolicy: jetstream.AckExplicitPolicy}))
	}
	h.capture(t, "demo")
	if ids := h.eventIDs(t, "demo"); len(ids) != 1 {
		t.Errorf("read %v", ids)
	}
}

// TestNothingIsLeftOfWhatIsErased looks into the files of the server.
func TestNothingIsLeftOfWhatIsErased(t *testing.T) {
	h := newHouse(t)
	rcv := receive(t, func(w http.ResponseWriter, _ string) { w.WriteHeader(http.StatusBadRequest) })
	cfg := h.config()
	cfg.RootCAs, cfg.Schedule = rcv.trusted(), make([]time.Duration, 2)
	r, _ := run(t, cfg)
	e := create(t, r, "demo", rcv.URL+"/erased-path")
	stays := create(t, r, "other", rcv.URL+"/path-that-stays")
	rotated := must[webhook.Endpoint](t)(r.Rotate(within(t), "demo", e.ID, time.Hour))
	h.capture(t, "demo")
	rcv.wantIDs(t, "evt_0-1", "evt_0-1")
	progressed(t, r, e, "it is given up", func(p webhook.Progress) bool { return p.Poisoned == 1 })
	traces := []string{"erased-path", e.Secrets[0].Value, rotated.Secrets[0].Value, `"event":"0-1"`, `"message_id":"evt_0-1"`}
	for _, trace := range append(traces, "path-that-stays") {
		until(t, trace+" is in the files", func() bool { return h.keeps(t, trace) })
	}
	h.decide(t, "demo", &events.AccountErased{Requests: 1})
	anew := create(t, r, "demo", "https://hooks.example/after-the-erasure")
	r.Erased()
	until(t, "it is swept away", func() bool {
		_, err := r.Get(within(t), "demo", e.ID)
		return errors.Is(err, events.ErrNotFound)
	})
	ok(t, r.Sweep(within(t)))
	for _, trace := range traces {
		until(t, trace+" is in no file", func() bool { return !h.keeps(t, trace) })
	}
	if !h.keeps(t, "path-that-stays") || !h.keeps(t, "after-the-erasure") {
		t.Error("something else is gone")
	}
	must[webhook.Endpoint](t)(r.Get(within(t), "other", stays.ID))
	must[webhook.Endpoint](t)(r.Get(within(t), "demo", anew.ID))
	if _, err := r.store.decisions[0].Consumer(within(t), durableOf(e.ID)); !errors.Is(err, jetstream.ErrConsumerNotFound) {
		t.Errorf("its consumer: %v", err)
	}
}

// keeps says whether a text is in the files of the server.
func (h *house) keeps(t *testing.T, text string) (found bool) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(h.dir, "jetstream"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // the server replaces files of its own meanwhile
		}
		if content, err := os.ReadFile(path); err == nil {
			found = found || bytes.Contains(content, []byte(text))
		}
		return nil
	})
	ok(t, err)
	return found
}

// TestSweepRemovesWhatACrashLeaves has a key changed, and one removed, without what belongs to it.
func TestSweepRemovesWhatACrashLeaves(t *testing.T) {
	h := newHouse(t)
	r := open(t, h.config())
	ctx := within(t)
	e := create(t, r, "demo", "https://hooks.example/before")
	changed := e
	changed.URL = "https://hooks.example/now"
	must[uint64](t)(r.store.write(ctx, keyOf("demo", e.ID), toRecord(&changed), e.Version))
	gone := create(t, r, "demo", "https://hooks.example/gone")
	ok(t, r.store.put(ctx, keyOf(gone.Account, gone.ID)+progressSuffix, &progressRecord{Event: "0-9", Failures: 1}))
	m := nats.NewMsg(bucketSubject + keyOf("demo", gone.ID))
	m.Header.Set(operationHeader, operationDelete)
	must[uint64](t)(r.store.publish(ctx, m))
	ok(t, r.Sweep(ctx))
	for _, trace := range []string{"hooks.example/before", "hooks.example/gone", gone.Secrets[0].Value, `"event":"0-9"`} {
		until(t, trace+" is in no file", func() bool { return !h.keeps(t, trace) })
	}
	if got := must[webhook.Endpoint](t)(r.Get(ctx, "demo", e.ID)); got.URL != changed.URL {
		t.Errorf("it leads to %s", got.URL)
	}
}

// TestNothingIsLeftOfAnAttemptThatOutlivesItsEndpoint has an event accepted after the endpoint was removed and swept away.
func TestNothingIsLeftOfAnAttemptThatOutlivesItsEndpoint(t *testing.T) {
	t.Parallel()
	h, asked, accept := newHouse(t), make(chan bool, 1), make(chan bool)
	rcv := receive(t, func(http.ResponseWriter, string) {
		asked <- true
		<-accept
	})
	cfg := h.config()
	cfg.RootCAs = rcv.trusted()
	r, _ := run(t, cfg)
	e := create(t, r, "demo", rcv.URL)
	h.capture(t, "demo")
	<-asked
	ok(t, r.Remove(within(t), "demo", e.ID, 0))
	pause(within(t), 2*sweepPause) // it is swept
	close(accept)
	logged := func() bool { return len(must[[]webhook.Delivery](t)(r.Deliveries(within(t), "demo", e.ID, 0, 1))) > 0 }
	until(t, "it is in the log", logged)
	until(t, "it is not in the log", func() bool { return !logged() })
}
