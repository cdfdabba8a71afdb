package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"jobtally/internal/events"
)

// TestAWebhookIsSentTheEventsOfItsAccount follows an account from its first capture into the next month: what it is told
// comes in order, signed, once each, across a restart.
func TestAWebhookIsSentTheEventsOfItsAccount(t *testing.T) {
	t.Parallel()
	now, data, r := clockAt(t, "2026-11-15T12:00:00Z"), t.TempDir(), newReceiver(t)
	s := start(t, data, now.now, allowLoopback...)
	anna := s.accounts(t, 5, "anna")[0]
	anna.capture(t, jobURL(0)).wants(t, http.StatusCreated)
	h := r.hook(t, anna, "/all", "")
	r.hook(t, anna, "/quota", `,"types":["jobtally.quota.threshold_reached","jobtally.quota.reset.v1"]`)
	r.hook(t, s.client, "/demo", "")
	for i := range 5 { // the second to the fifth are captured
		anna.capture(t, jobURL(i+1))
	}
	job := anna.capture(t, jobURL(1)).wants(t, http.StatusOK).Job.ID
	anna.patch(t, job, `{"status":"applied"}`).wants(t, http.StatusOK)
	const captures = "job.captured job.captured job.captured quota.threshold_reached job.captured quota.threshold_reached job.capture_rejected job.capture_duplicated job.updated"
	all := r.awaitN(t, "/all", 9)
	if got := typesOf(all); got != captures {
		t.Errorf("it was sent\n%s\nwant\n%s", got, captures)
	}
	if all[3].Data.Threshold != 80 || all[5].Data.Threshold != 100 || all[3].Position != all[2].Position || all[3].id != all[2].id+"-threshold" {
		t.Errorf("of the thresholds it was sent\n%s%s", all[3].body, all[5].body)
	}

	t.Log("after a restart it goes on where it stopped, also with what was decided meanwhile")
	s.stop(t)
	now.set(t, "2026-12-02T12:00:00Z")
	s = start(t, data, now.now, allowLoopback...)
	anna.url = s.url
	last := anna.capture(t, jobURL(20)).wants(t, http.StatusCreated)
	after := r.await(t, "/all", func(all []received) bool { return strings.Count(typesOf(all), "quota.reset") > 0 && len(all) >= 11 })[9:]
	for _, got := range after {
		if got.Type == "jobtally.quota.reset.v1" && (got.Data.Archived != "2026-11" || got.Data.Month != "2026-12") {
			t.Errorf("the reset says %s", got.body)
		}
	}
	quota := r.awaitN(t, "/quota", 3)
	if got := typesOf(quota); got != "quota.threshold_reached quota.threshold_reached quota.reset" {
		t.Errorf("of the quota it was sent %s", got)
	}
	if got := typesOf(r.awaitN(t, "/demo", 1)); got != "quota.reset" {
		t.Errorf("another account was sent %s", got)
	}
	anna.awaitIdle(t, h.ID, last)
	all, _ = r.at("/all")
	if wantsOnceEach(t, all); len(all) != 11 {
		t.Errorf("it was sent\n%s", linesOf(all))
	}
}

// wantsOnceEach checks that no event came twice, and that the positions never go back.
func wantsOnceEach(t *testing.T, all []received) {
	t.Helper()
	seen, last := map[string]bool{}, uint64(0)
	for _, got := range all {
		if seen[got.id] {
			t.Errorf("%s came twice", got.id)
		}
		if at := sequenceOf(t, got.Position); at < last {
			t.Errorf("%s came after %d", got.Position, last)
		} else {
			last = at
		}
		seen[got.id] = true
	}
}

func sequenceOf(t *testing.T, position string) (n uint64) {
	t.Helper()
	if _, err := fmt.Sscanf(position, "0-%d", &n); err != nil {
		t.Errorf("%q is no position of partition 0", position)
	}
	return n
}

// progress is how far a webhook is.
type progress struct {
	State    string
	Version  uint64
	Progress struct {
		Pending, Poisoned   uint64
		Delivered, Circuit  string
		Attempts            int
		ConsecutiveFailures int    `json:"consecutive_failures"`
		NextAttempt         string `json:"next_attempt"`
		FailingSince        string `json:"failing_since"`
	}
}

func (c client) progress(t *testing.T, id string) (p progress) {
	t.Helper()
	r := c.get(t, "/api/webhooks/"+id).wants(t, http.StatusOK)
	if err := json.Unmarshal([]byte(r.body), &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// awaitProgress waits until a webhook is so far.
func (c client) awaitProgress(t *testing.T, id string, far func(progress) bool) (p progress) {
	t.Helper()
	for begun := time.Now(); ; {
		if p = c.progress(t, id); far(p) {
			return p
		}
		if time.Since(begun) > patience {
			t.Fatalf("webhook %s is no further than %+v", id, p)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// awaitIdle waits until nothing is left to be sent to a webhook, a capture included: that nothing is pending is not enough, for the
// server counts what is new a moment after it has it.
func (c client) awaitIdle(t *testing.T, id string, captured reply) {
	t.Helper()
	c.awaitProgress(t, id, func(p progress) bool {
		return p.Progress.Pending == 0 && p.Progress.Delivered != "" &&
			positionOf(t, p.Progress.Delivered).Sequence >= positionOf(t, captured.Receipt.Position).Sequence
	})
}

func positionOf(t *testing.T, text string) events.Position {
	t.Helper()
	p, err := events.ParsePosition(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
