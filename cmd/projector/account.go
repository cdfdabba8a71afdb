package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"jobtally/internal/capture"
	"jobtally/internal/cli"
	"jobtally/internal/events"
	"jobtally/internal/token"
)

// planFlags say what an account may capture: a plan of the catalogue, or a limit of its own.
type planFlags struct {
	Plan  string    `placeholder:"P" help:"Plan of the catalogue."`
	Limit *int64    `placeholder:"N" help:"Captures a month, -1 for unlimited, instead of a plan."`
	Plans cli.Plans `default:"free=50,pro=500,premium=-1,enterprise=-1" placeholder:"NAME=LIMIT,..." help:"The catalogue (default: ${default})."`
}

// reasonFlag says why an operator does something.
type reasonFlag struct {
	Reason string `placeholder:"TEXT" help:"Why, for whoever reads the ledger later."`
}

// byOperator is who asks for whatever is asked for with this tool.
const byOperator = "operator"

// Validate refuses what everybody could read in the ledger, or nobody would.
func (f reasonFlag) Validate() error {
	return checkText("--reason", f.Reason, maxReason)
}

// checkText refuses a text that could not be sent over HTTP either.
func checkText(flag, text string, most int) error {
	obeyed := func(r rune) bool { return unicode.IsControl(r) && !strings.ContainsRune("\t\r\n", r) }
	if utf8.RuneCountInString(text) > most || token.Within(text) || strings.ContainsFunc(text, obeyed) || !utf8.ValidString(text) {
		return fmt.Errorf("%s has at most %d characters of UTF-8, no control character but white space, and no token", flag, most)
	}
	return nil
}

const maxReason = 500 // characters, as over HTTP

func (f reasonFlag) who() events.Who { return events.Who{By: byOperator, Reason: f.Reason} }

// customPlan is the plan of an account that was given a limit instead.
const customPlan = "custom"

func (f planFlags) resolve() (plan string, limit int64, err error) {
	switch {
	case f.Plan != "" && f.Limit != nil, f.Plan == "" && f.Limit == nil:
		return "", 0, fmt.Errorf("%w: give either --plan or --limit", cli.ErrUsage)
	case f.Limit == nil:
		limit, err = f.Plans.Limit(f.Plan)
		return f.Plan, limit, err
	case *f.Limit < capture.Unlimited, *f.Limit > cli.MaxLimit:
		return "", 0, usage("--limit is a number of captures, at most %d, or -1 for unlimited", cli.MaxLimit)
	}
	return customPlan, *f.Limit, nil
}

// ask appends a request of the operator's for an account, and returns the decision on it.
func (a access) ask(s *session, account string, body events.RequestBody) (d events.Decision, err error) {
	if err := events.ValidAccount(account); err != nil {
		return d, fmt.Errorf("%w: %w", cli.ErrUsage, err)
	}
	o, err := a.dial(s)
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	return o.Decide(s.ctx, &events.Request{Account: account, ID: uuid.NewString(), Time: time.Now().UTC(), Body: body})
}

type accountOpenCmd struct {
	Name string `arg:"" help:"Name of the account: 1 to 64 of a-z, 0-9, _ and -."`
	planFlags
	reasonFlag
	access
}

// Run opens the account, on plan free unless told otherwise.
func (c *accountOpenCmd) Run(s *session) error {
	if c.Plan == "" && c.Limit == nil {
		c.Plan = "free"
	}
	plan, limit, err := c.resolve()
	if err != nil {
		return err
	}
	d, err := c.ask(s, c.Name, &events.AccountOpenRequested{Plan: plan, Limit: limit, Who: c.who()})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.stdout, "account %s opened at %s on plan %s: %s\n", c.Name, d.Position, plan, captures(limit))
	return err
}

type accountPlanCmd struct {
	Name string `arg:"" help:"Name of the account."`
	planFlags
	reasonFlag
	access
}

// Run changes the plan.
func (c *accountPlanCmd) Run(s *session) error {
	plan, limit, err := c.resolve()
	if err != nil {
		return err
	}
	d, err := c.ask(s, c.Name, &events.PlanChangeRequested{Plan: plan, Limit: limit, Who: c.who()})
	if err != nil {
		return err
	}
	changed := d.Body.(*events.PlanChanged)
	_, err = fmt.Fprintf(s.stdout, "account %s changed at %s from plan %s (%s) to %s (%s)\n", c.Name, d.Position,
		changed.PreviousPlan, captures(changed.PreviousLimit), changed.Plan, captures(changed.Limit))
	return err
}

func captures(limit int64) string {
	if limit == capture.Unlimited {
		return "unlimited"
	}
	return strconv.FormatInt(limit, 10) + " captures a month"
}
