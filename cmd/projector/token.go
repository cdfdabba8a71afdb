package main

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"jobtally/internal/cli"
	"jobtally/internal/events"
	"jobtally/internal/token"
)

type tokenIssueCmd struct {
	Account string   `required:"" placeholder:"NAME" help:"Account that the token is for."`
	Name    string   `placeholder:"TEXT" help:"What to call the token, such as the device that it is on."`
	Scope   []string `placeholder:"SCOPE" help:"What the token may be used for: jobs:read or jobs:write, of its account, or admin, to act on any account; give it again for another (default: both of its account, which a token has that names neither)."`
	Expires expiry   `placeholder:"WHEN" help:"From when on the token is accepted no longer: so long from now, as 90d or 12h, or 2027-01-01, the beginning of the day in UTC, or 2027-01-01T08:00:00Z (default: never)."`
	reasonFlag
	access
}

const maxTokenName = 100 // characters, as over HTTP

// Run prints the token alone, so that a script can take it. The ledger gets its hash only.
func (c *tokenIssueCmd) Run(s *session) error {
	for _, scope := range c.Scope {
		if !slices.Contains(events.Scopes(), scope) {
			return usage("there is no scope %q; there are %s", scope, strings.Join(events.Scopes(), ", "))
		}
	}
	if err := checkText("--name", c.Name, maxTokenName); err != nil {
		return usage("%w", err)
	}
	expires, err := c.Expires.after(time.Now())
	if err != nil {
		return err
	}
	t := token.New()
	terms := events.TokenTerms{Scopes: c.scopes(), Name: c.Name, LastFour: t.LastFour(), ExpiresAt: expires}
	_, err = c.ask(s, c.Account, &events.TokenIssueRequested{TokenID: t.ID(), SecretHash: t.Hash(), TokenTerms: terms, Who: c.who()})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(s.stdout, t.Reveal())
	return err
}

// scopes returns each scope once.
func (c *tokenIssueCmd) scopes() (scopes []string) {
	for _, scope := range events.Scopes() {
		if slices.Contains(c.Scope, scope) {
			scopes = append(scopes, scope)
		}
	}
	return scopes
}

// expiry is an instant, or so long from now. The zero value is never.
type expiry struct {
	at time.Time
	in time.Duration
}

// UnmarshalText reads 90d, 12h, 2027-01-01 or 2027-01-01T08:00:00Z.
func (e *expiry) UnmarshalText(text []byte) (err error) {
	s := string(text)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			e.in = time.Duration(n) * 24 * time.Hour
			return e.check(s)
		}
	}
	if e.in, err = time.ParseDuration(s); err == nil {
		return e.check(s)
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if e.at, err = time.Parse(layout, s); err == nil && e.at.UTC().Year() <= 9999 {
			return nil
		}
	}
	return fmt.Errorf("%q is neither so long from now, such as 90d or 12h, nor a time, such as 2027-01-01 or 2027-01-01T08:00:00Z", s)
}

func (e *expiry) check(s string) error {
	if e.in <= 0 {
		return fmt.Errorf("%q is not in the future", s)
	}
	return nil
}

// after returns the instant, in whole milliseconds, or zero for never.
func (e *expiry) after(now time.Time) (time.Time, error) {
	at := e.at.UTC()
	switch {
	case e.in > 0:
		at = now.UTC().Add(e.in)
	case e.at.IsZero():
		return time.Time{}, nil
	case !at.After(now):
		return at, usage("--expires %s is in the past", at.Format(time.RFC3339))
	}
	return at.Truncate(time.Millisecond), nil
}

var tokenID = regexp.MustCompile(`^[0-9A-Za-z]{12}$`)

type tokenRevokeCmd struct {
	ID      string `arg:"" help:"Id of the token: the 12 characters after jt_."`
	Account string `required:"" placeholder:"NAME" help:"Account that the token is for."`
	reasonFlag
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
	d, err := c.ask(s, c.Account, &events.TokenRevokeRequested{TokenID: c.ID, Who: c.who()})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.stdout, "token %s revoked at %s\n", c.ID, d.Position)
	return err
}
