package http

import (
	"context"
	"errors"
	"fmt"
	nethttp "net/http"
	"slices"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"jobtally/internal/events"
	"jobtally/internal/webhook"
)

const webhooksPath = "/api/webhooks"

// Webhooks is what the API needs of a relay. An account sees its own endpoints only: another's id is events.ErrNotFound. With
// events.ErrUnavailable it is not known whether something was changed.
type Webhooks struct {
	// Create registers an endpoint; Secrets of what it returns has its secret. The error is a *webhook.URLError, or
	// webhook.ErrTooMany.
	Create func(ctx context.Context, account, url, description string, types []string) (webhook.Endpoint, error)
	// List returns the endpoints of an account, in the order in which they were registered.
	List func(ctx context.Context, account string) ([]webhook.Endpoint, error)
	// Get returns an endpoint, and Progress how far it is.
	Get      func(ctx context.Context, account, id string) (webhook.Endpoint, error)
	Progress func(context.Context, webhook.Endpoint) (webhook.Progress, error)
	// Change changes an endpoint of a version, or with 0 of any. The error is a *webhook.URLError, or webhook.ErrVersion.
	Change func(ctx context.Context, account, id string, version uint64, c webhook.Change) (webhook.Endpoint, error)
	// Rotate gives an endpoint another secret, and keeps the one that it had for so long.
	Rotate func(ctx context.Context, account, id string, keep time.Duration) (webhook.Endpoint, error)
	// Remove removes an endpoint of a version, or with 0 of any. The error is webhook.ErrVersion.
	Remove func(ctx context.Context, account, id string, version uint64) error
	// Test sends a test, and returns what became of it.
	Test func(ctx context.Context, account, id string) (webhook.Delivery, error)
	// Deliveries returns the latest deliveries before one, or with 0 the latest of all, the latest first; none where there is no
	// such endpoint.
	Deliveries func(ctx context.Context, account, id string, before uint64, limit int) ([]webhook.Delivery, error)
}

func (a *api) routeWebhooks(e *echo.Echo, get func(string, echo.HandlerFunc), reading, writing func(echo.HandlerFunc) echo.HandlerFunc) {
	const one = webhooksPath + "/:id"
	get(webhooksPath, reading(a.webhooks(a.getWebhooks)))
	e.POST(webhooksPath, writing(a.webhooks(a.postWebhook)))
	get(one, reading(a.webhooks(a.getWebhook)))
	e.PATCH(one, writing(a.webhooks(a.patchWebhook)))
	e.DELETE(one, writing(a.webhooks(a.deleteWebhook)))
	e.POST(one+"/secret", writing(a.webhooks(a.postWebhookSecret)))
	e.POST(one+"/test", writing(a.webhooks(a.postWebhookTest)))
	get(one+"/deliveries", reading(a.webhooks(a.getDeliveries)))
}

// webhooks calls handler with the relay of the node, and turns its errors into problems.
func (a *api) webhooks(handler func(echo.Context, *Webhooks) error) echo.HandlerFunc {
	return func(c echo.Context) error {
		relay, err := a.backend.Webhooks()
		if errors.Is(err, events.ErrUnavailable) {
			a.logFailure(c, err)
			return newProblem(codeWebhooksUnavailable, "")
		}
		if err == nil {
			err = handler(c, &relay)
		}
		return a.webhookProblem(c, err)
	}
}

func (a *api) webhookProblem(c echo.Context, err error) error {
	var url *webhook.URLError
	switch {
	case errors.As(err, &url):
		return invalidFields([]fieldError{{"url", "cannot be used: " + url.Reason}})
	case errors.Is(err, webhook.ErrTooMany):
		return newProblem(codeTooManyWebhooks, "")
	case errors.Is(err, webhook.ErrUnreadable):
		a.logFailure(c, err)
		return newProblem(codeWebhooksUnavailable, "the webhook is stored in a form that this service cannot read; its operator can tell why. Nothing was changed, and it can be deleted")
	case errors.Is(err, webhook.ErrVersion):
		return newProblem(codeWebhookChanged, "the webhook was changed meanwhile; read it, and send the change again")
	case errors.Is(err, events.ErrNotFound):
		return newProblem(codeWebhookNotFound, "")
	case errors.Is(err, events.ErrUnavailable):
		a.logFailure(c, err)
		if method := c.Request().Method; method == nethttp.MethodGet || method == nethttp.MethodHead {
			return newProblem(codeWebhooksUnavailable, "")
		}
		return newProblem(codeOutcomeUnknown, "the webhook may have been changed: read it before you send the request again")
	}
	return err
}

