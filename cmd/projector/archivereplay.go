package main

import (
	"errors"
	"fmt"
	"time"

	"jobtally/internal/archive"
	"jobtally/internal/cli"
	"jobtally/internal/events"
	"jobtally/internal/projections"
)

type archiveReplayCmd struct {
	Dirs    []string `arg:"" name:"dir" help:"Directories that were exported, of adjoining months of one ledger."`
	Account string   `placeholder:"NAME" help:"Replay this account only."`
	Format  string   `default:"table" enum:"table,csv,jsonl,json" help:"table for people; csv; jsonl, an object a line with request and decision as CloudEvents; or json, an array of these (default: ${default})."`
	To      string   `default:"-" placeholder:"FILE" help:"Write to this file, which must not exist, and is there when it is complete (default: ${default}, standard output)."`
	Scratch string   `placeholder:"DIR" help:"Directory for the scratch projection of the audit, which is removed at the end (default: that for temporary files)."`
}

// Run prints what is in the archives, and audits it. What it finds goes to standard error: standard output has the pairs
// and nothing else.
func (c *archiveReplayCmd) Run(s *session) (err error) {
	if c.Account != "" {
		if err := events.ValidAccount(c.Account); err != nil {
			return usage("%w", err)
		}
	}
	set, err := archive.Open(c.Dirs...)
	if err != nil {
		return err
	}
	out, err := openOutput(s, c.To)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.discard()) }()
	if err := c.verify(s, set); err != nil {
		return err
	}
	r := &replaying{query: query{account: c.Account}, began: time.Now(), progress: out.progress, printer: newPrinter(c.Format, out, out.width)}
	r.source = r.counted(set.Source())
	if err := r.printTo(s.ctx, out); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(s.stderr, "%s printed\n", count(r.printed, "pair")); err != nil {
		return err
	}
	return c.audit(s, set)
}

// verify verifies the archives: what is not sound is not replayed.
func (c *archiveReplayCmd) verify(s *session, set *archive.Set) error {
	for _, dir := range set.Dirs() {
		summary, err := archive.Verification{Report: func(archive.Difference) {}, Progress: func(int64, int64) {}}.Run(s.ctx, dir)
		if err != nil {
			return err
		}
		if summary.Differences > 0 {
			return fmt.Errorf("%w: %s has %d; see `projector archive verify %s`", cli.ErrDifferences, dir, summary.Differences, dir)
		}
		fmt.Fprintf(s.stderr, "%s is sound: digests, chains and totals are those that were archived\n", dir)
	}
	return nil
}

// audit decides the requests again, where all of them are here from the first on.
func (c *archiveReplayCmd) audit(s *session, set *archive.Set) error {
	if missing := set.Missing(); missing != "" {
		_, err := fmt.Fprintf(s.stderr, "nothing was decided again: what was decided up to the end of %s is not here; name the archives from the first month on\n", missing)
		return err
	}
	source := set.Source()
	report := &auditReport{stdout: s.stderr, Ledger: source.ID, Account: c.Account, began: time.Now()}
	if watched(s.stderr) {
		report.progress = s.stderr
	}
	audit := projections.Audit{
		Account: c.Account, Scratch: c.Scratch, Report: report.difference, Progress: report.show,
		Ledger: projections.AuditLedger{ID: source.ID, Partitions: source.Partitions, Heads: set.Heads, ReadTo: set.ReadTo},
	}
	summary, err := audit.Run(s.ctx)
	if err != nil {
		return err
	}
	summary.RowsSkipped = "an archive has none"
	if report.partly, err = c.uncovered(s, set); err != nil {
		return err
	}
	return report.summary(summary)
}

// uncovered says what could not be decided again, and whether there is such.
func (c *archiveReplayCmd) uncovered(s *session, set *archive.Set) (partly bool, err error) {
	source := set.Source()
	for p := range source.Partitions {
		if c.Account != "" && p != events.PartitionOf(c.Account, source.Partitions) {
			continue
		}
		heads, err := source.Heads(s.ctx, p)
		if err != nil {
			return partly, err
		}
		covered, err := set.Covered(s.ctx, p)
		if err != nil {
			return partly, err
		}
		if covered == heads.Requests {
			continue
		}
		partly = true
		_, err = fmt.Fprintf(s.stderr, "partition %d was decided again up to %s: after that numbers are missing, of a later month or of accounts erased later\n",
			p, events.Position{Partition: p, Sequence: covered})
		if err != nil {
			return partly, err
		}
	}
	return partly, nil
}
