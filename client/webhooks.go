package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"time"
)

// Webhook is a URL that is sent the events of the account. What it is sent is verified with a library of Standard Webhooks.
type Webhook struct {
	ID          string    `json:"id"`
	URL         string    `json:"url"`
	Types       []string  `json:"types"` // of the events that it is sent; none for all
	Description string    `json:"description,omitempty"`
	State       string    `json:"state"` // enabled, disabled, gone, failing or unreadable
	StateSince  time.Time `json:"state_since"`
	CreatedAt   time.Time `json:"created_at"`
	After       string    `json:"after"`   // the position behind which events are sent
	Version     int64     `json:"version"` // changes with each change

	Secret   string           `json:"secret,omitempty"`   // of CreateWebhook only: it is never shown again
	Progress *WebhookProgress `json:"progress,omitempty"` // of Webhook only
}

// WebhookProgress says how far the delivery of a webhook's events is.
type WebhookProgress struct {
	Pending             int64      `json:"pending"`             // decisions that it was not sent yet
	Delivered           string     `json:"delivered,omitempty"` // the last position that is done with
	Attempts            int        `json:"attempts"`            // at the event that is being delivered
	ConsecutiveFailures int        `json:"consecutive_failures"`
	FailingSince        *time.Time `json:"failing_since,omitempty"`
	NextAttempt         *time.Time `json:"next_attempt,omitempty"`
	LastSuccess         *time.Time `json:"last_success,omitempty"`
	Circuit             string     `json:"circuit"`             // closed, or open where attempts are far apart
	Poisoned            int64      `json:"poisoned"`            // events in its poison queue
	WaitsFor            string     `json:"waits_for,omitempty"` // in words, where that is not the receiver
}

// NewWebhook is a webhook to be registered. URL is needed.
type NewWebhook struct {
	URL         string   `json:"url"`
	Types       []string `json:"types,omitempty"` // all where there are none
	Description string   `json:"description,omitempty"`
}

// WebhookChange is what is to change of a webhook; what is nil stays.
type WebhookChange struct {
	URL         *string   `json:"url,omitempty"`
	Types       *[]string `json:"types,omitempty"` // none for all
	Description *string   `json:"description,omitempty"`
	Enabled     *bool     `json:"enabled,omitempty"`
}

// RotatedSecret is the new secret of a webhook.
type RotatedSecret struct {
	Secret            string     `json:"secret"`                        // never shown again
	PreviousExpiresAt *time.Time `json:"previous_expires_at,omitempty"` // until when the one before signs too; nil: no longer
	Version           int64      `json:"version"`
}

// Delivery is an attempt to deliver an event.
type Delivery struct {
	MessageID   string     `json:"message_id"`         // the webhook-id: of one event always the same
	Position    string     `json:"position,omitempty"` // of the decision that the event is; none of a test
	Type        string     `json:"type"`
	Cause       string     `json:"cause"`   // event, test, redrive or redeliver
	Attempt     int        `json:"attempt"` // from 1
	At          time.Time  `json:"at"`
	DurationMS  int64      `json:"duration_ms"`
	Status      int        `json:"status,omitempty"` // of the HTTP answer; 0 where there was none
	Outcome     string     `json:"outcome"`          // accepted, failed or poisoned
	Error       string     `json:"error,omitempty"`
	NextAttempt *time.Time `json:"next_attempt,omitempty"`
}

const webhooksPath = "api/webhooks"

func webhookPath(id string) string { return webhooksPath + "/" + url.PathEscape(id) }

// CreateWebhook registers a webhook, and returns it with its secret, which is never shown again. It is not tried again where it
// is not known whether the webhook was registered.
func (c *Client) CreateWebhook(ctx context.Context, webhook NewWebhook) (*Webhook, error) {
	return ask[Webhook](ctx, c, call{method: http.MethodPost, path: webhooksPath, body: webhook})
}

// Webhooks returns the webhooks of the account.
func (c *Client) Webhooks(ctx context.Context) ([]Webhook, error) {
	list, err := get[struct{ Webhooks []Webhook }](ctx, c, call{path: webhooksPath})
	if err != nil {
		return nil, err
	}
	return list.Webhooks, nil
}

// Webhook returns a webhook, with how far it is. The error is a *Problem with WebhookNotFound where the account has none of the id.
func (c *Client) Webhook(ctx context.Context, id string) (*Webhook, error) {
	return get[Webhook](ctx, c, call{path: webhookPath(id)})
}

// UpdateWebhook changes a webhook. With a version other than 0 it changes that one only: the error is a *Problem with
// WebhookVersionConflict when the webhook has another by now.
func (c *Client) UpdateWebhook(ctx context.Context, id string, change WebhookChange, version int64) (*Webhook, error) {
	k := call{method: http.MethodPatch, path: webhookPath(id), header: ifMatch(version), body: change}
	k.header.Set("Content-Type", "application/merge-patch+json")
	return ask[Webhook](ctx, c, k)
}

// DeleteWebhook has a webhook sent nothing any more, and forgotten.
func (c *Client) DeleteWebhook(ctx context.Context, id string) error {
	_, err := c.do(ctx, call{method: http.MethodDelete, path: webhookPath(id)})
	return err
}

// RotateWebhookSecret gives a webhook a new secret. The one before signs too for as long as keep says, at most a week.
func (c *Client) RotateWebhookSecret(ctx context.Context, id string, keep time.Duration) (*RotatedSecret, error) {
	body := map[string]int64{"keep_seconds": int64(keep / time.Second)}
	return ask[RotatedSecret](ctx, c, call{method: http.MethodPost, path: webhookPath(id) + "/secret", body: body})
}

// TestWebhook has a test sent to a webhook, and returns what became of it.
func (c *Client) TestWebhook(ctx context.Context, id string) (*Delivery, error) {
	return ask[Delivery](ctx, c, call{method: http.MethodPost, path: webhookPath(id) + "/test"})
}

// Deliveries yields the deliveries to a webhook that are in the log, the latest first.
func (c *Client) Deliveries(ctx context.Context, id string) iter.Seq2[Delivery, error] {
	return list(ctx, c, call{path: webhookPath(id) + "/deliveries"}, func(page struct{ Deliveries []Delivery }) []Delivery { return page.Deliveries })
}

// ask returns what a call that changes something is answered.
func ask[answer any](ctx context.Context, c *Client, k call) (*answer, error) {
	a := new(answer)
	k.into = a
	if _, err := c.do(ctx, k); err != nil {
		return nil, err
	}
	return a, nil
}
