package main

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"jobtally/internal/contracttest"
	"jobtally/internal/node"
)

// Everything that a test waits for has this long to happen.
const patience = 3 * time.Minute

var (
	programs string // the directory of the built programs
	build    = sync.OnceValues(func() (string, error) {
		// A separator at the end makes it a directory: each program keeps its own name.
		cmd := exec.Command("go", "build", "-o", programs+string(filepath.Separator),
			"jobtally/cmd/api", "jobtally/cmd/projector", "jobtally/demo", "github.com/nats-io/nats-server/v2")
		output, err := cmd.CombinedOutput()
		return string(output), err
	})
)

// buildNATS builds the nats command of the NATS project, which is among the tools.
var buildNATS = sync.OnceValues(func() (string, error) {
	cmd := exec.Command("go", "build", "-C", "../../tools", "-o", filepath.Join(programs, "nats"), "github.com/nats-io/natscli/nats")
	output, err := cmd.CombinedOutput()
	return string(output), err
})

func natsCLI(t *testing.T) string {
	t.Helper()
	if output, err := buildNATS(); err != nil {
		t.Fatalf("go build of the nats command: %v\n%s", err, output)
	}
	return filepath.Join(programs, "nats")
}

func TestMain(m *testing.M) {
	flag.Parse()
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "JOBTALLY_") {
			os.Unsetenv(name)
		}
	}
	os.Unsetenv("COLUMNS") // the width of the help
	dir, err := os.MkdirTemp("", "projector-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	programs = dir
	awaitMonth()
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// awaitMonth waits for the next month where this one ends within five minutes: what a test counts on the clock of the machine
// is of one.
func awaitMonth() {
	now := time.Now().UTC()
	if left := time.Date(now.Year(), now.Month()+1, 1, 0, 0, 0, 0, time.UTC).Sub(now); left < 5*time.Minute {
		time.Sleep(left)
	}
}

func program(t *testing.T, name string) string {
	t.Helper()
	if output, err := build(); err != nil {
		t.Fatalf("go build: %v\n%s", err, output)
	}
	return filepath.Join(programs, name)
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// operate carries out one command line in this process.
func operate(t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	var out, log bytes.Buffer
	err = run(within(t), args, &out, &log)
	if log.Len() > 0 {
		t.Logf("projector %s logged:\n%s", strings.Join(args, " "), &log)
	}
	return out.String(), err
}

func mustOperate(t *testing.T, args ...string) string {
	t.Helper()
	stdout, err := operate(t, args...)
	if err != nil {
		t.Fatalf("projector %s: %v", strings.Join(args, " "), err)
	}
	return stdout
}

// process is a program that runs until it is told to stop.
type process struct {
	name  string
	cmd   *exec.Cmd
	ended chan struct{} // closed once it ended and was read to the end

	mu      sync.Mutex
	log     []string      // the lines of standard error
	changed chan struct{} // closed and replaced at each line
}

// spawn starts a program, which at the end of the test is gone.
func spawn(t *testing.T, name string, args ...string) *process {
	t.Helper()
	p := &process{name: name, ended: make(chan struct{}), changed: make(chan struct{})}
	p.cmd = exec.Command(program(t, name), args...)
	p.cmd.Args[0] = name
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			p.mu.Lock()
			p.log = append(p.log, lines.Text())
			close(p.changed)
			p.changed = make(chan struct{})
			p.mu.Unlock()
		}
		p.cmd.Wait()
	}()
	t.Cleanup(func() {
		p.kill(t)
		if t.Failed() {
			t.Logf("%s %s logged:\n%s", name, strings.Join(args, " "), p.logged())
		}
	})
	return p
}

func (p *process) logged() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.log, "\n")
}

// said returns the first line that matches, if there is one.
func (p *process) said(pattern string) (line []string, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, text := range p.log {
		if line = regexp.MustCompile(pattern).FindStringSubmatch(text); line != nil {
			return line, p.changed
		}
	}
	return nil, p.changed
}

// await waits for a line in the log that matches, and returns it with the groups of the pattern.
func (p *process) await(t *testing.T, pattern string) []string {
	t.Helper()
	ctx := within(t)
	for {
		line, changed := p.said(pattern)
		if line != nil {
			return line
		}
		select {
		case <-changed:
		case <-p.ended:
			if line, _ := p.said(pattern); line != nil {
				return line
			}
			t.Fatalf("%s ended with %v before it said %q", p.name, p.cmd.ProcessState, pattern)
		case <-ctx.Done():
			t.Fatalf("%s never said %q", p.name, pattern)
		}
	}
}

// interrupt stops the process as Ctrl-C does: it must exit with 0.
func (p *process) interrupt(t *testing.T) {
	t.Helper()
	p.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-p.ended:
	case <-within(t).Done():
		t.Fatalf("%s does not stop", p.name)
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("%s interrupted: %v, want exit code 0", p.name, p.cmd.ProcessState)
	}
}

// kill ends the process as a power failure would.
func (p *process) kill(t *testing.T) {
	t.Helper()
	p.cmd.Process.Kill()
	<-p.ended
}

// natsServer starts a nats-server without a ledger and returns its URL.
func natsServer(t *testing.T) (url string) {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "nats.conf")
	text := fmt.Sprintf("listen: \"127.0.0.1:-1\"\njetstream { store_dir: %q, sync_interval: always }\n", filepath.Join(dir, "store"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	server := spawn(t, "nats-server", "-c", config)
	url = "nats://" + server.await(t, `Listening for client connections on (\S+)`)[1]
	server.await(t, "Server is ready")
	return url
}

func projector(t *testing.T, url, data string) *process {
	t.Helper()
	p := spawn(t, "projector", "run", "--nats", url, "--data", data)
	p.await(t, "msg=deciding")
	t.Cleanup(func() { checkEvents(t, url) })
	return p
}

// theEvents is what decisions of these tests are held to.
var theEvents = sync.OnceValues(contracttest.NewEvents)

// checkEvents fails the test when a decision in the ledger of a server, which may be gone by now, or an event that comes of it,
// is not as the contract of events says.
func checkEvents(t *testing.T, url string) {
	t.Helper()
	contract, err := theEvents()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	o, err := node.Dial(ctx, node.Config{NATS: url, Log: quiet})
	if err != nil {
		return
	}
	defer o.Close()
	if _, err := contract.CheckLedger(ctx, o.Ledger, o.Ledger.Partitions); err != nil {
		t.Errorf("not by the contract of events: %v", err)
	}
}

// service starts the API, and returns where it listens.
func service(t *testing.T, args ...string) (p *process, url string) {
	t.Helper()
	p = spawn(t, "api", append(args, "--addr", "127.0.0.1:0")...)
	return p, "http://" + p.await(t, `msg=listening addr=(\S+)`)[1]
}
