package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	startTimeout = 2 * time.Minute
	stopTimeout  = 20 * time.Second
	readyPoll    = time.Millisecond
)

// service is a running HTTP server on loopback.
type service struct {
	addr  string
	pid   int
	ready time.Duration // from the start until /readyz answered 200
	stop  func() error
	kill  func()       // ends it as SIGKILL does; nil in process
	log   fmt.Stringer // the end of what it logged; nil in process
}

// use stops the service once do is through with it. When that fails, the error has the end of the service's log.
func (s *service) use(do func() error) error {
	err := do()
	if err != nil && s.log != nil {
		err = fmt.Errorf("%w; the service logged:\n%s", err, s.log)
	}
	return errors.Join(err, s.stop())
}

// buildAPI builds the real binary.
func buildAPI(ctx context.Context, dir string) (binary string, err error) {
	binary = filepath.Join(dir, "api")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "jobtally/cmd/api").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build cmd/api: %w\n%s", err, out)
	}
	return binary, nil
}

// process is a command that was started.
type process struct {
	log  *logTail
	done chan struct{} // closed when it ended
	err  error         // how it ended; valid once done is closed
}

// startProcess starts a command that logs where it listens, and waits until it is ready. ctx ends it too.
func startProcess(ctx context.Context, binary string, args ...string) (*service, error) {
	ctx, cancel := context.WithCancel(ctx)
	p := &process{log: &logTail{listening: make(chan string, 1)}, done: make(chan struct{})}
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTimeout
	cmd.Stderr = p.log
	began := time.Now()
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	go func() { p.err = cmd.Wait(); close(p.done) }()
	s := &service{
		pid: cmd.Process.Pid, log: p.log,
		stop: func() error { cancel(); return p.ended() },
		kill: func() { cmd.Process.Kill(); <-p.done; cancel() },
	}
	if err := s.await(ctx, p); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", filepath.Base(binary), err), s.stop())
	}
	s.ready = time.Since(began)
	return s, nil
}

// ended waits for the end of a process that was told to stop. The context's word for that is no error.
func (p *process) ended() error {
	<-p.done
	if p.err == nil || errors.Is(p.err, context.Canceled) {
		return nil
	}
	return fmt.Errorf("the process did not end well: %w\n%s", p.err, p.log)
}

// await waits until the process has said where it listens, and answers there that it is ready.
func (s *service) await(ctx context.Context, p *process) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	select {
	case s.addr = <-p.log.listening:
		return awaitReady(ctx, s.addr)
	case <-p.done:
		return errors.New("it ended before it listened")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// awaitReady asks /readyz until the answer is 200.
func awaitReady(ctx context.Context, addr string) (err error) {
	deadline, _ := ctx.Deadline()
	c, err := dial(addr, deadline)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	for {
		status, body, err := c.exchange([]byte("GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"))
		if err != nil {
			return err
		}
		if status == 200 {
			return nil
		}
		select {
		case <-time.After(readyPoll):
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w: %.200s", ctx.Err(), body)
		}
	}
}

// logTail takes the log of a process: it finds the address in it, and keeps its end for error messages.
type logTail struct {
	listening chan string // gets the address; has room for one

	mu   sync.Mutex // guards the fields below
	tail []byte
	told bool
}

var listens = regexp.MustCompile(`msg=listening addr=(\S+)\s`)

// Write takes a piece of the log.
func (l *logTail) Write(p []byte) (int, error) {
	const most = 4 << 10
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tail = append(l.tail, p...)
	if m := listens.FindSubmatch(l.tail); m != nil && !l.told {
		l.told = true
		l.listening <- string(m[1])
	}
	l.tail = l.tail[max(0, len(l.tail)-most):]
	return len(p), nil
}

// String returns the end of the log.
func (l *logTail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.TrimSpace(string(l.tail))
}

// memory returns a figure of /proc/PID/status in bytes, such as VmRSS.
func memory(pid int, figure string) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kilobytes int64
		if n, _ := fmt.Sscanf(line, figure+": %d kB", &kilobytes); n == 1 {
			return kilobytes << 10, nil
		}
	}
	return 0, fmt.Errorf("process %d does not say its %s", pid, figure)
}
