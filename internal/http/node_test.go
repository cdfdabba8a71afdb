package http

import (
	"bytes"
	"context"
	"io"
	"iter"
	"log/slog"
	nethttp "net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/contracttest"
	"jobtally/internal/events"
	"jobtally/internal/feed"
	"jobtally/internal/token"
)

// node is a Backend in memory: the real Decide and Fold over a slice. It folds what is appended at once, unless it
// is told to hold.
type node struct {
	archived events.Month // the last month that is archived, or empty

	Backend
	now time.Time
	log bytes.Buffer

	anna, bob, gone token.Token // bob is unlimited; gone is a revoked token of anna's

	mu        sync.Mutex
	state     *capture.State
	requests  []events.Request
	decisions []events.Decision // folded
	jobs      map[string]capture.StoredJob
	hold      bool
	folded    chan struct{} // closed and replaced whenever something is folded
	used      map[string]time.Time
	feed      *feed.Feed
	hooks     hooks
}

// newNode returns a node at which anna may capture two jobs a month and bob without end. It is 10:20:30.456 on
// 2024-01-15, and five decisions are folded.
func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{
		now:  time.Date(2024, 1, 15, 10, 20, 30, 456_789_000, time.UTC),
		anna: token.New(), bob: token.New(), gone: token.New(),
		state: capture.NewState(), jobs: map[string]capture.StoredJob{}, folded: make(chan struct{}),
		used: map[string]time.Time{},
	}
	n.feed = feed.New([]uint64{0}, n.history)
	ctx, cancel := context.WithCancel(t.Context())
	running := make(chan struct{})
	go func() { defer close(running); n.feed.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-running })
	n.Backend = Backend{
		Partitions: 1,
		Append:     n.append, AppendAll: n.appendAll, Try: n.try, Await: n.await, Decision: n.decision, Requester: n.requester,
		CountsIn: func(_ string, month events.Month) events.Month { return capture.CountsIn(month, n.archived) },
		Quota:    n.quota, Job: n.job, Tokens: n.tokens, Erasures: n.erasures,
		Month: n.month, Months: n.months, Replay: n.replay,
		Jobs: n.page, Lookup: n.lookup,
		Account: n.account, Accounts: n.accounts, TokensOf: n.tokensOf,
		NoteUse:  func(id string, at time.Time) { n.mu.Lock(); defer n.mu.Unlock(); n.used[id] = at },
		LastUsed: n.lastUsed,
		Webhooks: func() (Webhooks, error) { return n.hooks.relay(), nil },
		Folded:   func(int) uint64 { n.mu.Lock(); defer n.mu.Unlock(); return uint64(len(n.decisions)) },
		CaughtUp: func() bool { return true },
		Events:   n.events,
		Ready:    func(context.Context) error { return nil },
	}
	for _, r := range []events.Request{
		{Account: "anna", ID: "open", Body: &events.AccountOpenRequested{Plan: "two", Limit: 2}},
		{Account: "bob", ID: "open", Body: &events.AccountOpenRequested{Plan: "free", Limit: capture.Unlimited}},
		{Account: "anna", ID: "issue", Body: &events.TokenIssueRequested{TokenID: n.anna.ID(), SecretHash: n.anna.Hash()}},
		{Account: "bob", ID: "issue", Body: &events.TokenIssueRequested{TokenID: n.bob.ID(), SecretHash: n.bob.Hash()}},
		{Account: "anna", ID: "issue2", Body: &events.TokenIssueRequested{TokenID: n.gone.ID(), SecretHash: n.gone.Hash()}},
	} {
		r.Time = n.now
		if _, err := n.append(t.Context(), &r); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func (n *node) append(_ context.Context, r *events.Request) (events.Position, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := r.Message(1)
	m.Sequence = uint64(len(n.requests) + 1)
	stored, err := events.DecodeRequest(m, 0, 1)
	if err != nil {
		return events.Position{}, err
	}
	n.requests = append(n.requests, stored)
	if !n.hold {
		n.fold()
	}
	return stored.Position, nil
}

func (n *node) appendAll(ctx context.Context, requests []*events.Request) ([]events.Position, []error) {
	positions, errs := make([]events.Position, len(requests)), make([]error, len(requests))
	for i, r := range requests {
		positions[i], errs[i] = n.append(ctx, r)
	}
	return positions, errs
}

// try decides on a state of its own, which it folds from the decisions.
func (n *node) try(_ context.Context, requests []*events.Request) (decisions []events.Decision, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	state := capture.NewState()
	for i := range n.decisions {
		state.Fold(&n.decisions[i])
	}
	for i, r := range requests {
		m := r.Message(1)
		m.Sequence = uint64(len(n.decisions) + i + 1)
		request, err := events.DecodeRequest(m, 0, 1)
		if err != nil {
			return nil, err
		}
		d := capture.Decide(state, &request)
		state.Fold(&d)
		decisions = append(decisions, d)
	}
	return decisions, nil
}

// release folds what was held, and holds no longer.
func (n *node) release() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hold = false
	n.fold()
}

