package node_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
	"jobtally/internal/feed"
	"jobtally/internal/ledger"
	"jobtally/internal/node"
)

// told follows the events of an account after a position until it was told so many, or of one at a position.
func told(t *testing.T, n *node.Node, account string, after events.Position, enough func([]uint64) bool) (sequences []uint64) {
	t.Helper()
	for batch, err := range n.Events(within(t), account, after, nil) {
		if err != nil {
			t.Errorf("%s after %s: %v", account, after, err)
			return sequences
		}
		for _, e := range batch.Events {
			sequences = append(sequences, e.Position.Sequence)
		}
		if enough(sequences) {
			return sequences
		}
	}
	t.Errorf("%s after %s: told %v, and no more", account, after, sequences)
	return sequences
}

// TestEventsAreToldOnceInOrderWhereverAClientComesBack has clients come and go at any moment while others capture: each is told
// exactly the decisions on the jobs of its account.
func TestEventsAreToldOnceInOrderWhereverAClientComesBack(t *testing.T) {
	n := embedded(t)
	accounts := []string{"anna", "bob", "carl"}
	for _, account := range accounts {
		open(t, n.Node, account, -1)
	}
	const captures, clients = 150, 4
	var running sync.WaitGroup
	var mu sync.Mutex
	decided := map[string][]uint64{}
	for _, account := range accounts {
		for part := range 2 {
			running.Go(func() {
				for i := range captures / 2 {
					d, err := ask(t.Context(), n.Node, capturing(account, fmt.Sprintf("%d-%d", part, i), fmt.Sprintf("https://jobs.example.com/%s/%d/%d", account, part, i)))
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					decided[account] = append(decided[account], d.Position.Sequence)
					mu.Unlock()
				}
			})
		}
	}
	all := map[string][][]uint64{}
	var following sync.WaitGroup
	for _, account := range accounts {
		for c := range clients {
			following.Go(func() {
				random := rand.New(rand.NewPCG(uint64(c), 1))
				var seen []uint64
				for len(seen) < captures && !t.Failed() {
					after, some := events.Position{}, 1+random.IntN(20)
					if len(seen) > 0 {
						after.Sequence = seen[len(seen)-1]
					}
					more := told(t, n.Node, account, after, func(s []uint64) bool { return len(s) >= min(some, captures-len(seen)) })
					if random.IntN(3) > 0 && len(more) > some { // it leaves in the middle of a batch
						more = more[:some]
					}
					seen = append(seen, more...)
				}
				mu.Lock()
				all[account] = append(all[account], seen)
				mu.Unlock()
			})
		}
	}
	running.Wait()
	following.Wait()
	for _, account := range accounts {
		want := decided[account]
		slices.Sort(want)
		for _, got := range all[account] {
			if !slices.Equal(got, want) {
				t.Errorf("%s was told %v\nwant %v", account, got, want)
			}
		}
	}
}

// TestAFollowerTellsWhatAnotherDecides has the events told by a node that only folds, which a client comes to from another one.
func TestAFollowerTellsWhatAnotherDecides(t *testing.T) {
	server := serve(t, 4)
	decider := start(t, node.Config{Dir: t.TempDir(), NATS: server.url, Decides: true})
	api := start(t, node.Config{Dir: t.TempDir(), NATS: server.url})
	open(t, api.Node, "anna", -1)
	first := mustAsk(t, api.Node, capturing("anna", "1", "https://jobs.example.com/1"))
	next := make(chan []uint64)
	go func() {
		next <- told(t, decider.Node, "anna", first.Position, func(s []uint64) bool { return len(s) > 0 })
	}()
	second := mustAsk(t, api.Node, capturing("anna", "2", "https://jobs.example.com/2"))
	if s := <-next; !slices.Equal(s, []uint64{second.Position.Sequence}) {
		t.Errorf("told %v, want %s", s, second.Position)
	}
	// Whoever was told by the decider goes on at the other node, as soon as that has folded it.
	third := mustAsk(t, decider.Node, capturing("anna", "3", "https://jobs.example.com/3"))
	s := told(t, api.Node, "anna", second.Position, func(s []uint64) bool { return len(s) > 0 })
	if !slices.Equal(s, []uint64{third.Position.Sequence}) {
		t.Errorf("told %v, want %s", s, third.Position)
	}
}

