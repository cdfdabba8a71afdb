// Package cli holds what the two commands share: how a command line becomes a run, an error an exit code, and the
// flags that both have.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// The exit codes.
const (
	exitFailure     = 1
	exitUsage       = 2
	exitDifferences = 3
)

var (
	// ErrUsage is the error of a command line that cannot be carried out as it stands.
	ErrUsage = errors.New("usage")
	// ErrDifferences is the error of a comparison that was carried out, and found that something differs.
	ErrDifferences = errors.New("differences were found")
)

// Run is a command: what main is but for the process. A test starts it with a context of its own.
type Run func(ctx context.Context, args []string, stdout, stderr io.Writer) error

// Main runs a command until it ends or the process is told to stop, and returns the exit code: 0, 1 after a failure,
// 2 for a wrong command line, 3 where a comparison found differences. The first SIGINT or SIGTERM ends the context, a
// second one ends the process.
func Main(run Run) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrUsage):
		fmt.Fprintln(os.Stderr, err)
		return exitUsage
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[0], err)
	if errors.Is(err, ErrDifferences) {
		return exitDifferences
	}
	return exitFailure
}

// Parse reads a command line into the kong grammar that flags points to. It returns nil when the command line asked
// for help, which is then printed. Each flag has an environment variable, JOBTALLY_ and its name in upper case, unless its tag
// says env:"-": what confirms something that cannot be undone.
func Parse(flags any, name, description string, args []string, stdout, stderr io.Writer) (*kong.Context, error) {
	helped := false
	parser, err := kong.New(flags, kong.Name(name), kong.Description(description), kong.Writers(stdout, stderr),
		kong.DefaultEnvars("JOBTALLY"), kong.Exit(func(int) { helped = true }),
		kong.WithHyphenPrefixedParameters(true), // --limit -1
		kong.ConfigureHelp(kong.HelpOptions{WrapUpperBound: 110}))
	if err != nil {
		return nil, err
	}
	parsed, err := parser.Parse(args)
	if helped {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w; see %s --help", ErrUsage, err, name)
	}
	return parsed, nil
}
