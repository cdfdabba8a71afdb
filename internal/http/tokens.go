package http

import (
	"errors"
	"fmt"
	nethttp "net/http"
	"time"

	"github.com/labstack/echo/v4"

	"jobtally/internal/capture"
	"jobtally/internal/events"
	"jobtally/internal/token"
)

// tokenParam is the part of a path that names a token, by its id.
const tokenParam = "token"

const outcomeRevoked = "revoked"

type tokensForm struct {
	Tokens []tokenForm `json:"tokens"`
}

// tokenForm is a token as administrators see it: its secret is nowhere.
type tokenForm struct {
	ID        string   `json:"id"`
	Prefix    string   `json:"prefix"`              // with which its text begins
	LastFour  string   `json:"last_four,omitempty"` // characters of its text
	Name      string   `json:"name,omitempty"`
	Scopes    []string `json:"scopes"`
	IssuedAt  string   `json:"issued_at"`
	ExpiresAt string   `json:"expires_at,omitempty"`
	LastUsed  string   `json:"last_used,omitempty"` // the day, as this node saw it
	Status    string   `json:"status"`
}

// issuedForm is the one answer that has the secret.
type issuedForm struct {
	Outcome   string   `json:"outcome,omitempty"` // pending, or nothing
	Token     string   `json:"token"`
	ID        string   `json:"id"`
	Name      string   `json:"name,omitempty"`
	Scopes    []string `json:"scopes"`
	ExpiresAt string   `json:"expires_at,omitempty"`
	Receipt   receipt  `json:"receipt"`
}

type revokedForm struct {
	Outcome string  `json:"outcome"`
	ID      string  `json:"id"`
	Receipt receipt `json:"receipt"`
}

// getTokens answers GET /api/admin/accounts/{account}/tokens: a page of tokens, by id.
func (a *api) getTokens(c echo.Context) error {
	name := c.Param(accountParam)
	list := tokensPath(name)
	after, limit, err := readPage(c, list)
	if err != nil {
		return err
	}
	if _, err := a.account(c, name, detailNoAccount); err != nil {
		return err
	}
	tokens, err := a.backend.TokensOf(c.Request().Context(), name, after, limit+1)
	if err != nil {
		return fmt.Errorf("read the tokens of account %s: %w", name, err)
	}
	if len(tokens) > limit {
		tokens = tokens[:limit]
		tellNext(c, list, tokens[limit-1].ID, limit)
	}
	page := tokensForm{Tokens: []tokenForm{}}
	for i := range tokens {
		page.Tokens = append(page.Tokens, a.formOfToken(&tokens[i], callOf(c).now))
	}
	return writeJSON(c, nethttp.StatusOK, page)
}

func (a *api) formOfToken(t *capture.Token, now time.Time) tokenForm {
	return tokenForm{
		ID: t.ID, Prefix: token.Prefix(t.ID), LastFour: t.LastFour, Name: t.Name, Scopes: t.Granted(), IssuedAt: formatTime(t.IssuedAt),
		ExpiresAt: expiryOf(t), LastUsed: a.backend.LastUsed(t.ID), Status: t.Status(now),
	}
}

// expiryOf returns until when a token is accepted, or nothing.
func expiryOf(t *capture.Token) string {
	if t.ExpiresAt.IsZero() {
		return ""
	}
	return formatTime(t.ExpiresAt)
}

// postToken answers POST /api/admin/accounts/{account}/tokens. The answer is the only one that ever has the token: also where
// its issue is pending. No retry is told it again, so there is no Idempotency-Key for it.
func (a *api) postToken(c echo.Context) error {
	body, err := readAsked(c)
	if err != nil {
		return err
	}
	terms, err := decodeNewToken(body, callOf(c).now)
	if err != nil {
		return err
	}
	name := c.Param(accountParam)
	if _, err := a.account(c, name, detailNoAccount); err != nil {
		return err
	}
	t := token.New()
	terms.LastFour = t.LastFour()
	done, err := a.ask(c, name, &events.TokenIssueRequested{
		TokenID: t.ID(), SecretHash: t.Hash(), TokenTerms: terms, Who: byAdministrator(c, ""),
	}, "token "+t.ID()+" may have been issued, and nobody has it: send the request again for another, and revoke that one if it is there")
	if err != nil {
		return err
	}
	return writeIssued(c, t, &capture.Token{TokenTerms: terms}, done)
}

func writeIssued(c echo.Context, t token.Token, terms *capture.Token, done asked) error {
	header, status := c.Response().Header(), nethttp.StatusCreated
	header.Set("Cache-Control", "no-store")
	form := &issuedForm{Token: t.Reveal(), ID: t.ID(), Name: terms.Name, Scopes: terms.Granted(), ExpiresAt: expiryOf(terms)}
	header.Set("Location", tokensPath(c.Param(accountParam))+"/"+t.ID())
	if done.decision == nil {
		status, form.Outcome, form.Receipt = nethttp.StatusAccepted, outcomePending, receipt{Position: done.position}
		header.Set("Retry-After", retryAfter)
	} else if _, ok := done.decision.Body.(*events.TokenIssued); !ok {
		return fmt.Errorf("decision %s does not issue a token", done.position)
	} else {
		form.Receipt = receiptOf(done.decision)
	}
	return writeJSON(c, status, form)
}

// deleteToken answers DELETE /api/admin/accounts/{account}/tokens/{token}, also for a token that is revoked already.
func (a *api) deleteToken(c echo.Context) error {
	c.Response().Header().Add("Vary", "Prefer")
	if err := checkNoQuery(c.Request().URL); err != nil {
		return err
	}
	name, id := c.Param(accountParam), c.Param(tokenParam)
	if err := a.checkToken(c, name, id); err != nil {
		return err
	}
	done, err := a.ask(c, name, &events.TokenRevokeRequested{TokenID: id, Who: byAdministrator(c, "")}, unknownChange)
	if err != nil {
		return err
	}
	if done.decision == nil {
		return done.pending(c)
	}
	revoked, ok := done.decision.Body.(*events.TokenRevoked)
	if !ok {
		return fmt.Errorf("decision %s does not revoke a token", done.position)
	}
	return writeJSON(c, nethttp.StatusOK, &revokedForm{outcomeRevoked, revoked.TokenID, receiptOf(done.decision)})
}

// checkToken returns the problem that an account is not there, or has no such token.
func (a *api) checkToken(c echo.Context, account, id string) error {
	if _, err := a.account(c, account, detailNoAccount); err != nil {
		return err
	}
	tokens, err := a.backend.Tokens(c.Request().Context(), id)
	if err != nil && !errors.Is(err, events.ErrNotFound) {
		return fmt.Errorf("look up token %s: %w", id, err)
	}
	for i := range tokens {
		if tokens[i].Account == account {
			return nil
		}
	}
	return newProblem(codeTokenNotFound, "")
}

func tokensPath(account string) string { return accountPath(account) + "/tokens" }
