package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"jobtally/internal/cli"
	"jobtally/internal/events"
	"jobtally/internal/projections"
)

const (
	// mostPrinted is how many differences are printed for people. JSON has them all.
	mostPrinted = 100
	// progressEvery is how often progress is shown.
	progressEvery = 200 * time.Millisecond
)

// auditReport prints what an audit finds.
type auditReport struct {
	Ledger  string       `json:"ledger"`
	Account string       `json:"account,omitempty"`
	Month   events.Month `json:"month,omitempty"`

	stdout   io.Writer
	json     bool
	partly   bool      // whether there is more than could be decided again
	progress io.Writer // nil where nobody watches
	shown    time.Time
	began    time.Time
	printed  int
	err      error // of printing
}

func (r *auditReport) println(line string) {
	if _, err := fmt.Fprintln(r.stdout, line); err != nil && r.err == nil {
		r.err = err
	}
}

func (r *auditReport) printJSON(v any) {
	text, err := json.Marshal(v)
	if err != nil && r.err == nil {
		r.err = err
	}
	r.println(string(text))
}

// difference prints one.
func (r *auditReport) difference(d projections.Difference) {
	r.clear()
	switch r.printed++; {
	case r.json:
		r.printJSON(struct {
			Type string `json:"type"`
			projections.Difference
		}{"difference", d})
	case r.printed <= mostPrinted:
		position, account := d.Position.String(), d.Account
		if d.Position.Sequence == 0 {
			position = "-"
		}
		if account == "" {
			account = "-"
		}
		expected, found := shorten(d.Expected, d.Found)
		r.println(fmt.Sprintf("%s  %s  %s: expected %s, found %s", position, account, d.What, expected, found))
	}
}

// show shows how far the audit is, on a line that is written over.
func (r *auditReport) show(s projections.Summary) {
	if r.progress != nil && time.Since(r.shown) >= progressEvery {
		r.shown = time.Now()
		fmt.Fprintf(r.progress, "\r%d requests decided again, %d differences\x1b[K", s.Requests, s.Differences)
	}
}

// clear wipes the line of the progress.
func (r *auditReport) clear() {
	if r.progress != nil && !r.shown.IsZero() {
		fmt.Fprint(r.progress, "\r\x1b[K")
		r.shown = time.Time{}
	}
}

// summary prints the end of an audit.
func (r *auditReport) summary(s projections.Summary) error {
	r.clear()
	seconds := time.Since(r.began).Seconds()
	if r.json {
		r.printJSON(struct {
			Type string `json:"type"`
			*auditReport
			projections.Summary
			Seconds float64 `json:"seconds"`
		}{"summary", r, s, seconds})
		return r.verdict(s)
	}
	r.text(s, seconds)
	return r.verdict(s)
}

// text prints the summary for people, and what was not compared with it.
func (r *auditReport) text(s projections.Summary, seconds float64) {
	if hidden := r.printed - mostPrinted; hidden > 0 {
		r.println(fmt.Sprintf("... and %d more differences", hidden))
	}
	r.println(fmt.Sprintf("ledger %s, partitions audited: %d", r.Ledger, s.Partitions))
	r.println(fmt.Sprintf("%d requests were decided again, %d decisions compared", s.Requests, s.Decisions))
	if s.Undecided > 0 {
		r.println(fmt.Sprintf("%d of the requests are undecided, which is no difference", s.Undecided))
	}
	if s.Lost > 0 {
		r.println(fmt.Sprintf("%d of these are folded: their decisions died with the server, and a projector appends them again", s.Lost))
	}
	if s.Erased > 0 {
		r.println(fmt.Sprintf("%d positions are erased with their accounts", s.Erased))
	}
	if s.Unremoved > 0 {
		r.println(fmt.Sprintf("%d of these have messages that are still to be removed, which a projector does, or `projector erase`", s.Unremoved))
	}
	for _, p := range s.Stopped {
		r.println(fmt.Sprintf("nothing of partition %d was decided again from %s on", p.Partition, p))
	}
	if s.RowsSkipped != "" {
		r.println("no rows were compared: " + s.RowsSkipped)
	} else {
		r.println(fmt.Sprintf("%d rows were compared, each partition as far as it is folded; decisions beyond that: %d", s.Rows, s.Unfolded))
	}
	if s.RowsLeftOut != "" {
		r.println("left out: " + s.RowsLeftOut)
	}
	if r.Month != "" {
		r.println(fmt.Sprintf("only what belongs to %s is reported", r.Month))
	}
	if r.Account != "" {
		r.println(fmt.Sprintf("only account %s was audited: neither another, nor the digests of its partition, nor whether numbers are missing there", r.Account))
	}
	r.println(fmt.Sprintf("%d messages were read in %.1f s", s.Messages, seconds))
	switch {
	case s.Differences > 0:
	case r.partly:
		r.println("no difference in what was decided again")
	default:
		r.println("clean")
	}
}

// proof prints what became of a receipt.
func (r *auditReport) proof(d events.Decision, s projections.Summary) error {
	if s.Differences > 0 || r.json {
		return r.summary(s)
	}
	r.clear()
	account := "account " + d.Account
	if d.Account == "" {
		account = "no account"
	}
	r.println(fmt.Sprintf("the receipt holds: %s is the decision at %s for %s, and follows from its requests up to there: %d",
		events.OutcomeOf(d.Body), d.Position, account, s.Requests))
	return r.err
}

func (r *auditReport) verdict(s projections.Summary) error {
	if r.err != nil {
		return r.err
	}
	if s.Differences > 0 {
		return fmt.Errorf("%w: %d", cli.ErrDifferences, s.Differences)
	}
	return nil
}

// shorten cuts two values that differ to where they begin to.
func shorten(expected, found string) (string, string) {
	const before, most = 16, 64
	same := 0
	for same < len(expected) && same < len(found) && expected[same] == found[same] {
		same++
	}
	cut := func(s string) string {
		from, to := max(0, min(same, len(s))-before), len(s)
		head, tail := "", ""
		if from > 0 {
			head = "..."
		}
		if to > from+most {
			to, tail = from+most, "..."
		}
		return fmt.Sprintf("%q", head+strings.ToValidUTF8(s[from:to], "\ufffd")+tail)
	}
	return cut(expected), cut(found)
}

// watched says whether somebody watches.
func watched(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
