package node_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/ledger"
	"jobtally/internal/node"
)

func config(dir, url string) node.Config {
	return node.Config{Dir: dir, NATS: url, Log: slog.New(slog.DiscardHandler)}
}

// opens dials and opens an account.
func opens(ctx context.Context, cfg node.Config, account string) (d events.Decision, err error) {
	o, err := node.Dial(ctx, cfg)
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	return o.Decide(ctx, request(account, "open", &events.AccountOpenRequested{Plan: "test", Limit: 3}))
}

func TestOperatorFindsTheLedger(t *testing.T) {
	e := serve(t, 1)
	start(t, node.Config{Dir: t.TempDir(), NATS: e.url, Decides: true})
	dir := t.TempDir()
	n := start(t, node.Config{Dir: dir, Decides: true})

	for _, step := range []struct {
		what string
		cfg  node.Config
		want string // position
	}{
		{"on an external server", config("", e.url), "0-1"},
		{"of the node running on a directory", config(dir, ""), "0-1"},
	} {
		d, err := opens(t.Context(), step.cfg, "anna")
		if err != nil || d.Position.String() != step.want {
			t.Errorf("%s: %s, %v", step.what, d.Position, err)
		}
	}
	if got := mustAsk(t, n.Node, capturing("anna", "1", "https://x.com/1")); events.OutcomeOf(got.Body) != "captured" {
		t.Errorf("the running node: %+v", got.Body)
	}

	stop(t, n)
	if d, err := opens(t.Context(), config(dir, ""), "bob"); err != nil || d.Position.String() != "0-3" {
		t.Errorf("of a directory on which none runs: %s, %v", d.Position, err)
	}
	again := start(t, node.Config{Dir: dir, Decides: true}) // the operator left the directory
	if err := again.AwaitCaughtUp(within(t)); err != nil {
		t.Fatal(err)
	}
	if got := used(t, again.Node, "anna"); got != 1 {
		t.Errorf("used %d", got)
	}
	if _, err := again.Projection.Quota(t.Context(), "bob", month); err != nil {
		t.Errorf("the account opened meanwhile: %v", err)
	}
}

func TestOperatorIsToldWhy(t *testing.T) {
	e, bare := serve(t, 1), serve(t, 0)
	follower, empty := t.TempDir(), t.TempDir()
	start(t, node.Config{Dir: follower, NATS: e.url})
	missing := filepath.Join(empty, "missing")
	for _, step := range []struct {
		what string
		cfg  node.Config
		is   error
		says string
	}{
		{"an empty directory", config(empty, ""), ledger.ErrNoLedger, "start `api --data " + empty + "` first"},
		{"no directory", config(missing, ""), ledger.ErrNoLedger, "start `api --data " + missing + "` first"},
		{"a node on an external server", config(follower, ""), ledger.ErrNoLedger, "name that with --nats"},
		{"a server without a ledger", config("", bare.url), ledger.ErrNoLedger, "projector init"},
		{"no server", config("", "nats://127.0.0.1:1"), nil, "connect to the NATS server at nats://127.0.0.1:1: "},
	} {
		o, err := node.Dial(within(t), step.cfg)
		if err == nil {
			o.Close()
		}
		if err == nil || errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), step.says) || (step.is != nil && !errors.Is(err, step.is)) {
			t.Errorf("%s: %v, want %q", step.what, err, step.says)
		}
	}
	if entries, err := os.ReadDir(empty); err != nil || len(entries) > 0 {
		t.Errorf("dialling left %v, %v", entries, err)
	}
}

// TestOperatorWaitsForAStartingService has a directory taken by a service that has not said where it listens.
func TestOperatorWaitsForAStartingService(t *testing.T) {
	dir := t.TempDir()
	stop(t, start(t, node.Config{Dir: dir, Decides: true}))
	unlock, err := ledger.LockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := node.Dial(ctx, config(dir, "")); !errors.Is(err, ledger.ErrLocked) {
		t.Errorf("a service that never comes up: %v, want ErrLocked", err)
	}

	ctx = within(t)
	found := make(chan error, 1)
	go func() {
		o, err := node.Dial(ctx, config(dir, ""))
		if err == nil {
			err = o.Close()
		}
		found <- err
	}()
	server, err := ledger.StartEmbedded(dir, 0, slog.New(slog.DiscardHandler)) // it says where it listens
	if err != nil {
		t.Fatal(err)
	}
	if err := <-found; err != nil {
		t.Errorf("a service that came up: %v", err)
	}
	server.Close()
	if err := unlock(); err != nil {
		t.Error(err)
	}
}

func TestOperatorHearsWhatBecameOfTheRequest(t *testing.T) {
	t.Parallel()
	e := serve(t, 1)
	_, err := opens(within(t), config("", e.url), "anna")
	if err == nil || !strings.Contains(err.Error(), "recorded at 0-1, but undecided") || !strings.Contains(err.Error(), "is a projector running?") {
		t.Errorf("while nobody decides: %v", err)
	}

	start(t, node.Config{Dir: t.TempDir(), NATS: e.url, Decides: true})
	_, err = opens(t.Context(), config("", e.url), "anna") // the first one was decided after all
	if err == nil || err.Error() != "refused at 0-2: account anna is open already (account_exists)" {
		t.Errorf("an account that is open: %v", err)
	}
}
