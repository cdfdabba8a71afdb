package http

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	nethttp "net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// safeBuffer is a log that is written while it is read.
type safeBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write adds to the text.
func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// listening serves the node on loopback, as cmd/api does, and returns the address. change may shorten the time-outs.
func (n *node) listening(t *testing.T, limits Limits, change func(*nethttp.Server)) (address string, log *safeBuffer) {
	t.Helper()
	log = &safeBuffer{}
	cfg := Config{Backend: n.Backend, Now: func() time.Time { return n.now }, Limits: limits, Log: slog.New(slog.NewTextHandler(log, nil))}
	s := NewServer(cfg)
	change(s)
	tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error)
	go func() { served <- s.Serve(LimitConnections(tcp, cfg)) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-served; !errors.Is(err, nethttp.ErrServerClosed) {
			t.Error(err)
		}
	})
	return tcp.Addr().String(), log
}

// peer is one connection, on which a test speaks byte by byte.
type peer struct {
	net.Conn
	*bufio.Reader
}

func dial(t *testing.T, address string) peer {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil { // only a failing test waits that long
		t.Fatal(err)
	}
	return peer{conn, bufio.NewReader(conn)}
}

func (p peer) say(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(p.Conn, text); err != nil {
		t.Fatal(err)
	}
}

// answered reads one answer.
func (p peer) answered(t *testing.T, status int) (body string) {
	t.Helper()
	x, err := nethttp.ReadResponse(p.Reader, nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	text, err := io.ReadAll(x.Body)
	if err != nil || x.StatusCode != status {
		t.Errorf("%d %s, %v, want %d", x.StatusCode, text, err, status)
	}
	return string(text)
}

// closed waits until the other side closes the connection, and sends nothing before it does.
func (p peer) closed(t *testing.T) {
	t.Helper()
	text, err := io.ReadAll(p.Reader)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() || len(text) > 0 {
		t.Errorf("the connection is open: %q, %v", text, err)
	}
}

// admitted says whether a new connection is answered, and closes it.
func admitted(address string) bool {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return false // closed as soon as it was open
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, alive+"Connection: close\r\n\r\n"); err != nil {
		return false
	}
	_, err = nethttp.ReadResponse(bufio.NewReader(conn), nil)
	return err == nil
}

const alive = "GET /livez HTTP/1.1\r\nHost: a\r\n"

func TestSlowClientsAreCutOff(t *testing.T) {
	t.Parallel()
	const short = 50 * time.Millisecond
	n := newNode(t)
	capture := "POST /api/jobs HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\nAuthorization: Bearer " +
		n.anna.Reveal() + "\r\n\r\n"
	t.Run("nothing is sent", func(t *testing.T) {
		address, _ := n.listening(t, Limits{}, func(s *nethttp.Server) { s.ReadHeaderTimeout = short })
		dial(t, address).closed(t)
	})
	t.Run("half a header is sent", func(t *testing.T) {
		address, _ := n.listening(t, Limits{}, func(s *nethttp.Server) { s.ReadHeaderTimeout = short })
		p := dial(t, address)
		p.say(t, alive)
		p.closed(t)
	})
	t.Run("half a body is sent", func(t *testing.T) {
		address, _ := n.listening(t, Limits{}, func(s *nethttp.Server) { s.ReadTimeout = 10 * time.Second }) // in which the first half has to come
		p := dial(t, address)
		p.say(t, capture+`{"source_url":`)
		if body := p.answered(t, 400); !strings.Contains(body, "the body did not arrive in full") {
			t.Errorf("answered %s", body)
		}
		p.closed(t)
	})
	t.Run("nothing follows", func(t *testing.T) {
		address, _ := n.listening(t, Limits{}, func(s *nethttp.Server) { s.IdleTimeout = short })
		p := dial(t, address)
		p.say(t, alive+"\r\n")
		p.answered(t, 200)
		p.closed(t)
	})
	if len(n.requests) != 5 {
		t.Error("something was recorded")
	}
}

