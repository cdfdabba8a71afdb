package relay

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"jobtally/internal/events"
	"jobtally/internal/ledger"
	"jobtally/internal/webhook"
)

// deadline bounds every wait of a test. Nothing waits that long unless it is broken.
const deadline = 3 * time.Minute

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

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

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// house is a ledger of one partition on a real server, and what relays need of it.
type house struct {
	dir    string
	server *ledger.Embedded
	conn   *nats.Conn
	ledger *ledger.Ledger

	mu       sync.Mutex
	head     uint64
	erasures []events.Decision
}

func openHouse(t *testing.T, dir string) *house {
	t.Helper()
	h := &house{dir: dir}
	h.server = must[*ledger.Embedded](t)(ledger.StartEmbedded(dir, 0, quiet()))
	t.Cleanup(h.server.Close)
	h.conn = must[*nats.Conn](t)(h.server.Connect("test", quiet()))
	t.Cleanup(h.conn.Close)
	must[bool](t)(ledger.Create(within(t), h.conn, ledger.Spec{Partitions: 1, Replicas: 1}))
	h.ledger = must[*ledger.Ledger](t)(h.server.Open(within(t), h.conn))
	t.Cleanup(h.ledger.Close)
	heads := must[events.Heads](t)(h.ledger.Heads(within(t), 0))
	h.head = heads.Decisions
	return h
}

func newHouse(t *testing.T) *house { return openHouse(t, t.TempDir()) }

func (h *house) folded(int) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.head
}

// decide records a request and the decision on it.
func (h *house) decide(t *testing.T, account string, body events.DecisionBody) events.Position {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	request := &events.Request{
		Account: account, ID: fmt.Sprint("r-", h.head+1), Time: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC),
		Body: &events.JobDeleteRequested{JobID: "job_x"},
	}
	if account == "" {
		request.Body = &events.MonthCloseRequested{Month: "2026-10"}
	}
	request.Position = must[events.Position](t)(h.ledger.Append(within(t), request))
	h.record(t, request, body)
	return request.Position
}

// record records the decision on a request. Its chain begins with it: what a killed process left is not known.
func (h *house) record(t *testing.T, request *events.Request, body events.DecisionBody) {
	t.Helper()
	d := events.Decision{Position: request.Position, Account: request.Account, RequestID: request.ID, Time: request.Time, Body: body}
	d.Seal(events.Digest{})
	ok(t, h.ledger.AppendDecisions(within(t), 0, h.head, []events.Message{d.Message()}))
	h.head = d.Position.Sequence
	if _, erased := body.(*events.AccountErased); erased {
		h.erasures = append(h.erasures, d)
	}
}

func (h *house) capture(t *testing.T, account string) events.Position {
	t.Helper()
	return h.decide(t, account, captured(0))
}

func captured(threshold int) *events.JobCaptured {
	return &events.JobCaptured{
		JobID: "job_x", Job: events.Job{SourceURL: "https://example.com/1", Title: "Clerk", Company: "ACME", Status: "saved"},
		Count: events.Count{Month: "2026-11", Used: 8, Limit: 10}, Threshold: threshold,
	}
}

func (h *house) erasuresOf(_ context.Context, account string) (of []events.Decision, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range h.erasures {
		if d.Account == account {
			of = append(of, d)
		}
	}
	return of, nil
}

// config is that of a relay which may reach this machine, and waits for nothing.
func (h *house) config() Config {
	return Config{
		Conn: h.conn, Partitions: 1, Replicas: 1, Folded: h.folded, Erasures: h.erasuresOf, Log: quiet(),
		Allow:    []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Schedule: []time.Duration{0, time.Millisecond, time.Millisecond}, rest: 10 * time.Millisecond,
	}
}

// open opens a relay that does not run.
func open(t *testing.T, cfg Config) *Relay {
	t.Helper()
	r := must[*Relay](t)(Open(within(t), cfg))
	t.Cleanup(func() { r.Close() })
	return r
}

// run runs a relay until the test ends, or until stop is called.
func run(t *testing.T, cfg Config) (r *Relay, stop func()) {
	t.Helper()
	r = open(t, cfg)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error("the relay ended with", err)
		}
	})
	t.Cleanup(stop)
	return r, stop
}

// got is a request that a receiver got.
type got struct {
	header http.Header
	body   []byte
	answer int
}

func (g *got) id() string { return g.header.Get("Webhook-Id") }

// receiver is an endpoint of a customer.
type receiver struct {
	*httptest.Server
	all chan got // that it got, in order
}

