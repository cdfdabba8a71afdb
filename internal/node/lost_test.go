package node_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"jobtally/internal/events"
	"jobtally/internal/node"
	"jobtally/internal/projections"
)

// A server that is put back to an older state under running nodes gives positions away again. The nodes notice, tell
// nobody what was decided on another's request, and write nothing over what the ledger has.
func TestServerThatLostRequestsIsNoticed(t *testing.T) {
	e := serve(t, 1)
	decider := start(t, node.Config{Dir: t.TempDir(), NATS: e.url, Decides: true})
	clients := start(t, node.Config{Dir: t.TempDir(), NATS: e.url})
	openAll(t, clients, -1, "anna", "bob")
	backup := t.TempDir()
	e.halt()
	if err := os.CopyFS(backup, os.DirFS(e.store)); err != nil {
		t.Fatal(err)
	}
	e.boot(t)
	ctx := within(t)
	for i := range 3 {
		if _, _, err := retry(ctx, clients.Node, capturing("anna", fmt.Sprint(i), fmt.Sprint("https://x.com/", i))); err != nil {
			t.Fatal(err)
		}
	}
	converge(t, decider, clients)
	e.halt()
	if err := errors.Join(os.RemoveAll(e.store), os.CopyFS(e.store, os.DirFS(backup))); err != nil {
		t.Fatal(err)
	}
	e.boot(t)

	for i := range 8 { // beyond the positions that were given away
		r := capturing("bob", fmt.Sprint(i), fmt.Sprint("https://y.com/", i))
		d, err := ask(ctx, clients.Node, r)
		if err == nil && (d.Account != "bob" || d.RequestID != r.ID) {
			t.Errorf("bob is told of the request %s of %s", d.RequestID, d.Account)
		}
		if err != nil && !errors.Is(err, events.ErrUnavailable) && !errors.Is(err, events.ErrUnknownOutcome) {
			t.Error(err)
		}
	}
	decider.log.await(t, "partition stopped")
	clients.log.await(t, "partition stopped")
	for _, n := range []running{decider, clients} {
		if err := n.Ready(ctx); !errors.Is(err, projections.ErrMismatch) || !strings.Contains(err.Error(), "rm -f") {
			t.Errorf("ready: %v", err)
		}
	}
	if heads, err := decider.Ledger.Heads(ctx, 0); err != nil || heads.Decisions > 2 {
		t.Errorf("decisions of requests that are gone were appended again: %+v, %v", heads, err)
	}
}
