package node_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/node"
)

// The lag of a partition is what is recorded and not folded, and as old as the oldest of it; a ledger that does not answer
// has none.
func TestLagIsOfWhatIsNotFolded(t *testing.T) {
	e := serve(t, 2)
	follower := start(t, node.Config{Dir: t.TempDir(), NATS: e.url})
	p := events.PartitionOf("anna", 2)
	lag := func() node.Lag {
		t.Helper()
		lag, err := follower.Lag(within(t), p)
		if err != nil {
			t.Fatal(err)
		}
		return lag
	}
	if got := lag(); got != (node.Lag{}) {
		t.Errorf("of nothing: %+v", got)
	}
	opening := request("anna", "open", &events.AccountOpenRequested{Plan: "free", Limit: 5})
	opening.Time = opening.Time.Add(-time.Hour)
	last := events.Position{}
	for _, r := range []*events.Request{opening, capturing("anna", "1", "https://x.com/1")} {
		var err error
		if last, err = follower.Append(within(t), r); err != nil {
			t.Fatal(err)
		}
	}
	if got := lag(); got.Undecided != 2 || got.Unfolded != 2 || got.Age < time.Hour || got.Age > time.Hour+patience || got.Failing {
		t.Errorf("of two requests, the first an hour old: %+v", got)
	}
	if other, err := follower.Lag(within(t), 1-p); err != nil || other != (node.Lag{}) {
		t.Errorf("of the other partition: %+v, %v", other, err)
	}
	start(t, node.Config{Dir: t.TempDir(), NATS: e.url, Decides: true})
	if _, err := follower.Projection.Await(within(t), last); err != nil {
		t.Fatal(err)
	}
	if got := lag(); got != (node.Lag{}) {
		t.Errorf("once it is folded: %+v", got)
	}
	e.halt()
	soonOver, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond) // nobody answers
	defer cancel()
	if got, err := follower.Lag(soonOver, p); !errors.Is(err, events.ErrUnavailable) {
		t.Errorf("of a server that is gone: %+v, %v", got, err)
	}
}

// An observer hears of everything that is appended, decided, recorded and folded, once.
func TestObserverHearsOfTheWork(t *testing.T) {
	var grouped, synced, decided, recorded, folded atomic.Int64
	cfg := node.Config{Dir: t.TempDir(), Decides: true}
	cfg.Observer.Ledger.Grouped = func(n int) { grouped.Add(int64(n)) }
	cfg.Observer.Ledger.Synced = func(took time.Duration) {
		if synced.Add(1); took <= 0 {
			t.Errorf("an fsync took %s", took)
		}
	}
	cfg.Observer.Projector.Decided = func(requests []events.Request, _ time.Time) { decided.Add(int64(len(requests))) }
	cfg.Observer.Projector.Recorded = func(decisions []events.Decision) { recorded.Add(int64(len(decisions))) }
	cfg.Observer.Projector.Folded = func(decisions []events.Decision, began time.Time) {
		if folded.Add(int64(len(decisions))); time.Since(began) < 0 {
			t.Error("folding began later than it ended")
		}
	}
	n := start(t, cfg)
	open(t, n.Node, "anna", 5)
	mustAsk(t, n.Node, capturing("anna", "1", "https://x.com/1"))
	mustAsk(t, n.Node, capturing("anna", "1", "https://x.com/1"))
	stop(t, n)
	for name, got := range map[string]int64{"grouped": grouped.Load(), "decided": decided.Load(), "recorded": recorded.Load(), "folded": folded.Load()} {
		if got != 3 {
			t.Errorf("%d requests %s, want 3", got, name)
		}
	}
	if synced.Load() == 0 {
		t.Error("no fsync was told of")
	}
}
