package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"time"
)

// Account is an account that is open.
type Account struct {
	Account  string    `json:"account"`
	Plan     string    `json:"plan"`
	Limit    int64     `json:"limit"` // captures a month; -1 is unlimited
	OpenedAt time.Time `json:"opened_at"`
	Quota    Quota     `json:"quota"`

	Token       *TokenInfo  `json:"token,omitempty"`        // of the caller's own account: the token that asked
	PlanChanged *PlanChange `json:"plan_changed,omitempty"` // for administrators, of an account that is asked for alone
	Receipt     *Receipt    `json:"receipt,omitempty"`      // of an account that was just opened
	Outcome     Outcome     `json:"outcome,omitempty"`      // Pending where the opening is recorded, and not decided yet: all else is empty
}

// PlanChange says who set a plan, when, and why.
type PlanChange struct {
	At       time.Time `json:"at"`
	By       string    `json:"by,omitempty"` // token:<id>, or operator
	Reason   string    `json:"reason,omitempty"`
	Position string    `json:"position"`
}

// Plan says what an account may capture: a plan of the catalogue, or a limit of its own.
type Plan struct {
	Plan   string `json:"plan,omitempty"`
	Limit  *int64 `json:"limit,omitempty"`
	Reason string `json:"reason,omitempty"` // for the record
}

// ChangedPlan is the plan of an account after a change, and before it.
type ChangedPlan struct {
	Account       string  `json:"account"`
	Plan          string  `json:"plan"`
	Limit         int64   `json:"limit"`
	PreviousPlan  string  `json:"previous_plan"`
	PreviousLimit int64   `json:"previous_limit"`
	By            string  `json:"by"`
	Reason        string  `json:"reason,omitempty"`
	Quota         Quota   `json:"quota"`
	Receipt       Receipt `json:"receipt"`
	Outcome       Outcome `json:"outcome,omitempty"` // Pending where the change is recorded, and not decided yet: all else is empty
}

// Account returns the account of the token.
func (c *Client) Account(ctx context.Context) (*Account, error) {
	return get[Account](ctx, c, call{path: "api/account"})
}

// Admin makes the calls of a token of scope admin.
type Admin struct{ c *Client }

// Admin returns what an administrator may call.
func (c *Client) Admin() Admin { return Admin{c} }

const accountsPath = "api/admin/accounts"

func accountPath(account string) string { return accountsPath + "/" + url.PathEscape(account) }

// Accounts yields the accounts that are open, in the order of their names.
func (a Admin) Accounts(ctx context.Context) iter.Seq2[Account, error] {
	return list(ctx, a.c, call{path: accountsPath, admin: true}, func(page struct{ Accounts []Account }) []Account { return page.Accounts })
}

// Account returns an account, and who set its plan.
func (a Admin) Account(ctx context.Context, account string) (*Account, error) {
	return get[Account](ctx, a.c, call{path: accountPath(account), admin: true})
}

// OpenAccount opens an account. The error is a *Problem with AccountExists when it is open already.
func (a Admin) OpenAccount(ctx context.Context, account string, plan Plan) (*Account, error) {
	opened := &Account{}
	body := struct {
		Account string `json:"account"`
		Plan
	}{account, plan}
	_, err := a.c.do(ctx, call{method: http.MethodPost, path: accountsPath, body: body, into: opened, admin: true})
	if err != nil {
		return nil, err
	}
	return opened, nil
}

// SetPlan puts an account on another plan, at once.
func (a Admin) SetPlan(ctx context.Context, account string, plan Plan) (*ChangedPlan, error) {
	changed := &ChangedPlan{}
	_, err := a.c.do(ctx, call{method: http.MethodPut, path: accountPath(account) + "/plan", body: plan, into: changed, again: true, admin: true})
	if err != nil {
		return nil, err
	}
	return changed, nil
}

// EraseAccount has everything of an account forgotten, for good. The outcome is Erased, or Pending.
func (a Admin) EraseAccount(ctx context.Context, account string) (Outcome, error) {
	return a.remove(ctx, accountPath(account))
}

// remove has what a path names removed, which does no harm where it is so already, and returns what became of that.
func (a Admin) remove(ctx context.Context, path string) (Outcome, error) {
	var answer struct{ Outcome Outcome }
	_, err := a.c.do(ctx, call{method: http.MethodDelete, path: path, into: &answer, again: true, admin: true})
	return answer.Outcome, err
}

// TokenInfo is a token as it is shown: without its secret.
type TokenInfo struct {
	ID        string     `json:"id"`
	Prefix    string     `json:"prefix,omitempty"`
	LastFour  string     `json:"last_four,omitempty"`
	Name      string     `json:"name,omitempty"`
	Scopes    []string   `json:"scopes,omitempty"`
	IssuedAt  *time.Time `json:"issued_at,omitempty"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"` // nil: never
	LastUsed  string     `json:"last_used,omitempty"`  // the day, as the node that answers saw it
	Status    string     `json:"status,omitempty"`     // active, expired or revoked
}

// TokenTerms are what a token is issued with. None is needed.
type TokenTerms struct {
	Name      string     `json:"name,omitempty"`
	Scopes    []string   `json:"scopes,omitempty"` // jobs:read, jobs:write, admin; both of the first two where neither is named
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
}

// IssuedToken is a token that was just issued. Token is its secret text, which is never shown again.
type IssuedToken struct {
	Token string `json:"token"`
	TokenInfo
	Receipt Receipt `json:"receipt"`
	Outcome Outcome `json:"outcome,omitempty"` // Pending where the issue is recorded: the token holds once that is decided
}

// IssueToken issues a token of an account. It is not tried again where it is not known whether it was issued.
func (a Admin) IssueToken(ctx context.Context, account string, terms TokenTerms) (*IssuedToken, error) {
	issued := &IssuedToken{}
	_, err := a.c.do(ctx, call{method: http.MethodPost, path: accountPath(account) + "/tokens", body: terms, into: issued, admin: true})
	if err != nil {
		return nil, err
	}
	return issued, nil
}

// Tokens yields the tokens of an account, in the order of their ids.
func (a Admin) Tokens(ctx context.Context, account string) iter.Seq2[TokenInfo, error] {
	return list(ctx, a.c, call{path: accountPath(account) + "/tokens", admin: true}, func(page struct{ Tokens []TokenInfo }) []TokenInfo { return page.Tokens })
}

// RevokeToken revokes a token of an account, by its id. Revoking it again does no harm. The outcome is Revoked, or Pending.
func (a Admin) RevokeToken(ctx context.Context, account, id string) (Outcome, error) {
	return a.remove(ctx, accountPath(account)+"/tokens/"+url.PathEscape(id))
}
