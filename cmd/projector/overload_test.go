package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	flooders = 128
	// mostPending is what the node takes of requests that nobody decides, with those that were on their way.
	mostPending = 8192 + flooders
	mostMemory  = 256 << 20 // of the service, under all that
)

// flood is what many clients at once were answered.
type flood struct {
	taken, refused sync.Map // by the number of the posting: the position, or nothing
	pending        atomic.Int64
	turnedAway     atomic.Int64
	slowest        atomic.Int64 // of what was taken, in nanoseconds
}

// TestOverload stops the projector in its tracks and goes on capturing. The service takes what it can hold, and refuses
// the rest until the projector is back; then every capture that it took is counted once.
func TestOverload(t *testing.T) {
	nats, a := natsServer(t), t.TempDir()
	mustOperate(t, "init", "--nats", nats, "--partitions", "1")
	api, base := service(t, "--nats", nats, "--data", a)
	decider := projector(t, nats, t.TempDir())
	anna := open(t, nats, base, "anna", "--limit", "-1")
	anna.mustHaveUsed(t, 0)

	decider.cmd.Process.Signal(syscall.SIGSTOP)
	f := overwhelm(t, anna)
	pending := f.pending.Load()
	t.Logf("%d captures were taken, %d refused; the slowest took %s", pending, f.turnedAway.Load(), time.Duration(f.slowest.Load()))
	if pending > mostPending {
		t.Errorf("%d captures are pending, at most %d may be", pending, mostPending)
	}
	if memory := residentPeak(t, api); memory > mostMemory {
		t.Errorf("the service had %d MiB resident", memory>>20)
	}

	decider.cmd.Process.Signal(syscall.SIGCONT)
	anna.mustCapture(t, "after-the-flood") // once the projector has caught up: until then it is refused
	anna.mustHaveUsed(t, pending+1)
	checked := 0
	f.taken.Range(func(job, position any) bool {
		a, err := anna.until(within(t), "GET", "/api/jobs/captures/"+position.(string), "", "", http.StatusOK)
		if err != nil || a.Outcome != "captured" {
			t.Errorf("posting %d at %s: %+v, %v", job, position, a, err)
		}
		checked++
		return checked < 200
	})
	again := int64(checked)
	f.refused.Range(func(job, _ any) bool {
		anna.mustCapture(t, fmt.Sprint("flood-", job))
		checked--
		return checked > 0
	})
	anna.mustHaveUsed(t, pending+1+again)
}

// overwhelm captures until a good many captures were refused, from many connections.
func overwhelm(t *testing.T, c client) *flood {
	t.Helper()
	ctx, f := within(t), &flood{}
	transport := &http.Transport{MaxIdleConnsPerHost: flooders}
	defer transport.CloseIdleConnections()
	var flooding sync.WaitGroup
	var next atomic.Int64
	for range flooders {
		flooding.Go(func() {
			for f.turnedAway.Load() < 2_000 && ctx.Err() == nil && !t.Failed() {
				f.post(t, transport, c, int(next.Add(1)))
			}
		})
	}
	flooding.Wait()
	if ctx.Err() != nil {
		t.Fatalf("%d captures were taken, and %d refused", f.pending.Load(), f.turnedAway.Load())
	}
	return f
}

func (f *flood) post(t *testing.T, transport *http.Transport, c client, job int) {
	r, _ := http.NewRequest("POST", c.base+"/api/jobs", strings.NewReader(posting(fmt.Sprint("flood-", job))))
	r.Header.Set("Authorization", "Bearer "+c.token)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", fmt.Sprintf("%q", fmt.Sprint("flood-", job)))
	r.Header.Set("Prefer", "respond-async")
	began := time.Now()
	response, err := (&http.Client{Transport: transport, Timeout: patience}).Do(r)
	if err != nil {
		t.Error(err)
		return
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	took := int64(time.Since(began))
	switch {
	case err != nil:
		t.Error(err)
	case response.StatusCode == http.StatusAccepted:
		var a struct{ Receipt struct{ Position string } }
		if err := json.Unmarshal(body, &a); err != nil || a.Receipt.Position == "" {
			t.Errorf("202 with %s", body)
		}
		if _, twice := f.taken.Swap(job, a.Receipt.Position); twice {
			t.Errorf("posting %d was taken twice", job)
		}
		f.pending.Add(1)
		for seen := f.slowest.Load(); seen < took && !f.slowest.CompareAndSwap(seen, took); {
			seen = f.slowest.Load()
		}
	case response.StatusCode == http.StatusServiceUnavailable && response.Header.Get("Retry-After") != "":
		f.refused.Store(job, nil)
		f.turnedAway.Add(1)
	default:
		t.Errorf("answered %d: %s", response.StatusCode, body)
	}
}

var peak = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// residentPeak returns the most memory that a process had resident so far, in bytes; 0 where the system does not tell.
func residentPeak(t *testing.T, p *process) int {
	t.Helper()
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	found := peak.FindSubmatch(status)
	if found == nil {
		return 0
	}
	kilobytes, err := strconv.Atoi(string(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	return kilobytes << 10
}
