package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"jobtally/internal/cli"
	"jobtally/internal/events"
)

// TestStoryHasEveryOutcome plays the story and looks at what was decided in it.
func TestStoryHasEveryOutcome(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // only a failing test waits that long
	defer cancel()
	dir := filepath.Join(t.TempDir(), "new")
	var stdout bytes.Buffer
	if err := run(ctx, []string{dir, "--now", "2026-04-01T00:03:00Z"}, &stdout, os.Stderr); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(stdout.String(), "the months 2026-01 to 2026-03 are archived, 2026-04 is open") {
		t.Error(&stdout)
	}
	b := &builder{config: nodeConfig(dir, os.Stderr)}
	outcomes := map[string]int{}
	err := b.at(ctx, time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC), func(ctx context.Context) error {
		for batch, err := range b.node.Ledger.ReadTo(ctx, events.Decisions, 0, nil, 0, 1000) {
			if err != nil {
				return err
			}
			for _, m := range batch {
				outcomes[m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]]++
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, outcome := range []string{"captured", "duplicated", "rejected", "repeated", "refused", "opened", "plan_changed"} {
		if outcomes[outcome] == 0 {
			t.Errorf("nothing was %s", outcome)
		}
	}
	if outcomes["month_archived"] != 3 {
		t.Errorf("%d months were archived, want 3", outcomes["month_archived"])
	}
	if err := run(ctx, []string{dir}, io.Discard, io.Discard); !errors.Is(err, cli.ErrUsage) {
		t.Errorf("in a directory that is not empty: %v, want ErrUsage", err)
	}
}
