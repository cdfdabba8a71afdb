package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/ledger"
	"jobtally/internal/replay"
)

var april = time.Date(2026, 4, 1, 12, 0, 0, 0, time.UTC)

// appendAll records requests in the ledger of a server, as the API would.
func appendAll(t *testing.T, server string, requests ...*events.Request) {
	t.Helper()
	connection, err := ledger.Connect(server, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	l, err := ledger.Open(within(t), connection)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, r := range requests {
		if _, err := l.Append(within(t), r); err != nil {
			t.Fatal(err)
		}
	}
}

func captureRequest(account string, n int, title string) *events.Request {
	source := fmt.Sprintf("https://example.com/jobs/%d", n)
	return &events.Request{
		Account: account, ID: fmt.Sprint("request-", n), Time: april, Body: &events.JobCaptureRequested{
			Month: events.MonthOf(april), CanonicalURL: source, SourceRules: 1, PayloadHash: events.Hash([]byte(source)),
			Job: events.Job{SourceURL: source, Title: title, Status: "saved", CapturedVia: "api"},
		},
	}
}

// replayed replays as JSON lines, and returns these.
func replayed(t *testing.T, args ...string) (lines []replayedPair) {
	t.Helper()
	for line := range strings.Lines(mustOperate(t, append([]string{"replay", "--format", "jsonl"}, args...)...)) {
		var p replayedPair
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		lines = append(lines, p)
	}
	return lines
}

type replayedPair struct {
	Position, Account string
	Month             *string
	Undecided         bool
	Request, Decision *struct{ Type string }
}

// TestReplayOfUndecidedRequests replays what no projector has seen yet.
func TestReplayOfUndecidedRequests(t *testing.T) {
	url := natsServer(t)
	mustOperate(t, "init", "--nats", url, "--partitions", "4")
	appendAll(t, url, captureRequest("anna", 1, "Clerk"), captureRequest("bob", 2, "Nurse"), captureRequest("anna", 3, "Cook"))
	of := func(pairs []replayedPair) string {
		positions := ""
		for _, p := range pairs {
			if !p.Undecided || p.Month != nil || p.Decision != nil || p.Request == nil {
				t.Errorf("%+v is decided", p)
			}
			positions += p.Position + " " + p.Account + ", "
		}
		return positions
	}
	if got := of(replayed(t, "--nats", url, "--month", "2026-04")); got != "0-1 bob, 3-1 anna, 3-2 anna, " {
		t.Errorf("April: %s", got)
	}
	if got := of(replayed(t, "--nats", url, "--account", "anna", "--from", "3-2")); got != "3-2 anna, " {
		t.Errorf("of anna: %s", got)
	}
	if table := mustOperate(t, "replay", "--nats", url, "--from", "0-1"); !strings.Contains(table, "job_capture  undecided  -     Nurse\n") {
		t.Error(table)
	}
	if _, err := operate(t, "replay", "--nats", url, "--account", "anna", "--from", "0-1"); err == nil ||
		err.Error() != "usage: account anna is in partition 3, and 0-1 is not" {
		t.Error(err)
	}
}

// TestReplayTellsOfWhatIsErased replays what is left of an account that was erased, and of the others.
func TestReplayTellsOfWhatIsErased(t *testing.T) {
	url := natsServer(t)
	mustOperate(t, "init", "--nats", url, "--partitions", "1")
	projector(t, url, t.TempDir())
	mustOperate(t, "account", "open", "anna", "--nats", url)
	mustOperate(t, "account", "open", "bob", "--nats", url)
	appendAll(t, url, captureRequest("anna", 1, "Secretary"), captureRequest("bob", 2, "Nurse"),
		&events.Request{Account: "anna", ID: "erase", Time: april, Body: &events.AccountEraseRequested{}})
	mustOperate(t, "account", "open", "carol", "--nats", url) // and so the erasure is decided
	for args, want := range map[string]struct{ printed, erased string }{
		"--from 0-1":                    {"0-2 0-4 0-5 0-6", "2 positions"},
		"--month 2026-04":               {"0-4 0-5", "1 position"},
		"--month 2026-04 --account bob": {"0-4", ""},
		"--account anna":                {"0-5", "2 positions"},
	} {
		var stdout, stderr bytes.Buffer
		command := append([]string{"replay", "--format", "csv", "--nats", url}, strings.Fields(args)...)
		if err := run(within(t), command, &stdout, &stderr); err != nil {
			t.Fatal(err)
		}
		rows, err := csv.NewReader(&stdout).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		var positions []string
		for _, row := range rows[1:] {
			positions = append(positions, row[0])
		}
		if got := strings.Join(positions, " "); got != want.printed {
			t.Errorf("%s: printed %s, want %s", args, got, want.printed)
		}
		_, erased, _ := strings.Cut(strings.TrimSpace(stderr.String()), "; erased, so that nothing is left to print: ")
		if erased != want.erased {
			t.Errorf("%s: said %q, want %q", args, &stderr, want.erased)
		}
	}
}

// TestTheLedgerToPlayWithIsClean audits what make demo-months builds.
func TestTheLedgerToPlayWithIsClean(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "months")
	if output, err := exec.CommandContext(within(t), program(t, "demo"), dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	mustBeClean(t, "--data", dir)
}

// dam is a way to a server that stops to let anything through once so much has come from there.
type dam struct {
	listener net.Listener
	full     chan struct{} // closed then
}

func newDam(t *testing.T, server string, most int64) *dam {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &dam{listener: listener, full: make(chan struct{})}
	t.Cleanup(func() { listener.Close() })
	go func() {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		defer client.Close()
		upstream, err := net.Dial("tcp", server)
		if err != nil {
			return
		}
		defer upstream.Close()
		go io.Copy(upstream, client)
		io.CopyN(client, upstream, most)
		close(d.full)
		<-t.Context().Done()
	}()
	return d
}

// TestReplayThatIsCutShortLeavesNoFile cuts replays short in the middle: one is killed, one is told to stop.
func TestReplayThatIsCutShortLeavesNoFile(t *testing.T) {
	server := natsServer(t)
	mustOperate(t, "init", "--nats", server, "--partitions", "1")
	var requests []*events.Request
	for n := range 200 {
		requests = append(requests, captureRequest("anna", n, strings.Repeat("long ", 1000)))
	}
	appendAll(t, server, requests...)
	host := strings.TrimPrefix(server, "nats://")
	args := func(d *dam, file string) []string {
		return []string{"replay", "--account", "anna", "--nats", "nats://" + d.listener.Addr().String(), "--to", file}
	}
	left := func(dir string) (names []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	t.Run("killed", func(t *testing.T) {
		d, dir := newDam(t, host, 500_000), t.TempDir()
		p := spawn(t, "projector", args(d, filepath.Join(dir, "all.txt"))...)
		<-d.full
		p.kill(t)
		if names := left(dir); len(names) != 1 || !strings.HasPrefix(names[0], ".all.txt.") {
			t.Errorf("left %q, want what was written so far under another name", names)
		}
	})
	t.Run("told to stop", func(t *testing.T) {
		d, dir := newDam(t, host, 500_000), t.TempDir()
		ctx, cancel := context.WithCancel(within(t))
		defer cancel()
		go func() { <-d.full; cancel() }()
		file := filepath.Join(dir, "all.txt")
		err := run(ctx, args(d, file), io.Discard, io.Discard)
		if err == nil || err.Error() != "interrupted: "+file+" was not written" {
			t.Errorf("%v", err)
		}
		if names := left(dir); len(names) > 0 {
			t.Errorf("left %q", names)
		}
	})
	t.Run("complete", func(t *testing.T) {
		dir := t.TempDir()
		mustOperate(t, "replay", "--account", "anna", "--nats", server, "--to", filepath.Join(dir, "all.txt"))
		content, err := os.ReadFile(filepath.Join(dir, "all.txt"))
		if names := left(dir); err != nil || len(names) != 1 || bytes.Count(content, []byte("\n")) != 201 {
			t.Errorf("left %q with %d lines, %v", names, bytes.Count(content, []byte("\n")), err)
		}
	})
}

// endless is a source of so many pairs that are made as they are read.
func endless(n uint64, watch func()) replay.Source {
	asked := captureRequest("anna", 1, "A title of some length")
	d := events.Decision{
		Account: "anna", RequestID: asked.ID, Time: asked.Time,
		Body: &events.JobCaptured{JobID: "job", Job: events.Job{Title: "A title"}, Count: events.Count{Month: "2026-04", Used: 1, Limit: -1}},
	}
	d.Seal(events.Digest{})
	message := func(stream events.Stream, sequence uint64) events.Message {
		if stream == events.Decisions {
			d.Position.Sequence = sequence
			return d.Message()
		}
		m := asked.Message(1)
		m.Sequence = sequence
		return m
	}
	return replay.Source{
		Partitions: 1,
		Heads: func(context.Context, int) (events.Heads, error) {
			return events.Heads{Requests: n, Decisions: n}, nil
		},
		ReadTo: func(_ context.Context, stream events.Stream, _ int, subjects []string, after, last uint64) iter.Seq2[[]events.Message, error] {
			return func(yield func([]events.Message, error) bool) {
				for sequence := after + 1; sequence <= last && len(subjects) == 0; { // nothing is archived or erased
					var batch []events.Message
					for ; sequence <= last && len(batch) < 512; sequence++ {
						batch = append(batch, message(stream, sequence))
					}
					watch()
					if !yield(batch, nil) {
						return
					}
				}
			}
		},
	}
}

// TestReplayTakesNoMemoryForWhatIsPast replays ten times as much in the same memory.
func TestReplayTakesNoMemoryForWhatIsPast(t *testing.T) {
	for _, format := range []string{"table", "csv", "jsonl", "json"} {
		peak := func(pairs uint64) (most uint64) {
			looks := 0
			source := endless(pairs, func() {
				if looks++; looks%4 == 0 {
					runtime.GC()
					var m runtime.MemStats
					runtime.ReadMemStats(&m)
					most = max(most, m.HeapAlloc)
				}
			})
			r := &replaying{query: query{from: april}, printer: newPrinter(format, io.Discard, 120), progress: &progress{}}
			r.source = r.counted(source)
			if err := r.run(within(t)); err != nil {
				t.Fatal(err)
			}
			if r.printed != int64(pairs) || r.messages != int64(2*pairs) {
				t.Errorf("%s: %d pairs, %d messages", format, r.printed, r.messages)
			}
			return most
		}
		if small, large := peak(2_000), peak(20_000); large > small+2<<20 {
			t.Errorf("%s: %d bytes for 2,000 pairs, %d for 20,000", format, small, large)
		}
	}
}

// TestReplayShowsProgressOnATerminalOnly replays to files, pipes and a terminal.
func TestReplayShowsProgressOnATerminalOnly(t *testing.T) {
	server := natsServer(t)
	mustOperate(t, "init", "--nats", server, "--partitions", "1")
	appendAll(t, server, captureRequest("anna", 1, strings.Repeat("long ", 100)))
	command := []string{"replay", "--nats", server, "--account", "anna"}
	show := func(stdout io.Writer, args ...string) string {
		screen, seen := newTerminal(t, 60)
		if stdout == nil {
			stdout = screen
		}
		if err := run(within(t), append(command, args...), stdout, screen); err != nil {
			t.Fatal(err)
		}
		return seen()
	}
	if said := show(io.Discard); strings.Contains(said, "%") || !strings.HasPrefix(said, "1 pair printed") {
		t.Errorf("to a pipe: %q", said)
	}
	if said := show(io.Discard, "--to", filepath.Join(t.TempDir(), "out")); !strings.HasPrefix(said, "\r100 % of 1 positions, 1 messages read, ") {
		t.Errorf("to a file: %q", said)
	}
	said := show(nil)
	bar, table, ok := strings.Cut(said, "\r\x1b[K")
	if !ok || !strings.HasPrefix(bar, "\r100 % of 1 positions") || strings.Contains(table, "%") {
		t.Errorf("to the terminal: %q", said)
	}
	for _, line := range strings.Split(table, "\r\n")[:2] {
		if columns(line) > 60 {
			t.Errorf("%q is wider than the terminal", line)
		}
	}
}

func TestPlainTextsAreObeyedByNobody(t *testing.T) {
	for text, want := range map[string]string{
		"Clerk":                   "Clerk",
		"Łódź 東京 🗼":               "Łódź 東京 🗼",
		"a\nb\r\tc":               `a\nb\r\tc`,
		"\x1b[2J\x07\x00\x7f":     `\x1b[2J\a\x00\x7f`,
		"\u009b31m":               `\u009b31m`,
		"abc\u202edef\u200b":      `abc\u202edef\u200b`,
		"not\xffUTF-8":            "not\ufffdUTF-8",
		"no-break\u00a0space":     `no-break\u00a0space`,
		"separated\u2028by lines": `separated\u2028by lines`,
	} {
		if got := plain(text); got != want {
			t.Errorf("%q is shown as %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]string{
		"": "", "Clerk": "Clerk", "=1+1": "'=1+1", "+1": "'+1", "-1": "'-1", "@SUM(1)": "'@SUM(1)", "＝1": "'＝1",
		"\t=1": `\t=1`, "\r=1": `\r=1`, "a=1": "a=1",
	} {
		if got := cell(text); got != want {
			t.Errorf("the cell of %q is %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]string{
		`{"a":"b"}`: `{"a":"b"}`, "{\"a\":\"\x7f\u009bé🗼\U000e0001\"}": `{"a":"\u007f\u009bé🗼\udb40\udc01"}`,
	} {
		got := string(printable([]byte(text)))
		var is, was any
		if json.Unmarshal([]byte(got), &is); json.Unmarshal([]byte(text), &was) != nil || fmt.Sprint(is) != fmt.Sprint(was) || got != want {
			t.Errorf("%q is written %q, want %q", text, got, want)
		}
	}
}

func TestCut(t *testing.T) {
	for _, c := range []struct {
		text    string
		columns int
		want    string
	}{
		{"", 3, ""}, {"abc", 3, "abc"}, {"abcd", 3, "ab…"}, {"東京", 4, "東京"}, {"東京", 3, "東…"}, {"a東京", 4, "a東…"}, {"東京都", 4, "東…"},
	} {
		if got := cut(c.text, c.columns); got != c.want {
			t.Errorf("%q in %d columns is %q, want %q", c.text, c.columns, got, c.want)
		}
	}
}
