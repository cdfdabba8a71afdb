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

// wantRecorded fails unless each acknowledged request stands under the position it was acknowledged with, each
// position was given once, and nothing that was refused as not recorded is there.
func wantRecorded(t *testing.T, l *Ledger, outcomes []outcome) {
	t.Helper()
	recorded := map[uint64]string{}
	ids := map[string]int{}
	for _, m := range read(t, l, events.Requests, 0, heads(t, l).Requests) {
		if m.Void() {
			continue
		}
		recorded[m.Sequence] = m.Header["ce-id"][0]
		ids[m.Header["ce-id"][0]]++
	}
	given := map[uint64]string{}
	for _, o := range outcomes {
		switch {
		case o.err == nil:
			if recorded[o.position.Sequence] != o.id {
				t.Errorf("position %s was answered to %s, but is %q", o.position, o.id, recorded[o.position.Sequence])
			}
			if other := given[o.position.Sequence]; other != "" {
				t.Errorf("position %s was answered to %s and to %s", o.position, other, o.id)
			}
			given[o.position.Sequence] = o.id
		case errors.Is(o.err, events.ErrUnavailable):
			if ids[o.id] != 0 {
				t.Errorf("%s was refused as not recorded (%v), but is there", o.id, o.err)
			}
		case !errors.Is(o.err, events.ErrUnknownOutcome):
			t.Errorf("%s: error %v is neither ErrUnavailable nor ErrUnknownOutcome", o.id, o.err)
		}
	}
	for id, times := range ids {
		if times != 1 {
			t.Errorf("%s is recorded %d times", id, times)
		}
	}
}

// count counts the outcomes that are errors of a kind; nil counts the successes.
func count(outcomes []outcome, kind error) (n int) {
	for _, o := range outcomes {
		if errors.Is(o.err, kind) {
			n++
		}
	}
	return n
}

func TestAppendNumbersFromOne(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	for i := range 5 {
		got := must[events.Position](t)(l.Append(within(t), request(fmt.Sprint(i))))
		if want := (events.Position{Partition: 0, Sequence: uint64(i + 1)}); got != want {
			t.Fatalf("position %s, want %s", got, want)
		}
	}
	m := must[events.Message](t)(l.Get(within(t), events.Requests, events.Position{Sequence: 3}))
	want := request("2").Message(1)
	if m.Subject != want.Subject || string(m.Data) != string(want.Data) || m.Header["ce-id"][0] != "2" || m.Sequence != 3 {
		t.Fatalf("recorded %+v, want %+v", m, want)
	}
	for _, p := range []events.Position{{Sequence: 6}, {Partition: 1, Sequence: 1}} {
		_, err := l.Get(within(t), events.Requests, p)
		wantErr(t, err, events.ErrNotFound)
	}
}

func TestAppendPutsAnAccountIntoItsPartition(t *testing.T) {
	t.Parallel()
	_, nc := startEmbedded(t, t.TempDir())
	l := open(t, nc, Spec{Partitions: 4, Replicas: 1})
	next := map[int]uint64{}
	for i := range 40 {
		r := request(fmt.Sprint(i))
		r.Account = fmt.Sprintf("account-%d", i)
		p := events.PartitionOf(r.Account, 4)
		next[p]++
		if got := must[events.Position](t)(l.Append(within(t), r)); got != (events.Position{Partition: p, Sequence: next[p]}) {
			t.Fatalf("%s went to %s, want %d-%d", r.Account, got, p, next[p])
		}
	}
	if len(next) != 4 {
		t.Fatalf("40 accounts are in %d partitions", len(next))
	}
}

func TestConcurrentAppendsGetEachPositionOnce(t *testing.T) {
	t.Parallel()
	s := startNATS(t, server.Options{StoreDir: t.TempDir(), SyncAlways: true})
	l := open(t, dial(t, s.Addr().String()), Spec{Replicas: 1})
	must[events.Position](t)(l.Append(within(t), request("alone")))

	const n = 1000
	outcomes := take(t, appendAll(t, l, "r", n), n)

	if got := count(outcomes, nil); got != n {
		t.Fatalf("%d of %d appends succeeded: %v", got, n, outcomes[0].err)
	}
	wantRecorded(t, l, outcomes)
	batched, single := 0, 0
	messages := read(t, l, events.Requests, 0, n+1)
	wantSequences(t, messages, 1, n+1)
	for _, m := range messages {
		if len(m.Header[nats.MsgIdHdr]) > 0 {
			t.Fatalf("message %d has a %s: one that is known would refuse a whole batch", m.Sequence, nats.MsgIdHdr)
		}
		if len(m.Header[headerBatchID]) > 0 {
			batched++
		} else {
			single++
		}
	}
	if batched == 0 || single == 0 {
		t.Fatalf("%d messages came in batches and %d alone: both ways were to be tried", batched, single)
	}
}

