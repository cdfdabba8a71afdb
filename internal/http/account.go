package http

import (
	"errors"
	"fmt"
	nethttp "net/http"

	"github.com/labstack/echo/v4"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// accountForm is an account as its owner and administrators see it.
type accountForm struct {
	Account  string     `json:"account"`
	Plan     string     `json:"plan"`
	Limit    int64      `json:"limit"`
	OpenedAt string     `json:"opened_at"`
	Quota    *quotaForm `json:"quota"` // of the month in which the next capture counts

	PlanChanged *planChangedForm `json:"plan_changed,omitempty"`
	Token       *ownTokenForm    `json:"token,omitempty"`
	Receipt     *receipt         `json:"receipt,omitempty"`
}

// planChangedForm is the decision that set the plan.
type planChangedForm struct {
	At       string          `json:"at"`
	By       string          `json:"by,omitempty"`
	Reason   string          `json:"reason,omitempty"`
	Position events.Position `json:"position"`
}

// ownTokenForm is the token of the call.
type ownTokenForm struct {
	ID        string   `json:"id"`
	Name      string   `json:"name,omitempty"`
	Scopes    []string `json:"scopes"`
	ExpiresAt string   `json:"expires_at,omitempty"`
}

// getOwnAccount answers GET /api/account: the account of the token, and the token. Any token will do.
func (a *api) getOwnAccount(c echo.Context) error {
	account, err := a.account(c, callOf(c).account, "")
	if err != nil {
		return err
	}
	form, err := a.formOfAccount(c, &account)
	if err != nil {
		return err
	}
	held := &callOf(c).token
	form.Token = &ownTokenForm{held.ID, held.Name, held.Granted(), expiryOf(held)}
	return writeJSON(c, nethttp.StatusOK, form)
}

// account returns an account, or the problem that there is none, with a detail unless it is the caller's own.
func (a *api) account(c echo.Context, name, detail string) (capture.StoredAccount, error) {
	account, err := a.backend.Account(c.Request().Context(), name)
	if errors.Is(err, events.ErrNotFound) {
		return account, newProblem(codeAccountUnknown, detail)
	}
	if err != nil {
		return account, fmt.Errorf("read account %s: %w", name, err)
	}
	return account, nil
}

// formOfAccount returns what everybody is told of an account. The problem is that it was erased meanwhile.
func (a *api) formOfAccount(c echo.Context, account *capture.StoredAccount) (*accountForm, error) {
	quota, err := a.quotaOf(c, account.Name, account.Limit)
	if err != nil {
		return nil, err
	}
	return &accountForm{
		Account: account.Name, Plan: account.Plan, Limit: account.Limit, OpenedAt: formatTime(account.OpenedAt), Quota: quota,
	}, nil
}

// quotaOf returns the quota of an account, now, under a limit.
func (a *api) quotaOf(c echo.Context, account string, limit int64) (*quotaForm, error) {
	month := a.backend.CountsIn(account, events.MonthOf(callOf(c).now))
	quota, err := a.backend.Quota(c.Request().Context(), account, month)
	if errors.Is(err, events.ErrNotFound) {
		return nil, newProblem(codeAccountUnknown, detailNoAccount)
	}
	if err != nil {
		return nil, fmt.Errorf("read the quota of account %s: %w", account, err)
	}
	quota.Limit = limit
	return formOfQuota(quota), nil
}