// TestARebuildUnderALiveStreamLosesNothing puts a projection that was folded anew in the place of the one that serves.
func TestARebuildUnderALiveStreamLosesNothing(t *testing.T) {
	dir := t.TempDir()
	n := start(t, node.Config{Dir: dir, Decides: true})
	open(t, n.Node, "anna", -1)
	var want []uint64
	capture := func() {
		d := mustAsk(t, n.Node, capturing("anna", fmt.Sprint(len(want)), fmt.Sprintf("https://jobs.example.com/%d", len(want))))
		want = append(want, d.Position.Sequence)
	}
	capture()
	begun, next, done := make(chan struct{}, 100), make(chan struct{}), make(chan []uint64)
	go func() {
		done <- told(t, n.Node, "anna", events.Position{}, func(s []uint64) bool {
			begun <- struct{}{}
			select {
			case <-next:
				return len(s) == 3
			default:
				return false
			}
		})
	}()
	<-begun
	replaced := n.Projection.Replaced()
	mustRebuild(t, node.Config{Dir: dir})
	<-replaced
	capture()
	close(next)
	capture()
	if got := <-done; !slices.Equal(got, want) {
		t.Errorf("told %v, want %v", got, want)
	}
}

func TestNothingIsToldFromBeforeAnErasure(t *testing.T) {
	n := embedded(t)
	open(t, n.Node, "anna", -1)
	mustAsk(t, n.Node, capturing("anna", "1", "https://jobs.example.com/1"))
	ended := make(chan error)
	begun := make(chan struct{}, 10)
	go func() {
		var last error
		for _, err := range n.Events(within(t), "anna", events.Position{}, nil) {
			last = err
			begun <- struct{}{}
		}
		ended <- last
	}()
	<-begun
	mustAsk(t, n.Node, request("anna", "erase", &events.AccountEraseRequested{}))
	if err := <-ended; !errors.Is(err, feed.ErrErased) {
		t.Errorf("the stream ended with %v", err)
	}
	mustAsk(t, n.Node, request("anna", "open again", &events.AccountOpenRequested{Plan: "test", Limit: -1}))
	d := mustAsk(t, n.Node, capturing("anna", "2", "https://jobs.example.com/1"))
	if s := told(t, n.Node, "anna", events.Position{}, func(s []uint64) bool { return len(s) > 0 }); !slices.Equal(s, []uint64{d.Position.Sequence}) {
		t.Errorf("told %v, want %s", s, d.Position)
	}
}

func firstError(ctx context.Context, n *node.Node, account string, after events.Position) error {
	for _, err := range n.Events(ctx, account, after, nil) {
		return err
	}
	return ctx.Err()
}

func TestAPositionThatTheLedgerDoesNotHave(t *testing.T) {
	n := embedded(t)
	open(t, n.Node, "anna", -1)
	var beyond *feed.BeyondError
	if err := firstError(within(t), n.Node, "anna", events.Position{Sequence: 99}); !errors.As(err, &beyond) || beyond.Head.Sequence != 1 {
		t.Errorf("beyond the end: %v", err)
	}
}

// TestAPositionThatAClusterDoesNotHave is refused only after it was waited for: what a server says at once may be of its past.
func TestAPositionThatAClusterDoesNotHave(t *testing.T) {
	t.Parallel()
	n := embedded(t)
	open(t, n.Node, "anna", -1)
	n.Ledger.Replicas = 3
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := firstError(short, n.Node, "anna", events.Position{Sequence: 99}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("before the wait is over: %v", err)
	}
	var beyond *feed.BeyondError
	if err := firstError(within(t), n.Node, "anna", events.Position{Sequence: 99}); !errors.As(err, &beyond) {
		t.Errorf("after it: %v", err)
	}
}

