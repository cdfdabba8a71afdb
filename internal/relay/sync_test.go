package relay

import (
	"errors"
	"slices"
	"testing"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/webhook"
)

// TestWhatIsAnsweredIsSynced has each change of an endpoint be on disk before it is answered, and not answered where the disk fails.
func TestWhatIsAnsweredIsSynced(t *testing.T) {
	h, synced, refusal := newHouse(t), []string{}, error(nil)
	cfg := h.config()
	cfg.Sync = func(stream string) error {
		synced = append(synced, stream)
		return errors.Join(refusal, h.server.Sync(stream))
	}
	r, ctx := open(t, cfg), within(t)
	var e webhook.Endpoint
	url, off := "https://hooks.example/b", false
	for name, change := range map[string]func() error{
		"change": func() error {
			_, err := r.Change(ctx, "demo", e.ID, 0, webhook.Change{URL: &url, Enabled: &off})
			return err
		},
		"rotate": func() error { _, err := r.Rotate(ctx, "demo", e.ID, time.Hour); return err },
		"remove": func() error { return r.Remove(ctx, "demo", e.ID, 0) },
		"create": func() error { _, err := r.Create(ctx, "demo", url, "", nil); return err },
	} {
		e = create(t, r, "demo", "https://hooks.example/a")
		synced, refusal = nil, nil
		if ok(t, change()); !slices.Equal(synced, []string{bucketStream}) {
			t.Errorf("%s synced %q", name, synced)
		}
		e = create(t, r, "demo", "https://hooks.example/a")
		refusal = errors.New("input/output error")
		if err := change(); !errors.Is(err, events.ErrUnavailable) || !errors.Is(err, refusal) {
			t.Errorf("%s: %v", name, err)
		}
		refusal = nil
	}
}