func (n *node) fold() {
	for i := len(n.decisions); i < len(n.requests); i++ {
		if closing, ok := n.requests[i].Body.(*events.MonthCloseRequested); ok {
			n.state.Closing = (&capture.Leaves{}).Archive(closing.Month, events.Totals{})
		}
		d := capture.Decide(n.state, &n.requests[i])
		n.state.Fold(&d)
		switch b := d.Body.(type) {
		case *events.JobCaptured:
			n.jobs[b.JobID] = capture.StoredJob{ID: b.JobID, CapturedAt: d.Time, UpdatedAt: d.Time, Version: 1, Job: b.Job}
		case *events.JobUpdated:
			n.jobs[b.JobID] = capture.StoredJob{
				ID: b.JobID, CapturedAt: n.jobs[b.JobID].CapturedAt, UpdatedAt: d.Time, Version: b.Version, Job: b.Job,
			}
		}
		n.decisions = append(n.decisions, d)
		n.feed.Folded(0, n.decisions[i:], uint64(i+1))
	}
	close(n.folded)
	n.folded = make(chan struct{})
}

// events follows the feed, as a node does that has one ledger for ever.
func (n *node) events(ctx context.Context, account string, after events.Position, ticks <-chan time.Time) iter.Seq2[feed.Batch, error] {
	if head := n.Folded(0); after.Sequence > head {
		return func(yield func(feed.Batch, error) bool) {
			yield(feed.Batch{}, &feed.BeyondError{Position: after, Head: events.Position{Sequence: head}})
		}
	}
	return n.feed.Follow(ctx, account, after, ticks)
}

func (n *node) history(_ context.Context, account string, after events.Position, to uint64) (told []*feed.Event, read uint64, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := after.Sequence; i < to; i++ {
		if e, is := feed.Encode(&n.decisions[i]); is && n.decisions[i].Account == account {
			told = append(told, e)
		}
	}
	return told, to, nil
}

func (n *node) await(ctx context.Context, p events.Position) (events.Decision, error) {
	for {
		n.mu.Lock()
		folded := n.folded
		n.mu.Unlock()
		if d, err := n.decision(ctx, p); err == nil {
			return d, nil
		}
		select {
		case <-folded:
		case <-ctx.Done():
			return events.Decision{}, ctx.Err()
		}
	}
}

func (n *node) decision(_ context.Context, p events.Position) (events.Decision, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p.Partition != 0 || p.Sequence > uint64(len(n.decisions)) {
		return events.Decision{}, events.ErrNotFound
	}
	return n.decisions[p.Sequence-1], nil
}

func (n *node) requester(_ context.Context, p events.Position) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p.Sequence <= uint64(len(n.decisions)) || p.Sequence > uint64(len(n.requests)) {
		return "", events.ErrNotFound
	}
	return n.requests[p.Sequence-1].Account, nil
}

