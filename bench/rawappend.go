package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"jobtally/internal/events"
	"jobtally/internal/ledger"
)

// rawMessages is how many different messages the raw appends take turns with: so many that no cache holds them.
const rawMessages = 8192

// rawLedger is a fresh nats-server in this process, which syncs always, with the streams of a ledger, and nothing of
// jobtally in front of it.
type rawLedger struct {
	server   *server.Server
	nc       *nats.Conn
	messages []*nats.Msg // encoded captures, used in turn
	next     int
}

func openRaw(ctx context.Context, dir string, accounts []account) (r *rawLedger, err error) {
	r = &rawLedger{}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	r.server, err = server.NewServer(&server.Options{
		DontListen: true, JetStream: true, StoreDir: dir, SyncAlways: true, NoSigs: true,
		JetStreamMaxMemory: 256 << 20, JetStreamMaxStore: 1 << 50,
	})
	if err != nil {
		return r, err
	}
	r.server.Start()
	if !r.server.ReadyForConnections(stall) {
		return r, errors.New("nats-server did not start")
	}
	if r.nc, err = nats.Connect("", nats.InProcessServer(r.server)); err != nil {
		return r, err
	}
	if _, err := ledger.Create(ctx, r.nc, ledger.Spec{Partitions: 1, Replicas: 1}); err != nil {
		return r, err
	}
	now := time.Now()
	for i := range rawMessages {
		request, err := captureRequest(accounts[i%len(accounts)].name, i, posting(i), now)
		if err != nil {
			return r, err
		}
		m := request.Message(1)
		r.messages = append(r.messages, &nats.Msg{Subject: m.Subject, Header: nats.Header(m.Header), Data: m.Data})
	}
	return r, nil
}

func (r *rawLedger) close() {
	if r.nc != nil {
		r.nc.Close()
	}
	if r.server != nil {
		r.server.Shutdown()
		r.server.WaitForShutdown()
	}
}

func (r *rawLedger) message() *nats.Msg {
	r.next++
	return r.messages[r.next%len(r.messages)]
}

// publish appends one message, which is an fsync of its own.
func (r *rawLedger) publish() error { return r.request(r.message(), 0) }

// publishBatch appends so many messages as one atomic batch, which is one fsync.
func (r *rawLedger) publishBatch(size int) error {
	id := nuid.Next()
	for i := 1; ; i++ {
		m := r.message()
		m.Header.Set("Nats-Batch-Id", id)
		m.Header.Set("Nats-Batch-Sequence", strconv.Itoa(i))
		if i == size {
			m.Header.Set("Nats-Batch-Commit", "1")
			defer m.Header.Del("Nats-Batch-Commit")
			return r.request(m, size)
		}
		if err := r.nc.PublishMsg(m); err != nil {
			return err
		}
	}
}

// request sends a message and asserts that it is acknowledged, with the whole batch of which it is the last.
func (r *rawLedger) request(m *nats.Msg, batch int) error {
	reply, err := r.nc.RequestMsg(m, stall)
	if err != nil {
		return err
	}
	var ack struct {
		Error    *jetstream.APIError `json:"error"`
		Sequence uint64              `json:"seq"`
		Count    int                 `json:"count"`
	}
	if err := json.Unmarshal(reply.Data, &ack); err != nil {
		return err
	}
	if ack.Error != nil {
		return ack.Error
	}
	if ack.Sequence == 0 || ack.Count != batch {
		return fmt.Errorf("a batch of %d was acknowledged as %s", batch, reply.Data)
	}
	return nil
}

// rawAppends measures appends one after another, in batches of a size or singly if that is 1. The latency is that of
// a batch.
func (s *suite) rawAppends(ctx context.Context, size int) (result sample, err error) {
	accounts, err := s.accounts(ctx)
	if err != nil {
		return result, err
	}
	dir, remove := s.scratch.fresh("raw")
	defer func() { err = errors.Join(err, remove()) }()
	r, err := openRaw(ctx, dir, accounts.accounts)
	if err != nil {
		return result, err
	}
	defer r.close()
	one := r.publish
	if size > 1 {
		one = func() error { return r.publishBatch(size) }
	}
	return s.repeat(ctx, size, one)
}

// repeat measures what is done again and again for the warm-up and the window, each time so many units of it.
func (s *suite) repeat(ctx context.Context, units int, do func() error) (sample, error) {
	var latency histogram
	from := time.Now().Add(s.size.warmup)
	until := from.Add(s.size.window)
	for {
		began := time.Now()
		if began.After(until) {
			break
		}
		if err := errors.Join(do(), ctx.Err()); err != nil {
			return sample{}, err
		}
		if !began.Before(from) {
			latency.record(time.Since(began))
		}
	}
	return sample{
		value: float64(latency.total) * float64(units) / time.Since(from).Seconds(),
		p50:   latency.quantile(0.5), p99: latency.quantile(0.99),
	}, nil
}

// rawStream reads a stream up to a sequence in order, with the client library alone, and hands each message on.
func rawStream(ctx context.Context, nc *nats.Conn, stream events.Stream, upTo uint64, each func(jetstream.Msg)) error {
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	consumer, err := js.OrderedConsumer(ctx, stream.Name(0), jetstream.OrderedConsumerConfig{})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages()
	if err != nil {
		return err
	}
	defer messages.Stop()
	for range upTo {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		each(m)
	}
	return nil
}
