package main

import (
	"flag"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"
)

var relayKills = flag.Int("relay-kills", 3, "how often TestKill9LosesNoDelivery kills the service")

// TestKill9LosesNoDelivery kills the service again and again while an account captures and a receiver records. In the end
// every event was delivered, first deliveries in the order of their positions, each event under one webhook-id.
func TestKill9LosesNoDelivery(t *testing.T) {
	t.Parallel()
	data, r, seed := t.TempDir(), newReceiver(t), rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	args := append([]string{"--plans", "free=-1"}, allowLoopback...)
	s := startBinary(t, data, args...)
	h := r.hook(t, s.client, "/hook", "")
	failed := map[string]bool{}
	r.set(func(got received) (int, http.Header) { // now and then it fails, and all others wait for 5 s: after a second time for 5 min
		if rand.IntN(100) == 0 && !failed[got.id] {
			failed[got.id] = true
			return http.StatusInternalServerError, nil
		}
		return http.StatusNoContent, nil
	})
	captured, acknowledged := 0, map[string]bool{}
	for round := range *relayKills {
		later := time.Duration(random.Int64N(int64(300 * time.Millisecond)))
		go s.killAfterDelivery(r, "/hook", later)
		for begun := captured; ; {
			if captured++; captured-begun > 200 { // enough to be killed among, and each has to be delivered in the end
				time.Sleep(20 * time.Millisecond)
			}
			answer, err := s.call(http.MethodPost, "/api/jobs", strings.NewReader(jobAt(jobURL(captured))))
			if err != nil {
				break
			}
			answer.wants(t, http.StatusCreated)
			acknowledged[answer.Receipt.Position] = true
		}
		s.kill(t)
		all, _ := r.at("/hook")
		t.Logf("kill %d after %s: %d captured, %d deliveries", round+1, later, len(acknowledged), len(all))
		s = startBinary(t, data, args...)
	}
	r.set(nil) // of the thousands that are left it accepts each
	s.awaitIdle(t, h.ID, s.capture(t, jobURL(0)).wants(t, http.StatusCreated))
	all, _ := r.at("/hook")
	wantsDeliveries(t, all, acknowledged)
}

// killAfterDelivery kills the service so long after something came: what a relay held that was killed is first sent again once
// the server takes it for dead.
func (s *service) killAfterDelivery(r *receiver, path string, later time.Duration) {
	_, grew := r.at(path)
	select {
	case <-grew:
	case <-time.After(patience):
	}
	time.Sleep(later)
	s.process.Kill()
}

// wantsDeliveries checks what came of the events at some positions, and maybe of others.
func wantsDeliveries(t *testing.T, all []received, acknowledged map[string]bool) {
	t.Helper()
	seen, accepted, last, again := map[string]string{}, map[string]bool{}, uint64(0), 0
	for _, got := range all {
		if first, known := seen[got.id]; known {
			if again++; first != got.body {
				t.Errorf("%s came as\n%s\nand as\n%s", got.id, first, got.body)
			}
		} else if at := sequenceOf(t, got.Position); at <= last {
			t.Errorf("%s came first after %d", got.Position, last)
		} else {
			last = at
		}
		seen[got.id] = got.body
		if got.answer < 300 {
			accepted[got.Position] = true
		}
		if want := "evt_" + got.Position; got.id != want {
			t.Errorf("%s came under %s", got.Position, got.id)
		}
	}
	for position := range acknowledged {
		if !accepted[position] {
			t.Errorf("%s was never delivered", position)
		}
	}
	t.Logf("%d events, %d deliveries, %d of them again", len(seen), len(all), again)
}
