package node_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"jobtally/internal/ledger"
	"jobtally/internal/node"
)

// TestOneServerOfThreeIsLost takes away, under load, the server that leads the stream of requests, with all that it has. What
// was answered is there on the other two, each capture is counted once, and the nodes have one digest.
func TestOneServerOfThreeIsLost(t *testing.T) {
	servers := serveCluster(t)
	urls := make([]string, len(servers))
	for i, s := range servers {
		urls[i] = s.ClientURL()
	}
	cluster := strings.Join(urls, ",")
	createOn(t, cluster, ledger.Spec{Partitions: 1, Replicas: len(servers)})
	decider := start(t, node.Config{Dir: t.TempDir(), NATS: cluster, Decides: true})
	clients := start(t, node.Config{Dir: t.TempDir(), NATS: cluster})
	l := load{accounts: openAll(t, clients, -1, "anna", "bob", "carl"), each: 200}
	ctx := within(t)
	reached := l.reached(ctx, clients, 100)
	asking := l.run(ctx, t, decider, clients)
	<-reached
	i := slices.IndexFunc(servers, func(s *server.Server) bool { return s.JetStreamIsStreamLeader("$G", "REQUESTS_0") })
	if i < 0 {
		t.Fatal("the stream of requests has no leader")
	}
	answered := l.decided.Load()
	servers[i].Shutdown()
	l.finish(t, asking, decider, clients)
	t.Logf("%d captures were answered before, %d refusals meanwhile", answered, l.refused.Load())
	if answered == int64(l.each*len(l.accounts)) {
		t.Error("the load ended before the server was lost")
	}
}

// serveCluster starts three servers that know each other.
func serveCluster(t *testing.T) (servers []*server.Server) {
	t.Helper()
	var routes []string
	var listeners []net.Listener
	for range 3 { // all held before any is freed, so that no port comes twice
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners, routes = append(listeners, listener), append(routes, "nats://"+listener.Addr().String())
	}
	for i, listener := range listeners {
		listener.Close()
		s, err := server.NewServer(&server.Options{
			ServerName: fmt.Sprintf("n%d", i), Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true,
			JetStream: true, StoreDir: t.TempDir(), SyncAlways: true, JetStreamMaxMemory: 64 << 20, JetStreamMaxStore: 1 << 40,
			Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: listener.Addr().(*net.TCPAddr).Port},
			Routes:  server.RoutesFromStr(strings.Join(routes, ",")),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
		s.Start()
		servers = append(servers, s)
	}
	for _, s := range servers {
		if !s.ReadyForConnections(patience) {
			t.Fatal("nats-server does not start")
		}
	}
	return servers
}

// createOn creates the ledger as soon as the servers have elected who places streams: there is no signal for that.
func createOn(t *testing.T, url string, spec ledger.Spec) {
	t.Helper()
	connection, err := ledger.Connect(url, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	for ctx := within(t); ; {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := ledger.Create(attempt, connection, spec)
		cancel()
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}
