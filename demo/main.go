// Command demo builds a ledger of three archived months and the current one, to play with: make demo-months. It is no part
// of the product, and so not in cmd: it runs the real node, on a clock of its own, through months that have passed.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"jobtally/internal/cli"
	"jobtally/internal/events"
	"jobtally/internal/node"
)

type flags struct {
	Dir string    `arg:"" help:"Data directory to build; new or empty."`
	Now time.Time `placeholder:"TIME" help:"End of the story, in the current month (default: now)."`
}

func main() { os.Exit(cli.Main(run)) }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var f flags
	parsed, err := cli.Parse(&f, "demo", "Builds a ledger of three archived months and the current one.", args, stdout, stderr)
	if parsed == nil {
		return err
	}
	if f.Now.IsZero() {
		f.Now = time.Now()
	}
	switch entries, err := os.ReadDir(f.Dir); {
	case len(entries) > 0:
		return fmt.Errorf("%w: %s is not empty: name another directory, or remove it", cli.ErrUsage, f.Dir)
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return err
	}
	past := pastMonths(f.Now)
	b := &builder{config: nodeConfig(f.Dir, stderr)}
	if err := b.build(ctx, past, f.Now); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, whatNext, f.Dir, b.sequence, past[0], past[2], past[3], f.Dir, past[1], f.Dir,
		past[2], past[2], f.Dir, past[0], f.Dir, f.Dir, past[1], f.Dir, past[1], f.Dir, f.Dir, f.Dir, f.Dir, past[1], f.Dir)
	return err
}

// nodeConfig is that of the node, which logs what is wrong and nothing else.
func nodeConfig(dir string, stderr io.Writer) node.Config {
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	return node.Config{Dir: dir, Decides: true, Log: log}
}

const whatNext = `%s has %d requests: the months %s to %s are archived, %s is open.

Read them:
  bin/projector replay --data %s --month %s
  bin/projector replay --data %s --month %s --account anna --format csv --to anna-%s.csv
  bin/projector replay --data %s --account carla --from %s-15 --format jsonl
Prove them:
  bin/projector audit --data %s
  bin/projector audit --data %s --month %s
  bin/projector archive export --data %s --month %s --to %s/archive && bin/projector archive verify %s/archive
Go on with them:
  bin/projector token issue --data %s --account anna
  bin/api --data %s
  curl -s http://127.0.0.1:8080/api/jobs/quota/history/%s?source=ledger -H 'Authorization: Bearer TOKEN'
  bin/projector status --data %s
`

// pastMonths returns the month of a time, and the three before it first.
func pastMonths(now time.Time) (months [4]events.Month) {
	first := events.MonthOf(now).Start()
	for i := range months {
		months[i] = events.MonthOf(first.AddDate(0, i-3, 0))
	}
	return months
}
