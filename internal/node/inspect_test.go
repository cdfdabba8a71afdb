package node_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"jobtally/internal/events"
	"jobtally/internal/ledger"
	"jobtally/internal/node"
)

// Whoever looks finds the ledger where Dial does, and leaves a request undecided that was.
func TestInspectChangesNothing(t *testing.T) {
	dir := t.TempDir()
	n := start(t, node.Config{Dir: dir})
	if _, err := n.Append(within(t), request("anna", "open", &events.AccountOpenRequested{Plan: "test", Limit: 3})); err != nil {
		t.Fatal(err)
	}
	look := func(what string, cfg node.Config) {
		t.Helper()
		o, err := node.Inspect(within(t), cfg)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if heads, err := o.Ledger.Heads(within(t), 0); err != nil || heads != (events.Heads{Requests: 1}) {
			t.Errorf("%s: heads %+v, %v", what, heads, err)
		}
		if err := o.Close(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	url, err := ledger.EmbeddedURL(dir)
	if err != nil {
		t.Fatal(err)
	}
	look("of the node running on a directory", config(dir, ""))
	look("on a server", config("", url))
	stop(t, n)
	if err := os.Remove(filepath.Join(dir, node.ProjectionFile)); err != nil {
		t.Fatal(err)
	}
	look("of a directory on which none runs", config(dir, ""))
	look("and again", config(dir, ""))
	if _, err := os.Stat(filepath.Join(dir, node.ProjectionFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("looking made a projection: %v", err)
	}

	again := start(t, node.Config{Dir: dir, Decides: true})
	if _, err := again.Projection.Await(within(t), events.Position{Sequence: 1}); err != nil {
		t.Error(err)
	}
	if _, err := node.Inspect(within(t), config(t.TempDir(), "")); !errors.Is(err, ledger.ErrNoLedger) {
		t.Errorf("where there is none: %v", err)
	}
	// Root may read everything, so that no right that is missing can be tried here: it is an error of the same kind.
	file := filepath.Join(dir, "lock")
	if _, err := node.Inspect(within(t), config(file, "")); !errors.Is(err, syscall.ENOTDIR) || errors.Is(err, ledger.ErrNoLedger) {
		t.Errorf("where it cannot be told: %v", err)
	}
}
