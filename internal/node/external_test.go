package node_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"jobtally/internal/events"
	"jobtally/internal/node"
)

func TestFollowerSeesWhatAnotherDecides(t *testing.T) {
	e := serve(t, 4)
	follower := start(t, node.Config{Dir: t.TempDir(), NATS: e.url})
	start(t, node.Config{Dir: t.TempDir(), NATS: e.url, Decides: true})
	open(t, follower.Node, "anna", 2)
	d := mustAsk(t, follower.Node, capturing("anna", "1", "https://x.com/1"))
	captured, ok := d.Body.(*events.JobCaptured)
	if !ok {
		t.Fatalf("%+v", d.Body)
	}
	job, err := follower.Projection.Job(t.Context(), "anna", captured.JobID)
	if err != nil || job.SourceURL != "https://x.com/1" {
		t.Errorf("job %+v, %v", job, err)
	}
	if got := used(t, follower.Node, "anna"); got != 1 {
		t.Errorf("used %d", got)
	}
	if again, err := follower.Projection.Await(t.Context(), d.Position); err != nil || again.Digest != d.Digest {
		t.Errorf("awaited again: %+v, %v", again, err)
	}
}

// load asks for captures of distinct jobs of some accounts, from several sides at once.
type load struct {
	accounts []string
	each     int // captures of each account
	decided  atomic.Int64
	refused  atomic.Int64
}

func (l *load) run(ctx context.Context, t *testing.T, nodes ...running) *sync.WaitGroup {
	var asking sync.WaitGroup
	const clients = 32
	var next atomic.Int64
	for client := range clients {
		n := nodes[client%len(nodes)]
		asking.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= l.each*len(l.accounts) {
					return
				}
				id := fmt.Sprintf("https://x.com/%d", i/len(l.accounts))
				d, refused, err := retry(ctx, n.Node, capturing(l.accounts[i%len(l.accounts)], id, id))
				l.refused.Add(int64(refused))
				if err != nil {
					t.Errorf("capture %d: %v", i, err)
					return
				}
				// A request whose outcome was unknown was recorded if its retry is told so.
				if outcome := events.OutcomeOf(d.Body); outcome != "captured" && (refused == 0 || outcome != "repeated") {
					t.Errorf("capture %d: %+v", i, d.Body)
				}
				l.decided.Add(1)
			}
		})
	}
	return &asking
}

// finish waits for the end of the load and asserts that each of its captures is counted once, on each node.
func (l *load) finish(t *testing.T, asking *sync.WaitGroup, nodes ...running) {
	t.Helper()
	asking.Wait()
	if got := l.decided.Load(); got != int64(l.each*len(l.accounts)) {
		t.Fatalf("%d of %d captures answered", got, l.each*len(l.accounts))
	}
	converge(t, nodes...)
	for i, n := range nodes {
		for _, account := range l.accounts {
			if got := used(t, n.Node, account); got != int64(l.each) {
				t.Errorf("node %d: %s has used %d, want %d", i, account, got, l.each)
			}
		}
		n.log.mustNotSay(t, "ERROR")
	}
}

// decides says whether the node is at it rather than standing by, as far as it told.
func (r running) decides() bool {
	standing, _ := r.log.find("another projector decides here; standing by")
	deciding, _ := r.log.find("requests stay undecided; deciding")
	return len(standing) == len(deciding)
}

func openAll(t *testing.T, n running, limit int64, names ...string) []string {
	t.Helper()
	for _, name := range names {
		open(t, n.Node, name, limit)
	}
	return names
}

func TestTwoDecidersAgree(t *testing.T) {
	e := serve(t, 4)
	a := start(t, node.Config{Dir: t.TempDir(), NATS: e.url, Decides: true})
	b := start(t, node.Config{Dir: t.TempDir(), NATS: e.url, Decides: true})
	l := load{accounts: openAll(t, a, -1, "anna", "bob", "carl", "dora", "emil", "fred"), each: 200}
	l.finish(t, l.run(within(t), t, a, b), a, b)
	if l.refused.Load() > 0 {
		t.Errorf("%d requests were refused", l.refused.Load())
	}
}

