package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobtally/internal/cli"
	"jobtally/internal/ledger"
	"jobtally/internal/projections"
)

// behind connects to the ledger of what runs on a directory, behind its back, until the test ends.
func behind(t *testing.T, dir string) *nats.Conn {
	t.Helper()
	url, err := ledger.EmbeddedURL(dir)
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(url, nats.NoReconnect())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// teleport puts a request of a newer version into the ledger of a service.
func teleport(t *testing.T, dir string) {
	t.Helper()
	m := &nats.Msg{Subject: "requests.0.anna.job_teleport", Data: []byte(`{}`), Header: nats.Header{
		"ce-specversion": {"1.0"}, "ce-id": {"1"}, "ce-source": {"/jobtally/accounts/anna"},
		"ce-type": {"jobtally.job.teleport_requested.v9"}, "ce-time": {"2026-11-22T10:00:00Z"},
	}}
	if _, err := behind(t, dir).RequestMsg(m, patience); err != nil {
		t.Fatal(err)
	}
}

// TestStatusSaysWhyAPartitionIsStuck asks while the service runs, and after it was killed.
func TestStatusSaysWhyAPartitionIsStuck(t *testing.T) {
	dir := t.TempDir()
	p, anna := tracker(t, dir)
	anna.mustCapture(t, "1")
	teleport(t, dir)
	p.await(t, "partition stopped")

	const reason = `request 0-6: unknown type "jobtally.job.teleport_requested.v9"; a newer jobtally wrote it`
	text := mustOperate(t, "status", "--data", dir)
	if !strings.Contains(text, "a node runs on "+dir) || !regexp.MustCompile(`(?m)^partition 0 makes no progress since \S+Z: `+reason).MatchString(text) || strings.Contains(text, "is stuck") {
		t.Errorf("status says\n%s", text)
	}
	l := statusOf(t, "--data", dir).Ledgers[0]
	if f := l.Nodes[0].Partitions[0]; !l.Nodes[0].Running || !strings.HasPrefix(f.Failure, reason) || f.FailingSince == nil {
		t.Errorf("the node: %+v", l.Nodes[0])
	}
	if p := l.Partitions[0]; !strings.HasPrefix(p.Stuck, reason) || p.Undecided != 1 {
		t.Errorf("the partition: %+v", p)
	}

	p.kill(t)
	if _, err := os.Stat(filepath.Join(dir, "failure.json")); err != nil {
		t.Error(err)
	}
	text = mustOperate(t, "status", "--data", dir)
	if !strings.Contains(text, "no node runs on "+dir) || !strings.Contains(text, "partition 0 is stuck: "+reason) || strings.Contains(text, "makes no progress") {
		t.Errorf("killed, status says\n%s", text)
	}
}

// TestStatusComparesDigests compares two nodes on one server that hold the same, and after one of them was changed.
func TestStatusComparesDigests(t *testing.T) {
	url, a, b := natsServer(t), t.TempDir(), t.TempDir()
	mustOperate(t, "init", "--nats", url, "--partitions", "3")
	one, other := projector(t, url, a), projector(t, url, b)
	for _, account := range []string{"anna", "bob", "carl"} {
		mustOperate(t, "account", "open", account, "--nats", url)
	}
	converge(t, url, a, b)
	one.interrupt(t)
	other.interrupt(t)
	args := []string{"--nats", url, "--data", a, "--data", b}
	if text := mustOperate(t, append([]string{"status"}, args...)...); !strings.HasSuffix(text, "\nA and B: the digests agree in partitions 0 to 2\n") {
		t.Errorf("status says\n%s", text)
	}
	c := statusOf(t, args...).Comparisons
	if len(c) != 1 || len(c[0].Agree) != 3 || len(c[0].Apart)+len(c[0].Differ) != 0 || len(c[0].Nodes) != 2 {
		t.Errorf("%+v", c)
	}

	var partition int
	for _, p := range statusOf(t, args...).Ledgers[0].Partitions {
		if p.Requests > 0 {
			partition = p.Partition
		}
	}
	edit(t, b, "UPDATE partitions SET digest = zeroblob(32) WHERE partition = "+strconv.Itoa(partition))
	text, err := operate(t, append([]string{"status"}, args...)...)
	if !errors.Is(err, cli.ErrDifferences) || !strings.Contains(text, "A and B: THE DIGESTS DIFFER in partition ") {
		t.Errorf("%v, and status says\n%s", err, text)
	}

	edit(t, b, "PRAGMA user_version = 99")
	text = mustOperate(t, append([]string{"status"}, args...)...)
	if strings.Contains(text, "A and B") || !strings.Contains(text, "B: no node runs on "+b) || !strings.Contains(text, "it has schema version 99") {
		t.Errorf("of another version, status says\n%s", text)
	}
}

// A directory that is taken by what cannot be reached is told of with what to do.
func TestStatusOfAnUnreachableService(t *testing.T) {
	dir := t.TempDir()
	p, _ := tracker(t, dir)
	p.interrupt(t)
	unlock, err := ledger.LockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if err := os.WriteFile(filepath.Join(dir, "failure.json"), []byte(`[{"partition":0,"since":"2026-11-22T10:00:00Z","reason":"the disk is full"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err = run(ctx, []string{"status", "--data", dir}, io.Discard, io.Discard)
	for _, want := range []string{"cannot be reached", "try again in a moment, or see its log", "partition 0 makes no progress: the disk is full"} {
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if !errors.Is(err, ledger.ErrLocked) {
		t.Errorf("%v, want ErrLocked", err)
	}
}

// Every field of the JSON stands in its document, and nothing else does.
func TestStatusFieldsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/STATUS.md")
	if err != nil {
		t.Fatal(err)
	}
	documented, fields := map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "| `") {
			cell, _, _ := strings.Cut(line[2:], " |")
			for name := range strings.SplitSeq(cell, ", ") {
				documented[strings.Trim(name, "`")] = true
			}
		}
	}
	jsonFields(reflect.TypeFor[statusReport](), fields)
	if !maps.Equal(documented, fields) {
		t.Errorf("documented are %v, there are %v", slices.Sorted(maps.Keys(documented)), slices.Sorted(maps.Keys(fields)))
	}
}

func jsonFields(of reflect.Type, into map[string]bool) {
	switch {
	case of.Kind() == reflect.Slice, of.Kind() == reflect.Pointer:
		jsonFields(of.Elem(), into)
	case of.Kind() == reflect.Struct:
		for i := range of.NumField() {
			f := of.Field(i)
			if name := f.Tag.Get("json"); name != "" {
				into[name] = true
			}
			if f.Tag.Get("json") != "" || f.Anonymous {
				jsonFields(f.Type, into)
			}
		}
	}
}

// watching is a status --watch whose output is read as it comes.
type watching struct {
	cmd  *exec.Cmd
	read io.Reader
	seen bytes.Buffer
}

func watch(t *testing.T, args ...string) *watching {
	t.Helper()
	w := &watching{cmd: exec.Command(program(t, "projector"), append([]string{"status", "--watch", "--every", "100ms"}, args...)...)}
	stdout, err := w.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	w.read = stdout
	w.start(t)
	return w
}

func (w *watching) start(t *testing.T) {
	t.Helper()
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.cmd.Process.Kill() }) // one that ended is no matter
}

