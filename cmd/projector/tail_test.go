package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
	"jobtally/internal/ledger"
	"jobtally/internal/node"
)

// tailing is a `projector tail` that goes on in this process.
type tailing struct {
	stdout, stderr written
	stop           context.CancelFunc
	ended          chan error
}

func startTail(t *testing.T, args ...string) *tailing {
	t.Helper()
	ctx, cancel := context.WithCancel(within(t))
	s := &tailing{stop: cancel, ended: make(chan error, 1)}
	go func() { s.ended <- run(ctx, append([]string{"tail"}, args...), &s.stdout, &s.stderr) }()
	t.Cleanup(func() {
		cancel()
		if t.Failed() {
			t.Logf("tail printed:\n%s%s", s.stdout.text(), s.stderr.text())
		}
	})
	return s
}

// interrupt ends it as Ctrl-C does: without an error.
func (s *tailing) interrupt(t *testing.T) {
	t.Helper()
	s.stop()
	select {
	case err := <-s.ended:
		if err != nil {
			t.Errorf("interrupted: %v", err)
		}
	case <-within(t).Done():
		t.Fatal("tail does not stop")
	}
}

// written is what was written so far.
type written struct {
	mu      sync.Mutex
	b       bytes.Buffer
	changed chan struct{} // closed at the next write
}

// Write keeps what is written, and tells who waits for it.
func (w *written) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changed != nil {
		close(w.changed)
		w.changed = nil
	}
	return w.b.Write(p)
}

func (w *written) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

func (w *written) await(t *testing.T, pattern string) {
	t.Helper()
	ctx, want := within(t), regexp.MustCompile(pattern)
	for {
		w.mu.Lock()
		if w.changed == nil {
			w.changed = make(chan struct{})
		}
		changed, there := w.changed, want.Match(w.b.Bytes())
		w.mu.Unlock()
		if there {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("never printed %s:\n%s", pattern, w.text())
		}
	}
}

// shown returns the second to fourth word of each line that was printed: position, account and outcome.
func shown(text string) (lines []string) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		lines = append(lines, strings.Join(words[1:4], " "))
	}
	return lines
}

func openAccounts(t *testing.T, from, to int, where ...string) (want []string) {
	t.Helper()
	for i := from; i <= to; i++ {
		account := fmt.Sprintf("a%d", i)
		said := mustOperate(t, append([]string{"account", "open", account}, where...)...)
		want = append(want, strings.Fields(said)[4]+" "+account+" opened")
	}
	return want
}

