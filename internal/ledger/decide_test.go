package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
)

func TestAppendDecisionsUnderTheirNumbers(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	first, second := decisionsFrom("first", 300), decisionsFrom("second", 200)
	if err := l.AppendDecisions(within(t), 0, 0, first); err != nil {
		t.Fatal(err)
	}
	if err := l.AppendDecisions(within(t), 0, 300, second); err != nil {
		t.Fatal(err)
	}
	recorded := read(t, l, events.Decisions, 0, 500)
	wantSequences(t, recorded, 1, 500)
	for i, want := range append(first, second...) {
		if string(recorded[i].Data) != string(want.Data) {
			t.Fatalf("decision %d is %q, want %q", i+1, recorded[i].Data, want.Data)
		}
	}
	if got := heads(t, l); got != (events.Heads{Decisions: 500}) {
		t.Fatalf("heads %+v", got)
	}
}

func TestAppendDecisionsIsFenced(t *testing.T) {
	t.Parallel()
	s := startNATS(t, server.Options{StoreDir: t.TempDir()})
	l := open(t, dial(t, s.Addr().String()), Spec{Replicas: 1})
	wantFence(t, l, jetstream.JSErrCodeStreamWrongLastSequence)
}

// wantFence appends after wrong numbers and expects each to be refused with one of the server's codes, and nothing to
// be recorded.
func wantFence(t *testing.T, l *Ledger, codes ...jetstream.ErrorCode) {
	t.Helper()
	if err := l.AppendDecisions(within(t), 0, 0, decisionsFrom("winner", 3)); err != nil {
		t.Fatal(err)
	}
	for _, after := range []uint64{0, 2, 4, 100} {
		err := l.AppendDecisions(within(t), 0, after, decisionsFrom("loser", 1))
		wantErr(t, err, events.ErrFenced)
		if refusal := new(jetstream.APIError); !errors.As(err, &refusal) || !slices.Contains(codes, refusal.ErrorCode) {
			t.Fatalf("after %d: refused with %+v, want one of %d", after, refusal, codes)
		}
	}
	recorded := read(t, l, events.Decisions, 0, heads(t, l).Decisions)
	wantSequences(t, recorded, 1, 3)
	for _, m := range recorded {
		if m.Header["who"][0] != "winner" {
			t.Fatalf("decision %d is the loser's", m.Sequence)
		}
	}
}

func TestRacingWritersDecideEachNumberOnce(t *testing.T) {
	t.Parallel()
	s := startNATS(t, server.Options{StoreDir: t.TempDir()})
	open(t, dial(t, s.Addr().String()), Spec{Replicas: 1})
	wantRace(t, s.Addr().String())
}

// wantRace lets two writers, each with a connection of its own, append under the same numbers.
func wantRace(t *testing.T, address string) {
	t.Helper()
	const n = 200
	writers := []*Ledger{}
	for range 2 {
		writers = append(writers, must[*Ledger](t)(Open(within(t), dial(t, address))))
	}
	before := heads(t, writers[0]).Decisions
	ctx := within(t)
	answers := make(chan error, 2)
	for i, l := range writers {
		t.Cleanup(l.Close)
		go func() { answers <- l.AppendDecisions(ctx, 0, before, decisionsFrom(fmt.Sprint(i), n)) }()
	}
	won, lost := 0, 0
	for range writers {
		switch err := <-answers; {
		case err == nil:
			won++
		case errors.Is(err, events.ErrFenced):
			lost++
		default:
			t.Fatal(err)
		}
	}
	if won > 1 || lost == 0 {
		t.Fatalf("%d won and %d lost", won, lost)
	}
	// Whoever wrote number i wrote what it had for number i: a reader cannot tell how many projectors there are.
	recorded := read(t, writers[0], events.Decisions, before, heads(t, writers[0]).Decisions)
	wantSequences(t, recorded, before+1, heads(t, writers[0]).Decisions)
	for _, m := range recorded {
		who := m.Header["who"][0]
		if want := fmt.Sprintf("%s %d", who, m.Sequence-before-1); string(m.Data) != want {
			t.Fatalf("decision %d is %q, want %q", m.Sequence, m.Data, want)
		}
	}
}

func TestAppendDecisionsWithoutAServer(t *testing.T) {
	t.Parallel()
	e, nc := startEmbedded(t, t.TempDir())
	l := open(t, nc, Spec{Replicas: 1})
	lost := nc.StatusChanged(nats.RECONNECTING)
	e.Close()
	await(t, lost)

	err := l.AppendDecisions(within(t), 0, 0, decisionsFrom("nobody", 2))

	if err == nil || errors.Is(err, events.ErrFenced) {
		t.Fatalf("error %v, want one that is no fence", err)
	}
	if _, err := l.Heads(within(t), 0); !errors.Is(err, events.ErrUnavailable) {
		t.Fatalf("heads: error %v", err)
	}
}

func TestAppendDecisionsCancelled(t *testing.T) {
	t.Parallel()
	l, held, _ := newLedgerOnLine(t)
	held.toServer.Lock()
	defer held.toServer.Unlock()
	ctx, cancel := context.WithCancel(within(t))
	cancel()
	wantErr(t, l.AppendDecisions(ctx, 0, 0, decisionsFrom("given-up", 2)), context.Canceled)
}
