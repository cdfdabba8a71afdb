package http

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"jobtally/internal/capture"
	"jobtally/internal/events"
	"jobtally/internal/token"
)

// authenticated calls handler on a node that has caught up, once it is known whose call it is, that its token has the scope,
// and once the node has folded the position that the call asks for. The answer says which position the node has folded.
// Without a scope any token will do.
func (a *api) authenticated(scope string, handler echo.HandlerFunc) echo.HandlerFunc {
	return a.identified(func(c echo.Context, held capture.Token) error {
		if scope != "" && !held.Has(scope) {
			return scopeMissing(scope)
		}
		return a.reached(c, held.Account, handler)
	})
}

// administered calls handler likewise, for a token of scope admin. Positions are those of the account that the path names.
func (a *api) administered(handler echo.HandlerFunc) echo.HandlerFunc {
	return a.administrator(func(c echo.Context) error {
		if err := events.ValidAccount(c.Param(accountParam)); err != nil {
			return newProblem(codeAccountUnknown, err.Error())
		}
		return a.reached(c, c.Param(accountParam), handler)
	})
}

// administrator calls handler on a node that has caught up, for a token of scope admin.
func (a *api) administrator(handler echo.HandlerFunc) echo.HandlerFunc {
	return a.identified(func(c echo.Context, held capture.Token) error {
		if !held.Has(events.ScopeAdmin) {
			return scopeMissing(events.ScopeAdmin)
		}
		return handler(c)
	})
}

// accountParam is the part of a path that names an account.
const accountParam = "account"

// identified calls next with the token of the call, on a node that has caught up.
func (a *api) identified(next func(echo.Context, capture.Token) error) echo.HandlerFunc {
	return func(c echo.Context) error {
		if !a.backend.CaughtUp() {
			return newProblem(codeNotReady, "this node is folding what the ledger had when it started; try again soon")
		}
		held, err := a.authenticate(c)
		if err != nil {
			return err
		}
		k := callOf(c)
		k.account, k.token, k.accepted = held.Account, held, time.Now()
		a.backend.NoteUse(held.ID, k.now)
		return a.limits.admitted(c, held, next)
	}
}

// detailOutdated is what a client is told that asks for more than can be read meanwhile.
const detailOutdated = "this node is folding the ledger anew, for a new version, and only reads; try again soon"

// folding calls handler on a node that folds, and so can take a capture.
func (a *api) folding(handler echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if a.backend.Outdated() {
			return newProblem(codeNotReady, detailOutdated)
		}
		return handler(c)
	}
}

// reached calls handler once the node has folded the position that the call asks for, in the partition of an account.
func (a *api) reached(c echo.Context, account string, handler echo.HandlerFunc) error {
	callOf(c).partition = events.PartitionOf(account, a.backend.Partitions)
	c.Response().Header().Set("Cache-Control", "private, no-cache")
	a.tellPosition(c)
	if err := a.reachPosition(c); err != nil {
		return err
	}
	return handler(c)
}

// authenticate returns the token of the call's Authorization header as it was issued. A typo is refused without a look-up,
// and that a token is revoked, or has expired, is told only to who holds its secret.
func (a *api) authenticate(c echo.Context) (issued capture.Token, err error) {
	scheme, credentials, _ := strings.Cut(c.Request().Header.Get("Authorization"), " ")
	credentials = strings.Trim(credentials, " ")
	if !strings.EqualFold(scheme, "Bearer") || credentials == "" {
		return issued, newProblem(codeTokenMissing, "")
	}
	held, err := token.Parse(credentials)
	if err != nil {
		return issued, newProblem(codeTokenMalformed, err.Error())
	}
	candidates, err := a.backend.Tokens(c.Request().Context(), held.ID())
	if err != nil {
		return issued, fmt.Errorf("look up token %s: %w", held.ID(), err)
	}
	return issuedAs(held, candidates, callOf(c).now)
}

// issuedAs returns the one of the issued tokens that the held one is, if it is accepted now.
func issuedAs(held token.Token, candidates []capture.Token, now time.Time) (capture.Token, error) {
	refused := newProblem(codeTokenUnknown, "")
	for i := range candidates {
		switch candidate := &candidates[i]; {
		case !held.Matches(candidate.SecretHash):
		case candidate.Revoked:
			refused = newProblem(codeTokenRevoked, "")
		case candidate.Expired(now):
			refused = newProblem(codeTokenExpired, "the token expired at "+candidate.ExpiresAt.UTC().Format(time.RFC3339)+"; ask for a new one")
		default:
			return *candidate, nil
		}
	}
	return capture.Token{}, refused
}

// acceptedFor is for how long it is taken for granted that a token which was accepted is not revoked since. A call that waits,
// for its body or for a position, may wait longer than its token lasts.
const acceptedFor = 100 * time.Millisecond

// recordable returns the problem that the token of a call is not accepted any more, before something is recorded for it. It
// is answered as if it had not been accepted at first.
func (a *api) recordable(c echo.Context) error {
	k := callOf(c)
	if time.Since(k.accepted) < acceptedFor {
		return nil
	}
	err := a.accepted(c, k.now)
	if refused := (*problem)(nil); errors.As(err, &refused) {
		c.Response().Header().Del(headerLedgerPosition)
		c.Response().Header().Del(headerIdempotencyKey)
	}
	return err
}

// accepted returns the problem that the token of a call is not accepted any more at a time.
func (a *api) accepted(c echo.Context, now time.Time) error {
	k := callOf(c)
	candidates, err := a.backend.Tokens(c.Request().Context(), k.token.ID)
	if err != nil {
		return fmt.Errorf("look up token %s again: %w", k.token.ID, err)
	}
	refused := newProblem(codeTokenUnknown, "")
	for i := range candidates {
		switch candidate := &candidates[i]; {
		case candidate.SecretHash != k.token.SecretHash:
		case candidate.Revoked:
			refused = newProblem(codeTokenRevoked, "")
		case candidate.Expired(now):
			refused = newProblem(codeTokenExpired, "")
		default:
			return nil
		}
	}
	return refused
}

// scopeMissing returns the problem of a token without the scope that a call needs.
func scopeMissing(scope string) *problem {
	p := newProblem(codeScopeMissing, "this call needs a token of scope "+scope)
	p.scope = scope
	return p
}
