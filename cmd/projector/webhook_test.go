package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"jobtally/internal/cli"
	"jobtally/internal/events"
	"jobtally/internal/ledger"
	"jobtally/internal/relay"
	"jobtally/internal/webhook"
)

const allowLoopback = "--webhook-allow=127.0.0.0/8"

// receiver notes what webhooks are sent to it.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	ids    []string // of what was sent, in order
	again  []string // of redeliveries
	status int
	grew   chan struct{}
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{status: http.StatusNoContent, grew: make(chan struct{})}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		io.Copy(io.Discard, request.Body)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ids = append(r.ids, request.Header.Get("webhook-id"))
		if request.Header.Get("Webhook-Redelivery") != "" {
			r.again = append(r.again, request.Header.Get("webhook-id"))
		}
		w.WriteHeader(r.status)
		close(r.grew)
		r.grew = make(chan struct{})
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) answer(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

// awaitIDs waits until so many different messages came, and returns all ids.
func (r *receiver) awaitIDs(t *testing.T, n int) []string {
	t.Helper()
	for ctx := within(t); ; {
		r.mu.Lock()
		ids, grew := slices.Clone(r.ids), r.grew
		r.mu.Unlock()
		if len(unique(ids)) >= n {
			return ids
		}
		select {
		case <-grew:
		case <-ctx.Done():
			t.Fatalf("only these came: %s", ids)
		}
	}
}

// unique returns each text once, where it came first.
func unique(texts []string) (once []string) {
	for _, text := range texts {
		if !slices.Contains(once, text) {
			once = append(once, text)
		}
	}
	return once
}

// register registers a webhook over HTTP, and returns its id.
func (c client) register(t *testing.T, url string) string {
	t.Helper()
	a, err := c.until(within(t), "POST", "/api/webhooks", "", fmt.Sprintf(`{"url":%q}`, url), http.StatusCreated)
	if err != nil {
		t.Fatal(err)
	}
	return a.ID
}

func progressOf(t *testing.T, nats, id string) (report webhookReport) {
	t.Helper()
	if err := json.Unmarshal([]byte(mustOperate(t, "webhook", "show", id, "--json", "--nats", nats)), &report); err != nil {
		t.Fatal(err)
	}
	return report
}

func awaitWebhook(t *testing.T, nats, id string, is func(*webhookReport) bool) {
	t.Helper()
	for ctx := within(t); ; {
		report := progressOf(t, nats, id)
		if is(&report) {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("webhook %s is no further than %+v", id, report.Progress)
		}
	}
}

// TestProjectorsShareTheWebhooks has two projectors send, and one of them killed: each event arrives, first in order. What
// is given up is sent again by an operator.
func TestProjectorsShareTheWebhooks(t *testing.T) {
	nats, r := natsServer(t), newReceiver(t)
	mustOperate(t, "init", "--nats", nats, "--partitions", "2")
	api, base := service(t, "--nats", nats, "--data", t.TempDir(), allowLoopback)
	var projectors []*process
	for range 2 {
		p := spawn(t, "projector", "run", "--nats", nats, "--data", t.TempDir(), allowLoopback)
		p.await(t, "msg=deciding")
		projectors = append(projectors, p)
	}
	anna := open(t, nats, base, "anna", "--limit", "-1")
	anna.mustHaveUsed(t, 0)
	id := anna.register(t, r.URL)
	for i := range 10 {
		anna.mustCapture(t, fmt.Sprint(i))
	}
	r.awaitIDs(t, 10)
	projectors[0].kill(t)
	for i := range 10 {
		anna.mustCapture(t, fmt.Sprint(10+i))
	}
	ids := unique(r.awaitIDs(t, 20))
	if !slices.IsSortedFunc(ids, func(a, b string) int { return len(a) - len(b) }) || len(ids) != 20 {
		t.Errorf("they came as %s", ids)
	}

	t.Log("what is disabled is sent nothing")
	if said := mustOperate(t, "webhook", "disable", id, "--nats", nats); said != "webhook "+id+" of account anna is disabled; it was enabled\n" {
		t.Error(said)
	}
	for i := range 3 {
		anna.mustCapture(t, fmt.Sprint(20+i))
	}
	awaitWebhook(t, nats, id, func(w *webhookReport) bool { return w.Progress.Pending == 3 })
	for _, more := range [][]string{nil, {"--redeliver", "--from", ids[0][len("evt_"):], "--to", ids[0][len("evt_"):], "--yes"}} {
		said, err := operate(t, append([]string{"webhook", "redrive", id, "--nats", nats, allowLoopback}, more...)...)
		if err == nil || !strings.HasPrefix(err.Error(), "the webhook is not enabled: it is disabled since ") ||
			!strings.Contains(err.Error(), ": nothing was sent. `projector webhook enable "+id+"` first") || said != "" {
			t.Errorf("%s%v", said, err)
		}
	}
	projectors[1].interrupt(t)
	api.interrupt(t)

	r.answer(http.StatusInternalServerError)
	poison(t, nats, id)
	if shown := mustOperate(t, "webhook", "show", id, "--nats", nats); !strings.Contains(shown, "\npoison queue  3\n") {
		t.Error(shown)
	}
	said, err := operate(t, "webhook", "redrive", id, "--nats", nats, allowLoopback)
	if err == nil || err.Error() != "events that are left in the poison queue: 3" || !strings.Contains(said, " failed in ") || !strings.Contains(said, ": it answered 500") {
		t.Errorf("%s%v", said, err)
	}
	r.answer(http.StatusNoContent)
	said = mustOperate(t, "webhook", "redrive", id, "--nats", nats, allowLoopback)
	if strings.Count(said, " jobtally.job.captured.v1 accepted in ") != 3 {
		t.Error(said)
	}
	if ids := r.awaitIDs(t, 23); !slices.Equal(ids[len(ids)-3:], unique(ids)[20:]) {
		t.Errorf("they were sent again as %s", ids)
	}
	if said := mustOperate(t, "webhook", "redrive", id, "--nats", nats); said != "the poison queue is empty\n" {
		t.Error(said)
	}
	redeliver(t, nats, id, r)
	wantUnreadable(t, nats, id)
	mustOperate(t, "webhook", "remove", id, "--nats", nats)
	if said := mustOperate(t, "webhook", "list", "--nats", nats); strings.Contains(said, id) {
		t.Error(said)
	}
}

// poison enables a webhook and has each of its events given up at the first attempt.
func poison(t *testing.T, nats, id string) {
	t.Helper()
	connection, err := ledger.Connect(nats, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	ctx, stop := context.WithCancel(within(t))
	impatient, err := relay.Open(ctx, relay.Config{
		Conn: connection, Partitions: 2, Replicas: 1, Folded: func(int) uint64 { return 0 }, Log: slog.New(slog.DiscardHandler),
		Erasures: func(context.Context, string) ([]events.Decision, error) { return nil, nil },
		Allow:    loopback(t), Schedule: []time.Duration{0},
	})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- impatient.Run(ctx) }()
	mustOperate(t, "webhook", "enable", id, "--nats", nats)
	awaitWebhook(t, nats, id, func(w *webhookReport) bool { return w.Progress.Poisoned == 3 && w.Progress.Pending == 0 })
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	impatient.Close()
}

func loopback(t *testing.T) (networks cli.Networks) {
	t.Helper()
	if err := networks.UnmarshalText([]byte("127.0.0.0/8")); err != nil {
		t.Fatal(err)
	}
	return networks
}

// redeliver has an operator asked on a terminal, and without.
func redeliver(t *testing.T, nats, id string, r *receiver) {
	t.Helper()
	var deliveries struct{ Deliveries []deliveryReport }
	said := mustOperate(t, "webhook", "deliveries", id, "--limit", "1000", "--json", "--nats", nats)
	if err := json.Unmarshal([]byte(said), &deliveries); err != nil || len(deliveries.Deliveries) < 26 {
		t.Fatalf("%s: %v", said, err)
	}
	first, last := deliveries.Deliveries[len(deliveries.Deliveries)-1], deliveries.Deliveries[0]
	if first.Cause != webhook.ByEvent || last.Cause != webhook.ByRedrive || last.Outcome != webhook.Accepted {
		t.Errorf("the log of deliveries goes from %+v to %+v", first, last)
	}
	far := strings.Split(first.Position, "-")[0] + "-99999"
	for stretch, want := range map[[2]string]string{
		{first.Position, far}: "there is no decision " + far + ": the last is ", {"7-1", "7-2"}: "its positions begin with " + far[:2],
	} {
		_, err := operate(t, "webhook", "redrive", id, "--redeliver", "--from", stretch[0], "--to", stretch[1], "--yes", "--nats", nats)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", stretch, err)
		}
	}
	if _, err := operate(t, "webhook", "show", id[:8], "--nats", nats); err == nil || !strings.Contains(err.Error(), "did you mean "+id+"?") {
		t.Errorf("the beginning of an id: %v", err)
	}
	ask := func(typed string) (stdout, stderr string, err error) {
		operator, command := pty(t, 24, 80)
		if _, err := io.WriteString(operator, typed); err != nil {
			t.Fatal(err)
		}
		var out, errs strings.Builder
		s := &session{ctx: within(t), stdin: command, stdout: &out, stderr: &errs, log: slog.New(slog.DiscardHandler)}
		redrive := webhookRedriveCmd{Redeliver: true, From: first.Position, To: last.Position, Webhooks: cli.Webhooks{WebhookAllow: loopback(t)}}
		redrive.webhookFlags = webhookFlags{ID: id, access: access{NATS: nats}}
		err = redrive.Run(s)
		return out.String(), errs.String(), err
	}
	if stdout, stderr, err := ask("y\n"); err == nil || !strings.Contains(err.Error(), "nothing was sent") || stdout != "" || !strings.Contains(stderr, "Type its id") {
		t.Errorf("typed y: %q, %q, %v", stdout, stderr, err)
	}
	stdout, _, err := ask(id + "\n")
	if err != nil || strings.Count(stdout, " accepted in ") != 23 {
		t.Errorf("%s%v", stdout, err)
	}
	prune(t, nats, first.Position)
	if _, _, err := ask(id + "\n"); err == nil || !strings.Contains(err.Error(), first.Position+" is no longer in the ledger: nothing was sent") {
		t.Errorf("where the first is pruned: %v", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.again, unique(r.ids)) {
		t.Errorf("they were sent again as %s", r.again)
	}
}

// TestEachUserDoesItsWorkOnWebhooks does with a webhook all that each part does, as the users that are for operators to use.
func TestEachUserDoesItsWorkOnWebhooks(t *testing.T) {
	g, r := guardedServer(t), newReceiver(t)
	g.as(t, "operator")
	mustOperate(t, "init", "--partitions", "2")
	g.as(t, "projector")
	decider := spawn(t, "projector", "run", "--data", t.TempDir(), "--metrics-addr", "127.0.0.1:0", allowLoopback)
	decider.await(t, "msg=deciding")
	g.as(t, "api")
	api, base := service(t, "--data", t.TempDir(), "--metrics-addr", "127.0.0.1:0", allowLoopback)
	g.as(t, "operator")
	mustOperate(t, "account", "open", "anna")
	mustOperate(t, "account", "open", "ops")
	anna := client{base: base, token: strings.TrimSpace(mustOperate(t, "token", "issue", "--account", "anna"))}
	ops := client{base: base, token: strings.TrimSpace(mustOperate(t, "token", "issue", "--account", "ops", "--scope", "admin"))}
	anna.mustHaveUsed(t, 0)
	id, gone := anna.register(t, r.URL), anna.register(t, r.URL+"/gone")
	anna.mustCapture(t, "1")
	for _, call := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/test", "", http.StatusOK}, {"POST", "/secret", "{}", http.StatusOK}, {"PATCH", "", `{"types":null}`, http.StatusOK},
		{"GET", "", "", http.StatusOK}, {"GET", "/deliveries", "", http.StatusOK},
	} {
		if _, err := anna.until(within(t), call.method, "/api/webhooks/"+id+call.path, "", call.body, call.status); err != nil {
			t.Error(err)
		}
	}
	r.awaitIDs(t, 2)
	if status, _, _ := anna.call(within(t), "DELETE", "/api/webhooks/"+gone, "", ""); status != http.StatusNoContent {
		t.Errorf("deleted: %d", status)
	}
	for _, p := range []*process{api, decider} {
		if text := scrape(t, p); !strings.Contains(text, "jobtally_webhooks{state=\"enabled\"} 1\n") {
			t.Errorf("the metrics have no webhook:\n%s", text)
		}
	}
	for _, args := range [][]string{{"list"}, {"show", id}, {"disable", id}, {"enable", id}, {"deliveries", id}, {"redrive", id}} {
		mustOperate(t, append([]string{"webhook"}, args...)...)
	}
	if _, err := ops.until(within(t), "DELETE", "/api/admin/accounts/anna", "", "", http.StatusOK); err != nil {
		t.Error(err)
	}
	decider.await(t, "erased account removed from the ledger")
	for ctx := within(t); strings.Contains(mustOperate(t, "webhook", "list"), id); {
		if ctx.Err() != nil {
			t.Fatal("the webhook of an erased account stays")
		}
	}
	decider.interrupt(t)
	api.interrupt(t)
	if log := g.server.logged(); strings.Contains(log, "Violation") {
		t.Errorf("a user had to do what it may not:\n%s", log)
	}
}

