package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
)

// deadline bounds every wait of a test. Nothing waits that long unless it is broken.
const deadline = 3 * time.Minute

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// within is a context that ends the test's waits.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	return ctx
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// startEmbedded runs the embedded server on dir until the test ends, or until it is closed.
func startEmbedded(t *testing.T, dir string) (*Embedded, *nats.Conn) {
	t.Helper()
	e := must[*Embedded](t)(StartEmbedded(dir, 0, quiet()))
	t.Cleanup(e.Close)
	nc := must[*nats.Conn](t)(e.Connect("test", quiet()))
	t.Cleanup(nc.Close)
	return e, nc
}

// startNATS runs a nats-server as an operator would beside jobtally: on a port of its own, 0 for any free one.
func startNATS(t *testing.T, opts server.Options) *server.Server {
	t.Helper()
	opts.Host, opts.JetStream, opts.NoSigs, opts.NoLog = "127.0.0.1", true, true, true
	opts.JetStreamMaxMemory, opts.JetStreamMaxStore = 64<<20, 1<<40
	if opts.Port == 0 {
		opts.Port = server.RANDOM_PORT
	}
	s := must[*server.Server](t)(server.NewServer(&opts))
	s.Start()
	t.Cleanup(func() { stopNATS(s) })
	if !s.ReadyForConnections(deadline) {
		t.Fatal("nats-server did not start")
	}
	return s
}

func stopNATS(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

// dial connects to a server by its address.
func dial(t *testing.T, address string) *nats.Conn {
	t.Helper()
	nc := must[*nats.Conn](t)(Connect("nats://"+address, "test", quiet()))
	t.Cleanup(nc.Close)
	return nc
}

// open creates the ledger where there is none, and opens it.
func open(t *testing.T, nc *nats.Conn, spec Spec) *Ledger {
	t.Helper()
	must[bool](t)(Create(within(t), nc, spec))
	l := must[*Ledger](t)(Open(within(t), nc))
	t.Cleanup(l.Close)
	return l
}

// newLedger is a ledger with one partition on an embedded server.
func newLedger(t *testing.T) *Ledger {
	t.Helper()
	l, _ := openEmbedded(t, t.TempDir())
	return l
}

// openEmbedded runs the embedded server on dir, creates the ledger where there is none, and opens it.
func openEmbedded(t *testing.T, dir string) (*Ledger, *Embedded) {
	t.Helper()
	e, nc := startEmbedded(t, dir)
	must[bool](t)(Create(within(t), nc, Spec{Replicas: 1}))
	l := must[*Ledger](t)(e.Open(within(t), nc))
	t.Cleanup(l.Close)
	return l, e
}

// request asks for a capture. Its id tells it from all others of the test.
func request(id string) *events.Request {
	return &events.Request{
		Account: "demo", ID: id, Time: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC),
		Body: &events.JobCaptureRequested{
			Month: "2026-11", CanonicalURL: "https://example.com/" + id, SourceRules: 1, PayloadHash: events.Hash([]byte(id)),
			Job: events.Job{SourceURL: "https://example.com/" + id, Title: "Engineer", Status: "saved", CapturedVia: "api"},
		},
	}
}

// outcome is what an append was answered with.
type outcome struct {
	id       string
	position events.Position
	err      error
}

// appendAll appends n requests at once and returns the channel on which each of their outcomes comes.
func appendAll(t *testing.T, l *Ledger, prefix string, n int) <-chan outcome {
	ctx := within(t)
	outcomes := make(chan outcome, n)
	for i := range n {
		id := fmt.Sprintf("%s-%d", prefix, i)
		go func() {
			position, err := l.Append(ctx, request(id))
			outcomes <- outcome{id, position, err}
		}()
	}
	return outcomes
}

// take receives n outcomes.
func take(t *testing.T, outcomes <-chan outcome, n int) (taken []outcome) {
	t.Helper()
	timeout := time.After(deadline)
	for range n {
		select {
		case o := <-outcomes:
			taken = append(taken, o)
		case <-timeout:
			t.Fatalf("only %d of %d appends were answered", len(taken), n)
		}
	}
	return taken
}

