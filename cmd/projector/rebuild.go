package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"jobtally/internal/cli"
	"jobtally/internal/events"
	"jobtally/internal/node"
	"jobtally/internal/projections"
)

type rebuildCmd struct {
	access
}

// Run folds the ledger anew. What was folded when it is told to stop is where the next run begins.
func (c *rebuildCmd) Run(s *session) error {
	dir := c.dir()
	if dir == "" {
		return fmt.Errorf("%w: name with --data the directory whose projection is folded anew", cli.ErrUsage)
	}
	report := &rebuildReport{began: time.Now()}
	if watched(s.stderr) {
		report.progress = s.stderr
	}
	done, err := node.Rebuild(s.ctx, node.Config{NATS: c.NATS, Dir: dir, Log: s.log}, report.show)
	report.clear()
	switch {
	case errors.Is(err, projections.ErrDiffers):
		return fmt.Errorf("%w: %w", cli.ErrDifferences, err)
	case err != nil && s.ctx.Err() != nil && done.Info != nil:
		return errors.New("stopped with all decisions folded: the service puts them in place by itself, or the same command does")
	case err != nil && s.ctx.Err() != nil:
		return fmt.Errorf("stopped with %d decisions folded: the same command goes on from there", done.Decisions)
	case errors.Is(err, projections.ErrMismatch), errors.Is(err, events.ErrGap): // the ledger contradicts itself: it would come to the same end
		return err
	case err != nil && done.Decisions > 0 && done.Info == nil:
		return fmt.Errorf("%w; %d decisions are folded: the same command goes on from there", err, done.Decisions)
	case err != nil:
		return err
	}
	return report.summary(s.stdout, done)
}

// rebuildReport shows how far a rebuild is, on a line that is written over, and what it came to.
type rebuildReport struct {
	progress io.Writer // nil where nobody watches
	began    time.Time
	first    uint64 // folded when the first progress came
	started  bool
	shown    time.Time
}

func (r *rebuildReport) show(folded, due uint64) {
	if !r.started {
		r.started, r.first, r.began = true, folded, time.Now()
	}
	if r.progress == nil || time.Since(r.shown) < progressEvery {
		return
	}
	r.shown = time.Now()
	left := "-"
	rate := float64(folded-r.first) / time.Since(r.began).Seconds()
	if rate > 0 {
		left = time.Duration(float64(due-min(due, folded)) / rate * float64(time.Second)).Round(time.Second).String()
	}
	fmt.Fprintf(r.progress, "\r%d of %d decisions folded, %.0f/s, %s left\x1b[K", folded, due, rate, left)
}

func (r *rebuildReport) clear() {
	if r.progress != nil && !r.shown.IsZero() {
		fmt.Fprint(r.progress, "\r\x1b[K")
	}
}

func (r *rebuildReport) summary(out io.Writer, done node.Rebuilt) error {
	var b strings.Builder
	if done.Discarded != "" {
		fmt.Fprintf(&b, "began anew, for what was left of the last time could not be used: %s\n", done.Discarded)
	}
	fmt.Fprintf(&b, "partitions: %d, decisions folded anew: %d in %.1f s\n", done.Partitions, done.Decisions-done.Resumed, done.Seconds)
	if done.Resumed > 0 {
		fmt.Fprintf(&b, "decisions that were folded the last time: %d\n", done.Resumed)
	}
	switch {
	case done.Uncompared != "":
		fmt.Fprintf(&b, "nothing could be compared: %s; what was folded follows from the ledger, and is in its place\n", done.Uncompared)
	case len(done.Equal) > 0:
		fmt.Fprintf(&b, "digests are equal at %s; what was folded is in its place\n", positions(done.Equal))
	default:
		fmt.Fprintln(&b, "what was folded is in its place")
	}
	if done.Running {
		fmt.Fprintln(&b, "the service reads from it")
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func positions(at []events.Position) string {
	var names []string
	for _, p := range at {
		names = append(names, p.String())
	}
	return strings.Join(names, ", ")
}
