package feed_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/feed"
)

// patience is how long a test waits for what should happen at once. Only a failing test waits that long.
const patience = 3 * time.Minute

// ledger is the decisions of one partition, which are told in history as soon as they are folded.
type ledger struct {
	*feed.Feed
	mu      sync.Mutex
	all     []events.Decision
	reading func() // is called when somebody reads history
	part    int    // how many decisions a read has at most
}

func newLedger(t *testing.T) *ledger {
	t.Helper()
	l := &ledger{reading: func() {}, part: 3}
	l.Feed = feed.New([]uint64{0}, l.read)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); l.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return l
}

func (l *ledger) read(_ context.Context, account string, after events.Position, to uint64) (told []*feed.Event, read uint64, err error) {
	l.reading()
	l.mu.Lock()
	defer l.mu.Unlock()
	read = min(to, after.Sequence+uint64(l.part))
	for _, d := range l.all[after.Sequence:read] {
		if d.Account != account {
			continue
		}
		if e, is := feed.Encode(&d); is {
			told = append(told, e)
		}
	}
	return told, read, nil
}

// fold folds decisions on jobs of accounts, in order.
func (l *ledger) fold(accounts ...string) {
	var decisions []events.Decision
	for _, account := range accounts {
		decisions = append(decisions, deleted(account))
	}
	l.foldAll(decisions...)
}

func (l *ledger) foldAll(decisions ...events.Decision) {
	l.mu.Lock()
	from := len(l.all)
	for i := range decisions {
		decisions[i].Position.Sequence = uint64(from + i + 1)
	}
	l.all = append(l.all, decisions...)
	to := uint64(len(l.all))
	l.mu.Unlock()
	l.Folded(0, decisions, to)
}

func deleted(account string) events.Decision {
	return events.Decision{Account: account, RequestID: "r", Body: &events.JobDeleted{JobID: "job_x"}, Data: []byte(`{}`)}
}

// reader is a client that takes what it is told when the test says so.
type reader struct {
	next func() (feed.Batch, error, bool)
	told []uint64
}

func (l *ledger) follow(t *testing.T, account string, after uint64, ticks <-chan time.Time) *reader {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	next, stop := iter.Pull2(l.Follow(ctx, account, events.Position{Sequence: after}, ticks))
	t.Cleanup(func() { cancel(); stop() })
	return &reader{next: next}
}

// take takes a batch.
func (r *reader) take(t *testing.T) feed.Batch {
	t.Helper()
	b, err, more := r.next()
	if err != nil || !more {
		t.Fatalf("the stream ended: %v", err)
	}
	for _, e := range b.Events {
		r.told = append(r.told, e.Position.Sequence)
	}
	return b
}

// wants takes until the events were told.
func (r *reader) wants(t *testing.T, want ...uint64) {
	t.Helper()
	for len(r.told) < len(want) {
		r.take(t)
	}
	if !slices.Equal(r.told, want) {
		t.Fatalf("told %v, want %v", r.told, want)
	}
	r.told = nil
}

func (r *reader) wantsEnd(t *testing.T, want error) {
	t.Helper()
	for {
		_, err, more := r.next()
		if err == nil && more {
			continue
		}
		if !errors.Is(err, want) {
			t.Fatalf("the stream ended with %v, want %v", err, want)
		}
		return
	}
}

func TestAClientIsToldWhatIsItsOwnFromHistoryIntoLive(t *testing.T) {
	l := newLedger(t)
	l.fold("anna", "bob", "anna", "bob", "bob", "anna", "anna")
	anna, bob, none := l.follow(t, "anna", 1, nil), l.follow(t, "bob", 0, nil), l.follow(t, "nobody", 0, nil)
	anna.wants(t, 3, 6, 7)
	bob.wants(t, 2, 4, 5)
	l.fold("anna", "bob")
	anna.wants(t, 8)
	bob.wants(t, 9)
	if b := none.take(t); !b.Beat || len(b.Events) > 0 {
		t.Errorf("the first batch is %+v", b)
	}
}

func TestTheFirstBatchComesAtOnce(t *testing.T) {
	l := newLedger(t)
	l.fold("anna", "bob", "bob", "bob", "bob")
	b := l.follow(t, "anna", 5, nil).take(t)
	if !b.Beat || len(b.Events) > 0 || b.UpTo.Sequence != 5 {
		t.Errorf("%+v", b)
	}
	b = l.follow(t, "anna", 1, nil).take(t)
	if !b.Beat || len(b.Events) > 0 || b.UpTo.Sequence != 4 { // what one read has
		t.Errorf("%+v", b)
	}
}

