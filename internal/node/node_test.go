package node_test

import (
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"jobtally/internal/capture"
	"jobtally/internal/events"
	"jobtally/internal/ledger"
	"jobtally/internal/node"
)

func TestNodeGoesOnWhereItWasClosed(t *testing.T) {
	dir := t.TempDir()
	for life := range int64(4) {
		n := start(t, node.Config{Dir: dir, Decides: true})
		if life == 0 {
			open(t, n.Node, "anna", 10)
		}
		if got := used(t, n.Node, "anna"); got != life {
			t.Fatalf("life %d starts with %d used", life, got)
		}
		url := fmt.Sprintf("https://x.com/%d", life)
		if d := mustAsk(t, n.Node, capturing("anna", url, url)); events.OutcomeOf(d.Body) != "captured" {
			t.Fatalf("life %d: %+v", life, d.Body)
		}
		if d := mustAsk(t, n.Node, capturing("anna", "https://x.com/0", "https://x.com/0")); events.OutcomeOf(d.Body) != "repeated" {
			t.Fatalf("life %d: the first request again: %+v", life, d.Body)
		}
		stop(t, n)
		stop(t, n) // closing again does nothing
		n.log.mustNotSay(t, "ERROR")
		n.log.mustNotSay(t, "WARN")
	}
}

func TestCloseLeavesNothingOpen(t *testing.T) {
	dir := t.TempDir()
	stop(t, start(t, node.Config{Dir: dir, Decides: true}))
	if open := openFiles(t, dir); len(open) > 0 {
		t.Errorf("still open after Close: %s", open)
	}
	if _, err := os.Stat(filepath.Join(dir, node.ProjectionFile+"-wal")); err == nil {
		t.Error("the write-ahead log was not folded into the projection")
	}
}

// openFiles returns the files below dir that this process has open.
func openFiles(t *testing.T, dir string) (open []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc")
	}
	for _, entry := range entries {
		if path, err := os.Readlink("/proc/self/fd/" + entry.Name()); err == nil && strings.HasPrefix(path, dir) {
			open = append(open, path)
		}
	}
	return open
}

func TestOneProcessHasADirectory(t *testing.T) {
	dir := t.TempDir()
	n := start(t, node.Config{Dir: dir, Decides: true})
	_, err := node.Start(t.Context(), node.Config{Dir: dir, Decides: true, Log: slog.New(slog.DiscardHandler)})
	if !errors.Is(err, ledger.ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Errorf("second node on the directory: %v, want ErrLocked that names it", err)
	}
	open(t, n.Node, "bob", 1) // the first one is none the worse
	stop(t, n)
	start(t, node.Config{Dir: dir, Decides: true})
}

func TestPartitionsNeverChange(t *testing.T) {
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	stop(t, start(t, node.Config{Dir: dir, Decides: true, Partitions: 3}))
	for _, cfg := range []node.Config{
		{Dir: dir, Decides: true, Partitions: 2, Log: log},
		{Dir: t.TempDir(), NATS: serve(t, 3).url, Partitions: 2, Log: log},
	} {
		_, err := node.Start(t.Context(), cfg)
		if !errors.Is(err, ledger.ErrDrift) || !strings.Contains(err.Error(), "--partitions 3") {
			t.Errorf("start with another number: %v, want ErrDrift that names the right one", err)
		}
	}
	if n := start(t, node.Config{Dir: dir, Decides: true}); n.Ledger.Partitions != 3 {
		t.Errorf("%d partitions", n.Ledger.Partitions)
	}
}

func TestNodeNeedsALedgerOnAnExternalServer(t *testing.T) {
	e := serve(t, 0)
	_, err := node.Start(t.Context(), node.Config{Dir: t.TempDir(), NATS: e.url, Log: slog.New(slog.DiscardHandler)})
	if !errors.Is(err, ledger.ErrNoLedger) || !strings.Contains(err.Error(), "projector init") {
		t.Errorf("%v, want ErrNoLedger that says how to create one", err)
	}
}

func TestLimitHoldsUnderConcurrency(t *testing.T) {
	n := embedded(t)
	open(t, n.Node, "anna", 10)
	outcomes := together(t, n.Node, 200, func(i int) *events.Request {
		url := fmt.Sprintf("https://x.com/%d", i)
		return capturing("anna", url, url)
	})
	if len(outcomes["captured"]) != 10 || len(outcomes["rejected"]) != 190 {
		t.Fatalf("%d captured, %d rejected", len(outcomes["captured"]), len(outcomes["rejected"]))
	}
	q, err := n.Projection.Quota(t.Context(), "anna", month)
	if err != nil || q != (capture.Quota{Month: month, Used: 10, Limit: 10}) {
		t.Fatalf("quota %+v, %v", q, err)
	}
}

