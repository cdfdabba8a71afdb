package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"jobtally/internal/archive"
	"jobtally/internal/cli"
	"jobtally/internal/events"
	"jobtally/internal/node"
)

type archiveExportCmd struct {
	Month events.Month `required:"" placeholder:"YYYY-MM" help:"Month to export. It is archived shortly after its end."`
	To    string       `required:"" placeholder:"DIR" help:"Directory to make. It must not exist, and is there when it is complete and was verified."`
	access
}

// Run exports a month.
func (c *archiveExportCmd) Run(s *session) error { return c.export(s, time.Now()) }

func (c *archiveExportCmd) export(s *session, now time.Time) (err error) {
	o, err := node.Inspect(s.ctx, node.Config{NATS: c.NATS, Dir: c.dir(), Log: s.log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	shown := newShare(s, "exported")
	export := archive.Export{Source: ledgerSource(o.Ledger), Month: c.Month, Now: now, Progress: shown.show}
	summary, err := export.Run(s.ctx, c.To)
	shown.clear()
	switch {
	case s.ctx.Err() != nil:
		return fmt.Errorf("interrupted: %s was not written", c.To)
	case errors.Is(err, archive.ErrNoMonth), errors.Is(err, archive.ErrExists):
		return fmt.Errorf("%w: %w", cli.ErrUsage, err)
	case err != nil:
		return err
	}
	_, err = fmt.Fprintf(s.stdout, "%s\n%s is sound, and in %s\n", archiveText(summary), c.Month, c.To)
	return err
}

type archiveVerifyCmd struct {
	Dir  string `arg:"" help:"Directory that was exported."`
	JSON bool   `name:"json" help:"Print a JSON object a line: each difference, and the summary."`
}

// Run verifies an archive, and returns ErrDifferences where something differs.
func (c *archiveVerifyCmd) Run(s *session) error {
	r := &archiveReport{auditReport: auditReport{stdout: s.stdout, json: c.JSON}, share: newShare(s, "verified")}
	summary, err := archive.Verification{Report: r.difference, Progress: r.share.show}.Run(s.ctx, c.Dir)
	r.share.clear()
	if s.ctx.Err() != nil {
		return errors.New("interrupted: nothing is known of what was not verified yet")
	}
	if err != nil {
		return err
	}
	return r.summary(summary)
}

// archiveReport prints what a verification finds.
type archiveReport struct {
	auditReport
	share *share
}

func (r *archiveReport) difference(d archive.Difference) {
	r.share.clear()
	switch r.printed++; {
	case r.json:
		r.printJSON(struct {
			Type string `json:"type"`
			archive.Difference
		}{"difference", d})
	case r.printed <= mostPrinted:
		text := plain(d.String())
		if d.Expected != "" || d.Found != "" {
			expected, found := shorten(d.Expected, d.Found)
			text += fmt.Sprintf(": expected %s, found %s", expected, found)
		}
		r.println(text)
	}
}

func (r *archiveReport) summary(s archive.Summary) error {
	if r.json {
		r.printJSON(struct {
			Type string `json:"type"`
			archive.Summary
		}{"summary", s})
	} else {
		if hidden := r.printed - mostPrinted; hidden > 0 {
			r.println(fmt.Sprintf("... and %d more differences", hidden))
		}
		r.println(archiveText(s))
	}
	switch {
	case r.err != nil:
		return r.err
	case s.Differences > 0:
		return fmt.Errorf("%w: %d", cli.ErrDifferences, s.Differences)
	case !r.json:
		r.println("sound")
	}
	return r.err
}

// archiveText describes an archive for people.
func archiveText(s archive.Summary) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s of ledger %s, partitions %d\n", s.Month, s.Ledger, len(s.Parts))
	for _, p := range s.Parts {
		fmt.Fprintf(&b, "partition %d: %s, %s to %s, archived by %s\n", p.Partition, count(p.Requests, "pair"), p.First, p.Last, p.Archived.Digest)
	}
	fmt.Fprintf(&b, "%s of %s in %s", count(s.Pairs, "pair"), count(s.Accounts, "account"), count(s.Bytes, "byte"))
	if s.Erased > 0 {
		fmt.Fprintf(&b, "; erased, so that only their totals are here: %s", count(s.Erased, "request"))
	}
	fmt.Fprintf(&b, "\nSHA-256 of manifest.json: %s", s.Manifest)
	return b.String()
}

// share shows how much is done, on a line that is written over.
type share struct {
	progress
	what string
}

func newShare(s *session, what string) *share {
	p := &share{what: what}
	p.watch(s.stderr)
	return p
}

func (p *share) show(done, all int64) {
	if p.w == nil || time.Since(p.shown) < progressEvery {
		return
	}
	p.shown = time.Now()
	fmt.Fprintf(p.w, "\r%3d %% %s\x1b[K", 100*done/max(all, 1), p.what)
}
