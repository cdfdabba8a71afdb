package relay

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"jobtally/internal/webhook"
)

// TestAScrubbedServerKeepsWebhooks starts the server as after a crash in the middle of an erasure, which has it read every block of
// every stream, and write those anew that have what was removed.
func TestAScrubbedServerKeepsWebhooks(t *testing.T) {
	dir := t.TempDir()
	rcv := receive(t, func(w http.ResponseWriter, id string) {
		if id == "evt_0-1" {
			w.WriteHeader(http.StatusBadRequest)
		}
	})
	configOf := func(h *house) Config {
		cfg := h.config()
		cfg.RootCAs, cfg.Schedule = rcv.trusted(), make([]time.Duration, 2)
		return cfg
	}
	h := openHouse(t, dir)
	r, stop := run(t, configOf(h))
	e := create(t, r, "demo", rcv.URL)
	removed := create(t, r, "demo", rcv.URL)
	ok(t, r.Remove(within(t), "demo", removed.ID, 0))
	rotated := must[webhook.Endpoint](t)(r.Rotate(within(t), "demo", e.ID, time.Hour)) // which removes what was there before
	for range 3 {
		h.capture(t, "demo")
	}
	rcv.wantIDs(t, "evt_0-1", "evt_0-1", "evt_0-2", "evt_0-3")
	before := done(t, r, e)
	log := must[[]webhook.Delivery](t)(r.Deliveries(within(t), "demo", e.ID, 0, 10))
	stop()
	h.close()
	ok(t, os.Remove(filepath.Join(dir, "jetstream", "stopped")))
	ok(t, os.WriteFile(filepath.Join(dir, "jetstream", "erasing"), nil, 0o600))

	h = openHouse(t, dir)
	r, _ = run(t, configOf(h))
	got := must[webhook.Endpoint](t)(r.Get(within(t), "demo", e.ID))
	if got.URL != e.URL || !slices.Equal(got.Secrets, rotated.Secrets) {
		t.Errorf("the endpoint is %+v", got)
	}
	if after := must[webhook.Progress](t)(r.Progress(within(t), got)); after != before {
		t.Errorf("the progress was %+v, and is %+v", before, after)
	}
	if after := must[[]webhook.Delivery](t)(r.Deliveries(within(t), "demo", e.ID, 0, 10)); !slices.Equal(after, log) || len(log) != 4 {
		t.Errorf("the log was %v, and is %v", log, after)
	}
	h.capture(t, "demo")
	rcv.wantIDs(t, "evt_0-4")
}
