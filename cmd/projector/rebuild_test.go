package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"jobtally/internal/cli"
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
