package http

import (
	"context"
	"errors"
	"fmt"
	nethttp "net/http"

	"github.com/labstack/echo/v4"

	"jobtally/internal/events"
)

// getCapture answers GET /api/jobs/captures/{position}: what became of a capture. By itself it does not wait.
// A position of another account is as unknown as one that is not there.
func (a *api) getCapture(c echo.Context) error {
	c.Response().Header().Add("Vary", "Prefer")
	position, err := events.ParsePosition(c.Param("position"))
	if err != nil {
		return newProblem(codeInvalidPosition, "")
	}
	recorded(c, position)
	decision, folded, err := a.lookUp(c, position)
	if errors.Is(err, events.ErrNotFound) {
		return newProblem(codeCaptureNotFound, "")
	}
	if err != nil {
		return fmt.Errorf("look up the capture at %s: %w", position, err)
	}
	prefer := parsePrefer(c.Request().Header["Prefer"])
	prefer.async = false // there is nothing to be done later
	if !folded {
		decision, folded, err = a.decision(c, position, prefer.patience(0))
		if errors.Is(err, events.ErrNotFound) {
			return newProblem(codeCaptureNotFound, "")
		}
	}
	prefer.apply(c.Response().Header(), !folded)
	if !folded {
		return writePending(c, nethttp.StatusOK, position)
	}
	a.tellPosition(c)
	return a.writeCapture(c, decision)
}

// lookUp returns the decision at a position of the account, or that it is not folded yet. The error is
// events.ErrNotFound for what is not the account's.
func (a *api) lookUp(c echo.Context, p events.Position) (d events.Decision, folded bool, err error) {
	k, ctx := callOf(c), c.Request().Context()
	if p.Partition != k.partition {
		return d, false, events.ErrNotFound
	}
	known := p.Sequence <= a.backend.Folded(p.Partition)
	d, err = a.ownDecision(ctx, k.account, p)
	if known || !errors.Is(err, events.ErrNotFound) {
		return d, true, err // what was erased has no decision any more, but a request as long as it is not removed
	}
	requester, err := a.backend.Requester(ctx, p)
	if err == nil && requester == k.account {
		return d, false, nil
	}
	if err != nil && !errors.Is(err, events.ErrNotFound) {
		return d, false, err
	}
	d, err = a.ownDecision(ctx, k.account, p) // it may have been folded between the two looks
	return d, true, err
}

// ownDecision returns a folded decision of the account, or events.ErrNotFound.
func (a *api) ownDecision(ctx context.Context, account string, p events.Position) (events.Decision, error) {
	d, err := a.backend.Decision(ctx, p)
	if err == nil && d.Account != account {
		return events.Decision{}, events.ErrNotFound
	}
	return d, err
}

// writeCapture tells what was decided: whatever it was, looking it up succeeded.
func (a *api) writeCapture(c echo.Context, d events.Decision) error {
	d, _, err := a.first(c, d)
	if err != nil {
		return a.unlessErased(c, err)
	}
	said, err := a.answerTo(c, &d)
	if errors.Is(err, errNoCapture) {
		return newProblem(codeCaptureNotFound, "")
	}
	if err != nil {
		return a.unlessErased(c, err)
	}
	return writeJSON(c, nethttp.StatusOK, said)
}
