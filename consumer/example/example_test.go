package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobtally/client"
)

// patience is how long a test waits for what has to come.
const patience = 3 * time.Minute

// binaries has the service and this program, built for these tests.
var binaries string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	var err error
	if binaries, err = os.MkdirTemp("", "jobtally-"); err != nil {
		panic(err)
	}
	defer os.RemoveAll(binaries)
	if out, err := exec.Command("go", "build", "-o", binaries, ".", "../../cmd/api").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// process is a running binary, and the lines of its two outputs.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout <-chan string
	stderr <-chan string
}

func start(t *testing.T, binary string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(filepath.Join(binaries, binary), args...)}
	p.cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "JOBTALLY_") || strings.HasPrefix(v, "NATS_") })
	stdout, err1 := p.cmd.StdoutPipe()
	stderr, err2 := p.cmd.StderrPipe()
	if err := errors.Join(err1, err2, p.cmd.Start()); err != nil {
		t.Fatal(err)
	}
	p.stdout, p.stderr = lines(stdout), lines(stderr)
	t.Cleanup(func() { p.kill() })
	return p
}

func lines(r io.Reader) <-chan string {
	out := make(chan string, 10_000)
	go func() {
		defer close(out)
		for s := bufio.NewScanner(r); s.Scan(); {
			out <- s.Text()
		}
	}()
	return out
}

// kill ends the process at once and returns the lines that were not taken.
func (p *process) kill() (left []string) {
	p.cmd.Process.Kill()
	for line := range p.stdout {
		left = append(left, line)
	}
	p.cmd.Wait()
	return left
}

// next returns the next line.
func (p *process) next(from <-chan string) string {
	p.t.Helper()
	select {
	case line, ok := <-from:
		if !ok {
			p.t.Fatalf("%s ended: %v", p.cmd.Path, p.cmd.Wait())
		}
		return line
	case <-time.After(patience):
		p.t.Fatalf("%s prints nothing", p.cmd.Path)
	}
	return ""
}

// find returns what the next line with it has of a pattern.
func (p *process) find(from <-chan string, pattern string) string {
	p.t.Helper()
	for expression := regexp.MustCompile(pattern); ; {
		if m := expression.FindStringSubmatch(p.next(from)); m != nil {
			return m[1]
		}
	}
}

// service is a running jobtally with the token of account demo, which may capture 50 jobs a month.
type service struct {
	*client.Client
	t    *testing.T
	data string
}

