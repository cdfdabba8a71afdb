package main

import (
	"fmt"
	"regexp"
	"slices"

	"jobtally/internal/cli"
	"jobtally/internal/events"
	"jobtally/internal/token"
)

type tokenIssueCmd struct {
	Account string   `required:"" placeholder:"NAME" help:"Account that the token is for."`
	Scope   []string `placeholder:"SCOPE" help:"What the token may be used for beyond its own account: admin, to act on any account (default: nothing)."`
	access
}

// Run prints the token alone, so that a script can take it. The ledger gets its hash only.
func (c *tokenIssueCmd) Run(s *session) error {
	for _, scope := range c.Scope {
		if scope != events.ScopeAdmin {
			return fmt.Errorf("%w: there is no scope %q; there is %s", cli.ErrUsage, scope, events.ScopeAdmin)
		}
	}
	t := token.New()
	if _, err := c.ask(s, c.Account, &events.TokenIssueRequested{TokenID: t.ID(), SecretHash: t.Hash(), TokenTerms: events.TokenTerms{Scopes: slices.Compact(c.Scope)}}); err != nil {
		return err
	}
	_, err := fmt.Fprintln(s.stdout, t.Reveal())
	return err
}

var tokenID = regexp.MustCompile(`^[0-9A-Za-z]{12}$`)

type tokenRevokeCmd struct {
	ID      string `arg:"" help:"Id of the token: the 12 characters after jt_."`
	Account string `required:"" placeholder:"NAME" help:"Account that the token is for."`
	access
}

// Run revokes the token: each node refuses it as soon as it has folded the decision. Whoever pastes the whole token
// means it too, but its secret goes no further than here.
func (c *tokenRevokeCmd) Run(s *session) error {
	if t, err := token.Parse(c.ID); err == nil {
		c.ID = t.ID()
	}
	if !tokenID.MatchString(c.ID) {
		return fmt.Errorf("%w: the id of a token is the 12 letters and digits after jt_", cli.ErrUsage)
	}
	d, err := c.ask(s, c.Account, &events.TokenRevokeRequested{TokenID: c.ID})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.stdout, "token %s revoked at %s\n", c.ID, d.Position)
	return err
}