func (n *node) quota(_ context.Context, account string, month events.Month) (capture.Quota, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	a, ok := n.state.Accounts[account]
	if !ok {
		return capture.Quota{}, events.ErrNotFound
	}
	return capture.Quota{Month: month, Used: a.Used[month], Limit: a.Limit}, nil
}

func (n *node) erasures(_ context.Context, account string) (erasures []events.Decision, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, d := range n.decisions {
		if _, erased := d.Body.(*events.AccountErased); erased && d.Account == account {
			erasures = append(erasures, d)
		}
	}
	return erasures, nil
}

func (n *node) job(_ context.Context, account, id string) (capture.StoredJob, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	a, open := n.state.Accounts[account]
	if !open {
		return capture.StoredJob{}, events.ErrNotFound
	}
	if _, tracked := a.Tracked[id]; !tracked {
		return capture.StoredJob{}, events.ErrNotFound
	}
	return n.jobs[id], nil
}

func (n *node) tokens(_ context.Context, id string) (issued []capture.Token, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	accounts := map[string]bool{}
	for _, d := range n.decisions {
		accounts[d.Account] = true
	}
	for name := range accounts {
		for _, t := range n.tokensIn(name) {
			if t.ID == id {
				issued = append(issued, t)
			}
		}
	}
	return issued, nil
}

// exchange is one HTTP request and what came back.
type exchange struct {
	*nethttp.Response
	body string
}

// send sends a request to the node, with the headers given as "Name: value". Without an Authorization it is anna's,
// and a body without a Content-Type is JSON.
func (n *node) send(t *testing.T, method, path, body string, headers ...string) exchange {
	t.Helper()
	log := slog.New(slog.NewJSONHandler(&n.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	handler := NewHandler(Config{Backend: n.Backend, Plans: catalogue, Now: func() time.Time { return n.now }, Log: log})
	return n.sendTo(t, handler, method, path, body, headers...)
}

// sendTo sends it to a handler of its own.
func (n *node) sendTo(t *testing.T, handler nethttp.Handler, method, path, body string, headers ...string) exchange {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	if len(r.Header["Authorization"]) == 0 {
		r.Header.Set("Authorization", "Bearer "+n.anna.Reveal())
	}
	if len(r.Header["Content-Type"]) == 0 && body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	answered := w.Result()
	text, err := io.ReadAll(answered.Body)
	if err != nil {
		t.Fatal(err)
	}
	wantsByContract(t, &contracttest.Exchange{
		Request: r, RequestBody: []byte(body), Status: answered.StatusCode, Header: answered.Header, Body: text,
	})
	return exchange{answered, string(text)}
}

// wants checks status and body; a body that is wanted ends in … when its rest does not matter.
func (x exchange) wants(t *testing.T, status int, body string) {
	t.Helper()
	beginning, open := strings.CutSuffix(body, "…")
	if x.StatusCode != status || x.body != body && !(open && strings.HasPrefix(x.body, beginning)) {
		t.Errorf("answer\n%d %s\nwant\n%d %s", x.StatusCode, x.body, status, body)
	}
}

// wantsHeader checks headers given as "Name: value"; "Name:" means that it is not there.
func (x exchange) wantsHeader(t *testing.T, headers ...string) {
	t.Helper()
	for _, h := range headers {
		name, want, _ := strings.Cut(h, ":")
		if got := strings.Join(x.Header.Values(name), " | "); got != strings.TrimSpace(want) {
			t.Errorf("%s: %s, want%s", name, got, want)
		}
	}
}

// wantsProblem checks that the answer is a problem of the code, and returns its body.
func (x exchange) wantsProblem(t *testing.T, want code) string {
	t.Helper()
	if x.StatusCode != kinds[want].status || !strings.Contains(x.body, `"code":"`+string(want)+`"`) {
		t.Errorf("answer %d %s, want %s", x.StatusCode, x.body, want)
	}
	x.wantsHeader(t, "Content-Type: application/problem+json", "Cache-Control: no-store", "Access-Control-Allow-Origin: *")
	return x.body
}