func startService(t *testing.T) *service {
	t.Helper()
	data := t.TempDir()
	p := start(t, "api", "--addr", "127.0.0.1:0", "--data", data)
	addr := p.find(p.stderr, `msg=listening.* addr=(\S+)`)
	token, err := os.ReadFile(filepath.Join(data, "token"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New("http://"+addr, strings.TrimSpace(string(token)))
	if err != nil {
		t.Fatal(err)
	}
	return &service{Client: c, t: t, data: data}
}

func (s *service) capture(title string) *client.Capture {
	s.t.Helper()
	captured, err := s.Capture(context.Background(), client.NewJob{
		SourceURL: "https://jobs.example.org/" + strings.ReplaceAll(title, " ", "-"), Title: title, Company: "Example",
	})
	if err != nil && !errors.Is(err, client.QuotaExceeded) {
		s.t.Fatal(err)
	}
	return captured
}

func (s *service) example(args ...string) *process {
	return start(s.t, "example", append([]string{"--data", s.data}, args...)...)
}

func want(t *testing.T, p *process, patterns ...string) {
	t.Helper()
	for _, pattern := range patterns {
		if line := p.next(p.stdout); !regexp.MustCompile("^0-[0-9]+ demo " + pattern + "$").MatchString(line) {
			t.Fatalf("the next line is %q, want %q", line, pattern)
		}
	}
}

func TestTheExamplePrintsWhatBecomesOfCaptures(t *testing.T) {
	s := startService(t)
	captured := s.capture("Engineer")
	s.capture("Engineer") // a duplicate is expected, and nothing to print
	if _, err := s.UpdateJob(t.Context(), captured.Job.ID, client.Change{"status": "applied"}, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := s.DeleteJob(t.Context(), captured.Job.ID, 2); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		s.capture(fmt.Sprint("Clerk ", i))
	}
	p := s.example("--poison", filepath.Join(t.TempDir(), "poison.jsonl"))
	want(t, p, `captured "Engineer" at Example: 1 of 50 used in 20..-..`, `updated "Engineer", version 2: status`, `deleted https://.*Engineer`)
	for i := range 49 {
		want(t, p, fmt.Sprintf(`captured "Clerk %d" at Example: %d of 50 used in 20..-..`, i, i+2))
	}
	want(t, p, `rejected https://jobs.example.org/Clerk-49, quota_exceeded: 50 of 50 used in 20..-.. until 20..-..-01`)
}

// Killed at any line it goes on there: nothing is missing, the order holds, and of each death one line at most comes twice.
func TestTheExampleIsKilledAndGoesOn(t *testing.T) {
	s := startService(t)
	for i := range 40 {
		s.capture(fmt.Sprint("Clerk ", i))
	}
	title := regexp.MustCompile(`"Clerk ([0-9]+)"`)
	var order []string
	for last := ""; last != "39"; {
		p := s.example("--ack-wait", "500ms", "--poison", filepath.Join(t.TempDir(), "poison.jsonl"))
		printed := []string{p.next(p.stdout)}
		for len(printed) < 10 && title.FindStringSubmatch(printed[len(printed)-1])[1] != "39" {
			printed = append(printed, p.next(p.stdout))
		}
		for _, line := range append(printed, p.kill()...) {
			last = title.FindStringSubmatch(line)[1]
			order = append(order, last)
		}
	}
	order = slices.Compact(order)
	for i, n := range order {
		if n != fmt.Sprint(i) {
			t.Fatalf("clerks came in the order %v", order)
		}
	}
}

// What a handler fails on for good, and what is of a newer version than it knows, is put aside, and all else goes on.
func TestWhatCannotBeHandledIsPutAside(t *testing.T) {
	s := startService(t)
	s.capture("Engineer")
	s.capture("Plumber")
	s.capture("Clerk")
	s.decide("jobtally.job.captured.v2", `{"job":"of another form"}`)
	s.decide("jobtally.job.captured.v1", `{"job":{"title":"Baker"}}`)
	path := filepath.Join(t.TempDir(), "poison.jsonl")
	p := s.example("--poison", path, "--fail-on", "Plumber", "--metrics-addr", "127.0.0.1:0")
	url := p.find(p.stderr, `metrics on (\S+)`)
	want(t, p, `captured "Engineer".*`, `captured "Clerk".*`, `captured "Baker".*`)
	poison, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	put := strings.Split(strings.TrimSpace(string(poison)), "\n")
	for i, why := range []string{`"Plumber" has "Plumber" in it`, `unknown type "jobtally.job.captured.v2" at 0-6: update this consumer, and then let it have the message again`} {
		var line struct{ Metadata map[string]string }
		if err := json.Unmarshal([]byte(put[i]), &line); err != nil || line.Metadata["reason_poisoned"] != why {
			t.Errorf("put aside is %s", put[i])
		}
	}
	if len(put) != 2 {
		t.Errorf("%d messages are put aside", len(put))
	}
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	for _, metric := range []string{
		`jobtally_example_handler_execution_time_seconds_count\{handler_name="jobs",success="false"\} 5\n`, // four attempts, and one
		`jobtally_example_publish_time_seconds_count\{.*success="true"\} 2\n`,
		`jobtally_example_subscriber_messages_received_total\{.*\} [4-9]\n`,
	} {
		if !regexp.MustCompile(metric).Match(text) {
			t.Errorf("%s is not in the metrics, %v:\n%s", metric, err, text)
		}
	}
}

// decide puts a decision behind the others, as a newer projector will.
func (s *service) decide(ceType, data string) {
	s.t.Helper()
	url, err := os.ReadFile(filepath.Join(s.data, "nats.url"))
	if err != nil {
		s.t.Fatal(err)
	}
	nc, err := nats.Connect(strings.TrimSpace(string(url)))
	if err != nil {
		s.t.Fatal(err)
	}
	defer nc.Close()
	answer, err := nc.RequestMsg(&nats.Msg{
		Subject: "jobs.0.demo.captured", Header: nats.Header{"ce-type": {ceType}, "ce-account": {"demo"}}, Data: []byte(data),
	}, patience)
	if err != nil || strings.Contains(string(answer.Data), "error") {
		s.t.Fatalf("%v %v", answer, err)
	}
}
