package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A stream row has so many clients, divided among so many accounts, of which one captures so often.
const (
	streamClients  = 2000
	streamAccounts = 20
	streamEvery    = 25 * time.Millisecond
	streamFiles    = 2*streamClients + 500 // descriptors: of the clients, and of the baseline that is in this process too
)

// streamRows are those of streams of events.
func (s *suite) streamRows() []row {
	rows := []row{
		{
			name: "streams", unit: "ms", goal: goal{mostValue: 50},
			what: fmt.Sprintf("from the 201 of a capture until each of the %d clients of its account was told, p99; %d streams of %d accounts, a capture each %s",
				streamClients/streamAccounts, streamClients, streamAccounts, streamEvery),
			against: "a loop that writes as much to as many connections out of as many, p99",
			measure: s.streamLatency, baseline: s.bareStreams,
		},
		{
			name: "streams-back", unit: "s", goal: goal{mostValue: 5}, measure: s.streamsComeBack,
			what: fmt.Sprintf("%d clients come back at once after a start, each from its last event, until all were told of the one that they missed", streamClients),
		},
	}
	if s.inProcess {
		return rows
	}
	return append(rows, row{
		name: "streams-memory", unit: "kB", goal: goal{mostValue: 100}, measure: s.streamMemory,
		what: fmt.Sprintf("resident memory (VmRSS) of a stream, of %d that were told of a capture", streamClients),
	})
}

// arrival is an event at a client.
type arrival struct {
	position string
	at       time.Time
}

// listeners are clients on connections of their own.
type listeners struct {
	conns    []net.Conn
	begun    sync.WaitGroup // until each has read its first block
	running  sync.WaitGroup
	arrivals chan arrival
	failed   atomic.Pointer[error]
	closing  atomic.Bool
}

// openStreams opens streams: the i-th sends what request says. Each tells its events.
func openStreams(addr string, n int, request func(i int) string) (*listeners, error) {
	l := &listeners{arrivals: make(chan arrival, 1<<17)}
	if err := mayOpen(streamFiles); err != nil {
		return l, err
	}
	l.begun.Add(n)
	for i := range n {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return l, err
		}
		l.conns = append(l.conns, conn)
		if _, err := io.WriteString(conn, request(i)); err != nil {
			return l, err
		}
		l.running.Go(func() { l.read(conn) })
	}
	return l, nil
}

func (l *listeners) read(conn net.Conn) {
	begun := sync.OnceFunc(l.begun.Done)
	defer begun()
	in := bufio.NewReaderSize(conn, 2048)
	for id := ""; ; {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			continue // in the middle of the data
		}
		if err != nil {
			if !l.closing.Load() {
				l.failed.CompareAndSwap(nil, &err)
			}
			return
		}
		switch {
		case len(line) > 4 && string(line[:4]) == "id: ":
			id = strings.TrimSpace(string(line[4:]))
			begun()
		case len(line) > 6 && string(line[:6]) == "data: ":
			l.arrivals <- arrival{id, time.Now()}
		}
	}
}

func (l *listeners) close() {
	l.closing.Store(true)
	for _, conn := range l.conns {
		conn.Close()
	}
	l.running.Wait()
}

// take waits for so many events.
func (l *listeners) take(ctx context.Context, n int) (taken []arrival, err error) {
	ctx, cancel := context.WithTimeout(ctx, stall)
	defer cancel()
	for len(taken) < n {
		select {
		case a := <-l.arrivals:
			taken = append(taken, a)
		case <-ctx.Done():
			return taken, fmt.Errorf("%d of %d events arrived: %w", len(taken), n, errors.Join(ctx.Err(), l.failure()))
		}
	}
	return taken, l.failure()
}

func (l *listeners) failure() error {
	if err := l.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// mayOpen returns an error where this process may not open so many files. Go has raised its limit as far as that goes.
func mayOpen(files uint64) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur >= files {
		return err
	}
	return fmt.Errorf("%d files may be open, and %d are needed: raise the hard limit of ulimit -n", limit.Cur, files)
}

// streamRequest asks for the events of an account after a position.
func streamRequest(token, after string) string {
	return "GET /api/jobs/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer " + token + "\r\nLast-Event-ID: " + after + "\r\n\r\n"
}

var positionOf = regexp.MustCompile(`"position":"([0-9-]+)"`)

