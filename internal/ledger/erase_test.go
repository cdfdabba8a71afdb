package ledger

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
)

func TestEraseLeavesNothingInTheFiles(t *testing.T) {
	t.Parallel()
	const large = 900 << 10 // 9 of them are a block
	for name, c := range map[string]struct {
		size     int
		accounts []string
	}{
		"every other":           {300, repeat(40, "anna", "bob")},
		"the first":             {300, append(repeat(20, "anna"), repeat(20, "bob")...)},
		"the last":              {300, append(repeat(20, "bob"), repeat(20, "anna")...)},
		"all":                   {300, repeat(20, "anna")},
		"one":                   {300, []string{"bob", "anna", "bob"}},
		"whole blocks, first":   {large, append(repeat(22, "anna"), repeat(5, "bob")...)},
		"whole blocks, between": {large, slices.Concat(repeat(3, "bob"), repeat(22, "anna"), repeat(3, "bob"))},
		"whole blocks, last":    {large, append(repeat(3, "bob"), repeat(22, "anna")...)},
		"most of some blocks":   {large, repeat(6, "anna", "anna", "bob", "anna")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			l, e := openEmbedded(t, dir)
			record(t, l, c.size, c.accounts...)
			n := 0
			for _, account := range c.accounts {
				if account == "anna" {
					n++
				}
			}
			at := decideErasure(t, l, "anna", n)

			told := 0
			removed, err := l.Erase(within(t), "anna", at, func(removed, total int) {
				if told++; removed != told || total != 2*n {
					t.Errorf("progress is %d of %d, want %d of %d", removed, total, told, 2*n)
				}
			})
			if err != nil || removed != 2*n || told != removed {
				t.Fatalf("removed %d, want %d: %v", removed, 2*n, err)
			}

			t.Log("nothing is left while the server runs, nor when it was killed, nor when it was stopped")
			killed := copyStore(t, dir)
			wantNothingLeft(t, dir, "anna")
			wantErased(t, l, "anna", c.accounts)
			l.Close()
			e.Close()
			for _, dir := range []string{killed, dir} {
				wantNothingLeft(t, dir, "anna")
				l, _ := openEmbedded(t, dir)
				wantNothingLeft(t, dir, "anna")
				wantErased(t, l, "anna", c.accounts)
				if got := heads(t, l); got != (events.Heads{Requests: at, Decisions: at}) {
					t.Fatalf("heads %+v, want %d", got, at)
				}
				t.Log("it can be called again, and the next number is the next")
				if removed, err := l.Erase(within(t), "anna", at, nothing); removed != 0 || err != nil {
					t.Fatalf("removed %d more: %v", removed, err)
				}
				record(t, l, c.size, "anna")
				if got := heads(t, l); got != (events.Heads{Requests: at + 1, Decisions: at + 1}) {
					t.Fatalf("heads %+v, want %d", got, at+1)
				}
			}
		})
	}
}

// What is erased again is what came since, and both decisions remain.
func TestEraseLeavesErasures(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, _ := openEmbedded(t, dir)
	record(t, l, 10, "bob", "anna")
	first := decideErasure(t, l, "anna", 1)
	must[int](t)(l.Erase(within(t), "anna", first, nothing))
	record(t, l, 10, "anna", "bob")
	second := decideErasure(t, l, "anna", 1)
	if removed, err := l.Erase(within(t), "anna", second, nothing); removed != 2 || err != nil {
		t.Fatalf("removed %d: %v", removed, err)
	}
	wantNothingLeft(t, dir, "anna")
	erasures := must[[]events.Decision](t)(l.Erasures(within(t), 0, second))
	if len(erasures) != 2 || erasures[0].Position.Sequence != first || erasures[1].Position.Sequence != second {
		t.Fatalf("erasures %+v", erasures)
	}
	if earlier := must[[]events.Decision](t)(l.Erasures(within(t), 0, second-1)); len(earlier) != 1 {
		t.Fatalf("erasures before %d: %+v", second, earlier)
	}
	for _, m := range read(t, l, events.Requests, 0, second) {
		if want := m.Sequence == 2 || m.Sequence == 4; m.Void() != want {
			t.Errorf("message %d: void %v, want %v", m.Sequence, m.Void(), want)
		}
	}
}

