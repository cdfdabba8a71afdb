package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"jobtally/internal/ledger"
	"jobtally/internal/node"
)

// patience is how long a test waits for what should happen at once. Only a failing test waits that long.
const patience = 3 * time.Minute

// The two commands, built for these tests.
var apiBinary, projectorBinary string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "jobtally-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	apiBinary, projectorBinary = filepath.Join(dir, "api"), filepath.Join(dir, "projector")
	build := exec.Command("go", slices.Concat([]string{"build"}, buildFlags, []string{"-o", dir, ".", "../projector"})...)
	if output, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n%s", build, err, output)
		return 1
	}
	os.Setenv("OTEL_BSP_SCHEDULE_DELAY", "10") // milliseconds until spans are sent
	awaitMonth()
	code := m.Run()
	if code == 0 && everythingRan() {
		return unexercised()
	}
	return code
}

// awaitMonth waits for the next month where this one ends within five minutes: what a test counts on the clock of the machine
// is of one.
func awaitMonth() {
	now := time.Now().UTC()
	if left := time.Date(now.Year(), now.Month()+1, 1, 0, 0, 0, 0, time.UTC).Sub(now); left < 5*time.Minute {
		time.Sleep(left)
	}
}

// service is a running jobtally: serve in this process, or the real binary. It is also the client of account demo.
type service struct {
	client
	data           string
	stdout, stderr output

	interrupt func()        // what Ctrl-C does
	process   *os.Process   // of the binary
	ended     chan struct{} // closed once it ended, with err
	err       error
}

// start serves in this process, on a clock of the test's.
func start(t *testing.T, data string, now func() time.Time, args ...string) *service {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &service{data: data, interrupt: cancel, ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		// Whatever another test just forks holds, until it runs its program, the lock of a service that ended here.
		for s.err = ledger.ErrLocked; errors.Is(s.err, ledger.ErrLocked) && ctx.Err() == nil; {
			s.err = serve(ctx, append(serviceFlags(data), args...), &s.stdout, &s.stderr, now)
		}
	}()
	s.attach(t)
	return s
}

// startBinary starts the binary.
func startBinary(t *testing.T, data string, args ...string) *service {
	t.Helper()
	s := launch(t, data, command(apiBinary, append(serviceFlags(data), args...)...))
	s.attach(t)
	return s
}

func serviceFlags(data string) []string { return []string{"--addr", "127.0.0.1:0", "--data", data} }

// command is a command line in an environment that says nothing about jobtally.
func command(binary string, args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "JOBTALLY_") })
	cmd.Env = append(cmd.Env, "GORACE=atexit_sleep_ms=0") // else each one sleeps for a second before it ends
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// launch starts a command line of the binary, and does not wait until it listens.
func launch(t *testing.T, data string, cmd *exec.Cmd) *service {
	t.Helper()
	s := &service{data: data, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &s.stdout, &s.stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.process = cmd.Process
	s.interrupt = func() { s.process.Signal(os.Interrupt) }
	go func() { defer close(s.ended); s.err = cmd.Wait() }()
	t.Cleanup(func() {
		s.process.Kill() // in vain unless the test failed
		<-s.ended
		if strings.Contains(s.stderr.String(), "DATA RACE") {
			t.Errorf("the binary has a data race:\n%s", s.stderr.String())
		}
	})
	return s
}

// listening is the line in either form of the log.
var listening = regexp.MustCompile(`"?msg"?[=:]"?listening"?[ ,]"?addr"?[=:]"?([^ ",]+)`)

// attach waits until the service listens, and reads the token of account demo. When the test ends it checks what was decided, and stops the service.
func (s *service) attach(t *testing.T) {
	t.Helper()
	s.url = "http://" + s.wait(t, &s.stderr, listening)[1]
	s.http = &http.Client{Timeout: patience, Transport: byContract{
		t, &http.Transport{MaxIdleConnsPerHost: 256, ExpectContinueTimeout: patience},
	}}
	text, err := os.ReadFile(tokenFile(s.data))
	if err != nil {
		t.Fatal(err)
	}
	s.token = strings.TrimSpace(string(text))
	t.Cleanup(func() {
		if !s.hasEnded() {
			s.checkEvents(t)
			s.stop(t)
		}
	})
}

func (s *service) hasEnded() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// wait waits until the service wrote a line to one of its streams, and returns the submatches.
func (s *service) wait(t *testing.T, o *output, line *regexp.Regexp) []string {
	t.Helper()
	timeout := time.After(patience)
	for ended := false; ; {
		grew := o.growth()
		if match := line.FindStringSubmatch(o.String()); match != nil {
			return match
		}
		if ended {
			t.Fatalf("the service ended before it wrote %s: %v\n%s", line, s.err, s.stderr.String())
		}
		select {
		case <-grew:
		case <-s.ended:
			ended = true
		case <-timeout:
			t.Fatalf("the service did not write %s:\n%s", line, s.stderr.String())
		}
	}
}

// stop stops the service as Ctrl-C does; it must end well.
func (s *service) stop(t *testing.T) {
	t.Helper()
	s.http.CloseIdleConnections()
	s.interrupt()
	if err := s.end(t); err != nil {
		t.Errorf("the service ended with %v\n%s", err, s.stderr.String())
	}
}

// kill ends the binary with SIGKILL, unless it is killed already.
func (s *service) kill(t *testing.T) {
	t.Helper()
	s.process.Kill()
	if err := s.end(t); err == nil || err.Error() != "signal: killed" {
		t.Errorf("it ended by itself: %v\n%s", err, s.stderr.String())
	}
}

// end waits for the end of the service, and returns its error.
func (s *service) end(t *testing.T) error {
	t.Helper()
	select {
	case <-s.ended:
	case <-time.After(patience):
		t.Fatalf("the service does not end\n%s", s.stderr.String())
	}
	return s.err
}

// finish runs a command line to its end.
func finish(t *testing.T, cmd *exec.Cmd) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	stuck := time.AfterFunc(patience, func() { cmd.Process.Signal(syscall.SIGQUIT) })
	defer stuck.Stop()
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// output is what a service wrote to one of its two streams.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
	grew chan struct{} // closed at the next write
}

// Write keeps what is written, and tells who waits for it.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.grew != nil {
		close(o.grew)
		o.grew = nil
	}
	return o.text.Write(p)
}

func (o *output) growth() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.grew == nil {
		o.grew = make(chan struct{})
	}
	return o.grew
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// projection returns the path of the SQLite file.
func (s *service) projection() string { return filepath.Join(s.data, node.ProjectionFile) }
