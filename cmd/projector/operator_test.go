package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"jobtally/internal/cli"
	"jobtally/internal/ledger"
	"jobtally/internal/projections"
	"jobtally/internal/token"
)

func TestInitOnce(t *testing.T) {
	url := natsServer(t)
	if _, err := operate(t, "run", "--nats", url, "--data", t.TempDir()); !errors.Is(err, ledger.ErrNoLedger) {
		t.Errorf("run without a ledger: %v", err)
	}
	created := mustOperate(t, "init", "--nats", url, "--partitions", "4")
	again := mustOperate(t, "init", "--nats", url, "--partitions", "4")
	if want := strings.Replace(created, "created", "is there already", 1); again != want || created == want {
		t.Errorf("init said %q, and again %q", created, again)
	}
	_, err := operate(t, "init", "--nats", url, "--partitions", "5")
	if !errors.Is(err, ledger.ErrDrift) || errors.Is(err, cli.ErrUsage) {
		t.Errorf("init with another number: %v, want ErrDrift", err)
	}
}

// TestTokensComeAndGo follows a token from its issue to its revocation, as each node sees it.
func TestTokensComeAndGo(t *testing.T) {
	url := natsServer(t)
	mustOperate(t, "init", "--nats", url, "--partitions", "2")
	projector(t, url, t.TempDir())
	mustOperate(t, "account", "open", "anna", "--nats", url)

	text := mustOperate(t, "token", "issue", "--account", "anna", "--nats", url)
	issued, err := token.Parse(strings.TrimSuffix(text, "\n"))
	if err != nil {
		t.Fatalf("token issue printed %q: %v", text, err)
	}
	whole := mustOperate(t, "token", "issue", "--account", "anna", "--nats", url)
	if whole == text {
		t.Error("two tokens are one")
	}

	for _, step := range []struct {
		id, says string
		is       error
	}{
		{issued.ID(), "token " + issued.ID() + " revoked at ", nil},
		{strings.TrimSpace(whole), "token " + whole[3:15] + " revoked at ", nil}, // pasted whole
		{"000000000000", "was never issued", nil},
		{strings.TrimSpace(whole) + "x", "the 12 letters and digits", cli.ErrUsage}, // with a typo
		{"", "the 12 letters and digits", cli.ErrUsage},
	} {
		stdout, err := operate(t, "token", "revoke", step.id, "--account", "anna", "--nats", url)
		if err != nil {
			stdout += err.Error()
		}
		if !strings.Contains(stdout, step.says) || (step.is != nil && !errors.Is(err, step.is)) {
			t.Errorf("revoke %.15q: %s", step.id, stdout)
		}
		if strings.Contains(stdout, whole[16:30]) {
			t.Errorf("revoke repeats the secret: %s", stdout)
		}
	}
}

func TestNothingIsMadeWhereThereIsNothing(t *testing.T) {
	empty := t.TempDir()
	for _, dir := range []string{empty, filepath.Join(empty, "missing")} {
		for _, args := range [][]string{
			{"account", "open", "anna"}, {"account", "plan", "anna", "--plan", "pro"},
			{"token", "issue", "--account", "anna"}, {"token", "revoke", "000000000000", "--account", "anna"}, {"status"},
		} {
			stdout, err := operate(t, append(args, "--data", dir)...)
			if !errors.Is(err, ledger.ErrNoLedger) || !strings.Contains(err.Error(), "start `api --data "+dir+"` first") {
				t.Errorf("%s: %v, want ErrNoLedger", args, err)
			}
			if stdout != "" {
				t.Errorf("%s: printed %s", args, stdout)
			}
		}
	}
	if entries, err := os.ReadDir(empty); err != nil || len(entries) > 0 {
		t.Errorf("left %v, %v", entries, err)
	}
}

func TestUnreachableServerIsToldAtOnce(t *testing.T) {
	for _, args := range [][]string{
		{"init"}, {"status"}, {"run", "--data", t.TempDir()}, {"account", "open", "anna"}, {"token", "issue", "--account", "anna"},
	} {
		_, err := operate(t, append(args, "--nats", "nats://127.0.0.1:1")...)
		if err == nil || errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "\n") || errors.Is(err, cli.ErrUsage) {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func TestOperatorAsksWhetherAProjectorRuns(t *testing.T) {
	t.Parallel()
	url := natsServer(t)
	mustOperate(t, "init", "--nats", url, "--partitions", "1")
	err := run(within(t), []string{"account", "open", "anna", "--nats", url}, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "recorded at 0-1") || !strings.Contains(err.Error(), "is a projector running?") {
		t.Errorf("%v", err)
	}
	if p := statusOf(t, "--nats", url).Ledgers[0].Partitions[0]; p.Requests != 1 || p.Undecided != 1 || p.Decisions != 0 || !strings.Contains(p.Stuck, "start a projector") {
		t.Errorf("one request is undecided: %+v", p)
	}
}

func TestStatusRefusesTheProjectionOfAnother(t *testing.T) {
	one, other, data := natsServer(t), natsServer(t), t.TempDir()
	mustOperate(t, "init", "--nats", one, "--partitions", "1")
	mustOperate(t, "init", "--nats", other, "--partitions", "1")
	projector(t, one, data).interrupt(t)
	if _, err := operate(t, "status", "--nats", other, "--data", data); !errors.Is(err, projections.ErrMismatch) {
		t.Errorf("%v, want ErrMismatch", err)
	}
	mustOperate(t, "status", "--nats", one, "--data", data)
}

func TestEnvironmentNamesTheLedger(t *testing.T) {
	url := natsServer(t)
	t.Setenv("JOBTALLY_NATS", url)
	t.Setenv("JOBTALLY_DATA", t.TempDir())
	t.Setenv("JOBTALLY_PARTITIONS", "3")
	if said := mustOperate(t, "init"); !strings.HasSuffix(said, " created: partitions 3, replicas 1\n") {
		t.Error(said)
	}
	if said := mustOperate(t, "status"); !strings.Contains(said, "partitions: 3") {
		t.Error(said)
	}
}

func TestHelpGoesToStandardOutput(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if err := run(t.Context(), []string{"account", "open", "--help"}, &stdout, &stderr); err != nil || stderr.Len() > 0 {
		t.Errorf("%v, %s", err, &stderr)
	}
	if !strings.HasPrefix(stdout.String(), "Usage: projector account open <name>") {
		t.Error(&stdout)
	}
}