// The server notes that a message is removed, and then writes its block without it. Killed in between it leaves the
// bytes, and would never look at them again: so would one that only deletes.
func TestWhatAKilledServerLeftIsRemovedAtTheNextStart(t *testing.T) {
	t.Parallel()
	for name, last := range map[string]uint64{"some": 13, "whole blocks": 22} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			l, e := openEmbedded(t, dir)
			accounts := append(repeat(22, "anna"), repeat(5, "bob")...)
			record(t, l, 900<<10, accounts...)
			at := decideErasure(t, l, "anna", 22)
			js := jetstreamOf(t, l.nc)
			if err := markErasing(e.options.StoreDir); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"REQUESTS_0", "DECISIONS_0"} {
				stream := must[jetstream.Stream](t)(js.Stream(within(t), name))
				for n := uint64(2); n <= last; n += 2 {
					if err := stream.DeleteMsg(within(t), n); err != nil {
						t.Fatal(err)
					}
				}
			}
			msgs := e.blocks("REQUESTS_0")
			for _, unfinished := range []string{"1.blk.tmp", "2.new"} {
				if err := os.WriteFile(filepath.Join(msgs, unfinished), []byte(secret("anna", 4)), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			killed := copyStore(t, dir)
			if len(finds(t, killed, secret("anna", 4))) == 0 {
				t.Fatal("there is nothing to remove")
			}
			l, e = openEmbedded(t, killed)
			for n := uint64(2); n <= last; n += 2 {
				// Of the decisions the server may not have noted it yet: then it still has the message.
				if files := finds(t, e.blocks("REQUESTS_0"), secret("anna", n)); len(files) > 0 {
					t.Fatalf("message %d is still in %v", n, files)
				}
			}
			wantNoHalves(t, l, "anna", accounts)
			must[int](t)(l.Erase(within(t), "anna", at, nothing))
			wantNothingLeft(t, killed, "anna")
			wantErased(t, l, "anna", accounts)
			l.Close()
			e.Close()
			if _, err := os.Stat(filepath.Join(killed, "jetstream", erasingFile)); err != nil {
				t.Fatalf("the next start does not know: %v", err)
			}
			l, _ = openEmbedded(t, killed)
			wantErased(t, l, "anna", accounts)
			if _, err := os.Stat(filepath.Join(killed, "jetstream", erasingFile)); err == nil {
				t.Fatal("the start after it looks again")
			}
		})
	}
}

// startServer runs a server of an operator, with the ledger on it, and returns where it keeps its files.
func startServer(t *testing.T, users ...*server.User) (*Ledger, *server.Server, string) {
	t.Helper()
	dir := t.TempDir()
	s := startNATS(t, server.Options{StoreDir: dir, SyncAlways: true, Users: users})
	if len(users) > 0 {
		nc := must[*nats.Conn](t)(Connect(fmt.Sprintf("nats://%s:%s@%s", users[0].Username, users[0].Password, s.Addr()), "test", quiet()))
		t.Cleanup(nc.Close)
		return open(t, nc, Spec{Replicas: 1}), s, dir
	}
	return open(t, dial(t, s.Addr().String()), Spec{Replicas: 1}), s, dir
}

