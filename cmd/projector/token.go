package main

import (
	"fmt"

	"jobtally/internal/events"
	"jobtally/internal/token"
)

type tokenIssueCmd struct {
	Account string `required:"" placeholder:"NAME" help:"Account that the token is for."`
	access
}

// Run prints the token alone, so that a script can take it. The ledger gets its hash only.
func (c *tokenIssueCmd) Run(s *session) error {
	t := token.New()
	if _, err := c.ask(s, c.Account, &events.TokenIssueRequested{TokenID: t.ID(), SecretHash: t.Hash()}); err != nil {
		return err
	}
	_, err := fmt.Fprintln(s.stdout, t.Reveal())
	return err
}

type tokenRevokeCmd struct {
	ID      string `arg:"" help:"Id of the token: the 12 characters after jt_."`
	Account string `required:"" placeholder:"NAME" help:"Account that the token is for."`
	access
}

// Run revokes the token: each node refuses it as soon as it has folded the decision.
func (c *tokenRevokeCmd) Run(s *session) error {
	d, err := c.ask(s, c.Account, &events.TokenRevokeRequested{TokenID: c.ID})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.stdout, "token %s revoked at %s\n", c.ID, d.Position)
	return err
}
