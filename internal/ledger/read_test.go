package ledger

import (
	"context"
	"errors"
	"fmt"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
)

func TestReadFromHistoryIntoLive(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	const history, live = 1200, 300
	wantRecorded(t, l, take(t, appendAll(t, l, "history", history), history))

	var readers sync.WaitGroup
	atHead := make(chan struct{}, 5)
	for _, after := range []uint64{0, 1, 511, history - 1, history} {
		ctx := within(t)
		readers.Go(func() {
			want := after
			if want == history {
				atHead <- struct{}{}
			}
			for batch, err := range l.Read(ctx, events.Requests, 0, after) {
				if err != nil {
					t.Errorf("reader from %d: %v", after, err)
					return
				}
				if len(batch) == 0 || len(batch) > maxRead {
					t.Errorf("reader from %d: a batch of %d", after, len(batch))
				}
				for _, m := range batch {
					if want++; m.Sequence != want {
						t.Errorf("reader from %d: got %d, want %d", after, m.Sequence, want)
						return
					}
				}
				if want == history {
					atHead <- struct{}{}
				}
				if want == history+live {
					return
				}
			}
		})
	}
	await(t, atHead)
	taken := take(t, appendAll(t, l, "live", live), live)
	readers.Wait()
	if got := count(taken, nil); got != live {
		t.Fatalf("%d of %d live appends succeeded", got, live)
	}
}

func TestReadYieldsTheMessageAsAppended(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	r := request("a b")
	must[events.Position](t)(l.Append(within(t), r))

	got := read(t, l, events.Requests, 0, 1)[0]

	decoded := must[events.Request](t)(events.DecodeRequest(got, 0, 1))
	if decoded.ID != r.ID || decoded.Account != r.Account || !decoded.Time.Equal(r.Time) ||
		*decoded.Body.(*events.JobCaptureRequested) != *r.Body.(*events.JobCaptureRequested) {
		t.Fatalf("read %+v, appended %+v", decoded, r)
	}
	stored := must[events.Message](t)(l.Get(within(t), events.Requests, decoded.Position))
	again := must[events.Request](t)(events.DecodeRequest(stored, 0, 1))
	if again.Digest != decoded.Digest {
		t.Fatal("Get and Read give one message two digests")
	}
}

func TestReadBeyondTheHeadWaitsForThatNumber(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	must[events.Position](t)(l.Append(within(t), request("1")))
	first := make(chan events.Message, 1)
	started := make(chan struct{})
	ctx := within(t)
	go func() {
		close(started)
		for batch, err := range l.Read(ctx, events.Requests, 0, 4) {
			if err != nil {
				t.Error(err)
				return
			}
			first <- batch[0]
			return
		}
	}()
	<-started
	for i := 2; i <= 5; i++ {
		must[events.Position](t)(l.Append(within(t), request(fmt.Sprint(i))))
	}
	select {
	case m := <-first:
		if m.Sequence != 5 {
			t.Fatalf("got %d, want 5", m.Sequence)
		}
	case <-ctx.Done():
		t.Fatal("number 5 was not read")
	}
}

func TestReadFindsRemovedMessages(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		removed, after uint64
		says           string // empty: no gap
	}{
		{removed: 3, after: 0, says: "goes from 2 to 4"},
		{removed: 3, after: 2, says: "goes from 2 to 4"},
		{removed: 3, after: 3},
		{removed: 1, after: 0, says: "goes from 0 to 2"},
		{removed: 5, after: 4, says: "goes from 4 to 6"}, // the last one, seen once there is another
	} {
		t.Run(fmt.Sprintf("%d after %d", c.removed, c.after), func(t *testing.T) {
			t.Parallel()
			_, nc := startEmbedded(t, t.TempDir())
			l := open(t, nc, Spec{Replicas: 1})
			for i := range 5 {
				must[events.Position](t)(l.Append(within(t), request(fmt.Sprint(i))))
			}
			stream := must[jetstream.Stream](t)(jetstreamOf(t, nc).Stream(within(t), "REQUESTS_0"))
			if err := stream.DeleteMsg(within(t), c.removed); err != nil {
				t.Fatal(err)
			}
			must[events.Position](t)(l.Append(within(t), request("6")))

			next := c.after
			for batch, err := range l.Read(within(t), events.Requests, 0, c.after) {
				if err != nil {
					wantErr(t, err, events.ErrGap)
					if c.says == "" || !strings.Contains(err.Error(), c.says) {
						t.Fatalf("error %q, want one that says %q", err, c.says)
					}
					return
				}
				for _, m := range batch {
					if next++; m.Sequence != next {
						t.Fatalf("read %d, want %d", m.Sequence, next)
					}
				}
				if next == 6 {
					break
				}
			}
			if c.says != "" {
				t.Fatalf("read up to %d without finding the gap", next)
			}
		})
	}
}

// wantNoPump fails if the goroutine of a Read still runs. Once the range loop is over it has ended, so there is
// nothing to wait for.
func wantNoPump(t *testing.T) {
	t.Helper()
	var stacks strings.Builder
	if err := pprof.Lookup("goroutine").WriteTo(&stacks, 2); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(stacks.String(), "ledger.(*reader).start") {
		t.Fatal("a reader's goroutine is left behind")
	}
}

