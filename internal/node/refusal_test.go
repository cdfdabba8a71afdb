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
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"

	"jobtally/internal/events"
	"jobtally/internal/ledger"
	"jobtally/internal/node"
	"jobtally/internal/projections"
)

// undecidedBound is how many requests a node records in a partition before it wants them decided.
const undecidedBound = 8192

// TestUndecidedRequestsAreBounded fills a partition that nobody decides, and then lets somebody decide.
func TestUndecidedRequestsAreBounded(t *testing.T) {
	e := serve(t, 2)
	n := start(t, node.Config{Dir: t.TempDir(), NATS: e.url})
	full, other := accountIn(0, 2), accountIn(1, 2)
	fill(t, n, full, undecidedBound+1)

	refused := capturing(full, "refused", "https://x.com/refused")
	if _, err := n.Append(t.Context(), refused); !errors.Is(err, events.ErrUnavailable) {
		t.Fatalf("one more: %v, want ErrUnavailable", err)
	}
	if _, errs := n.AppendAll(t.Context(), []*events.Request{refused, capturing(full, "refused-too", "https://x.com/too")}); !errors.Is(errs[0], events.ErrUnavailable) ||
		!errors.Is(errs[1], events.ErrUnavailable) {
		t.Errorf("two more: %v, want ErrUnavailable", errs)
	}
	if heads, err := n.Ledger.Heads(t.Context(), 0); err != nil || heads.Requests != undecidedBound+1 {
		t.Errorf("the refused one left the heads at %+v, %v", heads, err)
	}
	if _, err := n.Append(t.Context(), capturing(other, "1", "https://x.com/1")); err != nil {
		t.Errorf("the other partition: %v", err)
	}

	decider := start(t, node.Config{Dir: t.TempDir(), NATS: e.url, Decides: true})
	if _, err := n.Projection.Await(within(t), events.Position{Partition: 0, Sequence: undecidedBound + 1}); err != nil {
		t.Fatal(err)
	}
	if d := mustAsk(t, n.Node, refused); d.Position.Sequence != undecidedBound+2 {
		t.Errorf("taken after all at %s", d.Position)
	}
	converge(t, n, decider)
}

func accountIn(partition, partitions int) string {
	for i := 0; ; i++ {
		if name := fmt.Sprint("account-", i); events.PartitionOf(name, partitions) == partition {
			return name
		}
	}
}

// fill appends so many requests, as many at once as the group commit takes.
func fill(t *testing.T, n running, account string, count int64) {
	t.Helper()
	ctx := within(t)
	var appending sync.WaitGroup
	var next atomic.Int64
	for range 1024 {
		appending.Go(func() {
			for i := next.Add(1); i <= count; i = next.Add(1) {
				if _, err := n.Append(ctx, capturing(account, fmt.Sprint(i), fmt.Sprint("https://x.com/", i))); err != nil {
					t.Errorf("append %d: %v", i, err)
					return
				}
			}
		})
	}
	appending.Wait()
}

// TestUnknownRequestStopsItsPartition has a newer jobtally write a request that this one does not know.
func TestUnknownRequestStopsItsPartition(t *testing.T) {
	dir := t.TempDir()
	n := start(t, node.Config{Dir: dir, Decides: true, Partitions: 2})
	stopped, other := accountIn(0, 2), accountIn(1, 2)
	open(t, n.Node, stopped, 10)
	publish(t, dir, unknownRequest(stopped))
	n.log.await(t, "partition stopped")

	const reason = "request 0-2: unknown type \"jobtally.job.teleport_requested.v9\"; a newer jobtally wrote it"
	_, err := n.Append(t.Context(), capturing(stopped, "1", "https://x.com/1"))
	if !errors.Is(err, events.ErrUnavailable) || !strings.Contains(err.Error(), reason) {
		t.Errorf("append: %v, want ErrUnavailable because of %s", err, reason)
	}
	if heads, err := n.Ledger.Heads(t.Context(), 0); err != nil || heads != (events.Heads{Requests: 2, Decisions: 1}) {
		t.Errorf("heads %+v, %v", heads, err)
	}
	if err := n.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "partition 0") || !strings.Contains(err.Error(), reason) {
		t.Errorf("ready: %v", err)
	}
	if got := used(t, n.Node, stopped); got != 0 {
		t.Errorf("the quota still answers, but says %d", got)
	}
	open(t, n.Node, other, 10) // in the partition that goes on

	stop(t, n)
	again := start(t, node.Config{Dir: dir, Decides: true})
	again.log.await(t, "partition stopped")
	if err := again.AwaitCaughtUp(within(t)); err != nil {
		t.Errorf("a stopped partition keeps the node from answering what it can: %v", err)
	}
	if got := used(t, again.Node, stopped); got != 0 {
		t.Errorf("the quota of the stopped partition is %d", got)
	}
}