func TestABeatTellsUpToWhereTheClientIsTold(t *testing.T) {
	l := newLedger(t)
	ticks := make(chan time.Time, 1)
	anna := l.follow(t, "anna", 0, ticks)
	anna.take(t)
	l.fold("bob", "bob")
	ticks <- time.Time{}
	if b := anna.take(t); !b.Beat || b.UpTo.Sequence != 2 {
		t.Errorf("%+v", b)
	}
	l.fold("anna", "bob")
	if b := anna.take(t); b.Beat || b.UpTo.Sequence != 3 {
		t.Errorf("%+v", b)
	}
}

func TestEventsThatComeWhileHistoryIsReadAreToldOnce(t *testing.T) {
	l := newLedger(t)
	l.fold("anna", "anna", "anna", "anna")
	l.reading = sync.OnceFunc(func() { l.fold("anna", "bob", "anna") })
	l.follow(t, "anna", 0, nil).wants(t, 1, 2, 3, 4, 5, 7)
}

// TestMoreThanTheQueueHoldsWhileHistoryIsRead has so much come meanwhile that it is read from history too.
func TestMoreThanTheQueueHoldsWhileHistoryIsRead(t *testing.T) {
	l := newLedger(t)
	l.part = 1000
	l.fold("anna")
	many := make([]string, 5000)
	for i := range many {
		many[i] = "anna"
	}
	l.reading = sync.OnceFunc(func() { l.fold(many...) })
	want := make([]uint64, 5001)
	for i := range want {
		want[i] = uint64(i + 1)
	}
	l.follow(t, "anna", 0, nil).wants(t, want...)
}

// TestASlowClientGoesOnInHistory has one client take nothing while another is told everything: what waits for it is bounded, and
// it misses nothing.
func TestASlowClientGoesOnInHistory(t *testing.T) {
	for name, size := range map[string]int{"many events": 0, "large ones": 300 << 10} {
		t.Run(name, func(t *testing.T) {
			l := newLedger(t)
			slow, quick := l.follow(t, "anna", 0, nil), l.follow(t, "anna", 0, nil)
			slow.take(t)
			quick.take(t)
			reads := 0
			l.reading = func() { reads++ }
			n := 3000
			if size > 0 {
				n = 20
			}
			var all []uint64
			for i := range n {
				d := deleted("anna")
				d.Data = []byte(`{"notes":"` + strings.Repeat("x", size) + `"}`)
				l.foldAll(d)
				quick.wants(t, uint64(i+1))
				all = append(all, uint64(i+1))
			}
			if reads > 0 {
				t.Error("history is read for who keeps up")
			}
			slow.wants(t, all...)
			if reads == 0 {
				t.Error("everything waited for the slow client")
			}
			l.fold("anna")
			slow.wants(t, uint64(n+1))
		})
	}
}

// noted returns a decision on a job of an account that has notes of a length. Its Data is that of all such decisions.
func noted(account string, notes []byte) events.Decision {
	d := deleted(account)
	d.Data = notes
	return d
}

// heap returns how many bytes are in use.
func heap() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// TestWhatWaitsForManyClientsThatTakeNothingIsBounded has each client be of another account, so that they share nothing.
func TestWhatWaitsForManyClientsThatTakeNothingIsBounded(t *testing.T) {
	const clients, events, most = 50, 12, 600 << 10
	l := newLedger(t)
	l.part = 10_000
	notes := []byte(`{"notes":"` + strings.Repeat("x", 100_000) + `"}`)
	var stalled []*reader
	for i := range clients {
		r := l.follow(t, fmt.Sprintf("account%d", i), 0, nil)
		r.take(t)
		stalled = append(stalled, r)
	}
	last := l.follow(t, "last", 0, nil)
	last.take(t)
	before := heap()
	for range events {
		for i := range clients {
			l.foldAll(noted(fmt.Sprintf("account%d", i), notes))
		}
		l.fold("last")
		last.take(t) // then all before it is in the queues
	}
	if each := (heap() - before) / clients; each > most {
		t.Errorf("%d bytes wait for each client", each)
	}
	for i, r := range stalled {
		for j := range events {
			last := uint64(j*(clients+1) + i + 1)
			for len(r.told) <= j {
				r.take(t)
			}
			if r.told[j] != last {
				t.Fatalf("client %d is told %v", i, r.told)
			}
		}
	}
}

