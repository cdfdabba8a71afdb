package http

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"jobtally/internal/contracttest"
	"jobtally/internal/events"
	"jobtally/internal/feed"
	"jobtally/internal/token"
)

// patience is how long a stream has to say what it should say at once.
const patience = 3 * time.Minute

// streaming serves the node on loopback, with a beat each so often.
func (n *node) streaming(t *testing.T, change func(*Config, *nethttp.Server)) *httptest.Server {
	t.Helper()
	cfg := Config{Backend: n.Backend, Now: n.clock, BeatEvery: time.Hour, Log: slog.New(slog.DiscardHandler)}
	change(&cfg, &nethttp.Server{})
	s := httptest.NewUnstartedServer(nil)
	s.Config = NewServer(cfg)
	change(&cfg, s.Config)
	return s
}

func (n *node) clock() time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.now
}

// started is streaming in plain HTTP.
func (n *node) started(t *testing.T, change func(*Config, *nethttp.Server)) *httptest.Server {
	t.Helper()
	s := n.streaming(t, change)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func asIs(*Config, *nethttp.Server) {}

func beating(every time.Duration) func(*Config, *nethttp.Server) {
	return func(cfg *Config, _ *nethttp.Server) { cfg.BeatEvery = every }
}

// stream is an answer that goes on.
type stream struct {
	*nethttp.Response
	in *bufio.Reader
}

// open asks for events, with headers given as "Name: value".
func open(t *testing.T, s *httptest.Server, held token.Token, query string, headers ...string) stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience) // only a failing test waits that long
	t.Cleanup(cancel)
	r, err := nethttp.NewRequestWithContext(ctx, "GET", s.URL+"/api/jobs/events"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+held.Reveal())
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	x, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Body.Close() })
	o := stream{x, bufio.NewReader(x.Body)}
	seen := contracttest.Exchange{Request: r, Status: x.StatusCode, Header: x.Header}
	if x.StatusCode != 200 {
		if seen.Body, err = io.ReadAll(x.Body); err != nil {
			t.Fatal(err)
		}
		o.in = bufio.NewReader(bytes.NewReader(seen.Body))
	}
	wantsByContract(t, &seen)
	return o
}

// block reads up to a blank line; the error is the end of the stream.
func (s stream) block() (string, error) {
	var text strings.Builder
	for {
		line, err := s.in.ReadString('\n')
		if err != nil || line == "\n" {
			return text.String(), err
		}
		text.WriteString(line)
	}
}

func (s stream) wants(t *testing.T, want ...string) {
	t.Helper()
	for _, w := range want {
		got, err := s.block()
		beginning, open := strings.CutSuffix(w, "…")
		if err != nil || got != w && !(open && strings.HasPrefix(got, beginning)) {
			t.Fatalf("the stream has %q, %v\nwant %q", got, err, w)
		}
	}
}

func (s stream) wantsEnd(t *testing.T) {
	t.Helper()
	for {
		if _, err := s.block(); err != nil {
			if err != io.EOF {
				t.Errorf("the stream ends with %v", err)
			}
			return
		}
	}
}

// captured captures a posting for an account.
func (n *node) captured(t *testing.T, account string, i int) {
	t.Helper()
	url := fmt.Sprintf("https://jobs.example.com/%s/%d", account, i)
	_, err := n.append(t.Context(), &events.Request{Account: account, ID: url, Time: n.now, Body: &events.JobCaptureRequested{
		Month: "2024-01", CanonicalURL: url, SourceRules: 1, PayloadHash: events.Hash([]byte(url)), Job: events.Job{SourceURL: url, Title: "T", Company: "C", Status: "saved", CapturedVia: "api"},
	}})
	if err != nil {
		t.Fatal(err)
	}
}

