package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// allowLoopback has a service send to receivers of tests.
var allowLoopback = []string{"--webhook-allow", "127.0.0.0/8"}

// hook is a webhook as it is told.
type hook struct {
	ID      string
	URL     string
	State   string
	Secret  string
	Version uint64
}

// hook registers a webhook.
func (c client) hook(t *testing.T, body string) (h hook) {
	t.Helper()
	r := c.ask(t, http.MethodPost, "/api/webhooks", body).wants(t, http.StatusCreated)
	if err := json.Unmarshal([]byte(r.body), &h); err != nil {
		t.Fatal(err)
	}
	return h
}

// received is what came to a receiver.
type received struct {
	path   string // of the receiver's URL: which webhook it is of
	id     string // the webhook-id
	again  bool   // it said that it is a redelivery
	body   string
	answer int
	said
}

// said is what the body of an event says.
type said struct {
	Type, Position, Account string
	Subject                 string
	Data                    struct {
		Threshold       int
		Month, Archived string
	}
}

// receiver is the HTTP server of somebody who registers webhooks. It checks each signature with the public library.
type receiver struct {
	url    string
	t      *testing.T
	mu     sync.Mutex
	all    []received
	grew   chan struct{}
	secret map[string]string                 // by path
	answer func(received) (int, http.Header) // 204, unless set
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{t: t, grew: make(chan struct{}), secret: map[string]string{}}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	r.url = server.URL
	return r
}

// hook registers a webhook of a client with a path of the receiver.
func (r *receiver) hook(t *testing.T, c client, path, more string) hook {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock() // what comes at once is verified too
	h := c.hook(t, fmt.Sprintf(`{"url":%q%s}`, r.url+path, more))
	r.secret[path] = h.Secret
	return h
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return // the sender was killed
	}
	got := received{
		path: request.URL.Path, id: request.Header.Get("webhook-id"), again: request.Header.Get("Webhook-Redelivery") == "true", body: string(body),
	}
	if err := json.Unmarshal(body, &got.said); err != nil {
		r.t.Errorf("the body is %s: %v", body, err)
	}
	if err := theEvents().CheckEvent(body); err != nil {
		r.t.Errorf("not by the contract of events: %v", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	verifier, err := standardwebhooks.NewWebhook(r.secret[got.path])
	if err == nil {
		err = verifier.Verify(body, request.Header)
	}
	if err != nil {
		r.t.Errorf("%s: the signature does not hold: %v", got.path, err)
	}
	status, header := http.StatusNoContent, http.Header(nil)
	if r.answer != nil {
		status, header = r.answer(got)
	}
	for name, values := range header {
		w.Header()[name] = values
	}
	w.WriteHeader(status)
	got.answer = status
	r.all = append(r.all, got)
	close(r.grew)
	r.grew = make(chan struct{})
}

// set has what comes from now on answered so.
func (r *receiver) set(answer func(received) (int, http.Header)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

// at returns what came to a path.
func (r *receiver) at(path string) (all []received, grew <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, got := range r.all {
		if got.path == path {
			all = append(all, got)
		}
	}
	return all, r.grew
}

// await returns what came to a path, once that is enough.
func (r *receiver) await(t *testing.T, path string, enough func([]received) bool) []received {
	t.Helper()
	timeout := time.After(patience)
	for {
		all, grew := r.at(path)
		if enough(all) {
			return all
		}
		select {
		case <-grew:
		case <-timeout:
			t.Fatalf("only this came to %s:\n%s", path, linesOf(all))
		}
	}
}

// awaitN returns the first n that came to a path.
func (r *receiver) awaitN(t *testing.T, path string, n int) []received {
	t.Helper()
	return r.await(t, path, func(all []received) bool { return len(all) >= n })[:n]
}

func linesOf(all []received) string {
	var b strings.Builder
	for _, got := range all {
		fmt.Fprintf(&b, "%s %s %s %d again=%t\n", got.id, got.Type, got.Position, got.answer, got.again)
	}
	return b.String()
}

// typesOf returns the types of what came, without what all have.
func typesOf(all []received) string {
	var types []string
	for _, got := range all {
		types = append(types, strings.TrimSuffix(strings.TrimPrefix(got.Type, "jobtally."), ".v1"))
	}
	return strings.Join(types, " ")
}