// receive starts a receiver. It answers as it is told to, or 204.
func receive(t *testing.T, answer func(w http.ResponseWriter, id string)) *receiver {
	t.Helper()
	rcv := &receiver{all: make(chan got, 10_000)}
	rcv.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		status := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		if answer == nil {
			status.WriteHeader(http.StatusNoContent)
		} else {
			answer(status, r.Header.Get("Webhook-Id"))
		}
		rcv.all <- got{r.Header, body, status.status}
	}))
	rcv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	t.Cleanup(rcv.Close)
	return rcv
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (rcv *receiver) trusted() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(rcv.Certificate())
	return pool
}

// next returns the next request.
func (rcv *receiver) next(t *testing.T) got {
	t.Helper()
	select {
	case g := <-rcv.all:
		return g
	case <-within(t).Done():
		t.Fatal("nothing came")
		return got{}
	}
}

// wantIDs wants the next requests to have these ids.
func (rcv *receiver) wantIDs(t *testing.T, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if g := rcv.next(t); g.id() != id {
			t.Fatalf("got %s, want %s", g.id(), id)
		}
	}
}

// wantNothing wants no request to have come that nobody asked for.
func (rcv *receiver) wantNothing(t *testing.T) {
	t.Helper()
	select {
	case g := <-rcv.all:
		t.Errorf("got %s", g.id())
	default:
	}
}

func create(t *testing.T, r *Relay, account, url string, types ...string) webhook.Endpoint {
	t.Helper()
	return must[webhook.Endpoint](t)(r.Create(within(t), account, url, "", types))
}

// until waits until something holds.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx := within(t)
	for !holds() {
		if pause(ctx, time.Millisecond); ctx.Err() != nil {
			t.Fatal("never: ", what)
		}
	}
}

// progressed waits until the progress of an endpoint is as wanted.
func progressed(t *testing.T, r *Relay, e webhook.Endpoint, what string, is func(webhook.Progress) bool) (p webhook.Progress) {
	t.Helper()
	until(t, what, func() bool {
		p = must[webhook.Progress](t)(r.Progress(within(t), e))
		return is(p)
	})
	return p
}

// done waits until an endpoint was told everything that is decided on jobs of its account. That nothing is pending is not enough: the
// server counts what is new a moment after it has it.
func done(t *testing.T, r *Relay, e webhook.Endpoint) webhook.Progress {
	t.Helper()
	of := e.After.Partition
	last := must[*jetstream.RawStreamMsg](t)(r.store.decisions[of].GetLastMsgForSubject(within(t), events.JobsSubject(e.Account, of)))
	return progressed(t, r, e, "everything is done with", func(p webhook.Progress) bool {
		return p.Pending == 0 && p.Delivered.Sequence >= last.Sequence
	})
}

func verify(t *testing.T, secret webhook.Secret, g got) error {
	t.Helper()
	return must[*standardwebhooks.Webhook](t)(standardwebhooks.NewWebhook(secret.Value)).Verify(g.body, g.header)
}

// clock is a clock that stands still unless it is told otherwise.
type clock struct {
	mu   sync.Mutex
	at   time.Time
	gone time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at.Add(c.gone)
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone += d
}

func (c *clock) passed() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gone
}

// rested waits until the message that an endpoint waits for came back so many times.
func (h *house) rested(t *testing.T, e webhook.Endpoint, times int) {
	t.Helper()
	js := must[jetstream.JetStream](t)(jetstream.New(h.conn))
	deliveries := func() uint64 {
		c := must[jetstream.Consumer](t)(js.Consumer(within(t), "DECISIONS_0", durableOf(e.ID)))
		return c.CachedInfo().Delivered.Consumer
	}
	began := deliveries()
	until(t, "it comes back", func() bool { return deliveries() >= began+uint64(times) })
}

// decideUnknown records a decision of a type that this version does not know.
func (h *house) decideUnknown(t *testing.T, account string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	request := &events.Request{Account: account, ID: "new", Time: time.Now(), Body: &events.JobDeleteRequested{JobID: "job_x"}}
	at := must[events.Position](t)(h.ledger.Append(within(t), request))
	d := events.Decision{Position: at, Account: account, RequestID: request.ID, Time: request.Time, Body: &events.JobDeleted{JobID: "job_x"}}
	d.Seal(events.Digest{})
	m := d.Message()
	m.Subject, m.Header["ce-type"] = "jobs.0."+account+".applauded", []string{"jobtally.job.applauded.v1"}
	ok(t, h.ledger.AppendDecisions(within(t), 0, h.head, []events.Message{m}))
	h.head = at.Sequence
}
