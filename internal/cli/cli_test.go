package cli_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"jobtally/internal/cli"
)

// command makes this test binary a command, whose behaviour its value names.
const command = "CLI_TEST_COMMAND"

func TestMain(m *testing.M) {
	if behaviour := os.Getenv(command); behaviour != "" {
		os.Exit(cli.Main(func(ctx context.Context, args []string, stdout, stderr io.Writer) error {
			return behave(ctx, behaviour, args, stdout)
		}))
	}
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "JOBTALLY_") {
			os.Unsetenv(name)
		}
	}
	os.Exit(m.Run())
}

// patience bounds every wait of a test: only a failing one waits that long.
const patience = 3 * time.Minute

func behave(ctx context.Context, behaviour string, args []string, stdout io.Writer) error {
	switch behaviour {
	case "echo":
		fmt.Fprintln(stdout, args)
	case "fail":
		return errors.New("it did not work")
	case "usage":
		return fmt.Errorf("%w: this is how", cli.ErrUsage)
	case "differ":
		return fmt.Errorf("%w: 2", cli.ErrDifferences)
	case "wait":
		fmt.Fprintln(stdout, "waiting")
		<-ctx.Done()
		fmt.Fprintln(stdout, "told to stop")
	case "hang":
		fmt.Fprintln(stdout, "waiting")
		<-ctx.Done()
		fmt.Fprintln(stdout, "told to stop, not stopping")
		select {}
	}
	return nil
}

// process returns the test binary as a command called name.
func process(t *testing.T, behaviour string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Args[0] = "name"
	cmd.Env = append(os.Environ(), command+"="+behaviour)
	return cmd
}

func TestExitCodes(t *testing.T) {
	for _, test := range []struct {
		behaviour      string
		code           int
		stdout, stderr string
	}{
		{"echo", 0, "[a b]\n", ""},
		{"fail", 1, "", "name: it did not work\n"},
		{"usage", 2, "", "usage: this is how\n"},
		{"differ", 3, "", "name: differences were found: 2\n"},
	} {
		var stdout, stderr bytes.Buffer
		cmd := process(t, test.behaviour, "a", "b")
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != test.code {
			t.Errorf("%s: exit code %d (%v), want %d", test.behaviour, code, err, test.code)
		}
		if stdout.String() != test.stdout || stderr.String() != test.stderr {
			t.Errorf("%s: printed %q and %q", test.behaviour, &stdout, &stderr)
		}
	}
}

func TestSignalsStop(t *testing.T) {
	for _, signal := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		cmd, stdout := started(t, "wait")
		cmd.Process.Signal(signal)
		expect(t, stdout, "told to stop\n")
		if err := cmd.Wait(); err != nil {
			t.Errorf("after %s: %v", signal, err)
		}
	}
}

func TestSecondSignalKills(t *testing.T) {
	cmd, stdout := started(t, "hang")
	cmd.Process.Signal(syscall.SIGINT)
	expect(t, stdout, "told to stop, not stopping\n")
	// The handler is taken off at the same time as the context ends, in no order: until then a signal does nothing.
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for deadline := time.NewTimer(patience); ; {
		cmd.Process.Signal(syscall.SIGINT)
		again := time.NewTimer(20 * time.Millisecond)
		select {
		case <-ended:
			if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGINT {
				t.Errorf("ended by %v", cmd.ProcessState)
			}
			return
		case <-again.C:
		case <-deadline.C:
			t.Fatal("a second signal does not end the process")
		}
	}
}

func started(t *testing.T, behaviour string) (*exec.Cmd, io.Reader) {
	t.Helper()
	cmd := process(t, behaviour)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	expect(t, stdout, "waiting\n")
	return cmd, stdout
}

func expect(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v, want %q", got, err, want)
	}
}

type grammar struct {
	Name  string `arg:"" optional:"" help:"A name."`
	Count int    `default:"3" help:"A count (default: ${default})."`
	Limit *int64 `help:"A limit."`
	Plans cli.Plans
	Sync  cli.Sync `default:"always"`
	cli.Logging
}

func parse(args ...string) (g grammar, stdout, stderr bytes.Buffer, parsed bool, err error) {
	context, err := cli.Parse(&g, "tool", "Does things.", args, &stdout, &stderr)
	return g, stdout, stderr, context != nil, err
}

func TestHelpIsNoFailure(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"-h"}, {"name", "--count", "4", "--help"}} {
		_, stdout, stderr, parsed, err := parse(args...)
		if parsed || err != nil {
			t.Errorf("%q: parsed %t, %v, want neither", args, parsed, err)
		}
		for _, want := range []string{"Usage: tool", "Does things.", "--count=3", "$JOBTALLY_COUNT", "$JOBTALLY_LOG_LEVEL"} {
			if !strings.Contains(stdout.String(), want) {
				t.Errorf("%q: help lacks %q:\n%s", args, want, &stdout)
			}
		}
		if stderr.Len() > 0 {
			t.Errorf("%q: help on standard error: %s", args, &stderr)
		}
	}
}

func TestWrongCommandLines(t *testing.T) {
	for want, args := range map[string][]string{
		"unknown flag --cuont":                          {"--cuont", "4"},
		"--count: expected a valid 64 bit int":          {"--count", "four"},
		"unexpected argument b":                         {"a", "b"},
		`"often" is neither always nor an interval`:     {"--sync", "often"},
		`"0s" is neither always nor an interval`:        {"--sync", "0s"},
		`"free" is not a plan: write NAME=LIMIT`:        {"--plans", "free"},
		"--log-format must be one of":                   {"--log-format", "xml"},
		`--log-level: slog: level string "loud"`:        {"--log-level", "loud"},
		"--limit: expected a valid 64 bit int but got ": {"--limit", "many"},
	} {
		_, stdout, _, parsed, err := parse(args...)
		if !errors.Is(err, cli.ErrUsage) || parsed || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%q: %v, want ErrUsage with %s", args, err, want)
			continue
		}
		if text := err.Error(); !strings.HasPrefix(text, "usage: ") || !strings.HasSuffix(text, "; see tool --help") || strings.Contains(text, "\n") {
			t.Errorf("%q: %s", args, text)
		}
		if stdout.Len() > 0 {
			t.Errorf("%q: printed %s", args, &stdout)
		}
	}
}

func TestNegativeLimitIsAValue(t *testing.T) {
	for _, args := range [][]string{{"--limit", "-1"}, {"--limit=-1"}} {
		g, _, _, _, err := parse(args...)
		if err != nil || g.Limit == nil || *g.Limit != -1 {
			t.Errorf("%q: %v, %v", args, g.Limit, err)
		}
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("JOBTALLY_COUNT", "7")
	t.Setenv("JOBTALLY_PLANS", "free=1,big=-1")
	t.Setenv("JOBTALLY_SYNC", "2s")
	t.Setenv("JOBTALLY_LOG_LEVEL", "warn")
	g, _, _, _, err := parse()
	if err != nil || g.Count != 7 || g.Plans["big"] != -1 || time.Duration(g.Sync) != 2*time.Second || g.LogLevel != slog.LevelWarn {
		t.Errorf("%+v, %v", g, err)
	}
	if g, _, _, _, err = parse("--count", "8", "--sync", "always"); err != nil || g.Count != 8 || g.Sync != 0 {
		t.Errorf("flags go before the environment: %+v, %v", g, err)
	}
	t.Setenv("JOBTALLY_COUNT", "many")
	if _, _, _, _, err = parse(); !errors.Is(err, cli.ErrUsage) {
		t.Errorf("a wrong value: %v, want ErrUsage", err)
	}
}