// captureOnce captures a posting, and returns its position, and when the answer was there.
func captureOnce(addr, token string, serial int) (position string, at time.Time, err error) {
	body := fmt.Sprintf(`{"source_url":"https://jobs.example.com/%d","title":"Software Engineer","company":"Example","description":%q}`, serial, strings.Repeat("d", 300))
	r, err := nethttp.NewRequest(nethttp.MethodPost, "http://"+addr+"/api/jobs", strings.NewReader(body))
	if err != nil {
		return "", at, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	x, err := nethttp.DefaultClient.Do(r)
	if err != nil {
		return "", at, err
	}
	defer x.Body.Close()
	text, err := io.ReadAll(x.Body)
	found := positionOf.FindSubmatch(text)
	if err != nil || x.StatusCode != nethttp.StatusCreated || found == nil {
		return "", at, fmt.Errorf("a capture is answered %d %s, %w", x.StatusCode, text, err)
	}
	return string(found[1]), time.Now(), nil
}

// withStreams runs use while all clients are told of the accounts of a service.
func (s *suite) withStreams(ctx context.Context, use func(running *service, tokens []string, l *listeners) error) error {
	d, err := s.accounts(ctx)
	if err != nil {
		return err
	}
	tokens := d.tokens()[:streamAccounts]
	return s.withCopy(ctx, d.path, func(running *service) error {
		l, err := openStreams(running.addr, streamClients, func(i int) string { return streamRequest(tokens[i%streamAccounts], "") })
		defer l.close()
		if err != nil {
			return err
		}
		l.begun.Wait()
		return use(running, tokens, l)
	})
}

// streamLatency captures at a modest pace, and looks when the clients were told.
func (s *suite) streamLatency(ctx context.Context) (result sample, err error) {
	err = s.withStreams(ctx, func(running *service, tokens []string, l *listeners) error {
		captures, serial := int(s.size.window/streamEvery), s.newSerials()
		answered := map[string]time.Time{}
		pace := time.NewTicker(streamEvery)
		defer pace.Stop()
		for i := range captures {
			<-pace.C
			position, at, err := captureOnce(running.addr, tokens[i%len(tokens)], serial+i)
			if err != nil {
				return err
			}
			answered[position] = at
		}
		arrivals, err := l.take(ctx, captures*streamClients/streamAccounts)
		var latency histogram
		for _, a := range arrivals {
			latency.record(a.at.Sub(answered[a.position]))
		}
		result = sampleOf(&latency)
		return err
	})
	return result, err
}

// sampleOf returns the latencies, of which the value is the p99 in milliseconds.
func sampleOf(h *histogram) sample {
	p99 := h.quantile(0.99)
	return sample{value: float64(p99) / float64(time.Millisecond), p50: h.quantile(0.5), p99: p99}
}

// bareStreams writes as much to as many connections, one after another, and nothing else.
func (s *suite) bareStreams(ctx context.Context) (sample, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return sample{}, err
	}
	defer listener.Close()
	accepted := make(chan net.Conn, streamClients)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, "id: begun\n\n") // a failure is met again
			accepted <- conn
		}
	}()
	l, err := openStreams(listener.Addr().String(), streamClients, func(int) string { return "\n" })
	defer l.close()
	if err != nil {
		return sample{}, err
	}
	l.begun.Wait()
	conns := make([]net.Conn, streamClients)
	for i := range conns {
		conns[i] = <-accepted
		defer conns[i].Close()
	}
	return s.bareLatency(ctx, l, conns)
}

func (s *suite) bareLatency(ctx context.Context, l *listeners, conns []net.Conn) (sample, error) {
	const each, size = streamClients / streamAccounts, 1300 // bytes of an event
	written, events := map[string]time.Time{}, int(s.size.window/streamEvery)
	pace := time.NewTicker(streamEvery)
	defer pace.Stop()
	for i := range events {
		<-pace.C
		id, first := fmt.Sprintf("0-%d", i+1), i%streamAccounts*each
		frame := []byte("id: " + id + "\ndata: " + strings.Repeat("x", size) + "\n\n")
		written[id] = time.Now()
		for _, conn := range conns[first : first+each] {
			if _, err := conn.Write(frame); err != nil {
				return sample{}, err
			}
		}
	}
	arrivals, err := l.take(ctx, events*each)
	var latency histogram
	for _, a := range arrivals {
		latency.record(a.at.Sub(written[a.position]))
	}
	return sampleOf(&latency), err
}

// streamsComeBack has all clients come back to a service that just started.
func (s *suite) streamsComeBack(ctx context.Context) (result sample, err error) {
	d, err := s.accounts(ctx)
	if err != nil {
		return result, err
	}
	tokens, told, serial := d.tokens()[:streamAccounts], make([]string, streamAccounts), s.newSerials()
	path, remove, err := s.scratch.copyOf(d.path)
	if err != nil {
		return result, err
	}
	err = s.withService(ctx, path, func(running *service) error {
		for i := range 2 * streamAccounts {
			position, _, err := captureOnce(running.addr, tokens[i%streamAccounts], serial+i)
			if err != nil {
				return err
			}
			if i < streamAccounts {
				told[i] = position
			}
		}
		return nil
	})
	if err == nil {
		err = s.withService(ctx, path, func(running *service) error {
			began := time.Now()
			l, err := openStreams(running.addr, streamClients, func(i int) string { return streamRequest(tokens[i%streamAccounts], told[i%streamAccounts]) })
			defer l.close()
			if err == nil {
				_, err = l.take(ctx, streamClients)
			}
			result.value = time.Since(began).Seconds()
			return err
		})
	}
	return result, errors.Join(err, remove())
}

// streamMemory compares the memory of the service before there are streams, and with them.
func (s *suite) streamMemory(ctx context.Context) (result sample, err error) {
	d, err := s.accounts(ctx)
	if err != nil {
		return result, err
	}
	tokens := d.tokens()[:streamAccounts]
	err = s.withCopy(ctx, d.path, func(running *service) error {
		serial := s.newSerials()
		capture := func(from int) (err error) {
			for i := range tokens {
				_, _, failed := captureOnce(running.addr, tokens[i], serial+from+i)
				err = errors.Join(err, failed)
			}
			return err
		}
		if err := capture(0); err != nil {
			return err
		}
		before, err := memory(running.pid, "VmRSS")
		if err != nil {
			return err
		}
		l, err := openStreams(running.addr, streamClients, func(i int) string { return streamRequest(tokens[i%streamAccounts], "") })
		defer l.close()
		if err != nil {
			return err
		}
		l.begun.Wait()
		if err := capture(len(tokens)); err != nil {
			return err
		}
		if _, err := l.take(ctx, streamClients); err != nil {
			return err
		}
		after, err := memory(running.pid, "VmRSS")
		result.value = float64(after-before) / streamClients / 1024
		return err
	})
	return result, err
}
