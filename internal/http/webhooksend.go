package http

import (
	nethttp "net/http"
	"strconv"
	"sync"

	"github.com/labstack/echo/v4"

	"jobtally/internal/events"
	"jobtally/internal/webhook"
)

// sendCost is how many requests a test counts as, beyond itself, for the limits, and so does a change that has an attempt made at
// once: it makes this service send one to wherever the account said, however often that was refused.
const sendCost = 9

// secretForm is what a rotation tells: the new secret, this once, and until when the one before signs too.
type secretForm struct {
	ID                string `json:"id"`
	Secret            string `json:"secret"`
	PreviousExpiresAt string `json:"previous_expires_at,omitempty"`
	Version           uint64 `json:"version"`
}

// postWebhookSecret answers POST /api/webhooks/{id}/secret. Each call makes another secret.
func (a *api) postWebhookSecret(c echo.Context, relay *Webhooks) error {
	if err := checkNoQuery(c.Request().URL); err != nil {
		return err
	}
	body, err := readBody(c)
	if err != nil {
		return err
	}
	keep, err := decodeRotation(body)
	if err != nil {
		return err
	}
	if err := a.recordable(c); err != nil {
		return err
	}
	e, err := relay.Rotate(c.Request().Context(), callOf(c).account, c.Param("id"), keep)
	if err != nil {
		return err
	}
	form := &secretForm{ID: e.ID, Secret: e.Secrets[0].Value, Version: e.Version}
	if len(e.Secrets) > 1 {
		form.PreviousExpiresAt = timeOrNothing(e.Secrets[1].ExpiresAt)
	}
	header := c.Response().Header()
	header["Etag"] = []string{webhookETag(e.Version)}
	header.Set("Cache-Control", "no-store")
	return writeJSON(c, nethttp.StatusOK, form)
}

// underTest are the endpoints that are sent a test right now.
type underTest struct {
	mu  sync.Mutex
	ids map[string]bool
}

// begin says whether no test of an endpoint is under way, and that one is from now on.
func (t *underTest) begin(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ids[id] {
		return false
	}
	if t.ids == nil {
		t.ids = map[string]bool{}
	}
	t.ids[id] = true
	return true
}

func (t *underTest) end(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.ids, id)
}

// postWebhookTest answers POST /api/webhooks/{id}/test: 200, whatever became of the test, which is what it tells.
func (a *api) postWebhookTest(c echo.Context, relay *Webhooks) error {
	if err := checkNoQuery(c.Request().URL); err != nil {
		return err
	}
	ctx, account := c.Request().Context(), callOf(c).account
	e, err := relay.Get(ctx, account, c.Param("id"))
	if err != nil {
		return err
	}
	if err := a.recordable(c); err != nil {
		return err
	}
	if !a.tests.begin(e.ID) {
		return newProblem(codeWebhookTestRunning, "")
	}
	defer a.tests.end(e.ID)
	callOf(c).cost = sendCost
	delivery, err := relay.Test(ctx, account, e.ID)
	if err != nil {
		return err
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return writeJSON(c, nethttp.StatusOK, formOfDelivery(&delivery))
}

type deliveriesForm struct {
	Deliveries []*deliveryForm `json:"deliveries"`
}

// deliveryForm is one attempt to deliver an event.
type deliveryForm struct {
	MessageID   string           `json:"message_id"`
	Position    *events.Position `json:"position,omitempty"` // none of a test
	Type        string           `json:"type"`
	Cause       webhook.Cause    `json:"cause"`
	Attempt     int              `json:"attempt"`
	At          string           `json:"at"`
	DurationMS  int64            `json:"duration_ms"`
	Status      int              `json:"status,omitempty"` // none where there was no answer
	Outcome     webhook.Outcome  `json:"outcome"`
	Error       string           `json:"error,omitempty"`
	NextAttempt string           `json:"next_attempt,omitempty"`
}

func formOfDelivery(d *webhook.Delivery) *deliveryForm {
	form := &deliveryForm{
		MessageID: d.MessageID, Type: d.Type, Cause: d.Cause, Attempt: d.Attempt, At: formatTime(d.At), DurationMS: d.Duration.Milliseconds(),
		Status: d.Status, Outcome: d.Outcome, Error: d.Error, NextAttempt: timeOrNothing(d.NextAttempt),
	}
	if d.Cause != webhook.ByTest {
		form.Position = &d.Position
	}
	return form
}

// getDeliveries answers GET /api/webhooks/{id}/deliveries: a page of the log, the latest first.
func (a *api) getDeliveries(c echo.Context, relay *Webhooks) error {
	list := webhooksPath + "/" + c.Param("id") + "/deliveries"
	after, limit, err := readPage(c, list)
	if err != nil {
		return err
	}
	var before uint64
	if after != "" {
		if before, err = strconv.ParseUint(after, 10, 64); err != nil {
			return invalidParameter("cursor", notACursor)
		}
	}
	ctx, account, id := c.Request().Context(), callOf(c).account, c.Param("id")
	if _, err := relay.Get(ctx, account, id); err != nil {
		return err
	}
	deliveries, err := relay.Deliveries(ctx, account, id, before, limit+1)
	if err != nil {
		return err
	}
	if len(deliveries) > limit {
		deliveries = deliveries[:limit]
		tellNext(c, list, strconv.FormatUint(deliveries[limit-1].Sequence, 10), limit)
	}
	page := deliveriesForm{Deliveries: []*deliveryForm{}}
	for i := range deliveries {
		page.Deliveries = append(page.Deliveries, formOfDelivery(&deliveries[i]))
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return writeJSON(c, nethttp.StatusOK, page)
}
