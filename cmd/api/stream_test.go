package main

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// wire is what lies between a client and the service: it has one address, whichever the service has, and can be cut.
type wire struct {
	net.Listener
	mu     sync.Mutex
	target string
	conns  []net.Conn
}

func newWire(t *testing.T) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: l}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			w.connect(conn)
		}
	}()
	t.Cleanup(func() { l.Close(); w.cut() })
	return w
}

func (w *wire) connect(client net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	server, err := net.Dial("tcp", w.target)
	if err != nil {
		client.Close()
		return
	}
	w.conns = append(w.conns, client, server)
	go func() { io.Copy(server, client); server.Close() }()
	go func() { io.Copy(client, server); client.Close() }()
}

// lead has the next connections go to a service.
func (w *wire) lead(s *service) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.target = strings.TrimPrefix(s.url, "http://")
}

// cut cuts all connections.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, conn := range w.conns {
		conn.Close()
	}
	w.conns = nil
}

// codeOf returns the only block of code in a language that docs/STREAM.md has.
func codeOf(t *testing.T, language string) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/STREAM.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(string(page), -1)
	if len(blocks) != 1 {
		t.Fatalf("docs/STREAM.md has %d blocks of %s", len(blocks), language)
	}
	return blocks[0][1]
}

// withEventSource returns a directory in which node finds npm's eventsource.
func withEventSource(t *testing.T) string {
	t.Helper()
	needs(t, "nodejs, version 20 or later", "node", "--eval", "fetch")
	needs(t, "npm", "npm", "--version")
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json"} {
		text, err := os.ReadFile(filepath.Join("testdata", "eventsource", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	install := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	install.Dir = dir
	if output, err := install.CombinedOutput(); err != nil {
		t.Fatalf("this test needs npm's eventsource, which npm does not fetch here: %v\n%s", err, output)
	}
	return dir
}

// eventSourceClient returns the command that runs the client in JavaScript of docs/STREAM.md.
func eventSourceClient(t *testing.T) *exec.Cmd {
	t.Helper()
	dir := withEventSource(t)
	if err := os.WriteFile(filepath.Join(dir, "events.mjs"), []byte(codeOf(t, "js")), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := command("node", "events.mjs")
	cmd.Dir = dir
	return cmd
}

// TestTheEventSourceClientSaysWhyItEnds: npm's eventsource swallows what its handlers throw.
func TestTheEventSourceClientSaysWhyItEnds(t *testing.T) {
	t.Parallel()
	s := startBinary(t, t.TempDir())
	cmd := eventSourceClient(t)
	cmd.Env = append(cmd.Env, "JOBTALLY_URL="+s.url, "TOKEN="+s.token+"x", "no_proxy=127.0.0.1", "NO_PROXY=127.0.0.1")
	said, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(said), "401") {
		t.Errorf("of a token that is not accepted it says %v\n%s", err, said)
	}
}

// TestTheStreamClientsOfTheDocumentationMissNothing runs the clients of docs/STREAM.md as they stand, while connections are cut,
// and the service is stopped, killed and started again: each prints each event once, in order.
func TestTheStreamClientsOfTheDocumentationMissNothing(t *testing.T) {
	t.Parallel()
	for name, client := range map[string]func(t *testing.T) *exec.Cmd{
		"curl": func(t *testing.T) *exec.Cmd {
			needs(t, "curl", "curl", "--version")
			return command("bash", "-c", codeOf(t, "bash"))
		},
		"eventsource": eventSourceClient,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data := t.TempDir()
			s := startBinary(t, data)
			w := newWire(t)
			w.lead(s)
			var want []string
			captured := func() {
				for range 5 {
					r := s.capture(t, jobURL(len(want)+1)).wants(t, http.StatusCreated)
					want = append(want, r.Receipt.Position)
				}
			}
			captured() // history
			printed := runs(t, client(t), "http://"+w.Addr().String(), s.token)
			printed.wants(t, want)
			captured() // live
			printed.wants(t, want)
			w.cut()
			captured() // while the client is away, perhaps
			printed.wants(t, want)
			s.kill(t)
			s = startBinary(t, data)
			captured() // before it can come back
			w.lead(s)
			printed.wants(t, want)
			s.stop(t)
			s = startBinary(t, data)
			w.lead(s)
			printed.wants(t, want)
			captured()
			printed.wants(t, want)
		})
	}
}

// printed is what a client prints: an event a line.
type printed struct{ output }

// runs runs a client until the test ends.
func runs(t *testing.T, cmd *exec.Cmd, url, token string) *printed {
	t.Helper()
	p, errs := &printed{}, &output{}
	cmd.Env = append(cmd.Env, "JOBTALLY_URL="+url, "TOKEN="+token, "no_proxy=127.0.0.1", "NO_PROXY=127.0.0.1")
	cmd.Stdout, cmd.Stderr = &p.output, errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if text := errs.String(); t.Failed() && text != "" {
			t.Logf("the client said\n%s", text)
		}
	})
	return p
}

// wants waits until so many events are printed, and checks that they are these.
func (p *printed) wants(t *testing.T, want []string) {
	t.Helper()
	timeout := time.After(patience)
	for {
		grew := p.growth()
		var got []string
		for line := range strings.Lines(p.String()) {
			var event struct{ Position string }
			if json.Unmarshal([]byte(line), &event) == nil {
				got = append(got, event.Position)
			}
		}
		if len(got) >= len(want) {
			if !slices.Equal(got, want) {
				t.Fatalf("told %v\nwant %v", got, want)
			}
			for line := range strings.Lines(p.String()) {
				if err := theEvents().CheckEvent([]byte(line)); err != nil {
					t.Errorf("not by the contract of events: %v", err)
				}
			}
			return
		}
		select {
		case <-grew:
		case <-timeout:
			t.Fatalf("told %v\nwant %v", got, want)
		}
	}
}

// events opens a stream, and returns it once it has begun.
func (c client) events(t *testing.T, query string) *http.Response {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, c.url+"/api/jobs/events"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+c.token)
	answer, err := c.http.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { answer.Body.Close() })
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("a stream is answered %d", answer.StatusCode)
	}
	return answer
}

func TestStreamsDoNotHoldUpAStop(t *testing.T) {
	t.Parallel()
	s := startBinary(t, t.TempDir())
	x := s.events(t, "?after=0-0")
	s.interrupt()
	s.wait(t, &s.stderr, stopping)
	if err := s.end(t); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadAll(x.Body); err != nil {
		t.Errorf("the stream ended with %v", err)
	}
}

func TestAStreamEndsWithItsAccount(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember)
	ops := s.admin(t)
	anna := s.accounts(t, 25, "anna")[0]
	x := anna.events(t, "?after=0-0")
	anna.capture(t, jobURL(1)).wants(t, http.StatusCreated)
	ops.erase(t, "anna").wants(t, http.StatusOK)
	if _, err := io.ReadAll(x.Body); err != nil {
		t.Errorf("the stream ended with %v", err)
	}
	anna.get(t, "/api/jobs/events").wantsProblem(t, http.StatusUnauthorized, "token_unknown")
}
