package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"jobtally/internal/cli"
	"jobtally/internal/events"
	"jobtally/internal/ledger"
	"jobtally/internal/node"
	"jobtally/internal/projections"
)

type auditCmd struct {
	Account string       `placeholder:"NAME" help:"Audit the messages and rows of this account only."`
	Month   events.Month `placeholder:"MONTH" help:"Report what belongs to this month only, such as 2026-10. Everything is decided again all the same."`
	Receipt receipt      `placeholder:"POSITION:DIGEST" help:"Prove one answer instead: that the decision at this position of the ledger is the one with this digest, and follows from the requests of its account up to there."`
	JSON    bool         `name:"json" help:"Print a JSON object a line: each difference, and the summary."`
	Scratch string       `placeholder:"DIR" help:"Directory for the scratch projection, which needs as much room as projection.db and is removed at the end (default: that for temporary files). Memory does not grow with the ledger."`
	access
}

// receipt is position and digest of a decision, as a client was given them.
type receipt struct {
	position events.Position
	digest   events.Digest
}

// UnmarshalText reads POSITION:DIGEST.
func (r *receipt) UnmarshalText(text []byte) (err error) {
	position, digest, ok := strings.Cut(string(text), ":")
	if !ok {
		return fmt.Errorf("%q is no receipt: it looks like 0-1234:DIGEST", text)
	}
	if r.position, err = events.ParsePosition(position); err != nil {
		return err
	}
	r.digest, err = events.ParseDigest(digest)
	return err
}

// Run audits, and returns ErrDifferences where something differs.
func (c *auditCmd) Run(s *session) (err error) {
	proving := c.Receipt != receipt{}
	if err := c.check(proving); err != nil {
		return err
	}
	o, err := node.Inspect(s.ctx, node.Config{NATS: c.NATS, Dir: c.dir(), Log: s.log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	if c.Month != "" {
		if err := c.checkMonth(s, o.Ledger, time.Now()); err != nil {
			return err
		}
	}
	report := &auditReport{stdout: s.stdout, json: c.JSON, Ledger: o.Ledger.ID, Account: c.Account, Month: c.Month, began: time.Now()}
	if watched(s.stderr) {
		report.progress = s.stderr
	}
	audit := projections.Audit{
		Ledger: auditLedger(o.Ledger), Account: c.Account, Month: c.Month, Scratch: c.Scratch, Report: report.difference, Progress: report.show,
	}
	if dir := c.dir(); dir != "" {
		audit.Projection = filepath.Join(dir, node.ProjectionFile)
	}
	if proving {
		return c.prove(s, audit, report)
	}
	summary, err := audit.Run(s.ctx)
	if err != nil {
		return err
	}
	if c.Account != "" && summary.Requests == 0 && summary.Differences == 0 {
		return fmt.Errorf("there is nothing of account %s", c.Account)
	}
	return report.summary(summary)
}

func (c *auditCmd) check(proving bool) error {
	if (c.Account != "" || c.Month != "") && proving {
		return fmt.Errorf("%w: give either --receipt or --account and --month: a receipt names its decision", cli.ErrUsage)
	}
	if c.Account != "" {
		if err := events.ValidAccount(c.Account); err != nil {
			return fmt.Errorf("%w: %w", cli.ErrUsage, err)
		}
	}
	return nil
}

// checkMonth refuses a month that the ledger cannot have.
func (c *auditCmd) checkMonth(s *session, l *ledger.Ledger, now time.Time) error {
	if c.Month > events.MonthOf(now) {
		return usage("%s is in the future", c.Month)
	}
	q := query{month: c.Month, account: c.Account}
	stretches, err := q.stretches(s.ctx, ledgerSource(l))
	if err != nil {
		return err
	}
	return q.checkMonth(s.ctx, stretches)
}

func (c *auditCmd) prove(s *session, audit projections.Audit, report *auditReport) error {
	decision, summary, err := audit.Receipt(s.ctx, c.Receipt.position, c.Receipt.digest)
	if err != nil {
		return err
	}
	return report.proof(decision, summary)
}

func auditLedger(l *ledger.Ledger) projections.AuditLedger {
	return projections.AuditLedger{ID: l.ID, Partitions: l.Partitions, Heads: l.Heads, Get: l.Get, ReadTo: l.ReadTo}
}