func TestOneURLIsOneJob(t *testing.T) {
	n := embedded(t)
	open(t, n.Node, "anna", 10)
	outcomes := together(t, n.Node, 50, func(i int) *events.Request {
		return capturing("anna", fmt.Sprint(i), "https://x.com/1")
	})
	if len(outcomes["captured"]) != 1 || len(outcomes["duplicated"]) != 49 {
		t.Fatalf("%d captured, %d duplicated", len(outcomes["captured"]), len(outcomes["duplicated"]))
	}
	id := outcomes["captured"][0].Body.(*events.JobCaptured).JobID
	for _, d := range outcomes["duplicated"] {
		if other := d.Body.(*events.JobCaptureDuplicated).JobID; other != id {
			t.Errorf("duplicate at %s names job %s, the job is %s", d.Position, other, id)
		}
	}
	if got := used(t, n.Node, "anna"); got != 1 {
		t.Errorf("used %d", got)
	}
}

// TestGroupIsDecidedInItsOrder: the first of a group get what is left of the quota, while others capture too.
func TestGroupIsDecidedInItsOrder(t *testing.T) {
	n := embedded(t)
	open(t, n.Node, "anna", 60)
	var others sync.WaitGroup
	others.Go(func() {
		together(t, n.Node, 40, func(i int) *events.Request {
			return capturing("anna", fmt.Sprint("other-", i), fmt.Sprint("https://x.com/other/", i))
		})
	})
	group := make([]*events.Request, 60)
	for i := range group {
		group[i] = capturing("anna", fmt.Sprint("group-", i), fmt.Sprint("https://x.com/group/", i))
	}
	positions, errs := n.AppendAll(within(t), group)
	rejected := false
	for i, position := range positions {
		if errs[i] != nil || position.Sequence != positions[0].Sequence+uint64(i) {
			t.Fatalf("%d of the group: %s, %v; the first is at %s", i, position, errs[i], positions[0])
		}
		d, err := n.Projection.Await(within(t), position)
		if err != nil || d.RequestID != group[i].ID {
			t.Fatalf("%s is of %s, %v", position, d.RequestID, err)
		}
		_, captured := d.Body.(*events.JobCaptured)
		if captured && rejected {
			t.Errorf("%s is captured behind one that was rejected", d.RequestID)
		}
		rejected = rejected || !captured
	}
	others.Wait()
	if got := used(t, n.Node, "anna"); got != 60 {
		t.Errorf("used %d", got)
	}
}

// together asks n requests at the same time and returns the decisions by outcome.
func together(t *testing.T, n *node.Node, count int, request func(i int) *events.Request) map[string][]events.Decision {
	t.Helper()
	ctx := within(t)
	var mu sync.Mutex
	outcomes := map[string][]events.Decision{}
	var asking sync.WaitGroup
	for i := range count {
		asking.Go(func() {
			d, err := ask(ctx, n, request(i))
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			outcomes[events.OutcomeOf(d.Body)] = append(outcomes[events.OutcomeOf(d.Body)], d)
		})
	}
	asking.Wait()
	return outcomes
}

func TestRequesterKnowsWhatIsUndecided(t *testing.T) {
	e := serve(t, 4)
	n := start(t, node.Config{Dir: t.TempDir(), NATS: e.url}) // and nobody decides
	p, err := n.Append(t.Context(), capturing("anna", "1", "https://x.com/1"))
	if err != nil {
		t.Fatal(err)
	}
	if account, err := n.Requester(t.Context(), p); account != "anna" || err != nil {
		t.Errorf("requester of %s: %q, %v", p, account, err)
	}
	for _, p := range []events.Position{{Partition: p.Partition, Sequence: 2}, {Partition: 4, Sequence: 1}} {
		if account, err := n.Requester(t.Context(), p); !errors.Is(err, events.ErrNotFound) {
			t.Errorf("requester of %s: %q, %v, want ErrNotFound", p, account, err)
		}
	}
}

func TestReadyTellsOfCatchingUp(t *testing.T) {
	e := serve(t, 1)
	dir := t.TempDir()
	follower := start(t, node.Config{Dir: dir, NATS: e.url})
	if err := follower.Ready(t.Context()); err != nil {
		t.Errorf("with nothing to fold: %v", err)
	}
	decider := start(t, node.Config{Dir: t.TempDir(), NATS: e.url, Decides: true})
	release := block(t, filepath.Join(dir, node.ProjectionFile))
	together(t, decider.Node, 1100, func(i int) *events.Request { return capturing("nobody", fmt.Sprint(i), "https://x.com/1") })
	// On a machine so slow that the decisions took them long, the follower has lost its patience with the file meanwhile.
	if err := follower.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "catching up") && !strings.Contains(err.Error(), "database is locked") {
		t.Errorf("1100 decisions behind: %v", err)
	}
	if err := decider.Ready(t.Context()); err != nil {
		t.Errorf("the one that decided: %v", err)
	}
	release()
	converge(t, follower, decider)
	if err := follower.Ready(t.Context()); err != nil {
		t.Errorf("after catching up: %v", err)
	}
}

// block keeps a projection from folding until it is released.
func block(t *testing.T, path string) (release func()) {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+path+"?_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	release = func() { once.Do(func() { tx.Rollback(); db.Close() }) }
	t.Cleanup(release)
	return release
}

func TestReadyWithoutTheLedger(t *testing.T) {
	e := serve(t, 1)
	n := start(t, node.Config{Dir: t.TempDir(), NATS: e.url, Decides: true})
	e.halt()
	ctx := within(t)
	if err := n.Ready(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("without a server: %v, and at once: %v", err, ctx.Err() == nil)
	}
}
