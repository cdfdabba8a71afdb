package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
)

// TestCluster runs the ledger on three servers with three replicas of each stream.
func TestCluster(t *testing.T) {
	t.Parallel()
	servers := startCluster(t)
	nc := dial(t, servers[0].Addr().String())
	createOnCluster(t, nc)
	l := must[*Ledger](t)(Open(within(t), nc))
	t.Cleanup(l.Close)

	t.Log("the settings are those of replicated streams")
	for _, name := range []string{"REQUESTS_0", "DECISIONS_0"} {
		c := must[jetstream.Stream](t)(jetstreamOf(t, nc).Stream(within(t), name)).CachedInfo().Config
		if c.Replicas != 3 || c.PersistMode != jetstream.DefaultPersistMode {
			t.Fatalf("%s has %d replicas and persist mode %v", name, c.Replicas, c.PersistMode)
		}
	}

	t.Log("each position is given once, without batches: Raft makes its own")
	const n = 200
	outcomes := take(t, appendAll(t, l, "r", n), n)
	if got := count(outcomes, nil); got != n {
		t.Fatalf("%d of %d appends succeeded", got, n)
	}
	wantRecorded(t, l, outcomes)
	for _, m := range read(t, l, events.Requests, 0, n) {
		if len(m.Header[headerBatchID]) > 0 {
			t.Fatalf("message %d came in a batch", m.Sequence)
		}
	}

	t.Log("the fence holds, whichever of its two codes the servers use")
	wantFence(t, l, jetstream.JSErrCodeStreamWrongLastSequence)
	wantOtherCode(t, nc, n)
	wantRace(t, servers[1].Addr().String())

	t.Log("one server of three may die")
	told, with := readersOn(t, l, n)
	lost := slices.IndexFunc(servers[1:], func(s *server.Server) bool { return with[s.Name()] > 0 }) + 1
	if lost == 0 {
		t.Fatalf("all readers have their consumers on one server: %v", with)
	}
	stopNATS(servers[lost])
	var survivors []outcome
	for ctx := within(t); count(survivors, nil) < 20; { // until there is a leader again
		if ctx.Err() != nil {
			t.Fatalf("only %d appends succeeded", count(survivors, nil))
		}
		survivors = append(survivors, take(t, appendAll(t, l, fmt.Sprintf("s%d", len(survivors)), 10), 10)...)
	}
	wantRecorded(t, l, append(outcomes, survivors...))

	t.Log("whoever had its consumer there notices, though its connection is to another")
	for range cap(told) {
		select {
		case err := <-told:
			if err != nil {
				wantErr(t, err, events.ErrUnavailable)
			}
		case <-time.After(deadline):
			t.Fatal("a reader waits for a consumer that is no more")
		}
	}
}

// readersOn starts readers of the requests after a sequence, and says how many have their consumers on which server. Each tells
// of the first request that it is given, or of the error that it ends with.
func readersOn(t *testing.T, l *Ledger, after uint64) (told chan error, with map[string]int) {
	t.Helper()
	told = make(chan error, 8)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	for range cap(told) {
		go func() {
			for _, err := range l.Read(ctx, events.Requests, 0, after) {
				told <- err
				return
			}
		}()
	}
	requests := must[jetstream.Stream](t)(jetstreamOf(t, l.nc).Stream(within(t), "REQUESTS_0"))
	for waiting := within(t); waiting.Err() == nil; runtime.Gosched() {
		there := 0
		with = map[string]int{}
		for info := range requests.ListConsumers(waiting).Info() {
			there++
			if info.Cluster != nil {
				with[info.Cluster.Leader]++
			}
		}
		if there == cap(told) {
			return told, with
		}
	}
	t.Fatal("the readers do not begin")
	return nil, nil
}

// startCluster starts three servers that know each other.
func startCluster(t *testing.T) (servers []*server.Server) {
	t.Helper()
	const size = 3
	listeners, routes := make([]net.Listener, size), ""
	for i := range listeners { // all held before any is freed, so that no port comes twice
		listeners[i] = must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
		routes += "nats://" + listeners[i].Addr().String() + ","
	}
	for i, listener := range listeners {
		port := portOf(t, listener.Addr().String())
		listener.Close()
		servers = append(servers, startNATS(t, server.Options{
			ServerName: fmt.Sprintf("n%d", i), StoreDir: t.TempDir(), SyncAlways: true,
			Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: port},
			Routes:  server.RoutesFromStr(routes[:len(routes)-1]),
		}))
	}
	return servers
}

// createOnCluster creates the ledger as soon as the servers have elected who places streams.
func createOnCluster(t *testing.T, nc *nats.Conn) {
	t.Helper()
	for ctx := within(t); ; runtime.Gosched() {
		attempt, cancel := context.WithTimeout(ctx, patience)
		_, err := Create(attempt, nc, Spec{Partitions: 1, Replicas: 3})
		cancel()
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

// wantOtherCode has the servers refuse a last sequence with their second code, which has no number in its text. This
// version of theirs keeps it for what stands within an atomic batch, others use it on replicated streams at large.
func wantOtherCode(t *testing.T, nc *nats.Conn, head int) {
	t.Helper()
	batch := []*nats.Msg{}
	for i := range 2 {
		m := natsMessage(request(fmt.Sprint("fenced-", i)).Message(1))
		m.Header.Set(headerBatchID, "fenced")
		m.Header.Set(headerBatchSequence, fmt.Sprint(i+1))
		batch = append(batch, m)
	}
	batch[1].Header.Set(headerBatchCommit, "1")
	batch[1].Header.Set(jetstream.ExpectedLastSeqHeader, fmt.Sprint(head+1)) // right, were it not for the batch
	if err := nc.PublishMsg(batch[0]); err != nil {
		t.Fatal(err)
	}
	reply := must[*nats.Msg](t)(nc.RequestMsgWithContext(within(t), batch[1]))
	var ack batchAck
	if err := json.Unmarshal(reply.Data, &ack); err != nil {
		t.Fatal(err)
	}
	if ack.Error == nil || ack.Error.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequenceConstant || !fenced(ack.Error) {
		t.Fatalf("answer %s, want a fence with code %d", reply.Data, jetstream.JSErrCodeStreamWrongLastSequenceConstant)
	}
}