// scrape returns the metrics of a process.
func scrape(t *testing.T, p *process) string {
	t.Helper()
	response, err := http.Get("http://" + p.await(t, `msg="serving metrics" addr=(\S+)`)[1] + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestWithoutTheRightsOfWebhooksTheRestWorks has processes of a NATS user that may do everything but keep webhooks.
func TestWithoutTheRightsOfWebhooksTheRestWorks(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "nats.conf")
	text := fmt.Sprintf(`listen: "127.0.0.1:-1"
jetstream { store_dir: %q, sync_interval: always }
authorization { users: [ { user: old, password: secret, permissions: { publish: { allow: ">", deny: "$JS.API.STREAM.*.KV_jobtally_webhooks" } } } ] }
`, filepath.Join(dir, "store"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	server := spawn(t, "nats-server", "-c", config)
	nats := "nats://old:secret@" + server.await(t, `Listening for client connections on (\S+)`)[1]
	server.await(t, "Server is ready")
	mustOperate(t, "init", "--nats", nats, "--partitions", "1")
	api, base := service(t, "--nats", nats, "--data", t.TempDir())
	decider := projector(t, nats, t.TempDir())
	anna := open(t, nats, base, "anna")
	anna.mustHaveUsed(t, 0)
	anna.mustCapture(t, "1")
	if status, a, err := anna.call(within(t), "GET", "/api/webhooks", "", ""); err != nil || status != http.StatusServiceUnavailable || a.Code != "webhooks_unavailable" {
		t.Errorf("%d %+v, %v", status, a, err)
	}
	for name, p := range map[string]*process{"api": api, "projector": decider} {
		p.await(t, `level=ERROR msg="webhooks are sent nothing, and cannot be changed; it is tried again" in=30s error=`)
		if log := p.logged(); !strings.Contains(log, "Permissions Violation") || strings.Contains(log, "secret") {
			t.Errorf("%s logs\n%s", name, log)
		}
	}
	_, err := operate(t, "webhook", "list", "--nats", nats)
	if err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("an operator is told %v", err)
	}
	t.Log(err)
	anna.mustCapture(t, "2")
	decider.interrupt(t)
	api.interrupt(t)
}
