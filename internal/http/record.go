package http

import (
	"errors"
	nethttp "net/http"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"jobtally/internal/events"
)

const detailNoAccount = "there is no account of this name"

// byAdministrator says who asks for something, by the token of the call, and why.
func byAdministrator(c echo.Context, reason string) events.Who {
	return events.Who{By: "token:" + callOf(c).token.ID, Reason: reason}
}

// readAsked reads the body of what an administrator asks for, which has no query, and may be answered before it is decided.
func readAsked(c echo.Context) ([]byte, error) {
	c.Response().Header().Add("Vary", "Prefer")
	if err := checkNoQuery(c.Request().URL); err != nil {
		return nil, err
	}
	return readBody(c)
}

// asked is what became of a request: the decision on it or, where that takes longer than the client waits, nil.
type asked struct {
	position events.Position
	decision *events.Decision
}

// ask records what an administrator asks of an account, under an id of its own, and returns what became of it. A refusal is
// the error that the client is told. When it is not known whether the request was recorded the detail says what to do.
func (a *api) ask(c echo.Context, account string, body events.RequestBody, unknown string) (asked, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return asked{}, err
	}
	r, err := a.record(c, &events.Request{Account: account, ID: id.String(), Time: callOf(c).now, Body: body})
	var p *problem
	if errors.As(err, &p) && p.Code == codeOutcomeUnknown {
		p.Detail = unknown
	}
	if err == nil && r.decision != nil {
		if refused, ok := r.decision.Body.(*events.RequestRefused); ok {
			return r, refusedAdministrator(r.decision, refused)
		}
	}
	return r, err
}

// record appends a request, and waits for the decision on it for as long as the client prefers.
func (a *api) record(c echo.Context, request *events.Request) (r asked, err error) {
	if err := a.recordable(c); err != nil {
		return r, err
	}
	if r.position, err = a.backend.Append(c.Request().Context(), request); err != nil {
		return r, a.appendFailed(c, err)
	}
	recorded(c, r.position)
	prefer := parsePrefer(c.Request().Header["Prefer"])
	decision, folded, err := a.decision(c, r.position, prefer.patience(captureWait))
	switch {
	case errors.Is(err, events.ErrNotFound) && request.Account == callOf(c).account: // erased meanwhile, with the request
		return r, newProblem(codeAccountUnknown, "")
	case errors.Is(err, events.ErrNotFound):
		return r, newProblem(codeAccountUnknown, detailNoAccount)
	case folded && !isOn(&decision, request):
		return r, a.appendFailed(c, onAnotherRequest(r.position))
	}
	prefer.apply(c.Response().Header(), !folded)
	if !folded {
		return r, nil
	}
	a.tellPosition(c)
	r.decision = &decision
	return r, nil
}

// pending answers that a request is recorded, and not decided or folded here yet.
func (r asked) pending(c echo.Context) error {
	return writePending(c, nethttp.StatusAccepted, r.position)
}

// refusedAdministrator returns the problem of a refused request.
func refusedAdministrator(d *events.Decision, refused *events.RequestRefused) *problem {
	var p *problem
	switch refused.Reason {
	case events.ReasonAccountExists:
		p = newProblem(codeAccountExists, "")
	case events.ReasonAccountUnknown:
		p = newProblem(codeAccountUnknown, detailNoAccount)
	case events.ReasonTokenUnknown:
		p = newProblem(codeTokenNotFound, "")
	default:
		p = newProblem(codeRequestRefused, refused.Detail)
	}
	of := receiptOf(d)
	p.Receipt = &of
	return p
}
