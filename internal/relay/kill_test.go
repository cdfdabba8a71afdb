package relay

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/webhook"
)

const (
	// killEnv tells the process that is to be killed which directory is its.
	killEnv = "JOBTALLY_TEST_RELAY"
	kills   = 20
)

// record is what a receiver wrote down.
type record struct {
	mu    sync.Mutex
	first map[string][]string          // by path: the ids, in the order in which each came first
	body  map[string][sha256.Size]byte // by id
	all   int
	count chan struct{} // one for each
	wrong []string
}

func (rec *record) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	id := r.Header.Get("Webhook-Id")
	if rec.all++; rand.IntN(10) == 0 {
		w.WriteHeader(http.StatusServiceUnavailable) // not accepted, but for the record it came
	}
	key, digest := r.URL.Path+" "+id, sha256.Sum256(body)
	if before, known := rec.body[key]; !known {
		rec.first[r.URL.Path] = append(rec.first[r.URL.Path], id)
	} else if before != digest {
		rec.wrong = append(rec.wrong, fmt.Sprintf("%s came with two bodies", key))
	}
	rec.body[key] = digest
	select {
	case rec.count <- struct{}{}:
	default:
	}
}

// TestKill9OverTheRelay kills, 20 times, a process that decides and delivers, and holds what a receiver wrote down against
// the ledger.
func TestKill9OverTheRelay(t *testing.T) {
	rec := &record{first: map[string][]string{}, body: map[string][sha256.Size]byte{}, count: make(chan struct{}, 1000)}
	server := httptest.NewServer(rec)
	t.Cleanup(server.Close)
	dir := t.TempDir()
	accounts := []string{"demo", "other"}
	func() {
		h := openHouse(t, dir)
		defer h.close()
		r := open(t, h.killConfig())
		for _, account := range accounts {
			create(t, r, account, server.URL+"/"+account)
			create(t, r, account, server.URL+"/"+account+"-again")
		}
	}()
	for range kills {
		rec.workUntilKilled(t, dir)
	}

	h := openHouse(t, dir)
	h.catchUp(t)
	r, stop := run(t, h.killConfig())
	for _, e := range must[[]webhook.Endpoint](t)(r.All(within(t))) {
		p := done(t, r, e)
		if p.Poisoned != 0 {
			t.Errorf("%d events of %s were given up", p.Poisoned, e.URL)
		}
	}
	stop()
	rec.mu.Lock()
	defer rec.mu.Unlock()
	for _, wrong := range rec.wrong {
		t.Error(wrong)
	}
	total := 0
	for _, account := range accounts {
		want := h.eventIDs(t, account)
		total += 2 * len(want)
		for _, path := range []string{"/" + account, "/" + account + "-again"} {
			wantSame(t, path, rec.first[path], want)
		}
	}
	t.Logf("%d events came %d times", total, rec.all)
}

func wantSame(t *testing.T, path string, got, want []string) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("%s: %s came first as number %d, want %s", path, got[i], i, want[i])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %d events came, the ledger has %d", path, len(got), len(want))
	}
}

// workUntilKilled has another process decide and deliver, and kills it after some deliveries.
func (rec *record) workUntilKilled(t *testing.T, dir string) {
	t.Helper()
	for len(rec.count) > 0 {
		<-rec.count
	}
	child := exec.CommandContext(within(t), os.Args[0], "-test.run=^TestKilledRelay$", "-test.timeout="+deadline.String())
	child.Env = append(os.Environ(), killEnv+"="+dir)
	var said strings.Builder
	child.Stdout, child.Stderr = &said, &said
	ok(t, child.Start())
	for range 1 + rand.IntN(40) {
		select {
		case <-rec.count:
		case <-within(t).Done():
			t.Fatal("nothing is delivered")
		}
	}
	ok(t, child.Process.Kill())
	err := child.Wait()
	if status := child.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGKILL {
		t.Fatalf("ended with %v\n%s", err, said.String())
	}
}

// TestKilledRelay is the process that TestKill9OverTheRelay kills.
func TestKilledRelay(t *testing.T) {
	dir := os.Getenv(killEnv)
	if dir == "" {
		return
	}
	h := openHouse(t, dir)
	h.catchUp(t)
	run(t, h.killConfig())
	for i := 0; ; i++ {
		h.decide(t, []string{"demo", "other"}[i%2], bodyOf(h.head+1))
		pause(within(t), time.Duration(rand.IntN(int(5*time.Millisecond))))
	}
}

// bodyOf is the decision under a number: that of a process which was killed is made again.
func bodyOf(sequence uint64) events.DecisionBody {
	switch {
	case sequence%7 == 0:
		return captured(80)
	case sequence%11 == 0:
		return &events.AccountOpened{Plan: "free", Limit: 50}
	}
	return captured(0)
}

func (h *house) killConfig() Config {
	cfg := h.config()
	cfg.ackWait = 300 * time.Millisecond
	cfg.Schedule = make([]time.Duration, 12)
	return cfg
}

// close closes what openHouse opened, before the test ends.
func (h *house) close() {
	h.ledger.Close()
	h.conn.Close()
	h.server.Close()
}

// catchUp decides the requests of which the decision was lost.
func (h *house) catchUp(t *testing.T) {
	t.Helper()
	heads := must[events.Heads](t)(h.ledger.Heads(within(t), 0))
	for sequence := heads.Decisions + 1; sequence <= heads.Requests; sequence++ {
		m := must[events.Message](t)(h.ledger.Get(within(t), events.Requests, events.Position{Sequence: sequence}))
		request := must[events.Request](t)(events.DecodeRequest(m, 0, 1))
		h.record(t, &request, bodyOf(sequence))
	}
}

// eventIDs returns the webhook-ids of what the ledger has for an account, in order.
func (h *house) eventIDs(t *testing.T, account string) (ids []string) {
	t.Helper()
	for batch, err := range h.ledger.ReadTo(within(t), events.Decisions, 0, nil, 0, h.folded(0)) {
		ok(t, err)
		for _, m := range batch {
			d := must[events.Decision](t)(events.DecodeDecision(m, 0))
			if d.Account != account {
				continue
			}
			for _, event := range eventsOf(&d, account) {
				ids = append(ids, "evt_"+event.ID)
				if !json.Valid(event.AppendJSON(nil)) {
					t.Errorf("%s is no JSON", event.ID)
				}
			}
		}
	}
	return ids
}