// Two processes may finish one erasure at a time.
func TestEraseOnAServerOfItsOwn(t *testing.T) {
	t.Parallel()
	l, s, dir := startServer(t)
	accounts := slices.Concat(repeat(11, "anna"), repeat(3, "anna", "bob"))
	record(t, l, 900<<10, accounts...)
	at := decideErasure(t, l, "anna", 14)
	other := open(t, dial(t, s.Addr().String()), Spec{Replicas: 1})
	ctx := within(t)
	var both sync.WaitGroup
	for _, l := range []*Ledger{l, other} {
		both.Go(func() {
			if _, err := l.Erase(ctx, "anna", at, nothing); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	wantNothingLeft(t, dir, "anna")
	wantErased(t, l, "anna", accounts)
	stopNATS(s)
	wantNothingLeft(t, dir, "anna")
}

func TestEraseEndsWithItsContextAndIsFinished(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, _ := openEmbedded(t, dir)
	accounts := repeat(10, "anna", "bob")
	record(t, l, 10, accounts...)
	at := decideErasure(t, l, "anna", 10)
	for _, until := range []int{1, 6, 10} { // in the decisions, and in the requests
		ctx, cancel := context.WithCancel(within(t))
		defer cancel()
		removed, err := l.Erase(ctx, "anna", at, func(removed, _ int) {
			if removed == until {
				cancel()
			}
		})
		if removed != min(until, removed) {
			t.Fatalf("removed %d after it was to end at %d", removed, until)
		}
		wantErr(t, err, context.Canceled)
		wantNoHalves(t, l, "anna", accounts)
	}
	if removed, err := l.Erase(within(t), "anna", at, nothing); removed != 3 || err != nil {
		t.Fatalf("removed %d, want the 3 that were left: %v", removed, err)
	}
	wantNothingLeft(t, dir, "anna")
}

func TestEraseRefuses(t *testing.T) {
	t.Parallel()
	l, e := openEmbedded(t, t.TempDir())
	record(t, l, 10, "anna", "bob")
	at := decideErasure(t, l, "anna", 1)
	foreign := open(t, must[*nats.Conn](t)(Connect(e.URL, "foreign", quiet())), Spec{Replicas: 1})
	for says, erase := range map[string]func() (int, error){
		"does not erase account bob":  func() (int, error) { return l.Erase(within(t), "bob", at, nothing) },
		"decision 0-1 does not erase": func() (int, error) { return l.Erase(within(t), "anna", 1, nothing) },
		"not found":                   func() (int, error) { return l.Erase(within(t), "anna", 9, nothing) },
		"by that service":             func() (int, error) { return foreign.Erase(within(t), "anna", at, nothing) },
	} {
		if removed, err := erase(); removed != 0 || err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("removed %d: %v, want an error that says %q", removed, err, says)
		}
	}
	wantSequences(t, readTo(t, l, "", 0, at), 1, at)
}

func TestEraseSaysThatTheStreamDeniesDeletes(t *testing.T) {
	t.Parallel()
	l, _, _ := startServer(t)
	record(t, l, 10, "anna")
	at := decideErasure(t, l, "anna", 1)
	for stream, denies := range map[string]bool{"DECISIONS_0": false, "REQUESTS_0": true} {
		js := jetstreamOf(t, l.nc)
		config := must[jetstream.Stream](t)(js.Stream(within(t), stream)).CachedInfo().Config
		config.DenyPurge, config.DenyDelete = true, denies
		must[jetstream.Stream](t)(js.UpdateStream(within(t), config))
	}
	removed, err := l.Erase(within(t), "anna", at, nothing)
	if removed != 0 || err == nil || !strings.Contains(err.Error(), "stream REQUESTS_0 has deny_delete set") {
		t.Fatalf("removed %d: %v", removed, err)
	}
	wantSequences(t, readTo(t, l, "", 0, at), 1, at)
}

func TestEraseSaysThatTheRightIsMissing(t *testing.T) {
	t.Parallel()
	l, s, dir := startServer(t, &server.User{Username: "owner", Password: "o"}, &server.User{
		Username: "guest", Password: "g",
		Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{deleteSubject + ">"}}},
	})
	record(t, l, 10, "anna", "bob")
	at := decideErasure(t, l, "anna", 1)
	nc := must[*nats.Conn](t)(Connect(fmt.Sprintf("nats://guest:g@%s", s.Addr()), "test", quiet()))
	t.Cleanup(nc.Close)
	guest := must[*Ledger](t)(Open(within(t), nc))
	t.Cleanup(guest.Close)
	removed, err := guest.Erase(within(t), "anna", at, nothing)
	wantErr(t, err, nats.ErrPermissionViolation)
	if removed != 0 || !strings.Contains(err.Error(), `the NATS user (guest) lacks a right: nats: permissions violation: Permissions Violation for Publish to "`+deleteSubject) {
		t.Fatalf("removed %d: %v", removed, err)
	}
	must[int](t)(l.Erase(within(t), "anna", at, nothing))
	wantNothingLeft(t, dir, "anna")
}