// Not parallel, like the test after it: no other test's readers run beside these.
func TestReadEndsWithItsContext(t *testing.T) {
	l := newLedger(t)
	must[events.Position](t)(l.Append(within(t), request("1")))
	for _, after := range []uint64{0, 1} { // within the history, and waiting at its end
		ctx, cancel := context.WithCancel(within(t))
		defer cancel()
		var last error
		if after == 1 {
			cancel()
		}
		for _, err := range l.Read(ctx, events.Requests, 0, after) {
			cancel()
			last = err
		}
		wantErr(t, last, context.Canceled)
		wantNoPump(t)
	}
}

func TestReadEndsWithTheLoop(t *testing.T) {
	_, nc := startEmbedded(t, t.TempDir())
	l := open(t, nc, Spec{Replicas: 1})
	wantRecorded(t, l, take(t, appendAll(t, l, "r", 3*maxRead), 3*maxRead))
	for range 5 {
		for _, err := range l.Read(within(t), events.Requests, 0, 0) {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		wantNoPump(t)
	}
	stream := must[jetstream.Stream](t)(jetstreamOf(t, nc).Stream(within(t), "REQUESTS_0"))
	if n := stream.CachedInfo().State.Consumers; n != 0 {
		t.Fatalf("the server keeps %d consumers of readers that ended", n)
	}
}

func TestReadEndsWhenTheStreamIsGone(t *testing.T) {
	_, nc := startEmbedded(t, t.TempDir())
	l := open(t, nc, Spec{Replicas: 1})
	must[events.Position](t)(l.Append(within(t), request("1")))
	var last error
	for _, err := range l.Read(within(t), events.Requests, 0, 0) {
		if last = err; err == nil {
			deleteStream(t, jetstreamOf(t, nc), "REQUESTS_0")
		}
	}
	wantErr(t, last, events.ErrUnavailable)
	wantNoPump(t)
}

func TestReadEndsWithItsContextWhileTheServerIsGone(t *testing.T) {
	s := startNATS(t, server.Options{StoreDir: t.TempDir()})
	nc := dial(t, s.Addr().String())
	l := open(t, nc, Spec{Replicas: 1})
	must[events.Position](t)(l.Append(within(t), request("1")))
	lost := nc.StatusChanged(nats.RECONNECTING)
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	var last error
	for _, err := range l.Read(ctx, events.Requests, 0, 0) {
		last = err
		if err != nil {
			break
		}
		stopNATS(s)
		await(t, lost)
		cancel()
	}
	if !errors.Is(last, context.Canceled) && !errors.Is(last, events.ErrUnavailable) {
		t.Fatalf("error %v", last)
	}
	wantNoPump(t)
}

func TestReadGoesOnWhenTheServerIsBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := startNATS(t, server.Options{StoreDir: dir})
	address := s.Addr().String()
	nc := dial(t, address)
	l := open(t, nc, Spec{Replicas: 1})
	must[events.Position](t)(l.Append(within(t), request("1")))
	lost, back := nc.StatusChanged(nats.RECONNECTING), nc.StatusChanged(nats.CONNECTED)

	next, after := uint64(0), uint64(0)
	ctx := within(t)
	for next < 2 {
		// As a projector does: an error that may pass, ErrUnavailable, is followed by another Read from the position.
		for batch, err := range l.Read(ctx, events.Requests, 0, after) {
			if err != nil {
				wantErr(t, err, events.ErrUnavailable)
				break
			}
			for _, m := range batch {
				if next++; m.Sequence != next {
					t.Fatalf("read %d, want %d", m.Sequence, next)
				}
				after = next
			}
			if next == 2 {
				break
			}
			stopNATS(s)
			await(t, lost)
			s = startNATS(t, server.Options{StoreDir: dir, Port: portOf(t, address)})
			await(t, back)
			must[events.Position](t)(l.Append(within(t), request("2")))
		}
	}
}

func TestReadBoundsABatchInBytes(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	const n = 40 // several batches
	requests := make([]*events.Request, n)
	for i := range requests {
		requests[i] = request(fmt.Sprint("large-", i))
		requests[i].Body.(*events.JobCaptureRequested).Job.Description = strings.Repeat("x", 250<<10)
	}
	if _, errs := l.AppendAll(within(t), requests); errors.Join(errs...) != nil {
		t.Fatal(errors.Join(errs...))
	}
	ctx, cancel := context.WithCancel(within(t))
	r := reader{l: l, stream: events.Requests}
	wait, err := r.start(ctx)
	defer func() { cancel(); wait() }()
	if err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return len(r.arrived) == n }) // as for a reader that does not keep up
	for r.after < n {
		batch, err := r.gather(ctx)
		if err != nil {
			t.Fatalf("after %d: %v", r.after, err)
		}
		size := 0
		for _, m := range batch {
			size += len(m.Data)
		}
		if size > maxReadLen+256<<10 {
			t.Fatalf("a batch of %d bytes", size)
		}
	}
}
