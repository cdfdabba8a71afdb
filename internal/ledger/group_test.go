package ledger

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
)

// appendGroup appends n requests as one group and returns what became of each.
func appendGroup(ctx context.Context, l *Ledger, prefix string, n int) (outcomes []outcome) {
	requests := make([]*events.Request, n)
	for i := range requests {
		requests[i] = request(fmt.Sprintf("%s-%d", prefix, i))
	}
	positions, errs := l.AppendAll(ctx, requests)
	for i, r := range requests {
		outcomes = append(outcomes, outcome{r.ID, positions[i], errs[i]})
	}
	return outcomes
}

// wantTogether fails unless all of a group are recorded, one behind the other.
func wantTogether(t *testing.T, group []outcome) {
	t.Helper()
	for i, o := range group {
		if o.err != nil || o.position.Sequence != group[0].position.Sequence+uint64(i) {
			t.Fatalf("%s stands at %s, %v: the group begins at %s", o.id, o.position, o.err, group[0].position)
		}
	}
}

func TestGroupsStandTogether(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(*testing.T) *Ledger{
		"embedded": newLedger,
		"external": func(t *testing.T) *Ledger {
			s := startNATS(t, server.Options{StoreDir: t.TempDir(), SyncAlways: true})
			return open(t, dial(t, s.Addr().String()), Spec{Replicas: 1})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := open(t)
			const groups, singles = 12, 300
			ctx := within(t)
			others := appendAll(t, l, "single", singles)
			appended := make(chan []outcome, groups)
			for i := range groups {
				go func() { appended <- appendGroup(ctx, l, fmt.Sprintf("group-%d", i), 3+i*8) }()
			}
			all := take(t, others, singles)
			for range groups {
				group := <-appended
				wantTogether(t, group)
				all = append(all, group...)
			}
			wantRecorded(t, l, all)
		})
	}
}

func TestOneSyncServesAGroup(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	p := under(l)
	must[events.Position](t)(l.Append(within(t), request("before")))
	p.syncs = 0
	group := appendGroup(within(t), l, "r", 100)
	wantTogether(t, group)
	if p.syncs != 1 {
		t.Errorf("%d syncs for one group", p.syncs)
	}
	for _, o := range group {
		if !p.holds(o.id) {
			t.Fatalf("%s was acknowledged before it was synced", o.id)
		}
	}
}

// A group that has no room behind what waits is the next batch, whole.
func TestGroupIsNeverDividedAmongBatches(t *testing.T) {
	t.Parallel()
	l, held, _ := newLedgerOnLine(t)
	const waiting, size = maxGroup - 60, 100
	ctx := within(t)
	until := func(reached func() bool) {
		t.Helper()
		for ; !reached(); runtime.Gosched() {
			if ctx.Err() != nil {
				t.Fatal("what is appended does not wait")
			}
		}
	}
	count, sent := l.appenders[0].count.Load, l.nc.Stats().OutMsgs
	held.toServer.Lock()
	inFlight := appendAll(t, l, "first", 1)
	until(func() bool { return l.nc.Stats().OutMsgs > sent })
	singles := appendAll(t, l, "single", waiting)
	until(func() bool { return count() == 1+waiting })
	grouped := make(chan []outcome, 1)
	go func() { grouped <- appendGroup(ctx, l, "group", size) }()
	until(func() bool { return count() == 1+waiting+size })
	more := appendAll(t, l, "more", maxGroup)
	held.toServer.Unlock()
	group := <-grouped
	all := append(append(append(take(t, inFlight, 1), take(t, singles, waiting)...), take(t, more, maxGroup)...), group...)
	wantTogether(t, group)
	wantRecorded(t, l, all)

	first := group[0].position.Sequence
	ids, sizes := map[string]bool{}, map[string]int{}
	for _, m := range read(t, l, events.Requests, 0, heads(t, l).Requests) {
		batch := nats.Header(m.Header).Get(headerBatchID)
		sizes[batch]++
		if m.Sequence >= first && m.Sequence < first+size {
			ids[batch] = true
		}
	}
	if len(ids) != 1 || ids[""] {
		t.Errorf("the group is in %d batches: %v", len(ids), ids)
	}
	for id, n := range sizes {
		if id != "" && n > maxGroup {
			t.Errorf("a batch of %d", n)
		}
	}
}