// until reads until what came matches, and forgets that.
func (w *watching) until(t *testing.T, pattern string) string {
	t.Helper()
	timer := time.AfterFunc(patience, func() { w.cmd.Process.Kill() })
	defer timer.Stop()
	for wanted, buffer := regexp.MustCompile(pattern), make([]byte, 4096); ; {
		if at := wanted.FindIndex(w.seen.Bytes()); at != nil {
			return string(w.seen.Next(at[1]))
		}
		n, err := w.read.Read(buffer)
		w.seen.Write(buffer[:n])
		if err != nil {
			t.Fatalf("%v before %q, after %s", err, pattern, &w.seen)
		}
	}
}

// mustEnd waits for the end, which is to be an orderly one.
func (w *watching) mustEnd(t *testing.T) {
	t.Helper()
	timer := time.AfterFunc(patience, func() { w.cmd.Process.Kill() })
	defer timer.Stop()
	if err := w.cmd.Wait(); err != nil {
		t.Errorf("%v, want exit code 0", err)
	}
}

// TestWatchSurvivesTheService watches a service that is stopped and started again.
func TestWatchSurvivesTheService(t *testing.T) {
	dir := t.TempDir()
	p, anna := tracker(t, dir)
	w := watch(t, "--data", dir)
	w.until(t, `(?m)^\d{4}-\d\d-\d\dT\S+Z\nledger .*\na node runs on `+dir+`.*\n\nPARTITION.*\n0 +4 .*\n\n`)
	anna.mustCapture(t, "1")
	w.until(t, `\n0 +5 +0 +5 +- +5 +0 +[0-9a-f]{8}\n\n`)
	p.interrupt(t)
	w.until(t, `(?m)^\d{4}-\d\d-\d\dT\S+Z\ncannot be reached: no node runs on .*, trying\n\n`)
	p, _ = service(t, "--data", dir) // which takes the directory, although somebody watches
	w.until(t, `a node runs on `+dir+`.*\n\nPARTITION.*\n0 +5 `)
	p.kill(t)
	w.until(t, `cannot be reached: .*, trying\n`)
	w.cmd.Process.Signal(syscall.SIGINT)
	w.mustEnd(t)
}