func TestHeadersAreBounded(t *testing.T) {
	address, _ := newNode(t).listening(t, Limits{}, func(*nethttp.Server) {})
	p := dial(t, address)
	p.say(t, alive+"X-Long: "+strings.Repeat("x", maxHeaderBytes-1000)+"\r\n\r\n")
	p.answered(t, 200)
	p.say(t, alive+"X-Long: "+strings.Repeat("x", 2*maxHeaderBytes)+"\r\n\r\n")
	p.answered(t, 431)
}

func TestConnectionsAreLimited(t *testing.T) {
	for name, limits := range map[string]Limits{
		"in all": {Connections: 2}, "of an address": {ConnectionsPerAddress: 2, Loopback: true},
	} {
		t.Run(name, func(t *testing.T) {
			address, log := newNode(t).listening(t, limits, func(*nethttp.Server) {})
			first, second := dial(t, address), dial(t, address)
			for _, p := range []peer{first, second} {
				p.say(t, alive+"\r\n")
				p.answered(t, 200)
			}
			for range 3 {
				if admitted(address) {
					t.Error("a connection is open beyond the limit")
				}
			}
			const told = `msg="connections beyond the limits are closed" closed=1 last_address=127.0.0.1 open=2`
			if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, told) {
				t.Errorf("the log does not tell it once:\n%s", text)
			}
			first.say(t, alive+"Connection: close\r\n\r\n")
			first.answered(t, 200)
			first.closed(t)
			first.Close()
			for begun := time.Now(); !admitted(address); { // the server is about to find out
				if time.Since(begun) > patience {
					t.Fatal("the place of a connection that is closed is not free")
				}
			}
		})
	}
}

func TestConnectionsOfLoopbackAndOfProxiesAreNotLimited(t *testing.T) {
	address, _ := newNode(t).listening(t, Limits{ConnectionsPerAddress: 1}, func(*nethttp.Server) {})
	for range 5 {
		p := dial(t, address)
		p.say(t, alive+"\r\n")
		p.answered(t, 200)
	}
	l := &listener{limits: Limits{ConnectionsPerAddress: 1}, log: slog.New(slog.DiscardHandler), open: map[netip.Addr]uint{},
		proxies: networks{netip.MustParsePrefix("2001:db8::5/128")}}
	for range 5 {
		if !l.enter(netip.MustParseAddr("2001:db8::5")) {
			t.Error("a proxy is held to the limit of an address")
		}
	}
	if l.enter(netip.MustParseAddr("2001:db8::6")) {
		t.Error("its neighbour is none, and of the same network") // the /64 has five already
	}
	if !l.enter(netip.MustParseAddr("2001:db8:1::")) || l.enter(netip.MustParseAddr("2001:db8:1::1")) {
		t.Error("a network of 64 bits has not one connection")
	}
}

// A flood of connections leaves nothing behind.
func TestTheListenerForgetsWhoIsGone(t *testing.T) {
	l := &listener{open: map[netip.Addr]uint{}}
	for n := range 10_000 {
		l.enter(addressNumber(n))
		l.leave(addressNumber(n))
	}
	if len(l.open) != 0 || l.all != 0 {
		t.Errorf("%d addresses, %d connections", len(l.open), l.all)
	}
}

func TestFailedHandshakesAreForTheDebugLog(t *testing.T) {
	var text bytes.Buffer
	log := serverLog{slog.New(slog.NewTextHandler(&text, nil))}
	fmt.Fprintln(log, "http: TLS handshake error from 203.0.113.9:4711: EOF")
	if text.Len() != 0 {
		t.Errorf("a scanner writes %s", text.String())
	}
	fmt.Fprintln(log, "http: Accept error: too many open files; retrying in 5ms")
	if !strings.Contains(text.String(), `level=WARN msg="http: Accept error: too many open files; retrying in 5ms"`) {
		t.Errorf("a failure writes %q", text.String())
	}
}