func TestAppendAfterClose(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	l.Close()
	l.Close() // closing twice is harmless

	_, err := l.Append(within(t), request("late"))
	wantErr(t, err, events.ErrUnavailable)
	if got := heads(t, l); got != (events.Heads{}) {
		t.Fatalf("heads %+v of a ledger that took nothing", got)
	}
}

func TestCloseAnswersWhatIsWaiting(t *testing.T) {
	t.Parallel()
	l, held, _ := newLedgerOnLine(t)
	outcomes := heldAppends(t, l, held)
	closed := make(chan struct{})
	go func() { l.Close(); close(closed) }()
	held.toServer.Unlock()
	taken := take(t, outcomes, heldCount)
	<-closed
	wantRecorded(t, l, taken)
	if count(taken, nil) == 0 {
		t.Fatal("Close answered nobody with a position")
	}
	for _, o := range taken { // whoever came after Close was refused, nobody else
		if o.err != nil && !errors.Is(o.err, events.ErrUnavailable) {
			t.Fatalf("%s: %v", o.id, o.err)
		}
	}
}

func TestAppendCancelled(t *testing.T) {
	t.Parallel()
	l, held, _ := newLedgerOnLine(t)
	held.toServer.Lock()
	ctx, cancel := context.WithCancel(within(t))
	answered := make(chan error, 1)
	go func() {
		_, err := l.Append(ctx, request("given-up"))
		answered <- err
	}()
	cancel()
	err := <-answered
	held.toServer.Unlock()

	wantErr(t, err, events.ErrUnknownOutcome)
	wantErr(t, err, context.Canceled)
	must[events.Position](t)(l.Append(within(t), request("next"))) // the appender goes on
}

func TestFullQueueRefuses(t *testing.T) {
	t.Parallel()
	l, held, _ := newLedgerOnLine(t)
	held.toServer.Lock()

	const refusals = 100
	const n = maxWaiting + refusals
	outcomes := appendAll(t, l, "r", n)
	refused := take(t, outcomes, refusals)
	held.toServer.Unlock()
	taken := append(refused, take(t, outcomes, n-refusals)...)

	if count(refused, events.ErrUnavailable) != refusals {
		t.Fatalf("want %d x ErrUnavailable, got %v", refusals, refused[0].err)
	}
	if got := count(taken, nil); got < maxWaiting {
		t.Fatalf("only %d of those that waited were recorded", got)
	}
	wantRecorded(t, l, taken)
}

func TestOversizedRequestIsRefusedAlone(t *testing.T) {
	t.Parallel()
	l, held, _ := newLedgerOnLine(t)
	held.toServer.Lock()
	outcomes := appendAll(t, l, "r", 2*atomicFrom)
	large := request("large")
	large.Body.(*events.JobCaptureRequested).Job.Description = strings.Repeat("x", 1<<20)
	refused := make(chan error, 1)
	ctx := within(t)
	go func() {
		_, err := l.Append(ctx, large)
		refused <- err
	}()
	more := appendAll(t, l, "s", 2*atomicFrom)
	held.toServer.Unlock()

	err := <-refused
	wantErr(t, err, events.ErrUnavailable)
	wantErr(t, err, nats.ErrMaxPayload)
	taken := append(take(t, outcomes, 2*atomicFrom), take(t, more, 2*atomicFrom)...)
	if got := count(taken, nil); got != 4*atomicFrom {
		t.Fatalf("only %d of %d others were recorded", got, 4*atomicFrom)
	}
	wantRecorded(t, l, append(taken, outcome{id: "large", err: err}))
}

// A request that just fits must leave room for what is added to it: the headers of a batch, and all that the decision
// on it says beyond it. Otherwise it could never be decided.
func TestLargestRequestLeavesRoomForItsDecision(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	r := request("large")
	job := &r.Body.(*events.JobCaptureRequested).Job
	size := 1 << 20
	for {
		job.Description = strings.Repeat("x", size)
		_, err := l.Append(within(t), r)
		if err == nil {
			break
		}
		wantErr(t, err, events.ErrUnavailable)
		size -= 64
	}
	decision := events.Message{Subject: "jobs.0.demo.captured", Header: map[string][]string{}, Data: r.Message(1).Data}
	for k, v := range r.Message(1).Header {
		decision.Header[k] = v
	}
	decision.Header["more"] = []string{strings.Repeat("x", 2<<10)}
	if err := l.AppendDecisions(within(t), 0, 0, []events.Message{decision}); err != nil {
		t.Fatal(err)
	}
}

