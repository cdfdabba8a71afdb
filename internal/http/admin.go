package http

import (
	"errors"
	"fmt"
	nethttp "net/http"

	"github.com/labstack/echo/v4"

	"jobtally/internal/events"
)

const outcomeErased = "erased"

// erasedForm is an erasure as administrators see it: what went, and the counts that stay.
type erasedForm struct {
	Outcome  string            `json:"outcome"`
	Account  string            `json:"account"`
	Requests int64             `json:"requests"`
	Months   []erasedMonthForm `json:"months"`
	Receipt  receipt           `json:"receipt"`
}

type erasedMonthForm struct {
	Month      events.Month `json:"month"`
	Requests   int64        `json:"requests"`
	Captured   int64        `json:"captured"`
	Duplicated int64        `json:"duplicated"`
	Rejected   int64        `json:"rejected"`
	Repeated   int64        `json:"repeated"`
}

// deleteAccount answers DELETE /api/admin/accounts/{account}: nothing of the account is served any more once it is
// answered, and what the ledger has of it is removed soon after. An account that is erased already is answered with that
// erasure, and so is whoever asks again under the same Idempotency-Key, also when the account was opened anew meanwhile.
func (a *api) deleteAccount(c echo.Context) error {
	header := c.Response().Header()
	header.Add("Vary", "Prefer")
	if err := checkNoQuery(c.Request().URL); err != nil {
		return err
	}
	id, err := idempotencyKey(c.Request().Header)
	if err != nil {
		return err
	}
	header.Set(headerIdempotencyKey, quoteKey(id))
	done, err := a.erased(c, id)
	if err != nil {
		return err
	}
	if done != nil {
		if done.RequestID == id {
			header.Set("Idempotent-Replayed", "true")
		}
		return writeErased(c, done)
	}
	return a.erase(c, &events.Request{
		Account: c.Param(accountParam), ID: id, Time: callOf(c).now, Body: &events.AccountEraseRequested{},
	})
}

// erased returns the erasure of this request, or of an account that is not open, and nil for one that is still to be erased.
func (a *api) erased(c echo.Context, id string) (*events.Decision, error) {
	ctx, account := c.Request().Context(), c.Param(accountParam)
	erasures, err := a.backend.Erasures(ctx, account)
	if err != nil {
		return nil, fmt.Errorf("look up the erasures of account %s: %w", account, err)
	}
	for i := range erasures {
		if erasures[i].RequestID == id {
			return &erasures[i], nil
		}
	}
	_, err = a.backend.Quota(ctx, account, events.MonthOf(callOf(c).now))
	switch {
	case err == nil:
		return nil, nil
	case !errors.Is(err, events.ErrNotFound):
		return nil, fmt.Errorf("look up account %s: %w", account, err)
	case len(erasures) == 0:
		return nil, newProblem(codeAccountUnknown, "there is no account of this name, and never was")
	}
	return &erasures[len(erasures)-1], nil
}

func (a *api) erase(c echo.Context, request *events.Request) error {
	done, err := a.record(c, request)
	if err != nil {
		return err
	}
	if done.decision == nil {
		return done.pending(c)
	}
	return writeErased(c, done.decision)
}

func writeErased(c echo.Context, d *events.Decision) error {
	erased, ok := d.Body.(*events.AccountErased)
	if !ok {
		return fmt.Errorf("decision %s does not erase account %s", d.Position, d.Account)
	}
	form := erasedForm{
		Outcome: outcomeErased, Account: d.Account, Requests: erased.Requests, Months: []erasedMonthForm{}, Receipt: receiptOf(d),
	}
	for _, m := range erased.Months {
		form.Months = append(form.Months, erasedMonthForm{m.Month, m.Requests, m.Captured, m.Duplicated, m.Rejected, m.Repeated})
	}
	return writeJSON(c, nethttp.StatusOK, &form)
}
