package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"jobtally/internal/events"
)

// client is a user of the API who tries again until there is an answer, with the same Idempotency-Key.
type client struct {
	base, token string
	prefer      string // the Prefer header, if any
}

type answer struct {
	Outcome   string
	Job       struct{ ID string }
	Used      int64
	Limit     int64
	Remaining int64
	Code      string // of a problem
	Token     any    // of an issue its text
	ID        string
}

func (c client) call(ctx context.Context, method, path, key, body string) (status int, a answer, err error) {
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, strings.NewReader(body))
	if err != nil {
		return 0, a, err
	}
	r.Header.Set("Authorization", "Bearer "+c.token)
	if c.prefer != "" {
		r.Header.Set("Prefer", c.prefer)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Idempotency-Key", `"`+key+`"`)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, a, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, a, err
	}
	return response.StatusCode, a, json.NewDecoder(bytes.NewReader(text)).Decode(&a)
}

// until calls until the answer has one of the statuses. There is no other signal for what it waits for: that a node
// has folded a token, or that a ledger takes requests again.
func (c client) until(ctx context.Context, method, path, key, body string, statuses ...int) (a answer, err error) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		var status int
		status, a, err = c.call(ctx, method, path, key, body)
		for _, wanted := range statuses {
			if status == wanted {
				return a, err
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return a, fmt.Errorf("%s %s: status %d: %w (%w)", method, path, status, ctx.Err(), err)
		}
	}
}

func (c client) capture(ctx context.Context, job string) (answer, error) {
	return c.until(ctx, "POST", "/api/jobs", job, posting(job), http.StatusCreated)
}

func posting(job string) string {
	return fmt.Sprintf(`{"source_url":"https://jobs.example.com/%s","title":"Engineer","company":"Example"}`, job)
}

func (c client) mustCapture(t *testing.T, job string) {
	t.Helper()
	if a, err := c.capture(within(t), job); err != nil || a.Outcome != "captured" || a.Job.ID == "" {
		t.Fatalf("capture of %s: %+v, %v", job, a, err)
	}
}

func (c client) mustHaveUsed(t *testing.T, want int64) {
	t.Helper()
	a, err := c.until(within(t), "GET", "/api/jobs/quota", "", "", http.StatusOK)
	if err != nil || a.Used != want {
		t.Fatalf("quota %+v, %v, want %d used", a, err, want)
	}
}

// open opens an account and returns a client with a token of it.
func open(t *testing.T, nats, base, account string, plan ...string) client {
	t.Helper()
	mustOperate(t, append([]string{"account", "open", account, "--nats", nats}, plan...)...)
	return client{base: base, token: strings.TrimSpace(mustOperate(t, "token", "issue", "--account", account, "--nats", nats))}
}

// TestEachProcessRestarts runs the service and the projector apart, and restarts one after the other.
func TestEachProcessRestarts(t *testing.T) {
	nats, a, b := natsServer(t), t.TempDir(), t.TempDir()
	mustOperate(t, "init", "--nats", nats, "--partitions", "4")
	api, base := service(t, "--nats", nats, "--data", a)
	decider := projector(t, nats, b)
	anna := open(t, nats, base, "anna", "--limit", "4")
	anna.mustHaveUsed(t, 0)
	anna.mustCapture(t, "1")
	anna.mustHaveUsed(t, 1)

	api.interrupt(t)
	api, anna.base = service(t, "--nats", nats, "--data", a)
	anna.mustHaveUsed(t, 1)
	anna.mustCapture(t, "2")

	decider.interrupt(t)
	decider = projector(t, nats, b)
	anna.mustCapture(t, "3")
	anna.mustCapture(t, "3") // the first answer again
	anna.mustHaveUsed(t, 3)

	// With the projector gone a capture stays pending, and is decided by the next one.
	decider.kill(t)
	hurried := anna
	hurried.prefer = "respond-async"
	status, _, err := hurried.call(within(t), "POST", "/api/jobs", "4", posting("4"))
	if err != nil || status != http.StatusAccepted {
		t.Errorf("capture without a projector: %d, %v, want 202", status, err)
	}
	anna.mustHaveUsed(t, 3)
	decider = projector(t, nats, b)
	anna.mustCapture(t, "4") // the same request again: its answer by now
	anna.mustHaveUsed(t, 4)
	converge(t, nats, a, b)
	decider.interrupt(t)
	api.interrupt(t)
}