func TestEventsAreStreamed(t *testing.T) {
	n := newNode(t)
	n.captured(t, "anna", 1)
	n.captured(t, "bob", 1)
	s := n.started(t, asIs)
	x := open(t, s, n.anna, "?after=0-0")
	for name, want := range map[string]string{
		"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no", "Ledger-Position": "0-7",
	} {
		if got := x.Header.Get(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	x.wants(t, "retry: 3000\nid: 0-6\ndata: {\"specversion\":\"1.0\",\"id\":\"0-6\",…", ":\nid: 0-7\n")
	n.captured(t, "bob", 2)
	n.captured(t, "anna", 2)
	x.wants(t, "id: 0-9\ndata: {\"specversion\":\"1.0\",\"id\":\"0-9\",…")
	open(t, s, n.anna, "").wants(t, "retry: 3000\n:\nid: 0-9\n")
	open(t, s, n.anna, "?after=0-8").wants(t, "retry: 3000\nid: 0-9\n…")
	open(t, s, n.anna, "?after=0-0", "Last-Event-ID: 0-6").wants(t, "retry: 3000\nid: 0-9\n…")
	open(t, s, n.anna, "?after=0-6", "Last-Event-ID: ").wants(t, "retry: 3000\nid: 0-9\n…")
	open(t, s, n.bob, "?after=0-7").wants(t, "retry: 3000\nid: 0-8\n…")
}

func TestEventsOfSomeTypes(t *testing.T) {
	n := newNode(t)
	s := n.started(t, asIs)
	for query, want := range map[string]string{
		"type=jobtally.job.capture_rejected":                              "id: 0-8\n…",
		"type=jobtally.job.captured.v1":                                   "id: 0-6\n…",
		"type=jobtally.job.deleted,jobtally.job.capture_rejected.v1":      "id: 0-8\n…",
		"type=jobtally.job.deleted&type=%20jobtally.job.capture_rejected": "id: 0-8\n…",
	} {
		t.Run(query, func(t *testing.T) {
			x := open(t, s, n.anna, "?after=0-5&"+query)
			if n.Folded(0) == 5 {
				for i := range 3 {
					n.captured(t, "anna", i) // of which two are within the quota
				}
			}
			first, err := x.block()
			if strings.HasPrefix(first, "retry: 3000\n:\n") {
				first, err = x.block()
			}
			if first = strings.TrimPrefix(first, "retry: 3000\n"); err != nil || !strings.HasPrefix(first, strings.TrimSuffix(want, "…")) {
				t.Errorf("the first is %s, %v", first, err)
			}
		})
	}
}

func TestStreamsThatCannotBegin(t *testing.T) {
	n := newNode(t)
	for _, c := range []struct{ query, header, code, detail string }{
		{"?after=seven", "", "invalid_position", "after looks like 0-1234, <partition>-<sequence>; 0-0 is the beginning"},
		{"?after=", "", "invalid_position", "after looks like"},
		{"?after=0-01", "", "invalid_position", "after looks like"},
		{"?after=1-0", "", "invalid_position", "after looks like"},
		{"?after=1-3", "", "invalid_position", "after is in partition 1, and everything of the account is in partition 0"},
		{"?after=0-0", "Last-Event-ID: 3", "invalid_position", "Last-Event-ID looks like 0-1234"},
		{"?after=0-6", "", "invalid_position", "there is no 0-6: the ledger ends at 0-5"},
		{"?after=0-0&after=0-1", "", "invalid_request", "after is there more than once"},
		{"?after=0-0&types=x", "", "invalid_request", "did you mean type?"},
		{"?after=a,b", "Last-Event-ID: 0-1", "invalid_position", "after looks like 0-1234"},
		{"?type=", "", "invalid_request", `type has \"\", which is no type of event; they are jobtally.job.captured.v1,`},
		{"?type=jobtally.job.capture", "", "invalid_request", `type has \"jobtally.job.capture\", which is no type of event; did you mean jobtally.job.captured?`},
		{"?type=jobtally.job.captured.v2", "", "invalid_request", "did you mean jobtally.job.captured.v1?"},
		{"?type=jobtally.quota.reset", "", "invalid_request", "jobtally.quota.reset is for webhooks only"},
		{"?type=jobtally.quota.threshold_reached.v1", "", "invalid_request", "is for webhooks; here jobtally.job.captured tells"},
		{"", "Ledger-Position: x", "invalid_position", "Ledger-Position looks like"},
	} {
		headers := []string{}
		if c.header != "" {
			headers = append(headers, c.header)
		}
		x := n.send(t, "GET", "/api/jobs/events"+c.query, "", headers...)
		x.wantsProblem(t, code(c.code))
		said := strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(x.body, `\u003c`, "<"), `\u003e`, ">"), `"after","detail":"`, "after ")
		if !strings.Contains(said, c.detail) {
			t.Errorf("%s %s: %s", c.query, c.header, said)
		}
	}
	n.send(t, "GET", "/api/jobs/events", "", "Last-Event-ID: 0-1", "Last-Event-ID: 0-2").wantsProblem(t, codeInvalidPosition)
}

