package node_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"jobtally/internal/events"
	"jobtally/internal/ledger"
	"jobtally/internal/node"
)

// Everything that a test waits for has this long to happen.
const patience = 3 * time.Minute

// month is what captures count in. It is not over: nodes close one that is, by the clock of the machine.
var month = thisMonth()

// recorder is a log that a test can wait on.
type recorder struct {
	attrs string
	*lines
}

type lines struct {
	mu      sync.Mutex
	all     []string
	changed chan struct{} // closed and replaced at each line
}

func newRecorder() recorder { return recorder{lines: &lines{changed: make(chan struct{})}} }

func (r recorder) Enabled(context.Context, slog.Level) bool { return true }

func (r recorder) Handle(_ context.Context, record slog.Record) error {
	line := record.Level.String() + " " + record.Message + r.attrs
	record.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, line)
	close(r.changed)
	r.changed = make(chan struct{})
	return nil
}

func (r recorder) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		r.attrs += " " + a.String()
	}
	return r
}

func (r recorder) WithGroup(string) slog.Handler { return r }

// find returns the lines that contain text, and what is closed when there are more.
func (l *lines) find(text string) (found []string, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.all {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return found, l.changed
}

// said returns what is closed once a line contains text, or ctx ended.
func (l *lines) said(ctx context.Context, text string) <-chan struct{} {
	said := make(chan struct{})
	go func() {
		defer close(said)
		for {
			found, changed := l.find(text)
			if len(found) > 0 {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return said
}

func (l *lines) await(t *testing.T, text string) {
	t.Helper()
	ctx := within(t)
	<-l.said(ctx, text)
	if found, _ := l.find(text); len(found) == 0 {
		t.Fatalf("the log never said %q", text)
	}
}

func (l *lines) mustNotSay(t *testing.T, text string) {
	t.Helper()
	if found, _ := l.find(text); len(found) > 0 {
		t.Errorf("log: %s", strings.Join(found, "\n     "))
	}
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// running is a started node with its log.
type running struct {
	*node.Node
	log recorder
}

// start starts a node that is closed at the end of the test. Closing it earlier is fine too.
func start(t *testing.T, cfg node.Config) running {
	t.Helper()
	r := running{log: newRecorder()}
	cfg.Log = slog.New(r.log)
	n, err := node.Start(within(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.Node = n
	t.Cleanup(func() { stop(t, r) })
	return r
}

func stop(t *testing.T, r running) {
	t.Helper()
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func embedded(t *testing.T) running {
	t.Helper()
	return start(t, node.Config{Dir: t.TempDir(), Decides: true})
}

// external is a nats-server that belongs to no node.
type external struct {
	*server.Server
	store string
	port  int
	url   string
}

// serve starts a nats-server with a ledger of so many partitions.
func serve(t *testing.T, partitions int) *external {
	t.Helper()
	e := &external{store: filepath.Join(t.TempDir(), "jetstream"), port: server.RANDOM_PORT}
	e.boot(t)
	t.Cleanup(e.halt)
	connection, err := ledger.Connect(e.url, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	if partitions == 0 {
		return e
	}
	if _, err := ledger.Create(within(t), connection, ledger.Spec{Partitions: partitions, Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	return e
}

// boot starts the server, on the port that it had before, if any.
func (e *external) boot(t *testing.T) {
	t.Helper()
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: e.port, JetStream: true, StoreDir: e.store, SyncAlways: true, NoSigs: true, NoLog: true,
		JetStreamMaxMemory: 64 << 20, JetStreamMaxStore: 1 << 40,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		t.Fatal("nats-server does not start")
	}
	e.Server, e.url = s, s.ClientURL()
	e.port = s.Addr().(*net.TCPAddr).Port
}

func (e *external) halt() {
	e.Shutdown()
	e.WaitForShutdown()
}

// request is one whose id says what it is, so that asking it again is a retry.
func request(account, id string, body events.RequestBody) *events.Request {
	return &events.Request{Account: account, ID: id, Time: time.Now().UTC(), Body: body}
}

func capturing(account, id, url string) *events.Request {
	return request(account, id, &events.JobCaptureRequested{
		Month: month, CanonicalURL: url, SourceRules: 1,
		Job:         events.Job{SourceURL: url, Title: "Engineer", Status: "saved", CapturedVia: "api"},
		PayloadHash: events.Hash([]byte(url)),
	})
}

// ask appends a request at a node and returns the decision once that node has folded it.
func ask(ctx context.Context, n *node.Node, r *events.Request) (events.Decision, error) {
	position, err := n.Append(ctx, r)
	if err != nil {
		return events.Decision{}, err
	}
	d, err := n.Projection.Await(ctx, position)
	if err != nil {
		return d, fmt.Errorf("await %s: %w", position, err)
	}
	return d, nil
}

func mustAsk(t *testing.T, n *node.Node, r *events.Request) events.Decision {
	t.Helper()
	d, err := ask(within(t), n, r)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func open(t *testing.T, n *node.Node, account string, limit int64) {
	t.Helper()
	d := mustAsk(t, n, request(account, "open", &events.AccountOpenRequested{Plan: "test", Limit: limit}))
	if _, ok := d.Body.(*events.AccountOpened); !ok {
		t.Fatalf("open %s: %+v", account, d.Body)
	}
}

// retry asks until the ledger takes the request, as a client does, and counts the refusals. It is bounded by ctx.
func retry(ctx context.Context, n *node.Node, r *events.Request) (d events.Decision, refused int, err error) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		d, err = ask(ctx, n, r)
		if !errors.Is(err, events.ErrUnavailable) && !errors.Is(err, events.ErrUnknownOutcome) {
			return d, refused, err
		}
		refused++
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return d, refused, err
		}
	}
}

func used(t *testing.T, n *node.Node, account string) int64 {
	t.Helper()
	q, err := n.Projection.Quota(t.Context(), account, month)
	if err != nil {
		t.Fatal(err)
	}
	return q.Used
}

// converge waits until the nodes have folded the whole ledger, and asserts that they hold the same and that each
// request was decided once.
func converge(t *testing.T, nodes ...running) {
	t.Helper()
	ctx := within(t)
	for p := range nodes[0].Ledger.Partitions {
		var sequence uint64
		var digest events.Digest
		for i, n := range nodes {
			heads, err := n.Ledger.Heads(ctx, p)
			if err != nil {
				t.Fatal(err)
			}
			if heads.Requests > 0 {
				if _, err := n.Projection.Await(ctx, events.Position{Partition: p, Sequence: heads.Requests}); err != nil {
					t.Fatalf("node %d, partition %d: folded %d of %+v: %v", i, p, n.Projection.Folded(p), heads, err)
				}
			}
			if heads, err = n.Ledger.Heads(ctx, p); err != nil || heads.Decisions != heads.Requests {
				t.Errorf("partition %d: heads %+v, %v", p, heads, err)
			}
			s, d := n.Projection.Digest(p)
			if i > 0 && (s != sequence || d != digest) {
				t.Errorf("partition %d: node %d is at %d with digest %s, node 0 at %d with %s", p, i, s, d, sequence, digest)
			}
			sequence, digest = s, d
		}
	}
}
