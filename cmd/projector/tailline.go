package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"jobtally/internal/events"
)

// The colours of a terminal.
const (
	plainColour = "\x1b[0m"
	faint       = "\x1b[2m"
	red         = "\x1b[31m"
	green       = "\x1b[32m"
	yellow      = "\x1b[33m"
	blue        = "\x1b[34m"
	cyan        = "\x1b[36m"
)

// printer returns what prints a decision: as JSON, or for people, in colour on a terminal unless NO_COLOR is set.
func (c *tailCmd) printer(s *session, w io.Writer) func(*events.Message, int) error {
	if c.JSON {
		return func(m *events.Message, partition int) error {
			_, err := w.Write(append(m.AppendStructured(nil, partition), '\n'))
			return err
		}
	}
	width, terminal := terminalWidth(s.stdout)
	l := lines{w: w, width: width, coloured: terminal && os.Getenv("NO_COLOR") == ""}
	return l.print
}

// lines prints decisions for people, a line each.
type lines struct {
	w        io.Writer
	width    int // of the terminal; 0 where there is none
	coloured bool
}

func (l *lines) print(m *events.Message, partition int) error {
	d, err := events.DecodeDecision(*m, partition)
	at := "-" // what cannot be read is shown as what it is: nothing is decided by it
	if asked := askedAt(m); !asked.IsZero() {
		at = asked.UTC().Format(time.RFC3339)
	}
	outcome, about := "", ""
	switch {
	case err == nil:
		outcome, about = events.OutcomeOf(d.Body), toldOf(d.Body)
	case errors.Is(err, events.ErrUnknownType):
		outcome, about = headerOf(m, "ce-type"), m.Subject
	default:
		outcome, about = "unreadable", m.Subject+": "+err.Error()
	}
	parts := []struct{ text, colour string }{
		{pad(at, 20), faint},
		{pad(events.Position{Partition: partition, Sequence: m.Sequence}.String(), 8), faint},
		{pad(plain(cmp.Or(headerOf(m, "ce-account"), "-")), 12), ""},
		{pad(plain(outcome), 12), colourOf(d.Body)},
		{plain(about), ""},
	}
	var b strings.Builder
	room := l.width
	for i, part := range parts {
		text := part.text
		if i > 0 {
			text = "  " + text
		}
		if l.width > 0 {
			if room <= 0 {
				break
			}
			text = cut(text, room)
			room -= columns(text)
		}
		if i == len(parts)-1 {
			text = strings.TrimRight(text, " ")
		}
		if l.coloured && part.colour != "" {
			text = part.colour + text + plainColour
		}
		b.WriteString(text)
	}
	_, err = fmt.Fprintln(l.w, b.String())
	return err
}

// pad fills a text up to a number of columns; a longer one pushes the rest of its line aside.
func pad(s string, to int) string { return s + strings.Repeat(" ", max(0, to-columns(s))) }

// colourOf tells at a glance what a decision is: good, no news, refused, a change, or an operator's.
func colourOf(body events.DecisionBody) string {
	switch body.(type) {
	case *events.JobCaptured:
		return green
	case *events.JobCaptureDuplicated, *events.JobCaptureRepeated:
		return cyan
	case *events.JobCaptureRejected, *events.RequestRefused, *events.AccountErased:
		return red
	case *events.JobUpdated, *events.JobDeleted:
		return blue
	}
	return yellow
}

// toldOf says what matters of a decision, as its users wrote it.
func toldOf(body events.DecisionBody) string {
	switch b := body.(type) {
	case *events.JobCaptured:
		return joined(jobName(&b.Job), usageOf(b.Count), reached(b.Threshold))
	case *events.JobCaptureDuplicated:
		return joined(b.SourceURL, "is "+b.JobID, usageOf(b.Count))
	case *events.JobCaptureRejected:
		return joined(b.Reason, b.SourceURL, usageOf(b.Count), "again from "+b.ResetDate)
	case *events.JobCaptureRepeated:
		return "asked first at " + b.First.String()
	case *events.JobUpdated:
		return joined(jobName(&b.Job), fmt.Sprintf("version %d: %s", b.Version, cmp.Or(strings.Join(b.Changed, ", "), "nothing changed")))
	case *events.JobDeleted:
		return joined("job "+b.JobID, fmt.Sprintf("version %d", b.Version))
	case *events.RequestRefused:
		return joined(b.Kind, b.Reason, b.Detail)
	case *events.MonthArchived:
		return string(b.Month) + ": " + detailOf(body)
	}
	return detailOf(body)
}

func jobName(j *events.Job) string {
	if j.Company == "" {
		return j.Title
	}
	return j.Title + " — " + j.Company
}

func usageOf(c events.Count) string {
	f := facts{count: &c}
	return f.usage()
}

func reached(threshold int) string {
	if threshold == 0 {
		return ""
	}
	return fmt.Sprintf("%d %% reached", threshold)
}
