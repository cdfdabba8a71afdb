package main

import (
	"log/slog"
	"slices"
	"strings"
	"testing"

	"jobtally/internal/ledger"
)

// wantUnreadable writes over a webhook of anna by hand, as a newer version might: it is listed as what it is, and not changed.
func wantUnreadable(t *testing.T, nats, id string) {
	t.Helper()
	connection, err := ledger.Connect(nats, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	if _, err := connection.RequestWithContext(within(t), "$KV.jobtally_webhooks.anna."+id, []byte(`{"version":2}`)); err != nil {
		t.Fatal(err)
	}
	if said := mustOperate(t, "webhook", "list", "--nats", nats); !strings.Contains(said, id+"  anna     unreadable  ") || !strings.HasSuffix(said, "  -      -\n") {
		t.Error(said)
	}
	if said := mustOperate(t, "webhook", "show", id, "--nats", nats); !strings.Contains(said, "\nregistered    it cannot be read: a newer version wrote it, or a person\n") {
		t.Error(said)
	}
	for _, command := range [][]string{{"enable"}, {"redrive"}, {"redrive", "--redeliver", "--from", "0-1", "--to", "0-1", "--yes"}} {
		if _, err := operate(t, slices.Concat([]string{"webhook"}, command, []string{id, "--nats", nats})...); err == nil || !strings.HasPrefix(err.Error(), "the webhook is stored in a form that this version cannot read") {
			t.Errorf("%s: %v", command, err)
		}
	}
}