// TestStreamsThatFailBeforeTheyBegin has the node refuse them.
func TestStreamsThatFailBeforeTheyBegin(t *testing.T) {
	n := newNode(t)
	position := events.Position{Sequence: 40}
	for _, c := range []struct {
		err    error
		code   code
		detail string
	}{
		{&feed.PrunedError{First: position, Month: "2023-12"}, codePositionPruned,
			"the ledger has decisions from 0-40 on: what comes next is in the archive of 2023-12, which the operator has; after=0-39 begins with what is there"},
		{&feed.PrunedError{First: position}, codePositionPruned, "ask the operator for the archives"},
		{feed.ErrNotReached, codePositionNotReached, "after which events are asked for"},
		{feed.ErrErased, codeTokenUnknown, ""},
		{feed.ErrClosed, codeInterrupted, ""},
		{fmt.Errorf("no: %w", events.ErrUnavailable), codeLedgerUnavailable, ""},
		{io.ErrUnexpectedEOF, codeInternal, ""},
	} {
		n.Events = func(context.Context, string, events.Position, <-chan time.Time) iter.Seq2[feed.Batch, error] {
			return func(yield func(feed.Batch, error) bool) { yield(feed.Batch{}, c.err) }
		}
		x := n.send(t, "GET", "/api/jobs/events?after=0-1", "")
		if body := x.wantsProblem(t, c.code); !strings.Contains(body, c.detail) {
			t.Errorf("%v: %s", c.err, body)
		}
	}
}

func TestHeadOfAStream(t *testing.T) {
	n := newNode(t)
	x := n.send(t, "HEAD", "/api/jobs/events", "")
	x.wants(t, 200, "")
	x.wantsHeader(t, "Content-Type: text/event-stream")
}

// TestStreamsOutliveTheTimeOuts has a stream go on for longer than the server gives an answer, over HTTP/1.1 and HTTP/2.
func TestStreamsOutliveTheTimeOuts(t *testing.T) {
	t.Parallel()
	const short = 5 * time.Second
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP/2 %t", h2), func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			s := n.streaming(t, func(cfg *Config, server *nethttp.Server) {
				cfg.BeatEvery, cfg.takeTimeout = 200*time.Millisecond, short
				server.ReadTimeout, server.WriteTimeout = short, short
			})
			s.EnableHTTP2 = h2
			s.StartTLS()
			t.Cleanup(s.Close)
			x := open(t, s, n.anna, "")
			if (x.ProtoMajor == 2) != h2 {
				t.Fatalf("it is %s", x.Proto)
			}
			began := time.Now()
			x.wants(t, "retry: 3000\n:\nid: 0-5\n")
			for time.Since(began) < 2*short {
				x.wants(t, ":\nid: 0-5\n")
			}
			n.captured(t, "anna", 1)
			for {
				if block, err := x.block(); err != nil {
					t.Fatal(err)
				} else if strings.HasPrefix(block, "id: 0-6\ndata: ") {
					return
				}
			}
		})
	}
}

func TestAStreamEndsWithItsToken(t *testing.T) {
	for name, end := range map[string]func(*node){
		"revoked": func(n *node) {
			n.append(context.Background(), &events.Request{Account: "anna", ID: "revoke", Time: n.now, Body: &events.TokenRevokeRequested{TokenID: n.anna.ID()}})
		},
		"the account is erased": func(n *node) {
			n.append(context.Background(), &events.Request{Account: "anna", ID: "erase", Time: n.now, Body: &events.AccountEraseRequested{}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			s := n.started(t, beating(10*time.Millisecond))
			x := open(t, s, n.anna, "")
			x.wants(t, "retry: 3000\n:\nid: 0-5\n", ":\n…")
			end(n)
			x.wantsEnd(t)
		})
	}
}

func TestAStreamEndsWhenItsTokenExpires(t *testing.T) {
	n := newNode(t)
	short := token.New()
	_, err := n.append(t.Context(), &events.Request{Account: "anna", ID: "issue-short", Time: n.now, Body: &events.TokenIssueRequested{
		TokenID: short.ID(), SecretHash: short.Hash(), TokenTerms: events.TokenTerms{ExpiresAt: n.now.Add(time.Hour)}}})
	if err != nil {
		t.Fatal(err)
	}
	s := n.started(t, beating(10*time.Millisecond))
	x := open(t, s, short, "")
	x.wants(t, "retry: 3000\n:\nid: 0-6\n", ":\n…")
	n.mu.Lock()
	n.now = n.now.Add(2 * time.Hour)
	n.mu.Unlock()
	x.wantsEnd(t)
	if again := open(t, s, short, ""); again.StatusCode != 401 {
		t.Errorf("who comes back is answered %d", again.StatusCode)
	}
}

// handlers returns how many streams are being answered.
func handlers(t *testing.T) int {
	t.Helper()
	var stacks bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&stacks, 2); err != nil {
		t.Fatal(err)
	}
	return strings.Count(stacks.String(), "(*api).getEvents(")
}

