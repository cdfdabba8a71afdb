package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// exportedMonths are the archives of a ledger of three months.
func exportedMonths(t *testing.T) (dirs []string) {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command(program(t, "demo"), filepath.Join(dir, "data"), "--now", "2026-04-20T12:00:00Z").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, month := range []string{"2026-01", "2026-02", "2026-03"} {
		to := filepath.Join(dir, month)
		mustOperate(t, "archive", "export", "--month", month, "--to", to, "--data", filepath.Join(dir, "data"))
		dirs = append(dirs, to)
	}
	return dirs
}

// An archive is proved with jq, zcat and sha256sum, as the page says.
func TestCommandsOfTheFormatPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/archive-format.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllSubmatch(page, -1)
	if len(blocks) < 3 {
		t.Fatalf("the page has %d blocks of commands", len(blocks))
	}
	for _, dir := range exportedMonths(t) {
		for i, block := range blocks {
			run := func() ([]byte, error) {
				cmd := exec.CommandContext(within(t), "bash", "-euo", "pipefail", "-c", string(block[1]))
				cmd.Dir = dir
				return cmd.CombinedOutput()
			}
			out, err := run()
			if err != nil {
				t.Errorf("%s, block %d: %v\n%s", filepath.Base(dir), i+1, err, out)
			}
			if i+1 == len(blocks) && !bytes.Contains(out, []byte(" follows")) {
				t.Errorf("%s: the chain of an account has no link\n%s", filepath.Base(dir), out)
			}
		}
	}
}

// An export that is killed leaves no archive, and nothing that is in the way of the next.
func TestExportIsKilled(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command(program(t, "demo"), filepath.Join(dir, "data"), "--now", "2026-04-20T12:00:00Z").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	to, unfinished := filepath.Join(dir, "february"), filepath.Join(dir, ".february.unfinished")
	export := []string{"archive", "export", "--month", "2026-02", "--to", to, "--data", filepath.Join(dir, "data")}
	there := func(path string) bool { _, err := os.Stat(path); return err == nil }
	killed := 0
	for _, writing := range []string{".", "pairs-0.jsonl.gz", "accounts-0.jsonl.gz", "manifest.json"} {
		cmd := exec.Command(program(t, "projector"), export...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for ctx := within(t); ctx.Err() == nil && !there(filepath.Join(unfinished, writing)) && !there(to); {
			runtime.Gosched()
		}
		cmd.Process.Kill()
		cmd.Wait()
		if there(to) { // it was quicker
			os.RemoveAll(to)
			continue
		}
		killed++
		if !there(unfinished) {
			t.Errorf("killed while it wrote %s, it left nothing", writing)
		}
	}
	if killed == 0 {
		t.Error("no export was killed")
	}
	mustOperate(t, export...)
	if said := mustOperate(t, "archive", "verify", to); !strings.HasSuffix(said, "\nsound\n") {
		t.Error(said)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left %q", left)
	}
}

// An export that is interrupted leaves nothing behind.
func TestExportIsInterrupted(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command(program(t, "demo"), filepath.Join(dir, "data"), "--now", "2026-04-20T12:00:00Z").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	to, unfinished := filepath.Join(dir, "february"), filepath.Join(dir, ".february.unfinished")
	there := func(path string) bool { _, err := os.Stat(path); return err == nil }
	cmd := exec.Command(program(t, "projector"), "archive", "export", "--month", "2026-02", "--to", to, "--data", filepath.Join(dir, "data"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for ctx := within(t); ctx.Err() == nil && !there(unfinished) && !there(to); {
		runtime.Gosched()
	}
	cmd.Process.Signal(os.Interrupt)
	if err := cmd.Wait(); (err == nil) != there(to) { // it may have been quicker
		t.Errorf("ended with %v, and wrote an archive: %t", err, there(to))
	}
	if there(unfinished) {
		t.Error("it left what is not finished")
	}
}

// Whoever interrupts an export, a verification or a replay is told that nothing came of it.
func TestArchiveCommandsAreInterrupted(t *testing.T) {
	dirs := exportedMonths(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, args := range [][]string{
		{"archive", "export", "--month", "2026-01", "--to", filepath.Join(t.TempDir(), "x"), "--data", filepath.Join(filepath.Dir(dirs[0]), "data")},
		{"archive", "replay", dirs[0]},
	} {
		var out, log bytes.Buffer
		if err := run(ctx, args, &out, &log); err == nil || out.Len() > 0 {
			t.Errorf("%s: %v, printed %s", args, err, &out)
		}
	}
}