// TestWatchInJSON has an object a line, also while there is nothing to see.
func TestWatchInJSON(t *testing.T) {
	url := natsServer(t)
	mustOperate(t, "init", "--nats", url, "--partitions", "1")
	w := watch(t, "--json", "--nats", url)
	for range 2 {
		var report statusReport
		if line := w.until(t, `.*\n`); json.Unmarshal([]byte(line), &report) != nil || report.Time.IsZero() || len(report.Ledgers[0].Partitions) != 1 {
			t.Errorf("a line %s", line)
		}
	}
	w.cmd.Process.Signal(syscall.SIGINT)
	w.mustEnd(t)

	down := watch(t, "--json", "--nats", "nats://127.0.0.1:1")
	for range 2 {
		var report statusReport
		if line := down.until(t, `.*\n`); json.Unmarshal([]byte(line), &report) != nil || !strings.Contains(report.Ledgers[0].Error, "connect to the NATS server") {
			t.Errorf("a line %s", line)
		}
	}
	down.cmd.Process.Signal(syscall.SIGTERM)
	down.mustEnd(t)
}

// Waiting for a name that is wrong is of no use.
func TestWatchEndsAtWrongNames(t *testing.T) {
	one, other, data := natsServer(t), natsServer(t), t.TempDir()
	mustOperate(t, "init", "--nats", one, "--partitions", "1")
	projector(t, one, data).interrupt(t)
	for _, c := range []struct {
		args []string
		want error
	}{
		{[]string{"--data", filepath.Join(data, "missing")}, ledger.ErrNoLedger},
		{[]string{"--data", data}, ledger.ErrNoLedger},
		{[]string{"--nats", other}, ledger.ErrNoLedger},
	} {
		if text, err := operate(t, append([]string{"status", "--watch"}, c.args...)...); !errors.Is(err, c.want) || text != "" {
			t.Errorf("%q: %v, %s", c.args, err, text)
		}
	}
	mustOperate(t, "init", "--nats", other, "--partitions", "1")
	if _, err := operate(t, "status", "--watch", "--nats", other, "--data", data); !errors.Is(err, projections.ErrMismatch) {
		t.Errorf("%v, want ErrMismatch", err)
	}
}

// TestWatchRedrawsATerminal gives it one of 6 lines, and ends it with Ctrl-C.
func TestWatchRedrawsATerminal(t *testing.T) {
	url := natsServer(t)
	mustOperate(t, "init", "--nats", url, "--partitions", "8")
	master, terminal := pty(t, 6, 120)
	w := &watching{cmd: exec.Command(program(t, "projector"), "status", "--watch", "--every", "100ms", "--nats", url), read: master}
	w.cmd.Stdin, w.cmd.Stdout, w.cmd.Stderr = terminal, terminal, terminal
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	w.start(t)
	block := `\x1b\[H%s20\S+Z\x1b\[K\r\nledger .*\x1b\[K\r\n\x1b\[K\r\nPARTITION.*\x1b\[K\r\n0 .*\r\n\.\.\.\x1b\[K\x1b\[J`
	if first := w.until(t, strings.Replace(block, "%s", `\x1b\[2J`, 1)); strings.Count(first, "\n") != 5 {
		t.Errorf("%d lines on a terminal of 6: %q", strings.Count(first, "\n")+1, first)
	}
	w.until(t, strings.Replace(block, "%s", "", 1))
	if _, err := master.WriteString("\x03"); err != nil {
		t.Fatal(err)
	}
	w.mustEnd(t)
}