// TestTailFollowsThroughARestart kills the service under a tail, which shows what is decided before and after, once.
func TestTailFollowsThroughARestart(t *testing.T) {
	dir := t.TempDir()
	api, _ := service(t, "--data", dir)
	s := startTail(t, "--data", dir, "--type", "jobtally.account.opened")
	s.stdout.await(t, "demo +opened")
	want := append([]string{"0-1 demo opened"}, openAccounts(t, 1, 3, "--data", dir)...)
	s.stdout.await(t, "a3 +opened")
	for restart := range 2 {
		api.kill(t)
		s.stderr.await(t, fmt.Sprintf("(?s)(cannot be reached.*){%d}", restart+1))
		api, _ = service(t, "--data", dir)
		from := 4 + 3*restart
		want = append(want, openAccounts(t, from, from+2, "--data", dir)...)
		s.stdout.await(t, fmt.Sprintf("a%d +opened", from+2))
	}
	s.stderr.await(t, "the ledger is back")
	s.interrupt(t)
	if got := shown(s.stdout.text()); !slices.Equal(got, want) {
		t.Errorf("shown\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	api.interrupt(t)
}

// TestTailLetsGoOfALostConnection: the service that starts next has another password, and a connection that is made with the
// one before stands in its log as an error. Here something else listens where it was, and then the service seems to start
// elsewhere, again and again.
func TestTailLetsGoOfALostConnection(t *testing.T) {
	dir := t.TempDir()
	api, _ := service(t, "--data", dir)
	s := startTail(t, "--data", dir)
	s.stdout.await(t, "token_issued")
	url, err := ledger.EmbeddedURL(dir)
	if err != nil {
		t.Fatal(err)
	}
	api.interrupt(t)
	s.stderr.await(t, "cannot be reached")
	was, came := listening(t, url[strings.LastIndex(url, "@")+1:]), make(chan error, 1)
	go func() { _, err := was.Accept(); came <- err }()
	next := listening(t, "127.0.0.1:0")
	if err := os.WriteFile(filepath.Join(dir, "nats.url"), []byte("nats://"+next.Addr().String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 5 { // each takes longer than the library does from one try to the next
		hangUp(t, next)
	}
	s.interrupt(t)
	was.Close()
	if err := <-came; err == nil {
		t.Error("it connects where the service was")
	}
}

func listening(t *testing.T, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// hangUp waits for somebody to connect, and ends that.
func hangUp(t *testing.T, l net.Listener) {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// TestTailEndsWhenNobodyReadsIt closes the pipe that a tail writes to, as head does, while nothing is decided.
func TestTailEndsWhenNobodyReadsIt(t *testing.T) {
	dir := t.TempDir()
	service(t, "--data", dir)
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	ended := make(chan error, 1)
	go func() { ended <- run(within(t), []string{"tail", "--data", dir}, writer, io.Discard) }()
	if line, err := bufio.NewReader(reader).ReadString('\n'); err != nil || !strings.Contains(line, "opened") {
		t.Errorf("printed %q, %v", line, err)
	}
	reader.Close()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
	case <-within(t).Done():
		t.Fatal("tail goes on")
	}
}

// TestAPipeIsLeftAloneOnceItIsStopped closes what was written to as soon as nobody need watch it any more: what looks at
// it later looks at a file that is closed, or at the next that got its number.
func TestAPipeIsLeftAloneOnceItIsStopped(t *testing.T) {
	for range 200 {
		reader, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		reading, stop := whileRead(t.Context(), writer)
		stop()
		if reading.Err() == nil {
			t.Fatal("nobody writes, and the context goes on")
		}
		writer.Close() // the race detector sees who reads its descriptor meanwhile
		reader.Close()
	}
}

// TestTailSaysThatAnAccountHasNothing: silence would leave who mistyped its name waiting.
func TestTailSaysThatAnAccountHasNothing(t *testing.T) {
	dir := t.TempDir()
	service(t, "--data", dir)
	s := startTail(t, "--data", dir, "--account", "anna")
	s.stderr.await(t, "nothing is decided on account anna so far\n")
	mustOperate(t, "account", "open", "anna", "--data", dir)
	s.stdout.await(t, "anna +opened")
	s.interrupt(t)
	s = startTail(t, "--data", dir, "--account", "anna", "--no-follow")
	if err := <-s.ended; err != nil || s.stderr.text() != "" {
		t.Errorf("%v, %s", err, s.stderr.text())
	}
}

// TestTailOfSeveralPartitions compares what several tails show of one ledger on an external server: each partition whole, in
// its order, from history into live while decisions are made.
func TestTailOfSeveralPartitions(t *testing.T) {
	url := natsServer(t)
	mustOperate(t, "init", "--nats", url, "--partitions", "4")
	projector(t, url, t.TempDir())
	where := []string{"--nats", url}
	want := openAccounts(t, 1, 12, where...)
	deciding := make(chan []string)
	go func() { deciding <- openAccounts(t, 13, 24, where...) }()
	all := startTail(t, "--nats", url, "--from", "beginning")
	one := startTail(t, "--nats", url, "--account", "a13", "-n", "0")
	want = append(want, <-deciding...)
	mustOperate(t, append([]string{"account", "plan", "a13", "--plan", "pro"}, where...)...)
	all.stdout.await(t, "a13 +plan_changed")
	one.stdout.await(t, "a13 +plan_changed")
	all.interrupt(t)
	one.interrupt(t)
	live, history := shown(all.stdout.text()), shown(mustOperate(t, "tail", "--nats", url, "--from", "beginning", "--no-follow"))
	if len(live) != len(want)+1 {
		t.Errorf("%d lines, want %d:\n%s", len(live), len(want)+1, strings.Join(live, "\n"))
	}
	for p := range 4 {
		of := func(lines []string) (part []string) {
			for _, line := range lines {
				if strings.HasPrefix(line, fmt.Sprintf("%d-", p)) {
					part = append(part, line)
				}
			}
			return part
		}
		if got := of(live)[:len(of(want))]; !slices.Equal(got, of(want)) {
			t.Errorf("live, partition %d:\n%q\nwant\n%q", p, got, of(want))
		}
	}
	// One after the other: the time of the request tells the order of all.
	if !slices.Equal(history[:len(want)], want) {
		t.Errorf("history\n%s\nwant\n%s", strings.Join(history, "\n"), strings.Join(want, "\n"))
	}
	for n, lines := range map[string][]string{"1": history[len(history)-1:], "10": history[len(history)-10:], "100": history} {
		if got := shown(mustOperate(t, "tail", "--nats", url, "--no-follow", "-n", n)); !slices.Equal(got, lines) {
			t.Errorf("the last %s are\n%q\nwant\n%q", n, got, lines)
		}
	}
}

// TestTailLooksBackForTheLast finds the last decisions of an account behind many of others.
func TestTailLooksBackForTheLast(t *testing.T) {
	url := natsServer(t)
	mustOperate(t, "init", "--nats", url, "--partitions", "1")
	var decisions []events.DecisionBody
	for i := range 3000 {
		decisions = append(decisions, &events.AccountOpened{Plan: "free", Limit: int64(i)})
		if i%1000 == 0 {
			decisions[i] = &events.PlanChanged{Plan: "pro", Limit: int64(i), PreviousPlan: "free", PreviousLimit: 50}
		}
	}
	decide(t, url, decisions...)
	got := shown(mustOperate(t, "tail", "--nats", url, "--no-follow", "-n", "2", "--type", "jobtally.plan.changed"))
	if want := []string{"0-1001 anna plan_changed", "0-2001 anna plan_changed"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// decide appends decisions on account anna to partition 0 of an empty ledger, as a projector would.
func decide(t *testing.T, url string, bodies ...events.DecisionBody) {
	t.Helper()
	var messages []events.Message
	for i, body := range bodies {
		d := events.Decision{
			Position: events.Position{Sequence: uint64(i + 1)}, Account: "anna", RequestID: "r", Body: body,
			Time: time.Date(2026, 10, 31, 23, 59, 59, 0, time.UTC).Add(time.Duration(i) * time.Second),
		}
		if _, archived := body.(*events.MonthArchived); archived {
			d.Account = ""
		}
		d.Seal(events.Digest{})
		messages = append(messages, d.Message())
	}
	appendDecisions(t, url, 0, messages...)
}

func appendDecisions(t *testing.T, url string, after uint64, messages ...events.Message) {
	t.Helper()
	o, err := node.Dial(within(t), node.Config{NATS: url, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	for part := range slices.Chunk(messages, 256) {
		if err := o.Ledger.AppendDecisions(within(t), 0, after, part); err != nil {
			t.Fatal(err)
		}
		after += uint64(len(part))
	}
}

// every has a decision of each type.
func every() []events.DecisionBody {
	job := events.Job{SourceURL: "https://jobs.example.com/1", Title: "Clerk\x1b[2J\u009b31m\n", Company: "東京 & Co", Status: "saved", CapturedVia: "api"}
	october, november := events.Count{Month: "2026-10", Used: 40, Limit: 50}, events.Count{Month: "2026-11", Used: 50, Limit: 50}
	return []events.DecisionBody{
		&events.JobCaptured{JobID: "job_1", Job: job, Count: october, Threshold: 80},
		&events.JobCaptureDuplicated{JobID: "job_1", SourceURL: job.SourceURL, Count: november},
		&events.JobCaptureRejected{Reason: events.ReasonQuotaExceeded, SourceURL: job.SourceURL, Count: november, ResetDate: "2026-12-01"},
		&events.JobCaptureRepeated{First: events.Position{Sequence: 1}, Month: "2026-11"},
		&events.JobUpdated{JobID: "job_1", Version: 2, Job: events.Job{Title: "Clerk"}, Changed: []string{"title", "company"}},
		&events.JobDeleted{JobID: "job_1", Version: 3},
		&events.RequestRefused{Kind: "job_update", Reason: events.ReasonNotFound, Detail: "there is no such job"},
		&events.AccountOpened{Plan: "free", Limit: 50}, &events.PlanChanged{Plan: "pro", Limit: -1, PreviousPlan: "free", PreviousLimit: 50},
		&events.TokenIssued{TokenID: "tok", TokenTerms: events.TokenTerms{Scopes: []string{"admin"}}}, &events.TokenRevoked{TokenID: "tok"},
		archived(1),
		&events.AccountErased{Requests: 11, Months: []events.ErasedMonth{}},
	}
}

// archived says that October is over, to which so many of the first positions belong.
func archived(requests int64) *events.MonthArchived {
	return &events.MonthArchived{Month: "2026-10", Accounts: 1, Totals: events.Totals{
		Requests: requests, Captured: 1, First: events.Position{Sequence: 1}, Last: events.Position{Sequence: uint64(requests)},
	}}
}

// TestTailShowsEveryType shows a decision of each type, to a terminal and elsewhere, and obeys none of their texts.
func TestTailShowsEveryType(t *testing.T) {
	url := natsServer(t)
	mustOperate(t, "init", "--nats", url, "--partitions", "1")
	decide(t, url, every()...)
	show := func(args ...string) string {
		return mustOperate(t, append([]string{"tail", "--nats", url, "--from", "beginning", "--no-follow"}, args...)...)
	}
	want := `2026-10-31T23:59:59Z  0-1       anna          captured      Clerk\x1b[2J\u009b31m\n — 東京 & Co; 40/50; 80 % reached
2026-11-01T00:00:00Z  0-2       anna          duplicated    https://jobs.example.com/1; is job_1; 50/50
2026-11-01T00:00:01Z  0-3       anna          rejected      quota_exceeded; https://jobs.example.com/1; 50/50; again from 2026-12-01
2026-11-01T00:00:02Z  0-4       anna          repeated      asked first at 0-1
2026-11-01T00:00:03Z  0-5       anna          updated       Clerk; version 2: title, company
2026-11-01T00:00:04Z  0-6       anna          deleted       job job_1; version 3
2026-11-01T00:00:05Z  0-7       anna          refused       job_update; not_found; there is no such job
2026-11-01T00:00:06Z  0-8       anna          opened        plan free: 50 captures a month
2026-11-01T00:00:07Z  0-9       anna          plan_changed  plan pro: unlimited, before free: 50 captures a month
2026-11-01T00:00:08Z  0-10      anna          token_issued  token tok admin
2026-11-01T00:00:09Z  0-11      anna          token_revoked  token tok
2026-11-01T00:00:10Z  0-12      -             month_archived  2026-10: 1 request of 1 account: 1 captured, 0 duplicated, 0 rejected, 0 repeated
2026-11-01T00:00:11Z  0-13      anna          erased        11 requests removed
`
	if got := show(); got != want {
		t.Errorf("shown\n%s\nwant\n%s", got, want)
	}
	for i, ceType := range events.DecisionTypes() {
		if got := show("--type", ceType); strings.Count(got, "\n") != 1 {
			t.Errorf("of type %s, decision %d, it shows\n%s", ceType, i, got)
		}
	}
	if got := shown(mustOperate(t, "tail", "--nats", url, "--from", "2026-11", "--no-follow")); len(got) != 12 || got[0] != "0-2 anna duplicated" {
		t.Errorf("since November: %q", got)
	}
	for i, line := range strings.Split(strings.TrimSpace(show("--json")), "\n") {
		m, p, err := events.ParseStructured([]byte(line))
		if err != nil || p != 0 || m.Sequence != uint64(i+1) || !json.Valid([]byte(line)) {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestTailInColour(t *testing.T) {
	url := natsServer(t)
	mustOperate(t, "init", "--nats", url, "--partitions", "1")
	decide(t, url, every()...)
	show := func(args ...string) string {
		screen, seen := newTerminal(t, 70)
		if err := run(within(t), append([]string{"tail", "--nats", url, "--no-follow", "--from", "beginning"}, args...), screen, io.Discard); err != nil {
			t.Fatal(err)
		}
		return seen()
	}
	colour := regexp.MustCompile(`\x1b\[[0-9]+m`)
	said := show()
	if !strings.Contains(said, green+"  captured    "+plainColour) || !strings.Contains(said, red+"  rejected    "+plainColour) {
		t.Errorf("no colours: %q", said)
	}
	for line := range strings.Lines(colour.ReplaceAllString(said, "")) {
		if line = strings.TrimRight(line, "\r\n"); columns(line) > 70 || strings.Contains(line, "\x1b") {
			t.Errorf("%q is wider than the terminal, or obeyed", line)
		}
	}
	if said := show("--json"); strings.Contains(said, "\x1b") {
		t.Errorf("JSON in colours: %q", said)
	}
	t.Setenv("NO_COLOR", "1")
	if said := show(); strings.Contains(said, "\x1b") {
		t.Errorf("colours all the same: %q", said)
	}
}

// TestTailShowsWhatItDoesNotKnow: a newer writer is about, and tail decides nothing.
func TestTailShowsWhatItDoesNotKnow(t *testing.T) {
	url := natsServer(t)
	mustOperate(t, "init", "--nats", url, "--partitions", "1")
	decide(t, url, every()[:2]...)
	newer := func(sequence uint64, ceType, subject, data string) events.Message {
		d := events.Decision{Position: events.Position{Sequence: sequence}, Account: "anna", RequestID: "r", Body: every()[7], Time: time.Now()}
		d.Seal(events.Digest{})
		m := d.Message()
		m.Subject, m.Data, m.Header["ce-type"] = subject, []byte(data), []string{ceType}
		return m
	}
	appendDecisions(t, url, 2,
		newer(3, "jobtally.job.captured.v2", "jobs.0.anna.captured", `{"used":{"of":1}}`),
		newer(4, "jobtally.job.starred.v1", "jobs.0.anna.starred", `{}`),
		newer(5, "jobtally.job.captured.v1", "jobs.0.anna.captured", `{"used":"many"}`))
	got := mustOperate(t, "tail", "--nats", url, "--no-follow", "-n", "3")
	for i, want := range []string{
		"0-3       anna          jobtally.job.captured.v2  jobs.0.anna.captured", "0-4       anna          jobtally.job.starred.v1  jobs.0.anna.starred",
		"0-5       anna          unreadable    jobs.0.anna.captured: decision 0-5: data of jobtally.job.captured.v1",
	} {
		if line := strings.Split(got, "\n")[i]; !strings.Contains(line, want) {
			t.Errorf("shown %s\nwant %s", line, want)
		}
	}
	if got := shown(mustOperate(t, "tail", "--nats", url, "--no-follow", "--type", "jobtally.job.captured")); len(got) != 3 {
		t.Errorf("of any version: %q", got)
	}
}

// TestTailNamesTheArchiveOfWhatIsGone asks for decisions that were removed from the ledger.
func TestTailNamesTheArchiveOfWhatIsGone(t *testing.T) {
	url := natsServer(t)
	mustOperate(t, "init", "--nats", url, "--partitions", "1")
	decide(t, url, append(every()[:4], archived(4), every()[7], every()[8])...)
	closing := &events.Request{ID: "close", Time: april, Body: &events.MonthCloseRequested{Month: "2026-10"}}
	appendAll(t, url, captureRequest("anna", 1, ""), captureRequest("anna", 2, ""), captureRequest("anna", 3, ""), captureRequest("anna", 4, ""), closing)
	prune(t, url, "0-3")
	for from, want := range map[string]string{
		"0-1":     "decision 0-2 is no longer in the ledger, which goes back to 0-4: the archive of 2026-10 has what is missing. Read it there, with `projector archive replay DIR`, and go on here with --from 0-3",
		"2026-10": "decision 0-1 is no longer in the ledger, which goes back to 0-4: the archive of 2026-10 has what is missing",
	} {
		_, err := operate(t, "tail", "--nats", url, "--no-follow", "--from", from)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("--from %s: %v", from, err)
		}
	}
	for _, from := range []string{"0-3", "beginning"} {
		if got := shown(mustOperate(t, "tail", "--nats", url, "--no-follow", "--from", from)); len(got) != 4 || got[0] != "0-4 anna repeated" {
			t.Errorf("--from %s: %q", from, got)
		}
	}
}

// prune removes the decisions up to a position from the ledger.
func prune(t *testing.T, url, upTo string) {
	t.Helper()
	p, err1 := events.ParsePosition(upTo)
	nc, err2 := nats.Connect(url)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(within(t), events.Decisions.Name(p.Partition))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(within(t), jetstream.WithPurgeSequence(p.Sequence+1)); err != nil { // up to and without
		t.Fatal(err)
	}
}