// patience is how long a test waits for one answer before it asks again: while a cluster elects a leader, what is
// asked of it may be lost.
const patience = 2 * time.Second

// read returns the messages of the stream of partition 0 after one sequence up to another. It asks again likewise.
func read(t *testing.T, l *Ledger, stream events.Stream, after, last uint64) (messages []events.Message) {
	t.Helper()
	for ctx := within(t); after < last; {
		attempt, cancel := context.WithTimeout(ctx, patience)
		for batch, err := range l.Read(attempt, stream, 0, after) {
			if err != nil {
				if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, events.ErrUnavailable) {
					t.Fatal(err)
				}
				break
			}
			messages = append(messages, batch...)
			if after = batch[len(batch)-1].Sequence; after >= last {
				break
			}
		}
		cancel()
	}
	return messages
}

// heads asks again where nobody answers, as while a cluster elects a leader.
func heads(t *testing.T, l *Ledger) events.Heads {
	t.Helper()
	for ctx := within(t); ; {
		attempt, cancel := context.WithTimeout(ctx, patience)
		h, err := l.Heads(attempt, 0)
		cancel()
		if err == nil {
			return h
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

// decisionsFrom makes n messages for DECISIONS_0, written by the named projector.
func decisionsFrom(who string, n int) (messages []events.Message) {
	for i := range n {
		messages = append(messages, events.Message{
			Subject: "jobs.0.demo.captured", Header: map[string][]string{"who": {who}}, Data: fmt.Appendf(nil, "%s %d", who, i),
		})
	}
	return messages
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

func sequences(messages []events.Message) (numbers []uint64) {
	for _, m := range messages {
		numbers = append(numbers, m.Sequence)
	}
	return numbers
}

func upTo(first, last uint64) (numbers []uint64) {
	for i := first; i <= last; i++ {
		numbers = append(numbers, i)
	}
	return numbers
}

func wantSequences(t *testing.T, messages []events.Message, first, last uint64) {
	t.Helper()
	if got := sequences(messages); !slices.Equal(got, upTo(first, last)) {
		t.Fatalf("sequences %v, want %d to %d", got, first, last)
	}
}

func jetstreamOf(t *testing.T, nc *nats.Conn) jetstream.JetStream {
	t.Helper()
	return must[jetstream.JetStream](t)(jetstream.New(nc))
}

// line is a TCP line to a server on which either direction can be held up, without either end noticing.
type line struct {
	address            string
	toServer, toClient sync.RWMutex

	mu   sync.Mutex // guards ends
	ends []net.Conn
}

func newLine(t *testing.T, s *server.Server) *line {
	t.Helper()
	listener := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	t.Cleanup(func() { listener.Close() })
	l := &line{address: listener.Addr().String()}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			upstream, err := net.Dial("tcp", s.Addr().String())
			if err != nil {
				client.Close()
				continue
			}
			l.mu.Lock()
			l.ends = append(l.ends, client, upstream)
			l.mu.Unlock()
			go carry(upstream, client, &l.toServer)
			go carry(client, upstream, &l.toClient)
		}
	}()
	return l
}

// cut ends all connections. What was held up is lost.
func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, end := range l.ends {
		end.Close()
	}
}

func carry(to, from net.Conn, gate *sync.RWMutex) {
	defer to.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		gate.RLock()
		_, writeErr := to.Write(buffer[:n])
		gate.RUnlock()
		if err != nil || writeErr != nil {
			return
		}
	}
}

func await[T any](t *testing.T, signal <-chan T) {
	t.Helper()
	select {
	case <-signal:
	case <-time.After(deadline):
		t.Fatal("what was waited for did not happen")
	}
}

func portOf(t *testing.T, address string) int {
	t.Helper()
	return must[*net.TCPAddr](t)(net.ResolveTCPAddr("tcp", address)).Port
}