func TestFullQueueRefusesAGroupWhole(t *testing.T) {
	t.Parallel()
	l, held, _ := newLedgerOnLine(t)
	held.toServer.Lock()
	const waiting = maxWaiting - 50
	outcomes := appendAll(t, l, "r", waiting)
	for ctx := within(t); l.appenders[0].count.Load() < waiting; runtime.Gosched() {
		if ctx.Err() != nil {
			t.Fatal("the appends do not wait")
		}
	}
	refused := appendGroup(within(t), l, "group", 51)
	if got := count(refused, events.ErrUnavailable); got != 51 {
		t.Errorf("%d of a group of 51 were refused: %v", got, refused[0].err)
	}
	taken := make(chan []outcome, 1)
	ctx := within(t)
	go func() { taken <- appendGroup(ctx, l, "fits", 50) }()
	for l.appenders[0].count.Load() < maxWaiting && ctx.Err() == nil {
		runtime.Gosched()
	}
	held.toServer.Unlock()
	group := <-taken
	wantTogether(t, group)
	wantRecorded(t, l, append(append(take(t, outcomes, waiting), refused...), group...))
}

func TestOversizedRequestOfAGroupIsRefusedAlone(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	requests := []*events.Request{request("first"), request("large"), request("last")}
	requests[1].Body.(*events.JobCaptureRequested).Job.Description = strings.Repeat("x", 1<<20)
	positions, errs := l.AppendAll(within(t), requests)
	wantErr(t, errs[1], events.ErrUnavailable)
	wantErr(t, errs[1], nats.ErrMaxPayload)
	wantTogether(t, []outcome{{"first", positions[0], errs[0]}, {"last", positions[2], errs[2]}})
	if _, errs := l.AppendAll(within(t), requests[1:2]); !errors.Is(errs[0], events.ErrUnavailable) {
		t.Errorf("alone in its group: %v", errs[0])
	}
	if got := heads(t, l).Requests; got != 2 {
		t.Errorf("%d requests are recorded", got)
	}
}

func TestGroupsThatFail(t *testing.T) {
	t.Parallel()
	const size = 2 * atomicFrom
	for name, tt := range map[string]struct {
		fail func(*testing.T, *Ledger, *line, *server.Server) []outcome
		want error
	}{
		"refused by the server": {func(t *testing.T, l *Ledger, _ *line, s *server.Server) []outcome {
			editStream(t, jetstreamOf(t, dial(t, s.Addr().String())), "REQUESTS_0", func(c *jetstream.StreamConfig) { c.AllowAtomicPublish = false })
			return appendGroup(within(t), l, "r", size)
		}, events.ErrUnavailable},
		"recorded, and the answer is lost": {func(t *testing.T, l *Ledger, held *line, s *server.Server) []outcome {
			other := open(t, dial(t, s.Addr().String()), Spec{Replicas: 1})
			held.toClient.Lock()
			answered, ctx := make(chan []outcome, 1), within(t)
			go func() { answered <- appendGroup(ctx, l, "r", size) }()
			read(t, other, events.Requests, 0, size)
			held.cut()
			held.toClient.Unlock()
			return <-answered
		}, events.ErrUnknownOutcome},
		"given up": {func(t *testing.T, l *Ledger, held *line, _ *server.Server) []outcome {
			held.toServer.Lock()
			ctx, cancel := context.WithCancel(within(t))
			answered := make(chan []outcome, 1)
			go func() { answered <- appendGroup(ctx, l, "r", size) }()
			cancel()
			given := <-answered
			held.toServer.Unlock()
			return given
		}, events.ErrUnknownOutcome},
		"after the end": {func(t *testing.T, l *Ledger, _ *line, _ *server.Server) []outcome {
			l.Close()
			return appendGroup(within(t), l, "r", size)
		}, events.ErrUnavailable},
		"without a server": {func(t *testing.T, l *Ledger, _ *line, s *server.Server) []outcome {
			lost := l.nc.StatusChanged(nats.RECONNECTING)
			stopNATS(s)
			await(t, lost)
			return appendGroup(within(t), l, "r", size)
		}, events.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, held, s := newLedgerOnLine(t)
			other := open(t, dial(t, s.Addr().String()), Spec{Replicas: 1})
			outcomes := tt.fail(t, l, held, s)
			if got := count(outcomes, tt.want); got != size {
				t.Errorf("%d of %d are told %v: %v", got, size, tt.want, outcomes[0].err)
			}
			if name != "without a server" {
				wantRecorded(t, other, outcomes)
			}
		})
	}
}

func TestGroupThatIsNotSynced(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	must[events.Position](t)(l.Append(within(t), request("before")))
	p := under(l)
	p.refuse = errors.New("input/output error")
	outcomes := appendGroup(within(t), l, "lost", 20)
	if got := count(outcomes, events.ErrUnknownOutcome); got != 20 {
		t.Errorf("%d of 20 are of unknown outcome: %v", got, outcomes[0].err)
	}
	after := appendGroup(within(t), l, "after", 20)
	if got := count(after, events.ErrUnavailable); got != 20 {
		t.Errorf("%d of 20 are refused: %v", got, after[0].err)
	}
	wantRecorded(t, l, append(outcomes, after...))
}
