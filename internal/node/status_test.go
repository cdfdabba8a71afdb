package node_test

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobtally/internal/events"
	"jobtally/internal/node"
)

// view returns a view that is closed at the end of the test.
func view(t *testing.T, v *node.View) *node.View {
	t.Helper()
	v.Config.Log = slog.New(slog.DiscardHandler)
	t.Cleanup(func() { v.Close() })
	return v
}

func mustLook(t *testing.T, v *node.View) node.Status {
	t.Helper()
	s, err := v.Look(within(t))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// lookOnce looks and closes.
func lookOnce(t *testing.T, dir string) node.Status {
	t.Helper()
	v := view(t, &node.View{Config: config(dir, ""), Nodes: []string{dir}})
	s := mustLook(t, v)
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	return s
}

// lookUntil looks until what is seen is so: a node tells of a failure in its own time.
func lookUntil(t *testing.T, v *node.View, so func(node.Status) bool) node.Status {
	t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for ctx := within(t); ; {
		s, err := v.Look(ctx)
		if err == nil && so(s) {
			return s
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("it never came so far: %+v, %v", s, err)
		}
	}
}

func unknownRequest(account string) *nats.Msg {
	return &nats.Msg{
		Subject: "requests.0." + account + ".job_teleport",
		Header: nats.Header{
			"ce-specversion": {"1.0"}, "ce-id": {"1"}, "ce-source": {"/jobtally/accounts/" + account},
			"ce-type": {"jobtally.job.teleport_requested.v9"}, "ce-time": {"2020-11-22T10:00:00Z"},
		},
		Data: []byte(`{}`),
	}
}

// A node says why it makes no progress to whoever looks, for as long as it runs.
func TestStatusHasTheNodesOwnWords(t *testing.T) {
	dir := t.TempDir()
	n := start(t, node.Config{Dir: dir, Decides: true, Partitions: 2})
	stopped, other := accountIn(0, 2), accountIn(1, 2)
	open(t, n.Node, stopped, 10)
	open(t, n.Node, other, 10)
	v := view(t, &node.View{Config: config(dir, ""), Nodes: []string{dir}})
	if s := mustLook(t, v); !s.Nodes[0].Running || s.Nodes[0].Partitions[0].Failure != "" || s.Partitions[0].Stuck != "" {
		t.Errorf("before it is stuck: %+v", s)
	}
	publish(t, dir, unknownRequest(stopped))
	s := lookUntil(t, v, func(s node.Status) bool { return s.Nodes[0].Partitions[0].Failure != "" && s.Partitions[0].Stuck != "" })
	const reason = `request 0-2: unknown type "jobtally.job.teleport_requested.v9"; a newer jobtally wrote it: run that one`
	if f := s.Nodes[0].Partitions[0]; !strings.HasPrefix(f.Failure, `request 0-2: unknown type`) || f.FailingSince == nil || time.Since(*f.FailingSince) > patience {
		t.Errorf("the node says %+v", f)
	}
	if p := s.Partitions[0]; p.Stuck != reason || p.Requests != 2 || p.Decisions != 1 || p.Undecided != 1 || p.UndecidedSeconds < 3600 {
		t.Errorf("looking tells %+v, want %s", p, reason)
	}
	if f := s.Nodes[0].Partitions[1]; f.Failure != "" || f.FailingSince != nil || f.Folded != 1 || s.Partitions[1].Stuck != "" {
		t.Errorf("the other partition: %+v", f)
	}
	if info, err := os.Stat(filepath.Join(dir, "failure.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v, want mode 0600", info, err)
	}

	stop(t, n)
	mustHaveNoFailure(t, dir)
	s = lookOnce(t, dir)
	if f := s.Nodes[0].Partitions[0]; s.Nodes[0].Running || f.Failure != "" || s.Partitions[0].Stuck != reason {
		t.Errorf("stopped: %+v, and %+v", s.Nodes[0], s.Partitions[0])
	}
}

func mustHaveNoFailure(t *testing.T, dir string) {
	t.Helper()
	if text, err := os.ReadFile(filepath.Join(dir, "failure.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it says still %s, %v", text, err)
	}
}

// What passes is taken back.
func TestStatusForgetsAFailureThatPassed(t *testing.T) {
	e := serve(t, 1)
	dir := t.TempDir()
	n := start(t, node.Config{Dir: dir, NATS: e.url, Decides: true})
	open(t, n.Node, "anna", 10)
	e.halt()
	n.log.await(t, "projector failed")
	v := view(t, &node.View{Config: config("", e.url), Nodes: []string{dir}})
	if s, err := v.Look(within(t)); err == nil {
		t.Errorf("without a server: %+v", s)
	}
	e.boot(t)
	lookUntil(t, v, func(s node.Status) bool { return s.Nodes[0].Running && s.Nodes[0].Partitions[0].Failure == "" })
	n.log.await(t, "projector works again")
	mustHaveNoFailure(t, dir)
}

// What a process left that was killed is not taken for the words of one that runs.
func TestStatusKnowsStaleWords(t *testing.T) {
	dir := t.TempDir()
	n := start(t, node.Config{Dir: dir, Decides: true})
	open(t, n.Node, "anna", 10)
	stop(t, n)
	stale := []byte(`[{"partition":0,"since":"2026-11-22T10:00:00Z","reason":"of long ago"}]`)
	leave := func() {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "failure.json"), stale, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	leave()
	s := lookOnce(t, dir)
	if s.Nodes[0].Running || s.Nodes[0].Partitions[0].Failure != "" {
		t.Errorf("where none runs: %+v", s.Nodes[0])
	}
	leave()
	n = start(t, node.Config{Dir: dir, Decides: true})
	mustHaveNoFailure(t, dir)
	if s = lookOnce(t, dir); !s.Nodes[0].Running || s.Nodes[0].Partitions[0].Failure != "" {
		t.Errorf("where another one runs: %+v", s.Nodes[0])
	}
}

// Looking tells what no node is there to tell.
func TestStatusTellsByLooking(t *testing.T) {
	e := serve(t, 1)
	dir := t.TempDir()
	follower := start(t, node.Config{Dir: dir, NATS: e.url})
	decider := start(t, node.Config{Dir: t.TempDir(), NATS: e.url, Decides: true})
	openAll(t, follower, 10, "anna", "bob")
	converge(t, follower, decider)
	stop(t, decider)
	v := view(t, &node.View{Config: config("", e.url), Nodes: []string{dir}})

	ahead := request("carl", "open", &events.AccountOpenRequested{Plan: "test", Limit: 1})
	ahead.Time = time.Now().Add(time.Hour)
	for _, r := range []*events.Request{ahead, request("dora", "open", &events.AccountOpenRequested{Plan: "test", Limit: 1})} {
		if _, err := follower.Append(within(t), r); err != nil {
			t.Fatal(err)
		}
	}
	s := mustLook(t, v)
	if p := s.Partitions[0]; p.Undecided != 2 || p.UndecidedSeconds != 0 || !strings.Contains(p.Stuck, "start a projector") {
		t.Errorf("nobody decides: %+v", p)
	}
	if f := s.Nodes[0].Partitions[0]; f.Folded != 2 || f.Unfolded != 0 || f.Failure != "" {
		t.Errorf("the follower: %+v", f)
	}
	if p := s.Partitions[0]; p.RequestBytes == 0 || p.DecisionBytes == 0 || s.Nodes[0].ProjectionBytes == 0 || s.Nodes[0].WALBytes == 0 {
		t.Errorf("sizes: %+v, %+v", p, s.Nodes[0])
	}
	if s.Nodes[0].Erasing {
		t.Error("it has nothing that was erased")
	}
	marker := filepath.Join(dir, node.ProjectionFile+"-erasing")
	if err := os.WriteFile(marker, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s = mustLook(t, v); !s.Nodes[0].Erasing {
		t.Error("it still has what was erased")
	}
	if err := os.Remove(marker); err != nil {
		t.Fatal(err)
	}

	remove(t, e.url, "REQUESTS_0", "3")
	if s = mustLook(t, v); !strings.Contains(s.Partitions[0].Stuck, "request 0-3 was removed") {
		t.Errorf("a gap in the requests: %+v", s.Partitions[0])
	}
	stop(t, follower)
	if err := os.Remove(filepath.Join(dir, node.ProjectionFile)); err != nil {
		t.Fatal(err)
	}
	if s = mustLook(t, v); s.Nodes[0].SchemaVersion != 0 || len(s.Nodes[0].Partitions) != 0 || s.Nodes[0].Running {
		t.Errorf("without a projection: %+v", s.Nodes[0])
	}
}

// TestStatusOfANodeBehind looks at a node that was stopped while another went on, and then at a gap before it.
func TestStatusOfANodeBehind(t *testing.T) {
	e := serve(t, 1)
	behind, on := t.TempDir(), t.TempDir()
	a := start(t, node.Config{Dir: behind, NATS: e.url, Decides: true})
	open(t, a.Node, "anna", 10)
	stop(t, a)
	b := start(t, node.Config{Dir: on, NATS: e.url, Decides: true})
	openAll(t, b, 10, "bob", "carl")
	files := names(t, behind)

	v := view(t, &node.View{Config: config("", e.url), Nodes: []string{behind, on}})
	s := mustLook(t, v)
	if n := s.Nodes[0]; n.Running || n.Partitions[0].Folded != 1 || n.Partitions[0].Unfolded != 2 || n.Partitions[0].UnfoldedSeconds <= 0 {
		t.Errorf("behind: %+v", n)
	}
	if n := s.Nodes[1]; !n.Running || n.Partitions[0].Folded != 3 || n.Partitions[0].Unfolded != 0 || n.Partitions[0].UnfoldedSeconds != 0 {
		t.Errorf("on: %+v", n)
	}
	if s.Nodes[0].Partitions[0].Digest == s.Nodes[1].Partitions[0].Digest {
		t.Error("one digest at two positions")
	}
	if after := names(t, behind); !slices.Equal(files, after) {
		t.Errorf("looking left %q, there was %q", after, files)
	}
	remove(t, e.url, "DECISIONS_0", "2")
	s = mustLook(t, v)
	if f := s.Nodes[0].Partitions[0]; !strings.Contains(f.Failure, "decision 0-2 was removed") {
		t.Errorf("a gap before it: %+v", f)
	}
	if f := s.Nodes[1].Partitions[0]; f.Failure != "" {
		t.Errorf("the gap is behind this one: %+v", f)
	}
}

func names(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// remove takes a message out of a stream.
func remove(t *testing.T, url, stream, sequence string) {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	reply, err := nc.Request("$JS.API.STREAM.MSG.DELETE."+stream, []byte(`{"seq":`+sequence+`}`), patience)
	if err != nil || !strings.Contains(string(reply.Data), `"success":true`) {
		t.Fatalf("%s, %v", reply.Data, err)
	}
}

// The last archived month is read from the ledger alone.
func TestStatusHasTheLastArchivedMonth(t *testing.T) {
	e := serve(t, 1)
	v := view(t, &node.View{Config: config("", e.url)})
	if s := mustLook(t, v); s.Partitions[0].ArchivedMonth != "" || len(s.Nodes) > 0 {
		t.Errorf("before any: %+v", s)
	}
	nc, err := nats.Connect(e.url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for i, month := range []events.Month{"2026-09", "2026-10"} {
		archived := &events.MonthArchived{Month: month}
		archived.First, archived.Last = events.Position{Sequence: 1}, events.Position{Sequence: 1}
		d := events.Decision{Position: events.Position{Sequence: uint64(i + 1)}, RequestID: "x", Time: time.Now(), Body: archived}
		d.Seal(events.Digest{})
		m := d.Message()
		for _, subject := range []string{"requests.0.~.month_close", m.Subject} {
			if _, err := nc.RequestMsg(&nats.Msg{Subject: subject, Header: m.Header, Data: m.Data}, patience); err != nil {
				t.Fatal(err)
			}
		}
	}
	if s := mustLook(t, v); s.Partitions[0].ArchivedMonth != "2026-10" {
		t.Errorf("%+v", s.Partitions[0])
	}
}

// A service can start at any time while somebody watches a directory on which none runs.
func TestWatchingLeavesADirectoryFree(t *testing.T) {
	dir := t.TempDir()
	n := start(t, node.Config{Dir: dir, Decides: true})
	open(t, n.Node, "anna", 10)
	v := view(t, &node.View{Config: config(dir, ""), Nodes: []string{dir}, RunningOnly: true})
	mustLook(t, v)
	stop(t, n)
	for range 3 { // the first one finds the connection gone
		if s, err := v.Look(within(t)); err == nil {
			t.Fatalf("%+v", s)
		}
	}
	if _, err := v.Look(within(t)); !strings.Contains(err.Error(), "no node runs on "+dir) {
		t.Error(err)
	}
	start(t, node.Config{Dir: dir, Decides: true})
	if s := mustLook(t, v); !s.Nodes[0].Running || s.Partitions[0].Requests != 1 {
		t.Errorf("back again: %+v", s)
	}
}