// TestAdministrationReachesEveryNode asks one api of two, and sees the other follow: nothing is told from node to node.
func TestAdministrationReachesEveryNode(t *testing.T) {
	nats, data := natsServer(t), t.TempDir()
	mustOperate(t, "init", "--nats", nats, "--partitions", "4")
	_, one := service(t, "--nats", nats, "--data", t.TempDir(), "--plans", "small=1,large=2")
	_, other := service(t, "--nats", nats, "--data", data)
	projector(t, nats, t.TempDir())
	mustOperate(t, "account", "open", "ops", "--nats", nats)
	ops := client{base: one, token: strings.TrimSpace(mustOperate(t, "token", "issue", "--account", "ops", "--scope", "admin", "--nats", nats))}
	ctx := within(t)
	ask := func(method, path, body string, status int) answer {
		t.Helper()
		got, a, err := ops.call(ctx, method, "/api/admin/accounts"+path, "unused", body)
		if err != nil || got != status {
			t.Fatalf("%s %s: %d, %v", method, path, got, err)
		}
		return a
	}
	if _, err := ops.until(ctx, "GET", "/api/account", "", "", http.StatusOK); err != nil {
		t.Fatal(err)
	}
	ask("POST", "", `{"account":"acme","plan":"small"}`, http.StatusCreated)
	issued := ask("POST", "/acme/tokens", `{"name":"laptop"}`, http.StatusCreated)

	t.Log("where it was issued the token works at once, and elsewhere soon")
	here := client{base: one, token: issued.Token.(string)}
	there := client{base: other, token: here.token}
	if status, _, err := here.call(ctx, "GET", "/api/account", "", ""); status != http.StatusOK {
		t.Fatalf("status %d, %v", status, err)
	}
	there.mustHaveUsed(t, 0)
	there.mustCapture(t, "1")
	if status, _, err := there.call(ctx, "POST", "/api/jobs", "2", posting("2")); status != http.StatusForbidden {
		t.Fatalf("status %d, %v", status, err)
	}
	ask("PUT", "/acme/plan", `{"plan":"large"}`, http.StatusOK)
	there.mustCapture(t, "3") // decided under the new plan, whatever this node has folded

	ask("DELETE", "/acme/tokens/"+issued.ID, "", http.StatusOK)
	if status, _, err := here.call(ctx, "GET", "/api/account", "", ""); status != http.StatusUnauthorized {
		t.Fatalf("status %d, %v", status, err)
	}
	if _, err := there.until(ctx, "GET", "/api/account", "", "", http.StatusUnauthorized); err != nil {
		t.Fatal(err)
	}
	listed := mustOperate(t, "token", "list", "--account", "acme", "--nats", nats, "--json")
	if !strings.Contains(listed, `"name":"laptop","scopes":["jobs:read","jobs:write"],`) || !strings.Contains(listed, `"status":"revoked"`) || strings.Contains(listed, here.token[16:]) {
		t.Errorf("listed: %s", listed)
	}
}

// TestProjectorKilledUnderLoad ends the deciding one of two projectors with SIGKILL.
func TestProjectorKilledUnderLoad(t *testing.T) {
	nats, a := natsServer(t), t.TempDir()
	mustOperate(t, "init", "--nats", nats, "--partitions", "4")
	_, base := service(t, "--nats", nats, "--data", a)
	data := []string{t.TempDir(), t.TempDir()}
	projectors := []*process{projector(t, nats, data[0]), projector(t, nats, data[1])}
	anna := open(t, nats, base, "anna", "--limit", "-1")
	anna.mustHaveUsed(t, 0)

	const captures, killAfter = 600, 200
	ctx := within(t)
	var asking sync.WaitGroup
	var next, acknowledged atomic.Int64
	jobs := make([]string, captures)
	kill, killed := make(chan struct{}), make(chan struct{})
	for range 16 {
		asking.Go(func() {
			for i := next.Add(1) - 1; i < captures; i = next.Add(1) - 1 {
				if i >= captures/2 { // some are to come after it, however late this test gets to kill
					<-killed
				}
				captured, err := anna.capture(ctx, fmt.Sprint(i))
				if err != nil {
					t.Error(err)
					return
				}
				jobs[i] = captured.Job.ID
				if acknowledged.Add(1) == killAfter {
					close(kill)
				}
			}
		})
	}
	select {
	case <-kill:
	case <-ctx.Done():
		close(killed)
		t.Fatalf("only %d captures were acknowledged", acknowledged.Load())
	}
	victim := 0
	standingBy := fmt.Sprintf("standing by.* partition=%d", events.PartitionOf("anna", 4))
	if line, _ := projectors[0].said(standingBy); line != nil {
		victim = 1
	}
	projectors[victim].kill(t)
	close(killed)
	left := captures - acknowledged.Load()
	asking.Wait()
	t.Logf("killed projector %d with %d captures to go", victim, left)
	projectors[1-victim].await(t, "msg=\"requests stay undecided; deciding\" partition="+fmt.Sprint(events.PartitionOf("anna", 4)))

	anna.mustHaveUsed(t, captures)
	known := map[string]bool{}
	for i, id := range jobs {
		if status, _, err := anna.call(ctx, "GET", "/api/jobs/"+id, "", ""); status != http.StatusOK || known[id] {
			t.Errorf("acknowledged capture %d, job %q: %d, %v, seen before %t", i, id, status, err, known[id])
		}
		known[id] = true
	}
	projectors[victim] = projector(t, nats, data[victim])
	converge(t, nats, a, data[0], data[1])
	for _, p := range projectors {
		p.interrupt(t)
	}
}

// converge waits until the projections in the directories have folded all of the ledger, and compares them.
func converge(t *testing.T, nats string, dirs ...string) {
	t.Helper()
	args := []string{"--nats", nats}
	for _, dir := range dirs {
		args = append(args, "--data", dir)
	}
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for ctx := within(t); ; {
		report := statusOf(t, args...)
		if len(report.Comparisons[0].Agree) == len(report.Ledgers[0].Partitions) && foldedAll(report) {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("the projections stay different:\n%s", mustOperate(t, append([]string{"status"}, args...)...))
		}
	}
}

// statusOf returns what status --json says.
func statusOf(t *testing.T, args ...string) (report statusReport) {
	t.Helper()
	text := mustOperate(t, append([]string{"status", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(text), &report); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return report
}

func foldedAll(report statusReport) bool {
	for _, p := range report.Ledgers[0].Partitions {
		for _, n := range report.Ledgers[0].Nodes {
			if n.Partitions[p.Partition].Folded != p.Requests {
				return false
			}
		}
	}
	return true
}
