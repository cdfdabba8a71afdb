// Command bench measures the service against baselines that it measures in the same run, prints one table, and writes
// it to bench/RESULTS.md. It is run from the root of the checkout: make bench.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"

	"jobtally/internal/cli"
)

type flags struct {
	Rows      string `default:"" placeholder:"REGEXP" help:"Measure only the rows whose name matches: captures-1, captures-64, captures-256, cluster-64, cluster-256, duplicates, rejected, quota, quota-bare, quota-304, fold, redecide, replay, audit, captures-full, start, rebuild, start-killed, memory, streams, streams-back, streams-memory."`
	Runs      int    `default:"0" placeholder:"N" help:"Runs of each row, of which the median counts (default: 3, or 1 with --quick)."`
	Quick     bool   `help:"A smoke run of a minute, on small ledgers. Its figures say little."`
	Out       string `default:"bench/RESULTS.md" placeholder:"FILE" help:"Where the table is written (default: ${default}); empty for nowhere."`
	Dir       string `placeholder:"DIR" help:"Scratch directory on the disk to measure; new or empty, and emptied at the end (default: a fresh one on the disk of the checkout)."`
	InProcess bool   `name:"inprocess" help:"Run the service inside of the bench, and write CPU profiles of the capture rows and of the fold beside --out."`
	Serve     string `hidden:"" help:"Be a baseline server: constant or bare."`
	Token     string `hidden:"" help:"The token that the baseline server knows."`
}

func main() { os.Exit(cli.Main(run)) }

// run is the bench from start to end.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var f flags
	parsed, err := cli.Parse(&f, "bench", "bench measures jobtally against what the machine can do.", args, stdout, stderr)
	if parsed == nil {
		return err
	}
	if f.Serve != "" {
		return serveBaseline(ctx, f.Serve, f.Token, stderr)
	}
	chosen, err := regexp.Compile(f.Rows)
	if err != nil {
		return fmt.Errorf("%w: --rows: %w", cli.ErrUsage, err)
	}
	return f.bench(ctx, chosen, stdout, stderr)
}

func (f flags) bench(ctx context.Context, chosen *regexp.Regexp, stdout, stderr io.Writer) (err error) {
	scratch, err := openScratch(f.Dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, scratch.close()) }()
	s := &suite{
		scratch: scratch, size: f.sizes(), inProcess: f.InProcess, profiles: filepath.Dir(f.Out), progress: stderr,
	}
	rows := s.rows(chosen)
	if len(rows) == 0 {
		return fmt.Errorf("%w: no row is called %q", cli.ErrUsage, f.Rows)
	}
	r := report{machine: describeMachine(scratch.fileSystem), size: s.size, caveats: f.caveats()}
	quietness := listen()
	s.say("%s; scratch directory %s", r.machine, scratch.path)
	r.measure(ctx, rows, s)
	r.others = quietness.others(r.machine.cores)
	fmt.Fprint(stdout, plainTable(r.rows))
	s.say("%s", r.quietness())
	if f.Out != "" && ctx.Err() == nil {
		err = os.WriteFile(f.Out, []byte(r.markdown()), 0o644)
	}
	return errors.Join(append(r.failed, err)...)
}

// measure measures rows one after another. A row that fails does not keep the others from being measured.
func (r *report) measure(ctx context.Context, rows []row, s *suite) {
	for _, row := range rows {
		m, err := row.run(ctx, s.size.runs, s.say)
		if err != nil {
			s.say("%v", err)
			r.failed = append(r.failed, err)
		} else {
			r.rows = append(r.rows, m)
		}
		if ctx.Err() != nil {
			return
		}
	}
}

func (f flags) sizes() sizes {
	switch {
	case f.Quick:
		return quick(max(1, f.Runs))
	case f.Runs > 0:
		return full(f.Runs)
	}
	return full(3)
}

// caveats says why the figures are not those of a whole run.
func (f flags) caveats() (caveats []string) {
	if f.Quick {
		caveats = append(caveats, "A smoke run (--quick): small ledgers, short loads.")
	}
	if f.Rows != "" {
		caveats = append(caveats, fmt.Sprintf("Only the rows that match %q.", f.Rows))
	}
	if f.InProcess {
		caveats = append(caveats, "The service ran inside of the generator's process (--inprocess), under a profiler.")
	}
	return caveats
}
