package projections

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/events"
	"jobtally/internal/ledger"
)

// deadline bounds every wait of a test. Nothing waits that long unless it is broken.
const deadline = 3 * time.Minute

const (
	november = events.Month("2026-11")
	december = events.Month("2026-12")
)

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	return ctx
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// Requests.

func captureOf(month events.Month, url string) *events.JobCaptureRequested {
	return &events.JobCaptureRequested{
		Month: month, CanonicalURL: url, SourceRules: 1, PayloadHash: events.Hash([]byte(url)),
		Job: events.Job{SourceURL: url + "?utm_source=x", Title: "Engineer", Status: "saved", CapturedVia: "api"},
	}
}

func openWith(limit int64) *events.AccountOpenRequested {
	return &events.AccountOpenRequested{Plan: "plan", Limit: limit}
}

func request(account, id string, body events.RequestBody) *events.Request {
	return &events.Request{Account: account, ID: id, Time: time.Date(2026, 11, 22, 12, 0, 0, 123, time.UTC), Body: body}
}

// recorded are requests as they come out of partition 0 of a ledger with one partition, numbered from 1.
func recorded(t testing.TB, requests ...*events.Request) (decoded []events.Request) {
	t.Helper()
	for i, r := range requests {
		m := r.Message(1)
		m.Sequence = uint64(i + 1)
		decoded = append(decoded, must[events.Request](t)(events.DecodeRequest(m, 0, 1)))
	}
	return decoded
}

// decideAll decides requests one after another from the first, with everything before each of them in memory.
func decideAll(requests []events.Request) (decisions []events.Decision, state *capture.State) {
	state = capture.NewState()
	for i := range requests {
		d := capture.Decide(state, &requests[i])
		state.Fold(&d)
		decisions = append(decisions, d)
	}
	return decisions, state
}

// A projection without a ledger.

func openDB(t testing.TB, path string) *DB {
	t.Helper()
	db := must[*DB](t)(Open(path, "the-ledger", 1))
	t.Cleanup(func() { db.Close() })
	return db
}

func newDB(t *testing.T) *DB {
	t.Helper()
	return openDB(t, filepath.Join(t.TempDir(), "projection.db"))
}

// dump is everything that is in the file.
func dump(t testing.TB, db *DB) string {
	t.Helper()
	var b strings.Builder
	for _, table := range column(t, db, "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name") {
		rows := must[*sql.Rows](t)(db.reading.Query("SELECT * FROM " + table + " ORDER BY 1, 2, 3"))
		names := must[[]string](t)(rows.Columns())
		values, into := make([]any, len(names)), make([]any, len(names))
		for i := range values {
			into[i] = &values[i]
		}
		for rows.Next() {
			ok(t, rows.Scan(into...))
			fmt.Fprintf(&b, "%s %q\n", table, fmt.Sprint(values...))
		}
		ok(t, errors.Join(rows.Err(), rows.Close()))
	}
	return b.String()
}

func column(t testing.TB, db *DB, query string) (values []string) {
	t.Helper()
	rows := must[*sql.Rows](t)(db.reading.Query(query))
	defer rows.Close()
	for rows.Next() {
		var v string
		ok(t, rows.Scan(&v))
		values = append(values, v)
	}
	ok(t, rows.Err())
	return values
}

// A projection of a real ledger.

type house struct {
	dir        string
	connection *ledger.Connection
	*ledger.Ledger
}

// newHouse is a ledger with one partition on an embedded server, whose streams a test may do to what it likes.
func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{dir: t.TempDir()}
	h.start(t)
	h.Ledger = must[*ledger.Ledger](t)(ledger.Open(within(t), h.connection))
	t.Cleanup(h.Ledger.Close)
	return h
}

// newErasableHouse is one as a node has it: the server sees to its files, and accounts can be erased from them.
func newErasableHouse(t *testing.T) *house {
	t.Helper()
	h := &house{dir: t.TempDir()}
	server := h.start(t)
	h.Ledger = must[*ledger.Ledger](t)(server.Open(within(t), h.connection))
	t.Cleanup(h.Ledger.Close)
	return h
}

func (h *house) start(t *testing.T) *ledger.Embedded {
	t.Helper()
	server := must[*ledger.Embedded](t)(ledger.StartEmbedded(h.dir, 0, quiet()))
	t.Cleanup(server.Close)
	h.connection = must[*ledger.Connection](t)(server.Connect("test", quiet()))
	t.Cleanup(h.connection.Close)
	must[bool](t)(ledger.Create(within(t), h.connection, ledger.Spec{Partitions: 1, Replicas: 1}))
	return server
}