func awaitNoHandlers(t *testing.T, n *node) {
	t.Helper()
	for began := time.Now(); handlers(t) > 0 || n.feed.Clients() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > patience {
			t.Fatalf("%d streams are there, and %d clients", handlers(t), n.feed.Clients())
		}
	}
}

// TestAClientThatTakesNothingIsCutOff has one read nothing, while others are told everything.
func TestAClientThatTakesNothingIsCutOff(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP/2 %t", h2), func(t *testing.T) {
			n := newNode(t)
			ended := make(chan feed.End, 10)
			s := n.streaming(t, func(cfg *Config, _ *nethttp.Server) {
				cfg.takeTimeout = 2 * time.Second
				cfg.Observer.Streams.Ended = func(why feed.End) { ended <- why }
			})
			s.EnableHTTP2 = h2
			s.StartTLS()
			t.Cleanup(s.Close)
			x := open(t, s, n.bob, "")
			x.wants(t, "retry: 3000\n…")
			for i := range 500 { // 50 MB, which nothing on the way holds
				url := fmt.Sprintf("https://jobs.example.com/%d", i)
				_, err := n.append(t.Context(), &events.Request{Account: "bob", ID: url, Time: n.now, Body: &events.JobCaptureRequested{
					Month: "2024-01", CanonicalURL: url, SourceRules: 1, PayloadHash: events.Hash([]byte(url)),
					Job: events.Job{SourceURL: url, Title: "T", Company: "C", Status: "saved", CapturedVia: "api", Description: strings.Repeat("x", 100<<10)},
				}})
				if err != nil {
					t.Fatal(err)
				}
			}
			select {
			case why := <-ended:
				if why != feed.EndedSlow {
					t.Errorf("it ended as %s", why)
				}
			case <-time.After(patience):
				t.Fatal("what is told waits for a client that takes nothing")
			}
			x.Body.Close()
			awaitNoHandlers(t, n)
		})
	}
}

// unbuffered is a listener with one connection, on which whoever writes waits until that is read.
type unbuffered struct{ server chan net.Conn }

func (u unbuffered) Accept() (net.Conn, error) {
	c, open := <-u.server
	if !open {
		return nil, net.ErrClosed
	}
	return fromLoopback{c}, nil
}

func (u unbuffered) Close() error   { close(u.server); return nil }
func (u unbuffered) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

type fromLoopback struct{ net.Conn }

func (fromLoopback) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// TestAClientThatTakesLittleIsNotCutOff has one read so slowly that what is written at once takes it several times as long as
// one has that takes nothing.
func TestAClientThatTakesLittleIsNotCutOff(t *testing.T) { synctest.Test(t, takingLittle) }

func takingLittle(t *testing.T) {
	const captures, took = 400, 4 << 10
	n := newNode(t)
	for i := range captures {
		n.captured(t, "bob", i)
	}
	here, there := net.Pipe()
	listener := unbuffered{make(chan net.Conn, 1)}
	listener.server <- there
	s := NewServer(Config{Backend: n.Backend, Now: n.clock, Log: slog.New(slog.DiscardHandler), takeTimeout: 300 * time.Millisecond})
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(listener) }()
	t.Cleanup(func() { here.Close(); s.Close(); <-ended })
	_, err := fmt.Fprintf(here, "GET /api/jobs/events?after=0-0 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", n.bob.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	here.SetReadDeadline(time.Now().Add(patience))
	x, err := nethttp.ReadResponse(bufio.NewReaderSize(here, took), nil)
	if err != nil {
		t.Fatal(err)
	}
	var text []byte
	for part := make([]byte, took); bytes.Count(text, []byte("\ndata: ")) < captures; {
		size, err := x.Body.Read(part)
		text = append(text, part[:size]...)
		if err != nil {
			t.Fatalf("cut off after %d of %d events: %v", bytes.Count(text, []byte("\ndata: ")), captures, err)
		}
		time.Sleep(20 * time.Millisecond) // the pace of the client
	}
}