// decisionsOf returns the decisions of partition 0, as an operator can reach them.
func decisionsOf(t *testing.T, url string) jetstream.Stream {
	t.Helper()
	connection, err := ledger.Connect(url, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(connection.Close)
	js, err := jetstream.New(connection)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(within(t), "DECISIONS_0")
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// TestADecisionThatIsMissingIsNotPassedOver removes one from between others, as an operator can: who reads its account's history is told
// what was before it, and then that something is missing; others miss nothing.
func TestADecisionThatIsMissingIsNotPassedOver(t *testing.T) {
	server := serve(t, 1)
	n := start(t, node.Config{Dir: t.TempDir(), NATS: server.url, Decides: true})
	var of = map[string][]uint64{}
	for _, account := range []string{"anna", "bob"} {
		open(t, n.Node, account, -1)
	}
	for i := range 5 {
		for _, account := range []string{"anna", "bob"} {
			d := mustAsk(t, n.Node, capturing(account, fmt.Sprint(i), fmt.Sprintf("https://jobs.example.com/%d", i)))
			of[account] = append(of[account], d.Position.Sequence)
		}
	}
	if err := decisionsOf(t, server.url).DeleteMsg(within(t), of["anna"][2]); err != nil {
		t.Fatal(err)
	}
	var pruned *feed.PrunedError
	var sequences []uint64
	for batch, err := range n.Events(within(t), "anna", events.Position{}, nil) {
		if errors.As(err, &pruned) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range batch.Events {
			sequences = append(sequences, e.Position.Sequence)
		}
	}
	if !slices.Equal(sequences, of["anna"][:2]) || pruned == nil || pruned.First.Sequence != of["anna"][3] {
		t.Errorf("told %v, and then %v", sequences, pruned)
	}
	pruned = nil
	if err := firstError(within(t), n.Node, "anna", events.Position{Sequence: of["anna"][1]}); !errors.As(err, &pruned) {
		t.Errorf("who comes back is told %v", err)
	}
	for after, want := range map[uint64][]uint64{of["anna"][3] - 1: of["anna"][3:], of["anna"][3]: of["anna"][4:]} {
		if s := told(t, n.Node, "anna", events.Position{Sequence: after}, func(s []uint64) bool { return len(s) == len(want) }); !slices.Equal(s, want) {
			t.Errorf("after %d told %v, want %v", after, s, want)
		}
	}
	if s := told(t, n.Node, "bob", events.Position{}, func(s []uint64) bool { return len(s) == 5 }); !slices.Equal(s, of["bob"]) {
		t.Errorf("bob is told %v", s)
	}
}

// TestAnErasureThatIsNotFoldedHereIsNothingPruned has a node that only folds be behind when an account is erased, and some of its
// decisions be removed already.
func TestAnErasureThatIsNotFoldedHereIsNothingPruned(t *testing.T) {
	server := serve(t, 1)
	held, release := make(chan struct{}), make(chan struct{})
	holding := func(holds func(*events.Decision) bool) (o node.Observer) {
		o.Projector.Folded = func(decisions []events.Decision, _ time.Time) {
			if slices.ContainsFunc(decisions, func(d events.Decision) bool { return holds(&d) }) {
				held <- struct{}{}
				<-release
			}
		}
		return o
	}
	decider := start(t, node.Config{Dir: t.TempDir(), NATS: server.url, Decides: true, Observer: holding(func(d *events.Decision) bool {
		_, erased := d.Body.(*events.AccountErased)
		return erased // it removes what there is once it was told
	})})
	behind := start(t, node.Config{Dir: t.TempDir(), NATS: server.url, Observer: holding(func(d *events.Decision) bool { return d.Account == "bob" })})
	defer close(release)
	open(t, behind.Node, "anna", -1)
	captured := mustAsk(t, behind.Node, capturing("anna", "1", "https://jobs.example.com/1"))
	mustAsk(t, behind.Node, capturing("anna", "2", "https://jobs.example.com/2"))
	open(t, decider.Node, "bob", -1)
	awaitHeld(t, held)
	mustAsk(t, decider.Node, request("anna", "erase", &events.AccountEraseRequested{}))
	awaitHeld(t, held)
	if err := decisionsOf(t, server.url).DeleteMsg(within(t), captured.Position.Sequence); err != nil {
		t.Fatal(err)
	}
	if err := firstError(within(t), behind.Node, "anna", events.Position{}); !errors.Is(err, feed.ErrErased) {
		t.Errorf("told %v", err)
	}
}

func awaitHeld(t *testing.T, held <-chan struct{}) {
	t.Helper()
	select {
	case <-held:
	case <-within(t).Done():
		t.Fatal("it is not folded")
	}
}

// TestAPositionThatIsPruned removes the first decisions, as an operator can.
func TestAPositionThatIsPruned(t *testing.T) {
	server := serve(t, 1)
	n := start(t, node.Config{Dir: t.TempDir(), NATS: server.url, Decides: true})
	open(t, n.Node, "anna", -1)
	for i := range 3 {
		mustAsk(t, n.Node, capturing("anna", fmt.Sprint(i), fmt.Sprintf("https://jobs.example.com/%d", i)))
	}
	if err := decisionsOf(t, server.url).Purge(within(t), jetstream.WithPurgeSequence(3)); err != nil {
		t.Fatal(err)
	}
	var pruned *feed.PrunedError
	if err := firstError(within(t), n.Node, "anna", events.Position{}); !errors.As(err, &pruned) || pruned.First.Sequence != 3 {
		t.Errorf("from the beginning: %v", err)
	}
	if s := told(t, n.Node, "anna", events.Position{Sequence: 2}, func(s []uint64) bool { return len(s) == 2 }); !slices.Equal(s, []uint64{3, 4}) {
		t.Errorf("told %v", s)
	}
	open(t, n.Node, "late", -1) // of whom nothing is pruned
	d := mustAsk(t, n.Node, capturing("late", "1", "https://jobs.example.com/1"))
	if s := told(t, n.Node, "late", events.Position{}, func(s []uint64) bool { return len(s) > 0 }); !slices.Equal(s, []uint64{d.Position.Sequence}) {
		t.Errorf("told %v", s)
	}
}
