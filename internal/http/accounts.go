package http

import (
	"errors"
	"fmt"
	nethttp "net/http"

	"github.com/labstack/echo/v4"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

const accountsPath = "/api/admin/accounts"

type accountsForm struct {
	Accounts []*accountForm `json:"accounts"`
}

// planForm is a change of a plan.
type planForm struct {
	Account       string     `json:"account"`
	Plan          string     `json:"plan"`
	Limit         int64      `json:"limit"`
	PreviousPlan  string     `json:"previous_plan"`
	PreviousLimit int64      `json:"previous_limit"`
	By            string     `json:"by"`
	Reason        string     `json:"reason,omitempty"`
	Quota         *quotaForm `json:"quota"`
	Receipt       receipt    `json:"receipt"`
}

// What to do where it is not known whether a request was recorded.
const (
	unknownOpening = "the account may be open; sending the request again is safe, and answered with account_exists if it is"
	unknownChange  = "the request may have been recorded; sending it again is safe"
)

// getAccounts answers GET /api/admin/accounts: a page of accounts, by name.
func (a *api) getAccounts(c echo.Context) error {
	c.Response().Header().Set("Cache-Control", "private, no-cache")
	after, limit, err := readPage(c, accountsPath)
	if err != nil {
		return err
	}
	accounts, err := a.backend.Accounts(c.Request().Context(), after, limit+1)
	if err != nil {
		return fmt.Errorf("read the accounts: %w", err)
	}
	if len(accounts) > limit {
		accounts = accounts[:limit]
		tellNext(c, accountsPath, accounts[limit-1].Name, limit)
	}
	page := accountsForm{Accounts: []*accountForm{}}
	for i := range accounts {
		form, err := a.formOfAccount(c, &accounts[i])
		var erased *problem
		if errors.As(err, &erased) {
			continue // a moment ago
		}
		if err != nil {
			return err
		}
		page.Accounts = append(page.Accounts, form)
	}
	return writeJSON(c, nethttp.StatusOK, page)
}

// getAccount answers GET /api/admin/accounts/{account}.
func (a *api) getAccount(c echo.Context) error {
	account, err := a.account(c, c.Param(accountParam), detailNoAccount)
	if err != nil {
		return err
	}
	form, err := a.formOfAccount(c, &account)
	if err != nil {
		return err
	}
	form.PlanChanged = &planChangedForm{
		formatTime(account.PlanAt), account.PlanSetBy.By, account.PlanSetBy.Reason, account.PlanPosition,
	}
	return writeJSON(c, nethttp.StatusOK, form)
}

// postAccount answers POST /api/admin/accounts. An account that is open is answered with 409.
func (a *api) postAccount(c echo.Context) error {
	body, err := readAsked(c)
	if err != nil {
		return err
	}
	name, plan, err := decodeNewAccount(body, a.plans)
	if err != nil {
		return err
	}
	return a.reached(c, name, func(c echo.Context) error { return a.openAccount(c, name, plan) })
}

func (a *api) openAccount(c echo.Context, name string, p plan) error {
	_, err := a.backend.Account(c.Request().Context(), name)
	if err == nil {
		return newProblem(codeAccountExists, "")
	}
	if !errors.Is(err, events.ErrNotFound) {
		return fmt.Errorf("read account %s: %w", name, err)
	}
	done, err := a.ask(c, name, &events.AccountOpenRequested{Plan: p.name, Limit: p.limit, Who: byAdministrator(c, "")}, unknownOpening)
	if err != nil {
		return err
	}
	c.Response().Header().Set("Location", accountPath(name))
	if done.decision == nil {
		return done.pending(c)
	}
	opened, ok := done.decision.Body.(*events.AccountOpened)
	if !ok {
		return fmt.Errorf("decision %s does not open account %s", done.position, name)
	}
	form, err := a.formOfAccount(c, &capture.StoredAccount{Name: name, Plan: opened.Plan, Limit: opened.Limit, OpenedAt: done.decision.Time})
	if err != nil {
		return err
	}
	of := receiptOf(done.decision)
	form.Receipt = &of
	return writeJSON(c, nethttp.StatusCreated, form)
}

// putPlan answers PUT /api/admin/accounts/{account}/plan. The plan holds from the next decision on.
func (a *api) putPlan(c echo.Context) error {
	body, err := readAsked(c)
	if err != nil {
		return err
	}
	plan, reason, err := decodeNewPlan(body, a.plans)
	if err != nil {
		return err
	}
	name := c.Param(accountParam)
	if _, err := a.account(c, name, detailNoAccount); err != nil {
		return err
	}
	done, err := a.ask(c, name, &events.PlanChangeRequested{Plan: plan.name, Limit: plan.limit, Who: byAdministrator(c, reason)}, unknownChange)
	if err != nil {
		return err
	}
	if done.decision == nil {
		return done.pending(c)
	}
	return a.writePlan(c, done.decision)
}

func (a *api) writePlan(c echo.Context, d *events.Decision) error {
	changed, ok := d.Body.(*events.PlanChanged)
	if !ok {
		return fmt.Errorf("decision %s does not change the plan of account %s", d.Position, d.Account)
	}
	quota, err := a.quotaOf(c, d.Account, changed.Limit)
	if err != nil {
		return err
	}
	return writeJSON(c, nethttp.StatusOK, &planForm{
		Account: d.Account, Plan: changed.Plan, Limit: changed.Limit, PreviousPlan: changed.PreviousPlan, PreviousLimit: changed.PreviousLimit,
		By: changed.By, Reason: changed.Reason, Quota: quota, Receipt: receiptOf(d),
	})
}

func accountPath(name string) string { return accountsPath + "/" + name }
