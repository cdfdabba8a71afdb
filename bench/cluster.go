package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
	"jobtally/internal/ledger"
)

const clusterSize = 3

// clusterRows are those of the appender on replicated streams, where Raft batches by itself.
func (s *suite) clusterRows() (rows []row) {
	for _, callers := range []int{64, 256} {
		rows = append(rows, row{
			name: fmt.Sprintf("cluster-%d", callers), unit: "/s", goal: goal{leastRatio: 1},
			what:    fmt.Sprintf("appends to a cluster of three that syncs always, %d callers at once", callers),
			against: "the same messages, encoded beforehand, published by as many callers with the client library alone, each waiting for its acknowledgement",
			measure: func(ctx context.Context) (sample, error) {
				return s.onCluster(ctx, func(c *cluster) (sample, error) { return s.clusterAppends(ctx, c, callers) })
			},
			baseline: func(ctx context.Context) (sample, error) {
				return s.onCluster(ctx, func(c *cluster) (sample, error) { return s.clusterPublishes(ctx, c, callers) })
			},
		})
	}
	return rows
}

// cluster is three nats-servers in this process, with a ledger of one partition on them.
type cluster struct {
	servers  []*server.Server
	nc       *nats.Conn
	ledger   *ledger.Ledger
	requests []*events.Request
}

func (s *suite) onCluster(ctx context.Context, use func(*cluster) (sample, error)) (result sample, err error) {
	accounts, err := s.accounts(ctx)
	if err != nil {
		return result, err
	}
	dir, remove := s.scratch.fresh("cluster")
	c := &cluster{}
	defer func() { c.close(); err = errors.Join(err, remove()) }()
	if err := c.start(ctx, dir); err != nil {
		return result, err
	}
	for i := range rawMessages {
		request, err := captureRequest(accounts.accounts[i%len(accounts.accounts)].name, i, posting(i), time.Now())
		if err != nil {
			return result, err
		}
		c.requests = append(c.requests, request)
	}
	return use(c)
}

func (c *cluster) start(ctx context.Context, dir string) error {
	ports, routes, err := freePorts()
	if err != nil {
		return err
	}
	for i, port := range ports {
		s, err := server.NewServer(&server.Options{
			ServerName: fmt.Sprintf("n%d", i), Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true,
			JetStream: true, StoreDir: filepath.Join(dir, fmt.Sprint(i)), SyncAlways: true,
			JetStreamMaxMemory: 256 << 20, JetStreamMaxStore: 1 << 50,
			Cluster: server.ClusterOpts{Name: "bench", Host: "127.0.0.1", Port: port},
			Routes:  server.RoutesFromStr(routes),
		})
		if err != nil {
			return err
		}
		s.Start()
		c.servers = append(c.servers, s)
	}
	if !c.servers[0].ReadyForConnections(stall) {
		return errors.New("the cluster did not start")
	}
	if c.nc, err = ledger.Connect(c.servers[0].ClientURL(), "bench", quiet()); err != nil {
		return err
	}
	return c.create(ctx)
}

// create creates the ledger as soon as the servers have elected who places streams.
func (c *cluster) create(ctx context.Context) (err error) {
	for deadline := time.Now().Add(stall); ; {
		attempt, cancel := context.WithTimeout(ctx, time.Second)
		_, err = ledger.Create(attempt, c.nc, ledger.Spec{Partitions: 1, Replicas: clusterSize})
		if err == nil {
			cancel()
			break
		}
		<-attempt.Done()
		cancel()
		if time.Now().After(deadline) || ctx.Err() != nil {
			return err
		}
	}
	c.ledger, err = ledger.Open(ctx, c.nc)
	return err
}

// freePorts returns ports for the servers, and the routes between them.
func freePorts() (ports []int, routes string, err error) {
	for i := range clusterSize {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, "", err
		}
		defer listener.Close() // all are held before any is freed, so that none comes twice
		ports = append(ports, listener.Addr().(*net.TCPAddr).Port)
		if i > 0 {
			routes += ","
		}
		routes += "nats://" + listener.Addr().String()
	}
	return ports, routes, nil
}

func (c *cluster) close() {
	if c.ledger != nil {
		c.ledger.Close()
	}
	if c.nc != nil {
		c.nc.Close()
	}
	for _, s := range c.servers {
		s.Shutdown()
		s.WaitForShutdown()
	}
}

func (s *suite) clusterAppends(ctx context.Context, c *cluster, callers int) (sample, error) {
	return s.callAtOnce(callers, func(n int) error {
		_, err := c.ledger.Append(ctx, c.requests[n%len(c.requests)])
		return err
	})
}

func (s *suite) clusterPublishes(ctx context.Context, c *cluster, callers int) (sample, error) {
	js, err := jetstream.New(c.nc)
	if err != nil {
		return sample{}, err
	}
	messages := make([]*nats.Msg, len(c.requests))
	for i, request := range c.requests {
		m := request.Message(1)
		messages[i] = &nats.Msg{Subject: m.Subject, Header: nats.Header(m.Header), Data: m.Data}
	}
	return s.callAtOnce(callers, func(n int) error {
		_, err := js.PublishMsg(ctx, messages[n%len(messages)])
		return err
	})
}

// callAtOnce measures calls of so many callers, each of which calls again once it is answered.
func (s *suite) callAtOnce(callers int, do func(n int) error) (sample, error) {
	from := time.Now().Add(s.size.warmup)
	until := from.Add(s.size.window)
	latencies, failed := make([]histogram, callers), make([]error, callers)
	var next atomic.Int64
	var calling sync.WaitGroup
	for i := range callers {
		calling.Go(func() {
			for began := time.Now(); began.Before(until) && failed[i] == nil; began = time.Now() {
				failed[i] = do(int(next.Add(1)))
				if began.After(from) {
					latencies[i].record(time.Since(began))
				}
			}
		})
	}
	calling.Wait()
	var all histogram
	for i := range latencies {
		all.add(&latencies[i])
	}
	return sample{
		value: float64(all.total) / time.Since(from).Seconds(), p50: all.quantile(0.5), p99: all.quantile(0.99),
	}, errors.Join(failed...)
}