type webhooksForm struct {
	Webhooks []*webhookForm `json:"webhooks"`
}

// webhookForm is an endpoint as its account sees it. Only the answer to its registration has the secret.
type webhookForm struct {
	ID          string          `json:"id"`
	URL         string          `json:"url"`
	Types       []string        `json:"types"` // none for all
	Description string          `json:"description,omitempty"`
	State       webhook.State   `json:"state"`
	StateSince  string          `json:"state_since"`
	CreatedAt   string          `json:"created_at"`
	After       events.Position `json:"after"`
	Version     uint64          `json:"version"`
	Secret      string          `json:"secret,omitempty"`
	Progress    *progressForm   `json:"progress,omitempty"`
}

// progressForm says how far the delivery of an endpoint's events is.
type progressForm struct {
	Pending             uint64           `json:"pending"`
	Delivered           *events.Position `json:"delivered,omitempty"`
	Attempts            int              `json:"attempts"`
	ConsecutiveFailures int              `json:"consecutive_failures"`
	FailingSince        string           `json:"failing_since,omitempty"`
	NextAttempt         string           `json:"next_attempt,omitempty"`
	LastSuccess         string           `json:"last_success,omitempty"`
	Circuit             string           `json:"circuit"`
	Poisoned            uint64           `json:"poisoned"`
	WaitsFor            string           `json:"waits_for,omitempty"` // where that is not the endpoint
}

func formOfWebhook(e *webhook.Endpoint) *webhookForm {
	types := e.Types
	if types == nil {
		types = []string{}
	}
	return &webhookForm{
		ID: e.ID, URL: e.URL, Types: types, Description: e.Description, State: e.State, StateSince: formatTime(e.StateSince),
		CreatedAt: formatTime(e.CreatedAt), After: e.After, Version: e.Version,
	}
}

func formOfProgress(p *webhook.Progress) *progressForm {
	form := &progressForm{
		Pending: p.Pending, Attempts: p.Attempts, ConsecutiveFailures: p.ConsecutiveFailures, FailingSince: timeOrNothing(p.FailingSince),
		NextAttempt: timeOrNothing(p.NextAttempt), LastSuccess: timeOrNothing(p.LastSuccess), Circuit: "closed", Poisoned: p.Poisoned, WaitsFor: p.Waits,
	}
	if p.Delivered.Sequence > 0 {
		form.Delivered = &p.Delivered
	}
	if p.Open {
		form.Circuit = "open"
	}
	return form
}

func timeOrNothing(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return formatTime(t)
}

// webhookETag names a version of what can be changed of an endpoint: for If-Match. How far it is changes without it, and so
// nothing is answered with 304.
func webhookETag(version uint64) string { return `"` + strconv.FormatUint(version, 10) + `"` }

// getWebhooks answers GET /api/webhooks: all of the account, which are few.
func (a *api) getWebhooks(c echo.Context, relay *Webhooks) error {
	endpoints, err := relay.List(c.Request().Context(), callOf(c).account)
	if err != nil {
		return err
	}
	form := webhooksForm{Webhooks: []*webhookForm{}}
	for i := range endpoints {
		form.Webhooks = append(form.Webhooks, formOfWebhook(&endpoints[i]))
	}
	return writeTagged(c, encode(&form))
}