// TestStandbyTakesOver closes, under load, the one of two deciders that decides.
func TestStandbyTakesOver(t *testing.T) {
	e := serve(t, 1)
	a := start(t, node.Config{Dir: t.TempDir(), NATS: e.url, Decides: true})
	b := start(t, node.Config{Dir: t.TempDir(), NATS: e.url, Decides: true})
	clients := start(t, node.Config{Dir: t.TempDir(), NATS: e.url})
	l := load{accounts: openAll(t, clients, -1, "anna", "bob"), each: 1000}
	ctx := within(t)
	half := l.reached(ctx, clients, 1000)
	asking := l.run(ctx, t, clients)
	<-half
	decider, standby := a, b
	if !a.decides() {
		decider, standby = b, a
	}
	before := l.decided.Load()
	stop(t, decider)
	l.finish(t, asking, clients, standby)
	t.Logf("%d captures decided before, %d after", before, l.decided.Load()-before)

	// The one that was closed comes back and finds the rest.
	dir := t.TempDir()
	back := start(t, node.Config{Dir: dir, NATS: e.url, Decides: true})
	l.finish(t, asking, clients, standby, back)
}

// TestServerRestarts takes the NATS server away under load and brings it back on the same port with the same files.
func TestServerRestarts(t *testing.T) {
	e := serve(t, 2)
	decider := start(t, node.Config{Dir: t.TempDir(), NATS: e.url, Decides: true})
	clients := start(t, node.Config{Dir: t.TempDir(), NATS: e.url})
	l := load{accounts: openAll(t, clients, -1, "anna", "bob", "carl"), each: 300}
	ctx := within(t)

	acknowledged, err := clients.Append(ctx, capturing("anna", "before", "https://x.com/before"))
	if err != nil {
		t.Fatal(err)
	}
	half := l.reached(ctx, clients, 100)
	asking := l.run(ctx, t, decider, clients)
	<-half
	e.halt()
	decider.log.await(t, "connection to nats lost")
	clients.log.await(t, "connection to nats lost")
	for _, n := range []running{decider, clients} {
		_, err := n.Append(ctx, capturing("anna", "outage", "https://x.com/outage"))
		if !errors.Is(err, events.ErrUnavailable) && !errors.Is(err, events.ErrUnknownOutcome) {
			t.Errorf("append without a server: %v", err)
		}
		if err := n.Ready(ctx); err == nil {
			t.Error("ready without a server")
		}
	}
	e.boot(t)
	decider.log.await(t, "connected to nats again")
	clients.log.await(t, "connected to nats again")
	if d, err := clients.Projection.Await(ctx, acknowledged); err != nil || events.OutcomeOf(d.Body) != "captured" {
		t.Errorf("what was acknowledged before: %+v, %v", d.Body, err)
	}
	asking.Wait()
	if l.refused.Load() == 0 {
		t.Error("nothing was refused: the load ended before the outage")
	}
	d := mustAsk(t, clients.Node, capturing("anna", "outage", "https://x.com/outage"))
	t.Logf("%d refusals; the capture of the outage: %s", l.refused.Load(), events.OutcomeOf(d.Body))
	converge(t, decider, clients)
	for account, want := range map[string]int64{"anna": 302, "bob": 300, "carl": 300} {
		if got := used(t, clients.Node, account); got != want {
			t.Errorf("%s has used %d, want %d", account, got, want)
		}
	}
	for _, n := range []running{decider, clients} {
		if err := n.Ready(ctx); err != nil {
			t.Error(err)
		}
	}
}

// reached returns what is closed once a node has folded that many decisions of partition 0.
func (l *load) reached(ctx context.Context, n running, sequence uint64) <-chan struct{} {
	reached := make(chan struct{})
	go func() {
		defer close(reached)
		n.Projection.Await(ctx, events.Position{Sequence: sequence})
	}()
	return reached
}
