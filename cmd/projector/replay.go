package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"jobtally/internal/cli"
	"jobtally/internal/events"
	"jobtally/internal/ledger"
	"jobtally/internal/replay"
)

type replayCmd struct {
	Month   events.Month `placeholder:"YYYY-MM" help:"Replay what belongs to this month, in which captures counted, not the one in which they were asked for."`
	Account string       `placeholder:"NAME" help:"Replay this account only. Little of any other is read."`
	From    bound        `placeholder:"WHEN" help:"Begin here, inclusive: a position (0-17) of the one partition that is then replayed, or the time of the request (2026-10-05, the day in UTC, or 2026-10-05T08:00:00Z)."`
	Until   bound        `placeholder:"WHEN" help:"End here, inclusive: a position, or the time of the request. Clocks may be behind, so what was asked up to a time is looked for up to the end of the ledger, or of --month."`
	Format  string       `default:"table" enum:"table,csv,jsonl,json" help:"table for people; csv; jsonl, an object a line with request and decision as CloudEvents; or json, an array of these (default: ${default})."`
	To      string       `default:"-" placeholder:"FILE" help:"Write to this file, which must not exist, and is there when it is complete (default: ${default}, standard output)."`
	access
}

// Run prints the requests and decisions that are asked for, and says on standard error what it took to find them.
func (c *replayCmd) Run(s *session) (err error) {
	q, err := c.query(time.Now())
	if err != nil {
		return err
	}
	out, err := openOutput(s, c.To)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.discard()) }()
	o, err := c.inspect(s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	r := &replaying{query: q, began: time.Now(), progress: out.progress, printer: newPrinter(c.Format, out, out.width)}
	r.source = r.counted(ledgerSource(o.Ledger))
	if err := r.printTo(s.ctx, out); err != nil {
		return err
	}
	_, err = fmt.Fprintln(s.stderr, r.summary())
	return err
}

// printTo prints to an output, which is there when it is complete.
func (r *replaying) printTo(ctx context.Context, out *output) error {
	err := r.run(ctx)
	if ctx.Err() != nil {
		return errors.New("interrupted: " + out.unfinished())
	}
	if err != nil {
		return err
	}
	return out.commit()
}

func ledgerSource(l *ledger.Ledger) replay.Source {
	return replay.Source{ID: l.ID, Partitions: l.Partitions, Heads: l.Heads, ReadTo: l.ReadTo}
}

// replaying is a replay under way.
type replaying struct {
	query
	source   replay.Source
	printer  printer
	progress *progress
	began    time.Time

	messages int64 // that were read
	printed  int64 // pairs
	erased   int64 // positions without any
}

// counted returns the source with its messages counted.
func (r *replaying) counted(source replay.Source) replay.Source {
	read := source.ReadTo
	source.ReadTo = func(ctx context.Context, stream events.Stream, partition int, subjects []string, after, last uint64) iter.Seq2[[]events.Message, error] {
		return func(yield func([]events.Message, error) bool) {
			for batch, err := range read(ctx, stream, partition, subjects, after, last) {
				r.messages += int64(len(batch))
				if !yield(batch, err) {
					return
				}
			}
		}
	}
	return source
}

// run prints all partitions, one after another.
func (r *replaying) run(ctx context.Context) error {
	stretches, err := r.stretches(ctx, r.source)
	if err != nil {
		return err
	}
	for _, s := range stretches {
		r.progress.total += s.length()
	}
	for _, s := range stretches {
		if err := r.replay(ctx, s); err != nil {
			return err
		}
	}
	r.progress.clear()
	if r.printed == 0 {
		if err := r.whyNothing(ctx, stretches); err != nil {
			return err
		}
	}
	return r.printer.end()
}

// whyNothing returns an error when nothing was found because nothing could be.
func (r *replaying) whyNothing(ctx context.Context, stretches []stretch) error {
	if r.account != "" {
		if err := r.known(ctx, stretches[0].Partition); err != nil {
			return err
		}
	}
	if r.month == "" {
		return nil
	}
	return r.checkMonth(ctx, stretches)
}

// replay prints one partition.
func (r *replaying) replay(ctx context.Context, s stretch) error {
	passed, there := r.progress.done, uint64(0)
	for pair, err := range s.Pairs(ctx, r.account, s.after, s.last) {
		if err != nil {
			return err
		}
		there++
		r.progress.show(passed+pair.Position.Sequence-s.after, r.messages)
		if !r.matches(s.Partition, &pair) {
			continue
		}
		r.printed++
		if err := r.printer.print(&pair); err != nil {
			return err
		}
	}
	r.erased += r.erasedOf(s, there)
	r.progress.done = passed + s.length()
	return nil
}

// known returns an error unless there is, or was, something of the account.
func (r *replaying) known(ctx context.Context, p *replay.Partition) error {
	for _, e := range p.Erasures {
		if e.Account == r.account {
			return nil
		}
	}
	for batch, err := range r.source.ReadTo(ctx, events.Requests, p.Number, []string{events.Requests.SubjectOf(r.account, p.Number)}, 0, p.Heads.Requests) {
		if err != nil || len(batch) > 0 {
			return err
		}
	}
	return fmt.Errorf("there is nothing of account %s", r.account)
}

// summary says what was done.
func (r *replaying) summary() string {
	text := fmt.Sprintf("%s printed, %s read in %.1f s", count(r.printed, "pair"), count(r.messages, "message"), time.Since(r.began).Seconds())
	if r.erased > 0 {
		text += "; erased, so that nothing is left to print: " + count(r.erased, "position")
	}
	return text
}

func count(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// printer writes pairs in one of the formats.
type printer interface {
	print(*replay.Pair) error
	end() error // writes what is left, if it were only the frame around no pair
}

func newPrinter(format string, w io.Writer, width int) printer {
	switch format {
	case "csv":
		return newCSV(w)
	case "json":
		return &jsonPrinter{w: w, before: "[\n", between: ",\n", after: "\n]\n"}
	case "jsonl":
		return &jsonPrinter{w: w, between: "\n", after: "\n"}
	}
	return &tablePrinter{w: w, width: width}
}

// usage returns an error of a command line that cannot be carried out.
func usage(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{cli.ErrUsage}, args...)...)
}
