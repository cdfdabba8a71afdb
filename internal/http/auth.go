package http

import (
	"context"
	"fmt"
	"strings"

	"github.com/labstack/echo/v4"

	"jobtally/internal/capture"
	"jobtally/internal/events"
	"jobtally/internal/token"
)

// authenticated calls handler on a node that has caught up, once it is known whose call it is, and once the node has
// folded the position that the call asks for. The answer says which position the node has folded.
func (a *api) authenticated(handler echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		k := callOf(c)
		if !a.backend.CaughtUp() {
			return newProblem(codeNotReady, "this node is folding what the ledger had when it started; try again soon")
		}
		account, err := a.authenticate(c.Request().Context(), c.Request().Header.Get("Authorization"))
		if err != nil {
			return err
		}
		k.account, k.partition = account, events.PartitionOf(account, a.backend.Partitions)
		c.Response().Header().Set("Cache-Control", "private, no-cache")
		a.tellPosition(c)
		if err := a.reachPosition(c); err != nil {
			return err
		}
		return handler(c)
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

// authenticate returns the account of an Authorization header. A typo is refused without a look-up, and that a
// token is revoked is told only to who holds its secret.
func (a *api) authenticate(ctx context.Context, authorization string) (account string, err error) {
	scheme, credentials, _ := strings.Cut(authorization, " ")
	credentials = strings.Trim(credentials, " ")
	if !strings.EqualFold(scheme, "Bearer") || credentials == "" {
		return "", newProblem(codeTokenMissing, "")
	}
	held, err := token.Parse(credentials)
	if err != nil {
		return "", newProblem(codeTokenMalformed, err.Error())
	}
	issued, err := a.backend.Tokens(ctx, held.ID())
	if err != nil {
		return "", fmt.Errorf("look up token %s: %w", held.ID(), err)
	}
	return holder(held, issued)
}

// holder returns the account of the issued token that the held one is.
func holder(held token.Token, issued []capture.Token) (account string, err error) {
	refused := codeTokenUnknown
	for _, candidate := range issued {
		if !held.Matches(candidate.SecretHash) {
			continue
		}
		if !candidate.Revoked {
			return candidate.Account, nil
		}
		refused = codeTokenRevoked
	}
	return "", newProblem(refused, "")
}
