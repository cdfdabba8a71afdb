package node_test

import (
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/events"
	"jobtally/internal/node"
)

func start(t *testing.T, dir string) *node.Node {
	t.Helper()
	n, err := node.Start(t.Context(), node.Config{Dir: dir, Decides: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func ask(t *testing.T, n *node.Node, id string, body events.RequestBody) events.Decision {
	t.Helper()
	p, err := n.Append(t.Context(), &events.Request{Account: "demo", ID: id, Time: time.Now(), Body: body})
	if err != nil {
		t.Fatal(err)
	}
	d, err := n.Projection.Await(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func captureOf(url string) *events.JobCaptureRequested {
	return &events.JobCaptureRequested{Month: "2026-11", CanonicalURL: url, SourceRules: 1,
		Job: events.Job{SourceURL: url, Title: "Engineer", Status: "saved", CapturedVia: "api"}, PayloadHash: events.Hash([]byte(url))}
}

func TestLimitHoldsUnderConcurrency(t *testing.T) {
	n := start(t, t.TempDir())
	ask(t, n, "open", &events.AccountOpenRequested{Plan: "free", Limit: 10})
	var wg sync.WaitGroup
	var mu sync.Mutex
	outcomes := map[string]int{}
	for i := range 200 {
		wg.Go(func() {
			url := fmt.Sprintf("https://x.com/%d", i)
			d := ask(t, n, url, captureOf(url))
			mu.Lock()
			outcomes[events.OutcomeOf(d.Body)]++
			mu.Unlock()
		})
	}
	wg.Wait()
	if outcomes["captured"] != 10 || outcomes["rejected"] != 190 {
		t.Fatalf("outcomes %v", outcomes)
	}
	q, err := n.Projection.Quota(t.Context(), "demo", "2026-11")
	if err != nil || q != (capture.Quota{Month: "2026-11", Used: 10, Limit: 10}) {
		t.Fatalf("quota %+v, %v", q, err)
	}
}