func TestRefusedBatchIsAnsweredTruthfully(t *testing.T) {
	t.Parallel()
	l, held, s := newLedgerOnLine(t)
	outcomes := heldAppends(t, l, held)
	editStream(t, jetstreamOf(t, dial(t, s.Addr().String())), "REQUESTS_0",
		func(c *jetstream.StreamConfig) { c.AllowAtomicPublish = false })
	held.toServer.Unlock()

	taken := take(t, outcomes, heldCount)

	if count(taken, events.ErrUnavailable) == 0 {
		t.Fatal("no batch was refused")
	}
	wantRecorded(t, l, taken)
}

// newLedgerOnLine is a ledger on a server of its own, behind a line that can be held up.
func newLedgerOnLine(t *testing.T) (*Ledger, *line, *server.Server) {
	t.Helper()
	s := startNATS(t, server.Options{StoreDir: t.TempDir(), SyncAlways: true})
	held := newLine(t, s)
	return open(t, dial(t, held.address), Spec{Replicas: 1}), held, s
}

// heldCount is more than one group takes, so that an atomic batch remains.
const heldCount = maxGroup + 2*atomicFrom

// heldAppends holds the line up and returns once one group is in flight and enough for an atomic batch waits.
func heldAppends(t *testing.T, l *Ledger, held *line) <-chan outcome {
	t.Helper()
	held.toServer.Lock()
	outcomes := appendAll(t, l, "r", heldCount)
	for ctx := within(t); len(l.appenders[0].waiting) < atomicFrom; runtime.Gosched() {
		if ctx.Err() != nil {
			t.Fatalf("%d appends wait", len(l.appenders[0].waiting))
		}
	}
	return outcomes
}

func TestAppendWhileTheServerStops(t *testing.T) {
	t.Parallel()
	for _, clients := range []int{4, 100} { // messages published each, and batches
		t.Run(fmt.Sprint(clients), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			l, e := openEmbedded(t, dir)
			outcomes := make(chan outcome, 1<<16)
			stopped := make(chan struct{})
			ctx := within(t)
			for c := range clients {
				go func() {
					defer func() { stopped <- struct{}{} }()
					for i := 0; ; i++ {
						id := fmt.Sprintf("%d-%d", c, i)
						position, err := l.Append(ctx, request(id))
						outcomes <- outcome{id, position, err}
						if err != nil {
							return
						}
					}
				}()
			}
			taken := take(t, outcomes, 5*clients)
			e.Close()
			for range clients {
				<-stopped
			}
			taken = append(taken, take(t, outcomes, len(outcomes))...)

			_, err := l.Append(within(t), request("late"))
			wantErr(t, err, events.ErrUnavailable)
			taken = append(taken, outcome{id: "late", err: err})

			l, _ = openEmbedded(t, dir)
			wantRecorded(t, l, taken)
		})
	}
}

func TestLostAnswerIsAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	l, held, s := newLedgerOnLine(t)
	other := open(t, dial(t, s.Addr().String()), Spec{Replicas: 1})

	held.toClient.Lock()
	outcomes := appendAll(t, l, "r", 1)
	if got := read(t, other, events.Requests, 0, 1); got[0].Header["ce-id"][0] != "r-0" {
		t.Fatalf("recorded %+v", got)
	}
	held.cut()
	held.toClient.Unlock()

	wantErr(t, take(t, outcomes, 1)[0].err, events.ErrUnknownOutcome)
	if got := heads(t, other).Requests; got != 1 {
		t.Fatalf("%d requests are recorded, want the one", got)
	}
}

func TestAppendGoesOnWhenTheServerIsBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := startNATS(t, server.Options{StoreDir: dir})
	port := s.Addr().String()
	nc := dial(t, port)
	l := open(t, nc, Spec{Replicas: 1})
	must[events.Position](t)(l.Append(within(t), request("before")))

	lost, back := nc.StatusChanged(nats.RECONNECTING), nc.StatusChanged(nats.CONNECTED)
	stopNATS(s)
	await(t, lost)
	_, err := l.Append(within(t), request("meanwhile"))
	wantErr(t, err, events.ErrUnavailable)
	startNATS(t, server.Options{StoreDir: dir, Port: portOf(t, port)})
	await(t, back)

	if got := must[events.Position](t)(l.Append(within(t), request("after"))); got.Sequence != 2 {
		t.Fatalf("position %s, want 0-2", got)
	}
}
