package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/cli"
	"jobtally/internal/projections"
)

// A projection that cannot be used is told with the command that mends it, which then works as it is printed.
func TestRebuildMendsWhatIsRefused(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, dir string){
		"damaged": func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, "projection.db"), 5*4096); err != nil {
				t.Fatal(err)
			}
		},
		"newer": func(t *testing.T, dir string) { edit(t, dir, "PRAGMA user_version = 99") },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			p, anna := tracker(t, dir)
			anna.mustCapture(t, "first")
			p.interrupt(t)
			harm(t, dir)
			_, err := operate(t, "account", "open", "bob", "--data", dir)
			_, command, _ := strings.Cut(err.Error(), "`projector ")
			command, _, found := strings.Cut(command, "`")
			if !found {
				t.Fatalf("no command in %q", err)
			}
			said := mustOperate(t, strings.Fields(command)...)
			if !strings.Contains(said, "nothing could be compared: ") {
				t.Errorf("it said\n%s", said)
			}
			mustBeClean(t, "--data", dir)
			_, base := service(t, "--data", dir)
			anna.base = base
			anna.mustHaveUsed(t, 1)
			anna.mustCapture(t, "second")
		})
	}
}

// Where digests differ the exit code says so, the service running or not, and nothing was changed.
func TestRebuildTellsOfOtherDigests(t *testing.T) {
	dir := t.TempDir()
	p, anna := tracker(t, dir)
	anna.mustCapture(t, "first")
	p.interrupt(t)
	edit(t, dir, "UPDATE partitions SET digest = zeroblob(32)")
	refused := func(what string) {
		t.Helper()
		said, err := operate(t, "rebuild", "--data", dir)
		if !errors.Is(err, cli.ErrDifferences) || said != "" || !strings.Contains(err.Error(), "`projector audit --data "+dir+"`") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, and said %q", what, err, said)
		}
		if _, err := operate(t, "audit", "--data", dir); !errors.Is(err, cli.ErrDifferences) {
			t.Errorf("%s: the audit after it: %v", what, err)
		}
	}
	refused("stopped")
	_, anna.base = service(t, "--data", dir)
	refused("running")
	anna.mustCapture(t, "second")
	anna.mustHaveUsed(t, 2)
}

// A node that starts from a copy goes on from there.
func TestBackupIsStartedFrom(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "copy.db")
	p, anna := tracker(t, dir)
	anna.mustCapture(t, "first")
	mustOperate(t, "backup", "--to", file, "--data", dir)
	anna.mustCapture(t, "second")
	p.interrupt(t)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(filepath.Join(dir, "projection.db") + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if err := os.Rename(file, filepath.Join(dir, "projection.db")); err != nil {
		t.Fatal(err)
	}
	_, anna.base = service(t, "--data", dir)
	anna.mustHaveUsed(t, 2)
	mustBeClean(t, "--data", dir)
}

// Where the ledger contradicts itself the same command comes to the same end: what helps is to know where.
func TestRebuildOfALedgerThatContradictsItself(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, p *process, dir string){
		"a changed decision": func(t *testing.T, p *process, dir string) {
			p.interrupt(t)
			alterDecision(t, dir, 5, func(m *nats.Msg) { m.Data = bytes.Replace(m.Data, []byte("Engineer"), []byte("Director"), 1) })
			if err := os.Remove(filepath.Join(dir, "projection.db")); err != nil {
				t.Fatal(err)
			}
		},
		"a gap": func(t *testing.T, _ *process, dir string) { removeDecision(t, dir, 3) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			p, anna := tracker(t, dir)
			anna.mustCapture(t, "first")
			anna.mustCapture(t, "second")
			harm(t, p, dir)
			said, err := operate(t, "rebuild", "--data", dir)
			if err == nil || strings.Contains(err.Error(), "goes on") || strings.Count(err.Error(), "`projector audit --data "+dir+"` tells where") != 1 {
				t.Errorf("%v, and said %q", err, said)
			}
		})
	}
}

// removeDecision removes one from the ledger of a running service.
func removeDecision(t *testing.T, dir string, sequence uint64) {
	t.Helper()
	js, err := jetstream.New(behind(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(within(t), "DECISIONS_0")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.DeleteMsg(within(t), sequence); err != nil {
		t.Fatal(err)
	}
}

func TestSecondRebuildSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	service(t, "--data", dir)
	first, err := os.Create(filepath.Join(dir, "projection.rebuild"))
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if err := syscall.Flock(int(first.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := operate(t, "rebuild", "--data", dir); !errors.Is(err, projections.ErrUnderWay) || !strings.Contains(err.Error(), "wait for the other rebuild, or end it") {
		t.Errorf("a second one: %v", err)
	}
}