func Test500ClientsAreToldAtOnceAndLeaveNothing(t *testing.T) {
	const clients = 500
	n := newNode(t)
	s := n.started(t, asIs)
	s.Client().Transport.(*nethttp.Transport).MaxConnsPerHost = 0
	streams := make([]stream, clients)
	var opening sync.WaitGroup
	for i := range streams {
		opening.Go(func() { streams[i] = open(t, s, n.bob, "?after=0-5") })
	}
	opening.Wait()
	for _, x := range streams {
		x.wants(t, "retry: 3000\n:\nid: 0-5\n")
	}
	for i := range 3 {
		n.captured(t, "bob", i)
	}
	for _, x := range streams {
		x.wants(t, "id: 0-6\n…", "id: 0-7\n…", "id: 0-8\n…")
	}
	if n.feed.Clients() != clients || handlers(t) != clients {
		t.Errorf("there are %d clients, and %d streams", n.feed.Clients(), handlers(t))
	}
	for _, x := range streams {
		x.Body.Close()
	}
	awaitNoHandlers(t, n)
}

func TestStoppingEndsStreamsAtOnce(t *testing.T) {
	n := newNode(t)
	s := n.started(t, asIs)
	x := open(t, s, n.anna, "")
	x.wants(t, "retry: 3000\n…")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.Config.Shutdown(ctx); err != nil { // which waits for who is answered
		t.Fatal(err)
	}
	x.wantsEnd(t)
}

func TestStreamsAreLimited(t *testing.T) {
	n := newNode(t)
	s := n.started(t, func(cfg *Config, _ *nethttp.Server) {
		cfg.Limits = Limits{StreamsAtOnce: 2, RequestsAtOnce: 2, RequestsAtOncePerAddress: 2, Loopback: true}
	})
	first, second := open(t, s, n.anna, ""), open(t, s, n.anna, "")
	first.wants(t, "retry: 3000\n…")
	second.wants(t, "retry: 3000\n…")
	x := open(t, s, n.anna, "")
	if body, _ := x.in.ReadString('\n'); x.StatusCode != 429 || x.Header.Get("Retry-After") != "3" || !strings.Contains(body, "too_many_streams") {
		t.Errorf("a third stream: %d %s", x.StatusCode, body)
	}
	open(t, s, n.bob, "").wants(t, "retry: 3000\n…") // streams are no requests at once, and bob has his own
	first.Body.Close()
	for began := time.Now(); n.feed.Clients() > 2; time.Sleep(time.Millisecond) {
		if time.Since(began) > patience {
			t.Fatal("the stream does not end")
		}
	}
	for began := time.Now(); ; time.Sleep(time.Millisecond) { // it leaves the limits just after the feed
		if x := open(t, s, n.anna, ""); x.StatusCode == 200 {
			return
		} else if time.Since(began) > patience {
			t.Fatal("who left counts still")
		}
	}
}

func TestStreamsAreObserved(t *testing.T) {
	n := newNode(t)
	n.captured(t, "anna", 1)
	type fact struct {
		what string
		n    int
	}
	facts := make(chan fact, 10)
	took := make(chan time.Duration, 1)
	s := n.started(t, func(cfg *Config, _ *nethttp.Server) {
		cfg.Observer.Streams = StreamObserver{
			Began: func() { facts <- fact{"began", 0} }, Told: func(n int) { facts <- fact{"told", n} }, Ended: func(why feed.End) { facts <- fact{string(why), 0} },
		}
		cfg.Observer.Answered = func(_ context.Context, _, _ string, _ int, d time.Duration, _ events.Position) { took <- d }
	})
	began := time.Now()
	x := open(t, s, n.anna, "?after=0-0")
	x.wants(t, "retry: 3000\nid: 0-6\n…", ":\n…")
	n.captured(t, "anna", 2)
	x.wants(t, "id: 0-7\n…")
	lasted := time.Since(began)
	x.Body.Close()
	for _, want := range []fact{{"began", 0}, {"told", 1}, {"told", 1}, {"left", 0}} {
		if got := <-facts; got != want {
			t.Errorf("observed %v, want %v", got, want)
		}
	}
	if d := <-took; d > lasted {
		t.Errorf("the call took %s, and the stream lasted %s", d, lasted)
	}
}