// getWebhook answers GET /api/webhooks/{id}.
func (a *api) getWebhook(c echo.Context, relay *Webhooks) error {
	ctx := c.Request().Context()
	e, err := relay.Get(ctx, callOf(c).account, c.Param("id"))
	if err != nil {
		return err
	}
	progress, err := relay.Progress(ctx, e)
	if err != nil {
		return fmt.Errorf("read how far webhook %s is: %w", e.ID, err)
	}
	form := formOfWebhook(&e)
	form.Progress = formOfProgress(&progress)
	return writeWebhook(c, nethttp.StatusOK, form)
}

func writeWebhook(c echo.Context, status int, form *webhookForm) error {
	header := c.Response().Header()
	header["Etag"] = []string{webhookETag(form.Version)}
	header.Set("Cache-Control", "no-store")
	return writeJSON(c, status, form)
}

// postWebhook answers POST /api/webhooks. The answer has the secret, this once.
func (a *api) postWebhook(c echo.Context, relay *Webhooks) error {
	if err := checkNoQuery(c.Request().URL); err != nil {
		return err
	}
	body, err := readBody(c)
	if err != nil {
		return err
	}
	asked, err := decodeNewWebhook(body)
	if err != nil {
		return err
	}
	if err := a.recordable(c); err != nil {
		return err
	}
	e, err := relay.Create(c.Request().Context(), callOf(c).account, *asked.URL, *asked.Description, *asked.Types)
	if err != nil {
		return err
	}
	form := formOfWebhook(&e)
	form.Secret = e.Secrets[0].Value
	c.Response().Header().Set("Location", webhooksPath+"/"+e.ID)
	return writeWebhook(c, nethttp.StatusCreated, form)
}

// patchWebhook answers PATCH /api/webhooks/{id}.
func (a *api) patchWebhook(c echo.Context, relay *Webhooks) error {
	c.Response().Header().Set("Accept-Patch", mergePatchContentType+", "+jsonContentType)
	if err := checkNoQuery(c.Request().URL); err != nil {
		return err
	}
	version, err := a.ifWebhookVersion(c, relay)
	if err != nil {
		return err
	}
	body, _, err := readBodyOf(c, maxBodyBytes, mergePatchContentType, jsonContentType)
	if err != nil {
		return err
	}
	change, err := decodeWebhookPatch(body)
	if err != nil {
		return err
	}
	if err := a.recordable(c); err != nil {
		return err
	}
	if change.URL != nil || change.Enabled != nil && *change.Enabled {
		callOf(c).cost = sendCost
	}
	e, err := relay.Change(c.Request().Context(), callOf(c).account, c.Param("id"), version, change)
	if err != nil {
		return err
	}
	return writeWebhook(c, nethttp.StatusOK, formOfWebhook(&e))
}

// ifWebhookVersion returns the version that If-Match asks for, 0 for any. An endpoint that is not there is the error also of a
// call that asks for one.
func (a *api) ifWebhookVersion(c echo.Context, relay *Webhooks) (uint64, error) {
	tags, any, err := parseIfMatch(c.Request().Header)
	if err != nil || any {
		return 0, err
	}
	e, err := relay.Get(c.Request().Context(), callOf(c).account, c.Param("id"))
	if err != nil {
		return 0, err
	}
	if !slices.Contains(tags, webhookETag(e.Version)) {
		p := newProblem(codeWebhookChanged, fmt.Sprintf("the webhook has version %d, which If-Match does not name; read it, and send the change again", e.Version))
		p.Version = int64(e.Version)
		return 0, p
	}
	return e.Version, nil
}

// deleteWebhook answers DELETE /api/webhooks/{id}: with it goes what was not delivered.
func (a *api) deleteWebhook(c echo.Context, relay *Webhooks) error {
	if err := checkNoQuery(c.Request().URL); err != nil {
		return err
	}
	version, err := a.ifWebhookVersion(c, relay)
	if err != nil {
		return err
	}
	if err := a.recordable(c); err != nil {
		return err
	}
	if err := relay.Remove(c.Request().Context(), callOf(c).account, c.Param("id"), version); err != nil {
		return err
	}
	return c.NoContent(nethttp.StatusNoContent)
}
