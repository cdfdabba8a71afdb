package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"jobtally/internal/events"
	"jobtally/internal/replay"
)

// facts are what people and spreadsheets are told of a pair. Its texts are the users', as they wrote them.
type facts struct {
	asked, outcome string
	count          *events.Count // that the decision left, where it is about one
	job            events.Job    // that was asked for, or that an update left; empty where there is none
	jobID          string
	reason         string
	detail         string
}

const undecided = "undecided"

func factsOf(p *replay.Pair) facts {
	f := facts{asked: p.Asked.Subject[strings.LastIndexByte(p.Asked.Subject, '.')+1:], outcome: undecided}
	if b, ok := p.Request.Body.(*events.JobCaptureRequested); ok {
		f.job = b.Job
	}
	if p.Undecided() {
		return f
	}
	f.outcome = events.OutcomeOf(p.Decision.Body)
	switch b := p.Decision.Body.(type) {
	case *events.JobCaptured:
		f.count, f.jobID = &b.Count, b.JobID
	case *events.JobCaptureDuplicated:
		f.count, f.jobID = &b.Count, b.JobID
	case *events.JobCaptureRejected:
		f.count, f.reason, f.detail = &b.Count, b.Reason, "again from "+b.ResetDate
	case *events.JobCaptureRepeated:
		f.detail = "asked first at " + b.First.String()
	case *events.JobUpdated:
		f.job, f.jobID, f.detail = b.Job, b.JobID, fmt.Sprintf("version %d: %s", b.Version, cmp.Or(strings.Join(b.Changed, ", "), "nothing changed"))
	case *events.JobDeleted:
		f.jobID, f.detail = b.JobID, "job "+b.JobID
	case *events.RequestRefused:
		f.reason, f.detail = b.Reason, b.Detail
	default:
		f.detail = detailOf(p.Decision.Body)
	}
	return f
}

// detailOf describes the decision on an account, a token or a month.
func detailOf(body events.DecisionBody) string {
	switch b := body.(type) {
	case *events.AccountOpened:
		return fmt.Sprintf("plan %s: %s", b.Plan, captures(b.Limit)) + askedBy(b.Who)
	case *events.PlanChanged:
		return fmt.Sprintf("plan %s: %s, before %s: %s", b.Plan, captures(b.Limit), b.PreviousPlan, captures(b.PreviousLimit)) + askedBy(b.Who)
	case *events.TokenIssued:
		return strings.TrimSpace("token "+b.TokenID+" "+strings.Join(b.Scopes, " ")) + askedBy(b.Who)
	case *events.TokenRevoked:
		return "token " + b.TokenID + askedBy(b.Who)
	case *events.MonthArchived:
		return fmt.Sprintf("%s of %s: %d captured, %d duplicated, %d rejected, %d repeated", count(b.Requests, "request"),
			count(b.Accounts, "account"), b.Captured, b.Duplicated, b.Rejected, b.Repeated)
	case *events.AccountErased:
		return count(b.Requests, "request") + " removed"
	}
	return ""
}

// askedBy says who asked, and why, behind something else. Like all facts it is as it was written.
func askedBy(who events.Who) (text string) {
	if who.By != "" {
		text = ", by " + who.By
	}
	if who.Reason != "" {
		text += ": " + who.Reason
	}
	return text
}

// usage writes the count for people.
func (f *facts) usage() string {
	switch {
	case f.count == nil:
		return "-"
	case f.count.Limit < 0:
		return strconv.FormatInt(f.count.Used, 10) + "/unlimited"
	}
	return fmt.Sprintf("%d/%d", f.count.Used, f.count.Limit)
}

// about says in one text what it is about.
func (f *facts) about() string { return joined(f.reason, f.job.Title, f.detail) }

// joined joins the texts that there are.
func joined(texts ...string) string {
	return strings.Join(slices.DeleteFunc(texts, func(text string) bool { return text == "" }), "; ")
}

// whenAsked returns the time of the request, or nothing where that cannot be read.
func whenAsked(p *replay.Pair) string {
	if p.Request.Time.IsZero() {
		return ""
	}
	return p.Request.Time.Format(time.RFC3339)
}

// plain returns a text on one line, with nothing in it that a terminal would obey: what does not print is written as an
// escape sequence of Go, such as \n and \x1b.
func plain(s string) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	obeyed := func(r rune) bool { return !unicode.IsPrint(r) }
	if !strings.ContainsFunc(s, obeyed) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if obeyed(r) {
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// cut shortens a text to a number of columns, of which a character of the Far East takes two.
func cut(s string, columns int) string {
	used, at := 0, 0
	for i, r := range s {
		if used < columns {
			at = i
		}
		if used += width(r); used > columns {
			return s[:at] + "…"
		}
	}
	return s
}

func width(r rune) int {
	if r >= 0x2e80 || r >= 0x1100 && r < 0x1160 {
		return 2
	}
	return 1
}

func columns(s string) (n int) {
	for _, r := range s {
		n += width(r)
	}
	return n
}
