package main

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/cli"
	"jobtally/internal/events"
	"jobtally/internal/token"
)

type tokenListCmd struct {
	Account string `required:"" placeholder:"NAME" help:"Account whose tokens are listed."`
	jsonFlag
	access
}

// tokenReport is a token for scripts, as over HTTP. When it was used last only the nodes know that saw it.
type tokenReport struct {
	ID        string   `json:"id"`
	Prefix    string   `json:"prefix"`
	LastFour  string   `json:"last_four,omitempty"`
	Name      string   `json:"name,omitempty"`
	Scopes    []string `json:"scopes"`
	IssuedAt  string   `json:"issued_at"`
	ExpiresAt string   `json:"expires_at,omitempty"`
	Status    string   `json:"status"`
}

func reportOfToken(t *capture.Token, now time.Time) tokenReport {
	r := tokenReport{
		ID: t.ID, Prefix: token.Prefix(t.ID), LastFour: t.LastFour, Name: t.Name, Scopes: t.Granted(),
		IssuedAt: timeText(t.IssuedAt), Status: t.Status(now),
	}
	if !t.ExpiresAt.IsZero() {
		r.ExpiresAt = timeText(t.ExpiresAt)
	}
	return r
}

// Run prints the tokens.
func (c *tokenListCmd) Run(s *session) (err error) {
	if err := events.ValidAccount(c.Account); err != nil {
		return fmt.Errorf("%w: %w", cli.ErrUsage, err)
	}
	o, err := c.inspect(s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	subject := events.AccountSubject(c.Account, events.PartitionOf(c.Account, o.Ledger.Partitions))
	account, at, err := readAccount(s.ctx, o, c.Account, subject)
	if err != nil {
		return err
	}
	tokens, now := account.byID(), time.Now()
	if c.JSON {
		reports := make([]tokenReport, len(tokens))
		for i, t := range tokens {
			reports[i] = reportOfToken(t, now)
		}
		return printJSON(s.stdout, map[string]any{"account": c.Account, "tokens": reports, "position": at.String()})
	}
	rows := []string{"TOKEN\tENDS\tNAME\tSCOPES\tISSUED\tEXPIRES\tSTATUS"}
	for _, t := range tokens {
		rows = append(rows, rowOfToken(t, now))
	}
	return printTable(s.stdout, rows)
}

// rowOfToken is a token for people, with everything that it may be used for.
func rowOfToken(t *capture.Token, now time.Time) string {
	expires := "never"
	if !t.ExpiresAt.IsZero() {
		expires = timeText(t.ExpiresAt)
	}
	return strings.Join([]string{
		token.Prefix(t.ID), cmp.Or(plain(t.LastFour), "-"), cmp.Or(plain(t.Name), "-"), strings.Join(t.Granted(), " "), timeText(t.IssuedAt),
		expires, t.Status(now),
	}, "\t")
}
