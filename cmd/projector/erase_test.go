package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"jobtally/internal/cli"
	"jobtally/internal/node"
)

// TestEraseAsksForTheNameOnATerminal has an operator type something else, leave, and type the name.
func TestEraseAsksForTheNameOnATerminal(t *testing.T) {
	data := t.TempDir()
	p, _ := service(t, "--data", data)
	mustOperate(t, "account", "open", "anna", "--data", data)
	ask := func(ctx context.Context, typed string, meanwhile func()) (stdout, stderr string, err error) {
		operator, command := pty(t, 24, 80)
		var out, errs strings.Builder
		if _, err := io.WriteString(operator, typed); err != nil {
			t.Fatal(err)
		}
		meanwhile()
		s := &session{ctx: ctx, stdin: command, stdout: &out, stderr: &errs, log: nil}
		err = (&eraseCmd{Account: "anna", access: access{Data: data}}).Run(s)
		return out.String(), errs.String(), err
	}
	nothing := func() {}
	for _, typed := range []string{"bob\n", "\n", "Anna\n", "anna bob\n", "y\n"} {
		stdout, stderr, err := ask(within(t), typed, nothing)
		if err == nil || !strings.Contains(err.Error(), "nothing was erased") || stdout != "" || !strings.Contains(stderr, "Type its name") {
			t.Errorf("typed %q: %q, %q, %v", typed, stdout, stderr, err)
		}
	}
	interrupted, interrupt := context.WithCancel(within(t))
	if _, _, err := ask(interrupted, "", interrupt); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	if again := mustOperate(t, "status", "--data", data); !strings.Contains(again, "\n0          3 ") {
		t.Fatalf("something was appended:\n%s", again)
	}
	stdout, _, err := ask(within(t), "anna\n", nothing)
	if err != nil || !strings.HasPrefix(stdout, "account anna is erased at 0-4; its requests: 1\nnothing of it is left") {
		t.Errorf("%q, %v", stdout, err)
	}
	if again, _, err := ask(within(t), "", nothing); err != nil || !strings.HasPrefix(again, "account anna is erased at 0-4 already") {
		t.Errorf("again: %q, %v", again, err) // there is nothing to ask
	}
	p.interrupt(t)
}

// TestTheEnvironmentConfirmsNothing has variables stand for what only a person may say.
func TestTheEnvironmentConfirmsNothing(t *testing.T) {
	t.Setenv("JOBTALLY_YES", "true")
	t.Setenv("JOBTALLY_ACCOUNT", "anna")
	data := t.TempDir()
	for want, args := range map[string][]string{
		"missing flags: --account=NAME":                     {"erase", "--yes", "--data", data},
		"there is no terminal to ask on: give --yes":        {"erase", "--account", "anna", "--data", data},
		"usage: there is no terminal to ask on: give --yes": {"webhook", "redrive", "wh_x", "--redeliver", "--from", "0-1", "--to", "0-2", "--data", data},
	} {
		if _, err := operate(t, args...); !errors.Is(err, cli.ErrUsage) || !strings.Contains(err.Error(), want) {
			t.Errorf("projector %s: %v, want %s", strings.Join(args, " "), err, want)
		}
	}
}

// TestEraseOnAServerOfItsOwn erases beside a projector that decides and one that stands by, and then without any.
func TestEraseOnAServerOfItsOwn(t *testing.T) {
	url := natsServer(t)
	mustOperate(t, "init", "--nats", url, "--partitions", "2")
	first, second := projector(t, url, t.TempDir()), projector(t, url, t.TempDir())
	_, base := service(t, "--nats", url, "--data", t.TempDir())
	mustOperate(t, "account", "open", "anna", "--nats", url)
	mustOperate(t, "account", "open", "ops", "--nats", url)
	anna := client{base: base, token: strings.TrimSpace(mustOperate(t, "token", "issue", "--account", "anna", "--nats", url))}
	ops := client{base: base, token: strings.TrimSpace(mustOperate(t, "token", "issue", "--account", "ops", "--scope", "admin", "--nats", url))}
	for i := range 20 {
		if _, err := anna.capture(within(t), fmt.Sprint("job", i)); err != nil {
			t.Fatal(err)
		}
	}
	erased := mustOperate(t, "erase", "--account", "anna", "--yes", "--nats", url)
	if !strings.Contains(erased, "; its requests: 22\n") || !strings.Contains(erased, " 20 captured, 0 duplicated, 0 rejected\n") {
		t.Errorf("said %s", erased)
	}
	if _, err := anna.until(within(t), "GET", "/api/jobs/quota", "", "", http.StatusUnauthorized); err != nil {
		t.Error(err)
	}
	if _, err := ops.until(within(t), "DELETE", "/api/admin/accounts/anna", "", "", http.StatusOK); err != nil {
		t.Error(err)
	}
	if _, err := operate(t, "erase", "--account", "nobody", "--yes", "--nats", url); !errors.Is(err, node.ErrNoAccount) {
		t.Errorf("nobody: %v", err)
	}
	first.interrupt(t)
	second.interrupt(t)
	again := mustOperate(t, "erase", "--account", "anna", "--yes", "--nats", url)
	if again == erased || strings.Replace(again, " already", "", 1) != erased {
		t.Errorf("again it said %s", again)
	}
	fresh := t.TempDir()
	follower, _ := service(t, "--nats", url, "--data", fresh)
	follower.interrupt(t)
	if audit := mustOperate(t, "audit", "--nats", url, "--data", fresh); !strings.Contains(audit, "\n22 positions are erased with their accounts\n") || !strings.HasSuffix(audit, "clean\n") {
		t.Errorf("audit: %s", audit)
	}
}

func TestScopesThereAreNot(t *testing.T) {
	if _, err := operate(t, "token", "issue", "--account", "anna", "--scope", "admin,root", "--data", t.TempDir()); !errors.Is(err, cli.ErrUsage) {
		t.Errorf("%v, want ErrUsage", err)
	}
}
