package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/mattn/go-sqlite3"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/cli"
	"jobtally/internal/ledger"
)

// tracker is a service with an account, and its client.
func tracker(t *testing.T, dir string) (*process, client) {
	t.Helper()
	p, base := service(t, "--data", dir)
	mustOperate(t, "account", "open", "anna", "--plan", "premium", "--data", dir)
	token := strings.TrimSpace(mustOperate(t, "token", "issue", "--account", "anna", "--data", dir))
	return p, client{base: base, token: token}
}

// receiptOf captures a posting and returns its receipt in the form of --receipt.
func (c client) receiptOf(t *testing.T, job string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(within(t), "POST", c.base+"/api/jobs", strings.NewReader(posting(job)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+c.token)
	r.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var a struct {
		Receipt struct{ Position, Digest string }
	}
	if err := json.NewDecoder(response.Body).Decode(&a); err != nil || response.StatusCode != http.StatusCreated {
		t.Fatalf("capture of %s: %d, %v", job, response.StatusCode, err)
	}
	return a.Receipt.Position + ":" + a.Receipt.Digest
}

// mustBeClean audits, and returns what it printed.
func mustBeClean(t *testing.T, args ...string) string {
	t.Helper()
	said := mustOperate(t, append([]string{"audit"}, args...)...)
	if !strings.HasSuffix(said, "\nclean\n") {
		t.Errorf("audit %s said\n%s", strings.Join(args, " "), said)
	}
	return said
}

// mustDiffer audits, and returns the lines before the summary.
func mustDiffer(t *testing.T, args ...string) []string {
	t.Helper()
	said, err := operate(t, append([]string{"audit"}, args...)...)
	if !errors.Is(err, cli.ErrDifferences) || strings.Contains(said, "clean") {
		t.Errorf("audit %s: %v, and said\n%s", strings.Join(args, " "), err, said)
	}
	before, _, _ := strings.Cut(said, "ledger ")
	return strings.Split(strings.TrimSuffix(before, "\n"), "\n")
}

// edit changes a projection behind everybody's back.
func edit(t *testing.T, dir, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite3", filepath.Join(dir, "projection.db"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(statement); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestAuditWhileCapturing audits a service that decides and folds all the while.
func TestAuditWhileCapturing(t *testing.T) {
	dir := t.TempDir()
	p, anna := tracker(t, dir)
	anna.mustCapture(t, "first")
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	captured := make(chan int)
	for worker := range 4 {
		go func() {
			n := 0
			for ; ctx.Err() == nil; n++ {
				if _, err := anna.capture(ctx, fmt.Sprintf("live-%d-%d", worker, n)); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
			captured <- n
		}()
	}
	for range 5 {
		mustBeClean(t, "--data", dir)
	}
	cancel()
	total := 0
	for range 4 {
		total += <-captured
	}
	t.Logf("%d captures meanwhile", total)
	mustBeClean(t, "--data", dir)
	p.interrupt(t)
	mustBeClean(t, "--data", dir)
}

// TestAuditFindsEditedRows edits the projection of a service that is stopped, and audits from outside.
func TestAuditFindsEditedRows(t *testing.T) {
	dir := t.TempDir()
	p, anna := tracker(t, dir)
	for i := range 130 {
		anna.mustCapture(t, fmt.Sprint(i))
	}
	p.interrupt(t)
	clean := mustBeClean(t, "--data", dir)

	edit(t, dir, "UPDATE months SET used = used - 1 WHERE account = 'anna'")
	lines := mustDiffer(t, "--data", dir)
	if want := `-134  anna  row of months `; len(lines) != 1 || !strings.Contains(lines[0], want) || !strings.HasSuffix(lines[0], `: used: expected "130", found "129"`) {
		t.Errorf("found %q", lines)
	}
	cmd := exec.CommandContext(within(t), program(t, "projector"), "audit", "--json", "--data", dir)
	output, _ := cmd.Output()
	if code := cmd.ProcessState.ExitCode(); code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
	wantJSON(t, output)

	edit(t, dir, "UPDATE months SET used = used + 1 WHERE account = 'anna'")
	if again := mustBeClean(t, "--data", dir); again[:strings.Index(again, " messages")] != clean[:strings.Index(clean, " messages")] {
		t.Errorf("set right it says\n%swas\n%s", again, clean)
	}
	edit(t, dir, "DELETE FROM jobs WHERE account = 'anna'")
	if lines = mustDiffer(t, "--data", dir); len(lines) != 101 || lines[100] != "... and 30 more differences" {
		t.Errorf("%d lines, the last %q", len(lines), lines[len(lines)-1])
	}
}

func wantJSON(t *testing.T, output []byte) {
	t.Helper()
	var got []map[string]any
	for line := range bytes.Lines(output) {
		var object map[string]any
		if err := json.Unmarshal(line, &object); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		got = append(got, object)
	}
	if len(got) != 2 || got[0]["type"] != "difference" || got[0]["position"] != "0-134" || got[0]["account"] != "anna" ||
		got[0]["expected"] != "130" || got[0]["found"] != "129" {
		t.Errorf("differences %v", got)
	}
	if s := got[len(got)-1]; s["type"] != "summary" || s["differences"] != 1.0 || s["requests"] != 134.0 || s["seconds"] == 0.0 {
		t.Errorf("summary %v", s)
	}
}

// TestAuditProvesReceipts takes what clients were answered, and changes one answer in the ledger.
func TestAuditProvesReceipts(t *testing.T) {
	dir := t.TempDir()
	p, anna := tracker(t, dir)
	first, second := anna.receiptOf(t, "1"), anna.receiptOf(t, "2")
	for _, receipt := range []string{first, second} {
		position, digest, _ := strings.Cut(receipt, ":")
		want := "the receipt holds: captured is the decision at " + position + " for account anna"
		if said := mustOperate(t, "audit", "--receipt", receipt, "--data", dir); !strings.HasPrefix(said, want) {
			t.Errorf("%s: said %s", receipt, said)
		}
		said := mustOperate(t, "audit", "--json", "--receipt", receipt, "--data", dir)
		if !strings.Contains(said, `"differences":0`) || strings.Contains(said, digest) {
			t.Errorf("%s: said %s", receipt, said)
		}
	}
	p.interrupt(t)
	alterDecision(t, dir, 6, func(m *nats.Msg) {
		m.Data = bytes.Replace(m.Data, []byte("Engineer"), []byte("Director"), 1)
	})
	lines := mustDiffer(t, "--receipt", second, "--data", dir)
	if want := `0-6  anna  decision: data: expected "`; len(lines) != 1 || !strings.HasPrefix(lines[0], want) || !strings.Contains(lines[0], "Director") {
		t.Errorf("found %q", lines)
	}
	if again := mustDiffer(t, "--data", dir); again[0] != lines[0] {
		t.Errorf("the whole audit found %q", again)
	}
	mustOperate(t, "audit", "--receipt", first, "--data", dir)
}

// TestAuditFindsAByteChangedOnDisk changes a byte in the files of a stopped server, which then has nothing under that
// number, though it counts it.
func TestAuditFindsAByteChangedOnDisk(t *testing.T) {
	for _, c := range []struct{ stream, of, says string }{
		{"DECISIONS_0", "posting-1", "0-6  anna  decision is missing"},
		{"DECISIONS_0", "posting-4", "0-9  anna  decision is missing"},
		{"REQUESTS_0", "posting-1", "0-6  -  request is missing"},
		{"REQUESTS_0", "posting-4", "0-9  -  request is missing"},
	} {
		t.Run(c.stream+" "+c.of, func(t *testing.T) {
			dir := t.TempDir()
			p, anna := tracker(t, dir)
			for i := range 5 {
				anna.mustCapture(t, fmt.Sprint("posting-", i))
			}
			p.interrupt(t)
			flip(t, filepath.Join(dir, "jetstream", "jetstream", "*", "streams", c.stream, "msgs", "*.blk"), c.of)
			if lines := mustDiffer(t, "--data", dir); len(lines) != 1 || !strings.HasPrefix(lines[0], c.says) {
				t.Errorf("found %q", lines)
			}
		})
	}
}

// flip changes the first byte of a text in the one file that a pattern names.
func flip(t *testing.T, pattern, text string) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	content, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	content[bytes.Index(content, []byte(text))] ^= 1
	if err := os.WriteFile(files[0], content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// alterDecision makes the decisions of a stopped service anew with one of them changed.
func alterDecision(t *testing.T, dir string, sequence uint64, change func(*nats.Msg)) {
	t.Helper()
	unlock, err := ledger.LockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	log := (&cli.Logging{}).Logger(os.Stderr)
	server, err := ledger.StartEmbedded(dir, 0, log)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	nc, err := server.Connect("test", log)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	recreate(t, js, sequence, change)
}

func recreate(t *testing.T, js jetstream.JetStream, sequence uint64, change func(*nats.Msg)) {
	t.Helper()
	stream, err := js.Stream(within(t), "DECISIONS_0")
	if err != nil {
		t.Fatal(err)
	}
	var messages []*nats.Msg
	for i := uint64(1); i <= stream.CachedInfo().State.LastSeq; i++ {
		raw, err := stream.GetMsg(within(t), i)
		if err != nil {
			t.Fatal(err)
		}
		raw.Header.Del("Nats-Expected-Last-Sequence")
		m := &nats.Msg{Subject: raw.Subject, Header: raw.Header, Data: raw.Data}
		if i == sequence {
			change(m)
		}
		messages = append(messages, m)
	}
	config := stream.CachedInfo().Config
	if err := js.DeleteStream(within(t), config.Name); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(within(t), config); err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		if _, err := js.PublishMsg(within(t), m); err != nil {
			t.Fatal(err)
		}
	}
}

func TestShortenShowsWhereValuesBeginToDiffer(t *testing.T) {
	long := strings.Repeat("a", 100)
	for _, c := range [][4]string{
		{"1", "2", `"1"`, `"2"`},
		{long + "1", long + "2", `"...aaaaaaaaaaaaaaaa1"`, `"...aaaaaaaaaaaaaaaa2"`},
		{"none", long, `"none"`, `"` + long[:64] + `..."`},
		{long + long, long, `"...` + long[:64] + `..."`, `"...aaaaaaaaaaaaaaaa"`},
	} {
		if a, b := shorten(c[0], c[1]); a != c[2] || b != c[3] {
			t.Errorf("shorten gives %s and %s, want %s and %s", a, b, c[2], c[3])
		}
	}
}
