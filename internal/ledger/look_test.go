package ledger

import (
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"jobtally/internal/events"
)

func TestLookAtAPartition(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	if e := must[Extent](t)(l.Measure(within(t), 0)); e != (Extent{}) {
		t.Errorf("an empty partition: %+v", e)
	}
	_, err := l.Next(within(t), events.Requests, 0, 0)
	wantErr(t, err, events.ErrNotFound)
	take(t, appendAll(t, l, "a", 4), 4)
	if err := l.AppendDecisions(within(t), 0, 0, decisionsFrom("a", 3)); err != nil {
		t.Fatal(err)
	}
	e := must[Extent](t)(l.Measure(within(t), 0))
	if e.Heads != (events.Heads{Requests: 4, Decisions: 3}) || e.RequestBytes == 0 || e.DecisionBytes == 0 {
		t.Errorf("%+v", e)
	}
	if err := l.streams[events.Requests.Name(0)].DeleteMsg(within(t), 2); err != nil {
		t.Fatal(err)
	}
	for after, want := range map[uint64]uint64{0: 1, 1: 3, 3: 4} {
		if m := must[events.Message](t)(l.Next(within(t), events.Requests, 0, after)); m.Sequence != want || m.Void() {
			t.Errorf("after %d comes %d, want %d", after, m.Sequence, want)
		}
	}
	_, err = l.Next(within(t), events.Requests, 0, 4)
	wantErr(t, err, events.ErrNotFound)

	third := must[events.Message](t)(l.Get(within(t), events.Decisions, events.Position{Sequence: 3}))
	last := must[events.Message](t)(l.Last(within(t), events.Decisions, 0, third.Subject))
	if last.Sequence != 3 || string(last.Data) != string(third.Data) {
		t.Errorf("last %+v", last)
	}
	_, err = l.Last(within(t), events.Decisions, 0, events.ArchivesSubject(0))
	wantErr(t, err, events.ErrNotFound)
}

// TestALostConnectionIsToldAsOne: operators read this in the log, under /readyz and in `projector status`.
func TestALostConnectionIsToldAsOne(t *testing.T) {
	t.Parallel()
	s := startNATS(t, server.Options{StoreDir: t.TempDir()})
	nc := dial(t, s.Addr().String())
	l := open(t, nc, Spec{Partitions: 1, Replicas: 1})
	lost := nc.StatusChanged(nats.RECONNECTING)
	stopNATS(s)
	<-lost
	_, err := l.Heads(within(t), 0)
	wantErr(t, err, events.ErrUnavailable)
	if !strings.Contains(err.Error(), "no connection to the NATS server") {
		t.Error(err)
	}
}

// Those who ask whether a directory is taken do not keep anybody from taking it.
func TestLockedDisturbsNobody(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if must[bool](t)(Locked(dir)) || len(must[[]os.DirEntry](t)(os.ReadDir(dir))) > 0 {
		t.Error("asking made a lock")
	}
	taken, done := 0, make(chan struct{})
	var asking sync.WaitGroup
	for range 2 {
		asking.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					if _, err := Locked(dir); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	for ; taken < 500; taken++ {
		unlock, err := LockDir(dir)
		if err != nil {
			t.Errorf("after it was taken %d times: %v", taken, err)
			break
		}
		if !must[bool](t)(Locked(dir)) {
			t.Error("a taken directory counts as free")
		}
		if err := unlock(); err != nil {
			t.Error(err)
		}
	}
	close(done)
	asking.Wait()
	if must[bool](t)(Locked(dir)) {
		t.Error("a free directory counts as taken")
	}
}
