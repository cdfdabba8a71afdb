package relay

import (
	"encoding/json"
	"testing"

	"jobtally/internal/events"
)

// TestSignaturesAreVerifiedByThePublicLibrary sends an event, and one more after the secret was rotated.
func TestSignaturesAreVerifiedByThePublicLibrary(t *testing.T) {
	h, rcv := newHouse(t), receive(t, nil)
	cfg := h.config()
	cfg.RootCAs = rcv.trusted()
	r, _ := run(t, cfg)
	e := create(t, r, "demo", rcv.URL+"/hooks?a=b")
	at := h.capture(t, "demo")
	g := rcv.next(t)
	if err := verify(t, e.Secrets[0], g); err != nil {
		t.Error(err)
	}
	if g.id() != "evt_"+at.String() || g.header.Get("Content-Type") != "application/json" || g.header.Get("Webhook-Redelivery") != "" {
		t.Errorf("got %v", g.header)
	}
	var told struct{ ID, Type, Account, Timestamp string }
	ok(t, json.Unmarshal(g.body, &told))
	if told.Type != events.TypeJobCaptured || told.ID != at.String() || told.Account != "demo" || told.Timestamp == "" {
		t.Errorf("got %s", g.body)
	}
}
