package node_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobtally/internal/capture"
	"jobtally/internal/events"
	"jobtally/internal/node"
)

// thisMonth is the month by which harness requests are timed.
func thisMonth() events.Month { return events.MonthOf(time.Now()) }

func readMonth(t *testing.T, n running, account string, month events.Month) capture.AccountMonth {
	t.Helper()
	m, err := n.Projection.Month(within(t), account, month, month)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestReplayAgreesWhileCapturesGoOn replays a month again and again, on a node that decides and on one that follows, while
// it grows.
func TestReplayAgreesWhileCapturesGoOn(t *testing.T) {
	e := serve(t, 2)
	decider := start(t, node.Config{Dir: t.TempDir(), NATS: e.url, Decides: true})
	follower := start(t, node.Config{Dir: t.TempDir(), NATS: e.url})
	account := accountIn(1, 2)
	open(t, decider.Node, account, -1)
	all := load{accounts: []string{account, accountIn(0, 2)}, each: 500}
	open(t, decider.Node, all.accounts[1], -1)
	asking := all.run(within(t), t, decider)
	ended := make(chan struct{})
	go func() { asking.Wait(); close(ended) }()
	for rounds, over := 0, false; !over || rounds < 3; rounds++ {
		select {
		case <-ended:
			over = true
		default:
		}
		for i, n := range []running{decider, follower} {
			m := readMonth(t, n, account, month)
			replayed, err := n.Replay(within(t), account, &m)
			if err != nil {
				t.Fatal(err)
			}
			if replayed.Broken != nil || !same(replayed.MonthCount, m.MonthCount) {
				t.Fatalf("round %d, node %d at %s: the ledger has\n%+v, the projection\n%+v\n%v", rounds, i, m.At, replayed.MonthCount, m.MonthCount, replayed.Broken)
			}
		}
	}
	all.finish(t, asking, decider, follower)
}

func same(a, b capture.MonthCount) bool {
	return a.Requests == b.Requests && a.Captured == b.Captured && a.First.Sequence == b.First.Sequence && a.Last.Sequence == b.Last.Sequence &&
		a.Digest == b.Digest && a.Extension == b.Extension && slices.Equal(a.Days, b.Days)
}

func TestReplayOfAnAccountThatWasErasedIsNoMismatch(t *testing.T) {
	n := embedded(t)
	open(t, n.Node, "anna", 9)
	mustAsk(t, n.Node, capturing("anna", "1", "https://x.com/1"))
	m := readMonth(t, n, "anna", month)
	mustAsk(t, n.Node, request("anna", "erase", &events.AccountEraseRequested{}))
	if _, err := n.Replay(within(t), "anna", &m); !errors.Is(err, events.ErrNotFound) {
		t.Errorf("error %v", err)
	}
	if _, err := n.Projection.Month(within(t), "anna", month, month); !errors.Is(err, events.ErrNotFound) {
		t.Errorf("reading it: %v", err)
	}
	open(t, n.Node, "anna", 9)
	for _, of := range []events.Month{month, thisMonth()} {
		m = readMonth(t, n, "anna", of)
		if replayed, err := n.Replay(within(t), "anna", &m); err != nil || replayed.Broken != nil || replayed.Captured != 0 || !same(replayed.MonthCount, m.MonthCount) {
			t.Errorf("%s of the new account: %+v, %v, want %+v", of, replayed, err, m.MonthCount)
		}
	}
}

// TestReplayEndsWithItsClient finds the readers of a replay at the server, and none once the client went away.
func TestReplayEndsWithItsClient(t *testing.T) {
	e := serve(t, 1)
	n := start(t, node.Config{Dir: t.TempDir(), NATS: e.url, Decides: true})
	open(t, n.Node, "anna", -1)
	together(t, n.Node, 600, func(i int) *events.Request { return capturing("anna", fmt.Sprint(i), fmt.Sprint("https://x.com/", i)) })
	m := readMonth(t, n, "anna", month)
	nc, err := nats.Connect(e.url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	before := consumers(t, nc)
	ctx, goAway := context.WithCancel(within(t))
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := n.Replay(ctx, "anna", &m); err != nil {
				ended <- err
				return
			}
		}
	}()
	for consumers(t, nc) == before {
	}
	goAway()
	if err := <-ended; ctx.Err() == nil {
		t.Fatalf("it ended before: %v", err)
	}
	for ctx := within(t); consumers(t, nc) != before; { // one that was just being made goes when it is there
		if ctx.Err() != nil {
			t.Fatalf("%d readers are left, before there were %d", consumers(t, nc), before)
		}
	}
}

// consumers returns how many readers the server has.
func consumers(t *testing.T, nc *nats.Conn) (n int) {
	t.Helper()
	for _, stream := range []events.Stream{events.Requests, events.Decisions} {
		reply, err := nc.Request("$JS.API.CONSUMER.NAMES."+stream.Name(0), nil, patience)
		if err != nil {
			t.Fatal(err)
		}
		var list struct{ Total int }
		if err := json.Unmarshal(reply.Data, &list); err != nil {
			t.Fatal(err)
		}
		n += list.Total
	}
	return n
}
