package http

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/webhook"
)

// hooks are the webhooks of a node in memory.
type hooks struct {
	mu         sync.Mutex
	endpoints  []webhook.Endpoint
	deliveries []webhook.Delivery // of each, the first one first
	changes    int
	sent       func() // is called for a test
	read       func() // is called when an endpoint was read
}

var secretOfTest = "whsec_" + strings.Repeat("A", 43) + "="

func (h *hooks) relay() Webhooks {
	return Webhooks{
		Create: h.create, List: h.list, Get: h.get, Progress: h.progress, Change: h.change, Rotate: h.rotate, Remove: h.remove,
		Test: h.test, Deliveries: h.log,
	}
}

func (h *hooks) add(account, id string) {
	at := time.Date(2024, 1, 15, 0, 0, 0, 0, time.UTC)
	h.endpoints = append(h.endpoints, webhook.Endpoint{
		ID: id, Account: account, URL: "https://example.com/hooks", State: webhook.Enabled, StateSince: at, CreatedAt: at,
		After: events.Position{Sequence: 5}, Secrets: []webhook.Secret{{Value: secretOfTest}}, Version: uint64(len(h.endpoints) + 1),
	})
}

func (h *hooks) create(_ context.Context, account, url, description string, types []string) (webhook.Endpoint, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes++
	if !strings.HasPrefix(url, "https:") {
		return webhook.Endpoint{}, &webhook.URLError{Reason: "it does not begin with https://"}
	}
	if len(h.endpoints) == webhook.MaxPerAccount {
		return webhook.Endpoint{}, webhook.ErrTooMany
	}
	h.add(account, fmt.Sprintf("wh_%s%c", strings.Repeat("a", 19), 'a'+len(h.endpoints)))
	e := &h.endpoints[len(h.endpoints)-1]
	e.URL, e.Description, e.Types = url, description, types
	return *e, nil
}

func (h *hooks) list(_ context.Context, account string) (of []webhook.Endpoint, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(h.endpoints), func(e webhook.Endpoint) bool { return e.Account != account }), nil
}

// at returns where an endpoint is. The lock is held.
func (h *hooks) at(account, id string) (*webhook.Endpoint, error) {
	i := slices.IndexFunc(h.endpoints, func(e webhook.Endpoint) bool { return e.Account == account && e.ID == id })
	if i < 0 {
		return nil, events.ErrNotFound
	}
	return &h.endpoints[i], nil
}

func (h *hooks) get(_ context.Context, account, id string) (webhook.Endpoint, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e, err := h.at(account, id)
	if err != nil {
		return webhook.Endpoint{}, err
	}
	if h.read != nil {
		defer h.read()
	}
	return *e, nil
}

func (h *hooks) progress(context.Context, webhook.Endpoint) (webhook.Progress, error) {
	return webhook.Progress{Pending: 3, Delivered: events.Position{Sequence: 7}, Attempts: 2, ConsecutiveFailures: 2,
		FailingSince: time.Date(2024, 1, 15, 9, 0, 0, 0, time.UTC), Open: true, Poisoned: 1}, nil
}

func (h *hooks) change(_ context.Context, account, id string, version uint64, c webhook.Change) (webhook.Endpoint, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e, err := h.at(account, id)
	switch {
	case err != nil:
		return webhook.Endpoint{}, err
	case version != 0 && version != e.Version:
		return webhook.Endpoint{}, webhook.ErrVersion
	}
	h.changes++
	e.Version++
	e.URL, e.Types, e.Description = *cmp.Or(c.URL, &e.URL), *cmp.Or(c.Types, &e.Types), *cmp.Or(c.Description, &e.Description)
	if c.Enabled != nil && !*c.Enabled {
		e.State = webhook.Disabled
	}
	return *e, nil
}

func (h *hooks) rotate(_ context.Context, account, id string, keep time.Duration) (webhook.Endpoint, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e, err := h.at(account, id)
	if err != nil {
		return webhook.Endpoint{}, err
	}
	h.changes++
	e.Version++
	e.Secrets = []webhook.Secret{{Value: "whsec_" + strings.Repeat("B", 43) + "="}}
	if keep > 0 {
		e.Secrets = append(e.Secrets, webhook.Secret{Value: secretOfTest, ExpiresAt: e.CreatedAt.Add(keep)})
	}
	return *e, nil
}

func (h *hooks) remove(_ context.Context, account, id string, version uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	e, err := h.at(account, id)
	switch {
	case err != nil:
		return err
	case version != 0 && version != e.Version:
		return webhook.ErrVersion
	}
	h.changes++
	h.endpoints = slices.DeleteFunc(h.endpoints, func(e webhook.Endpoint) bool { return e.ID == id })
	return nil
}

func (h *hooks) test(_ context.Context, account, id string) (webhook.Delivery, error) {
	h.mu.Lock()
	h.changes++
	h.mu.Unlock()
	if h.sent != nil {
		h.sent()
	}
	return webhook.Delivery{
		MessageID: "test_1", Type: "jobtally.webhook.test.v1", Cause: webhook.ByTest, Attempt: 1, At: time.Date(2024, 1, 15, 9, 0, 0, 0, time.UTC),
		Duration: 1500 * time.Microsecond, Status: 500, Error: "it answered 500", Outcome: webhook.Failed,
	}, nil
}

func (h *hooks) log(_ context.Context, account, id string, before uint64, limit int) (page []webhook.Delivery, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, err := h.at(account, id); err != nil {
		return nil, err
	}
	for _, d := range slices.Backward(h.deliveries) {
		if (before == 0 || d.Sequence < before) && len(page) < limit {
			page = append(page, d)
		}
	}
	return page, nil
}