func TestNodeCatchesUpBeforeItAnswers(t *testing.T) {
	dir := t.TempDir()
	n := start(t, node.Config{Dir: dir, Decides: true})
	open(t, n.Node, "anna", -1)
	together(t, n.Node, 700, func(i int) *events.Request { return capturing("anna", fmt.Sprint(i), fmt.Sprint("https://x.com/", i)) })
	stop(t, n)
	if err := os.Remove(filepath.Join(dir, node.ProjectionFile)); err != nil {
		t.Fatal(err)
	}

	n = start(t, node.Config{Dir: dir, Decides: true})
	if got := n.Projection.Folded(0); got < 701 && n.CaughtUp() {
		t.Errorf("the node answers with %d of 701 folded", got)
	}
	if err := n.AwaitCaughtUp(within(t)); err != nil {
		t.Fatal(err)
	}
	if got := used(t, n.Node, "anna"); got != 700 {
		t.Errorf("caught up, the quota says %d of 700", got)
	}
}

// A partition that stops at a gap has decisions behind it that were told: what is folded is older than they are.
func TestNodeThatStopsBeforeWhatWasToldNeverAnswers(t *testing.T) {
	dir := t.TempDir()
	n := start(t, node.Config{Dir: dir, Decides: true})
	open(t, n.Node, "anna", 10)
	for i := range 3 {
		mustAsk(t, n.Node, capturing("anna", fmt.Sprint(i), fmt.Sprint("https://x.com/", i)))
	}
	publish(t, dir, &nats.Msg{Subject: "$JS.API.STREAM.MSG.DELETE.DECISIONS_0", Data: []byte(`{"seq":3}`)})
	stop(t, n)
	if err := os.Remove(filepath.Join(dir, node.ProjectionFile)); err != nil {
		t.Fatal(err)
	}

	n = start(t, node.Config{Dir: dir, Decides: true})
	n.log.await(t, "partition stopped")
	stop(t, n)
	if n.CaughtUp() {
		t.Error("the node answers from 2 decisions of 4")
	}
}

func TestNodeRefusesAProjectionThatDoesNotMatch(t *testing.T) {
	dir := t.TempDir()
	n := start(t, node.Config{Dir: dir, Decides: true})
	open(t, n.Node, "anna", 10)
	stop(t, n)
	db, err := sql.Open("sqlite3", filepath.Join(dir, node.ProjectionFile))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("UPDATE decisions SET digest = zeroblob(32)"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = node.Start(within(t), node.Config{Dir: dir, Decides: true, Log: slog.New(slog.DiscardHandler)})
	if !errors.Is(err, projections.ErrMismatch) || !strings.Contains(err.Error(), "rm -f") {
		t.Errorf("started on a decision that is another one: %v", err)
	}
}

// publish puts a message into the ledger of an embedded node behind its back.
func publish(t *testing.T, dir string, m *nats.Msg) {
	t.Helper()
	if _, err := behind(t, dir).RequestMsg(m, patience); err != nil {
		t.Fatal(err)
	}
}

// behind connects to the ledger of what runs on a directory, behind its back, until the test ends.
func behind(t *testing.T, dir string) *nats.Conn {
	t.Helper()
	url, err := ledger.EmbeddedURL(dir)
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(url, nats.NoReconnect())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}