func TestEraseIsFinishedWhenTheServerIsBack(t *testing.T) {
	t.Parallel()
	l, s, dir := startServer(t)
	accounts := repeat(10, "anna", "bob")
	record(t, l, 10, accounts...)
	at := decideErasure(t, l, "anna", 10)
	ctx, address := within(t), s.Addr().String()
	back := l.nc.StatusChanged(nats.CONNECTED)
	removed, err := l.Erase(ctx, "anna", at, func(removed, _ int) {
		if removed == 4 {
			stopNATS(s)
		}
	})
	wantErr(t, err, events.ErrUnavailable)
	if removed != 4 {
		t.Fatalf("removed %d, want 4", removed)
	}
	startNATS(t, server.Options{StoreDir: dir, SyncAlways: true, Port: portOf(t, address)})
	await(t, back)
	wantNoHalves(t, l, "anna", accounts)
	if removed, err := l.Erase(ctx, "anna", at, nothing); removed != 16 || err != nil {
		t.Fatalf("removed %d, want the 16 that were left: %v", removed, err)
	}
	wantNothingLeft(t, dir, "anna")
	wantErased(t, l, "anna", accounts)
}

// Appends go on while an account is erased, however large the blocks are that are written anew.
func TestAppendsGoOnDuringAnErasure(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	record(t, l, 2000, repeat(100, "anna", "bob", "carl", "dora", "emil")...)
	at := decideErasure(t, l, "anna", 100)
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	slowest := time.Duration(0)
	appended, done := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ctx.Err() == nil; n++ {
			began := time.Now()
			if _, err := l.Append(within(t), request(fmt.Sprint("during-", n))); err != nil {
				t.Error(err)
				return
			}
			slowest = max(slowest, time.Since(began))
			select {
			case appended <- struct{}{}:
			default:
			}
		}
	}()
	began := time.Now()
	must[int](t)(l.Erase(ctx, "anna", at, func(int, int) { await(t, appended) })) // one after each message that is removed
	took := time.Since(began)
	cancel()
	await(t, done)
	t.Logf("200 messages of 2 KB in %v, the slowest append meanwhile took %v", took, slowest)
}

// Each replica removes what it has. The log of their Raft group keeps a copy until it is compacted.
func TestEraseOnACluster(t *testing.T) {
	t.Parallel()
	servers := startCluster(t)
	nc := dial(t, servers[0].Addr().String())
	createOnCluster(t, nc)
	l := must[*Ledger](t)(Open(within(t), nc))
	t.Cleanup(l.Close)
	accounts := slices.Concat(repeat(3, "anna"), repeat(10, "anna", "bob"))
	record(t, l, 10, accounts...)
	at := decideErasure(t, l, "anna", 13)
	if removed := must[int](t)(l.Erase(within(t), "anna", at, nothing)); removed != 26 {
		t.Fatalf("removed %d", removed)
	}
	wantErased(t, l, "anna", accounts)
	for _, s := range servers {
		streams := filepath.Join(s.JetStreamConfig().StoreDir, "$G", "streams")
		until(t, func() bool { return len(finds(t, streams, secret("bob", 23))) > 0 }) // the last to be appended
		until(t, func() bool { return len(finds(t, streams, "secret-anna")) == 0 })
		t.Logf("in the Raft logs: %d files", len(finds(t, s.JetStreamConfig().StoreDir, "secret-anna")))
	}
	stopNATS(servers[1])
	until(t, func() bool {
		_, err := l.Append(within(t), request("one is gone"))
		return err == nil
	})
	wantErased(t, l, "anna", accounts)
	if removed, err := l.Erase(within(t), "anna", at, nothing); removed != 0 || err != nil {
		t.Fatalf("removed %d more: %v", removed, err)
	}
}
