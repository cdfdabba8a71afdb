package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobtally/internal/events"
	"jobtally/internal/ledger"
	"jobtally/internal/relay"
	"jobtally/internal/webhook"
)

// relayAs opens a relay as a user.
func (g *guarded) relayAs(t *testing.T, user string) (*relay.Relay, *nats.Conn) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	nc, err := ledger.Connect(g.url(user), "test", log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	r, err := relay.Open(within(t), relay.Config{
		Conn: nc, Partitions: 1, Replicas: 1, Log: log, Folded: func(int) uint64 { return 0 },
		Erasures: func(context.Context, string) ([]events.Decision, error) { return nil, nil },
		Allow:    []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Schedule: make([]time.Duration, 2),
	})
	if err != nil {
		t.Fatal(err)
	}
	return r, nc
}

// TestTheUsersOfWebhooksDoTheirWork has each user do what it does of webhooks, with a ledger of its own for whoever comes
// first and makes the streams.
func TestTheUsersOfWebhooksDoTheirWork(t *testing.T) {
	for _, first := range []string{"api", "projector", "operator"} {
		t.Run(first, func(t *testing.T) {
			g := guardedServer(t)
			mustOperate(t, "init", "--partitions", "1", "--nats", g.url("operator"))
			g.relayAs(t, first)
			g.keepWebhooks(t)
			if log := g.server.logged(); strings.Contains(log, "Violation") {
				t.Errorf("a user had to do what it may not:\n%s", log)
			}
		})
	}
}

func (g *guarded) keepWebhooks(t *testing.T) {
	t.Helper()
	got := make(chan string, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if got <- r.Header.Get("Webhook-Id"); r.Header.Get("Webhook-Id") == "evt_0-1" {
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	t.Cleanup(server.Close)
	ctx := within(t)
	api, _ := g.relayAs(t, "api")
	sends, decides := g.relayAs(t, "projector")
	operator, _ := g.relayAs(t, "operator")
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- sends.Run(running) }()

	e := must[webhook.Endpoint](t)(api.Create(ctx, "demo", server.URL, "", nil))
	must[webhook.Endpoint](t)(api.Rotate(ctx, "demo", e.ID, time.Hour))
	must[webhook.Delivery](t)(api.Test(ctx, "demo", e.ID))
	for n := range uint64(2) {
		d := events.Decision{Position: events.Position{Sequence: n + 1}, Account: "demo", RequestID: "r", Time: time.Now(), Body: &events.JobDeleted{JobID: "job_x"}}
		d.Seal(events.Digest{})
		m := d.Message()
		if _, err := decides.RequestMsgWithContext(ctx, &nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data}); err != nil {
			t.Fatal(err)
		}
	}
	for id := ""; id != "evt_0-2"; {
		select {
		case id = <-got:
		case <-ctx.Done():
			t.Fatal("nothing comes")
		}
	}
	for range 2 { // once for what was given up, and once for nothing
		left := must[int](t)(operator.Redrive(ctx, "demo", e.ID, func(webhook.Delivery) {}))
		if left != 1 {
			t.Errorf("%d are left", left)
		}
	}
	if err := operator.Redeliver(ctx, "demo", e.ID, events.Position{Sequence: 2}, events.Position{Sequence: 2}, func(webhook.Delivery) {}); err != nil {
		t.Error(err)
	}
	for _, r := range []*relay.Relay{api, operator, sends} {
		must[webhook.Progress](t)(r.Progress(ctx, e))
		must[relay.Census](t)(r.Census(ctx))
		must[[]webhook.Endpoint](t)(r.All(ctx))
		if log := must[[]webhook.Delivery](t)(r.Deliveries(ctx, "demo", e.ID, 0, 10)); len(log) < 4 {
			t.Errorf("the log has %d deliveries", len(log))
		}
	}
	off := false
	must[webhook.Endpoint](t)(operator.Change(ctx, "demo", e.ID, 0, webhook.Change{Enabled: &off}))
	if err := api.Remove(ctx, "demo", e.ID, 0); err != nil {
		t.Error(err)
	}
	if err := sends.Sweep(ctx); err != nil {
		t.Error(err)
	}
	if log := must[[]webhook.Delivery](t)(sends.Deliveries(ctx, "demo", e.ID, 0, 10)); len(log) != 0 {
		t.Errorf("%d deliveries are left in the log", len(log))
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