// TestWhatWaitsToBeEncodedIsBounded has nobody encode what is folded.
func TestWhatWaitsToBeEncodedIsBounded(t *testing.T) {
	l := &ledger{reading: func() {}, part: 100}
	l.Feed = feed.New([]uint64{0}, l.read)
	anna := l.follow(t, "anna", 0, nil)
	anna.take(t)
	before := heap()
	var want []uint64
	for i := range uint64(400) {
		notes := []byte(`{"notes":"` + strings.Repeat("x", 100_000) + `"}`)
		d := deleted("anna")
		d.Position.Sequence, d.Data = i+1, notes
		l.Folded(0, []events.Decision{d}, i+1)
		l.all = append(l.all, noted("anna", nil)) // of which the ledger in this test keeps nothing large
		l.all[i].Position.Sequence = i + 1
		want = append(want, i+1)
	}
	if length := heap() - before; length > 20<<20 {
		t.Errorf("%d bytes wait", length)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); l.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	anna.wants(t, want...)
}

// TestAJumpIsReadFromHistory has the position jump without decisions, as it does when another file comes in place of the one before.
func TestAJumpIsReadFromHistory(t *testing.T) {
	l := newLedger(t)
	anna := l.follow(t, "anna", 0, nil)
	l.fold("anna")
	anna.wants(t, 1)
	l.mu.Lock()
	for i := range uint64(4) {
		d := deleted("anna")
		d.Position.Sequence = i + 2
		l.all = append(l.all, d)
	}
	l.mu.Unlock()
	l.Folded(0, nil, 5)
	anna.wants(t, 2, 3, 4, 5)
	l.fold("bob", "anna")
	anna.wants(t, 7)
	l.Folded(0, nil, 7) // another file, which is where this one was
	l.fold("anna")
	anna.wants(t, 8)
}

func TestNothingIsToldOfAnAccountThatIsErased(t *testing.T) {
	l := newLedger(t)
	anna, bob := l.follow(t, "anna", 0, nil), l.follow(t, "bob", 0, nil)
	anna.take(t)
	l.foldAll(deleted("anna"), events.Decision{Account: "anna", Body: &events.AccountErased{}}, deleted("bob"))
	if b, err, _ := anna.next(); !errors.Is(err, feed.ErrErased) {
		t.Errorf("told %+v, %v", b, err)
	}
	bob.wants(t, 3)
}

func TestStreamsEndWithTheNode(t *testing.T) {
	l := &ledger{reading: func() {}, part: 3}
	l.Feed = feed.New([]uint64{0}, l.read)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); l.Run(ctx) }()
	anna := l.follow(t, "anna", 0, nil)
	anna.take(t)
	cancel()
	<-ended
	anna.wantsEnd(t, feed.ErrClosed)
	l.follow(t, "anna", 0, nil).wantsEnd(t, feed.ErrClosed)
}

func TestWhatReadingFailsWithEndsTheStream(t *testing.T) {
	broken := fmt.Errorf("broken: %w", events.ErrUnavailable)
	f := feed.New([]uint64{7}, func(context.Context, string, events.Position, uint64) ([]*feed.Event, uint64, error) {
		return nil, 0, broken
	})
	for _, err := range f.Follow(t.Context(), "anna", events.Position{}, nil) {
		if !errors.Is(err, broken) {
			t.Fatal(err)
		}
	}
	if n := f.Clients(); n != 0 {
		t.Errorf("there are %d clients", n)
	}
}

// TestHistoryIsReadByAFewAtATime has many clients read at once, of which those who wait are told that the stream is there.
func TestHistoryIsReadByAFewAtATime(t *testing.T) {
	const clients = 40
	l := newLedger(t)
	l.fold("anna")
	var mu sync.Mutex
	reading, most := 0, 0
	full, gate := make(chan struct{}), make(chan struct{})
	fill := sync.OnceFunc(func() { close(full) })
	l.reading = func() {
		mu.Lock()
		reading++
		most = max(most, reading)
		if reading == 16 {
			fill()
		}
		mu.Unlock()
		<-gate
		mu.Lock()
		reading--
		mu.Unlock()
	}
	var running sync.WaitGroup
	for range clients {
		running.Go(func() { l.follow(t, "anna", 0, nil).wants(t, 1) })
	}
	<-full
	ticks := make(chan time.Time, 1)
	ticks <- time.Time{}
	if b := l.follow(t, "anna", 0, ticks).take(t); !b.Beat || len(b.Events) > 0 {
		t.Errorf("who waits is told %+v", b)
	}
	close(gate)
	running.Wait()
	if most != 16 {
		t.Errorf("%d read at once", most)
	}
}

func BenchmarkFoldedWithNobodyThere(b *testing.B) {
	f := feed.New([]uint64{0}, nil)
	decisions := []events.Decision{deleted("anna")}
	for b.Loop() {
		f.Folded(0, decisions, 1)
	}
}