func (h *house) seam() Ledger {
	return Ledger{
		Partitions: 1, Heads: h.Heads, Get: h.Get, Read: h.Read, AppendDecisions: h.AppendDecisions, Append: h.Append,
		ReadTo: h.ReadTo, Erasures: h.Erasures, Erase: h.Erase, AppendUnopened: h.AppendUnopened,
		Now: func() time.Time { return november.Start() },
	}
}

func (h *house) path(name string) string { return filepath.Join(h.dir, name+".db") }

func (h *house) open(t *testing.T, name string) *DB {
	t.Helper()
	db := must[*DB](t)(Open(h.path(name), h.ID, 1))
	t.Cleanup(func() { db.Close() })
	return db
}

func (h *house) append(t *testing.T, account, id string, body events.RequestBody) events.Position {
	t.Helper()
	return must[events.Position](t)(h.Append(within(t), request(account, id, body)))
}

// capture asks for n captures into an account that is open, and returns the position of the last.
func (h *house) capture(t *testing.T, account, prefix string, n int) (last events.Position) {
	t.Helper()
	type answer struct {
		position events.Position
		err      error
	}
	answers, ctx := make(chan answer, n), within(t)
	for i := range n {
		url := fmt.Sprintf("https://example.com/%s/%d", prefix, i)
		go func() {
			position, err := h.Append(ctx, request(account, url, captureOf(november, url)))
			answers <- answer{position, err}
		}()
	}
	for range n {
		a := <-answers
		ok(t, a.err)
		if a.position.Sequence > last.Sequence {
			last = a.position
		}
	}
	return last
}

// record puts messages under the numbers after one of a stream, whatever is in them: like a foreign writer it goes
// past Append, which would not.
func (h *house) record(t *testing.T, after uint64, messages ...events.Message) {
	t.Helper()
	for i, m := range messages {
		header := map[string][]string{}
		for key, values := range m.Header {
			if !strings.HasPrefix(key, "Nats-") {
				header[key] = values
			}
		}
		messages[i] = events.Message{Subject: m.Subject, Header: header, Data: m.Data}
	}
	ok(t, h.AppendDecisions(within(t), 0, after, messages)) // the subject says which stream it is
}

// read returns the messages of a stream up to a number.
func (h *house) read(t *testing.T, stream events.Stream, last uint64) (messages []events.Message) {
	t.Helper()
	if last == 0 {
		return nil
	}
	for batch, err := range h.Read(within(t), stream, 0, 0) {
		ok(t, err)
		if messages = append(messages, batch...); uint64(len(messages)) >= last {
			break
		}
	}
	return messages[:last]
}

func (h *house) heads(t *testing.T) events.Heads {
	t.Helper()
	return must[events.Heads](t)(h.Heads(within(t), 0))
}

// keep makes a stream anew with its first messages only, as if the others had never reached the disk.
func (h *house) keep(t *testing.T, stream events.Stream, n uint64) {
	t.Helper()
	kept, name := h.read(t, stream, n), stream.Name(0)
	var info struct{ Config json.RawMessage }
	ok(t, json.Unmarshal(h.api(t, "STREAM.INFO."+name, ""), &info))
	h.api(t, "STREAM.DELETE."+name, "")
	h.api(t, "STREAM.CREATE."+name, string(info.Config))
	h.record(t, 0, kept...)
}

// api calls the JetStream API.
func (h *house) api(t *testing.T, call, body string) []byte {
	t.Helper()
	reply, err := h.connection.Request("$JS.API."+call, []byte(body), deadline)
	ok(t, err)
	var refusal struct{ Error any }
	ok(t, json.Unmarshal(reply.Data, &refusal))
	if refusal.Error != nil {
		t.Fatalf("%s: %v", call, refusal.Error)
	}
	return reply.Data
}

// running is a projector at work.
type running struct {
	*Projector
	cancel context.CancelFunc
	ended  chan error
}

func run(t *testing.T, db *DB, seam Ledger, decides bool) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{NewProjector(db, seam, 0, decides, quiet()), cancel, make(chan error, 1)}
	go func() { r.ended <- r.Run(ctx) }()
	t.Cleanup(func() { r.stop(t) })
	return r
}

// stop ends the projector as the end of the process would.
func (r *running) stop(t *testing.T) {
	t.Helper()
	r.cancel()
	if err := r.wait(t); err != nil {
		t.Errorf("the projector ended with %v", err)
	}
}

// wait returns the error with which the projector ends.
func (r *running) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.ended:
		r.ended <- nil // for whoever waits again
		return err
	case <-time.After(deadline):
		t.Fatal("the projector does not end")
		return nil
	}
}

func await(t *testing.T, db *DB, p events.Position) events.Decision {
	t.Helper()
	return must[events.Decision](t)(db.Await(within(t), p))
}

// until returns once a condition that no signal announces holds.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for ctx := within(t); !holds(); runtime.Gosched() {
		if ctx.Err() != nil {
			t.Fatalf("there were never %s", what)
		}
	}
}
