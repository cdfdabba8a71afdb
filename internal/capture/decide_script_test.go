package capture

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"jobtally/internal/events"
)

var rewrite = flag.Bool("rewrite", false, "write the transcripts in testdata as Decide answers now")

// TestTranscripts runs the files of testdata, each a conversation with one partition. A block is commands, a line
// "----", and the answers, one a line; blocks are apart by an empty line; lines with "#" in front are for the reader.
//
//	open <account> [plan=] [limit=]                               at=, on any request, sets the clock;
//	plan <account> <plan> [limit=]                                the next requests have the same time
//	capture <account> [id=] url= [title=]                         without id= each has one of its own
//	update <account> <job> [if=<version>] <field>=...             delete <account> <job> [if=<version>]
//	token-issue <account> <token>
//	token-revoke <account> <token>
//	malformed <account> [without=<header>] [<header>=] [data=] [subject=]    a capture, spoilt
//	close <month>                                                 asks for a month of the partition to be archived
//	erase <account>
//	quota <account> [month=]                                      asks the state, decides nothing
//
// An answer is the position, the outcome, and what it says. Jobs are called j1, j2, ... as they come up.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "*.txt"))
	if err != nil || len(files) < 7 {
		t.Fatalf("transcripts %q, %v", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runTranscript(t, string(want))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			gotLines, wantLines := strings.Split(got, "\n"), strings.Split(string(want), "\n")
			for i := range min(len(gotLines), len(wantLines)) {
				if gotLines[i] != wantLines[i] {
					t.Fatalf("%s:%d:\n got %s\nwant %s", file, i+1, gotLines[i], wantLines[i])
				}
			}
			if len(gotLines) != len(wantLines) {
				t.Fatalf("%s: %d lines, want %d", file, len(gotLines), len(wantLines))
			}
		})
	}
}

// runTranscript returns the transcript with the answers as they are now.
func runTranscript(t *testing.T, transcript string) string {
	s := session{T: t, history: newHistory(), at: time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC), jobs: map[string]string{}}
	var blocks []string
	for block := range strings.SplitSeq(strings.TrimRight(transcript, "\n"), "\n\n") {
		asked, _, _ := strings.Cut(block+"\n", "----\n")
		answers := ""
		for line := range strings.Lines(asked) {
			if !strings.HasPrefix(line, "#") {
				answers += s.run(strings.TrimSpace(line)) + "\n"
			}
		}
		if answers != "" {
			asked += "----\n" + answers
		}
		blocks = append(blocks, asked)
	}
	return strings.Join(blocks, "\n")
}

// session is the state of a transcript that runs.
type session struct {
	*testing.T
	*history
	at   time.Time
	jobs map[string]string // job id -> j1, j2, ...
}

// command is a line of a transcript: words, and values by name. A value that is read is taken out.
type command struct {
	name  string
	words []string
	named map[string]string
}

func parseCommand(line string) command {
	fields := strings.Fields(line)
	c := command{name: fields[0], named: map[string]string{}}
	for _, field := range fields[1:] {
		if key, value, ok := strings.Cut(field, "="); ok {
			c.named[key] = value
		} else {
			c.words = append(c.words, field)
		}
	}
	return c
}

func (c *command) value(key, otherwise string) string {
	value, ok := c.named[key]
	if !ok {
		return otherwise
	}
	delete(c.named, key)
	return value
}

// run executes a line and returns the answer.
func (s *session) run(line string) string {
	s.Helper()
	c := parseCommand(line)
	if len(c.words) == 0 {
		s.Fatalf("%s: which account?", line)
	}
	if at := c.value("at", ""); at != "" {
		instant, err := time.Parse(time.RFC3339Nano, at)
		if err != nil {
			s.Fatalf("%s: %v", line, err)
		}
		s.at = instant
	}
	if c.name == "quota" {
		return s.quota(c.words[0], events.Month(c.value("month", string(events.MonthOf(s.at)))))
	}
	id := c.value("id", fmt.Sprintf("#%d", len(s.steps)+1))
	account := c.words[0]
	if c.name == "close" {
		account = "" // it is of none
	}
	m := message(account, id, s.at, s.body(&c))
	if c.name == "malformed" {
		s.spoil(&m, &c)
	}
	if len(c.named) > 0 {
		s.Fatalf("%s: what is %v?", line, c.named)
	}
	return s.say(s.take(s, m).decision)
}

func (s *session) body(c *command) events.RequestBody {
	s.Helper()
	switch {
	case c.name == "capture" || c.name == "malformed":
		url := c.value("url", "https://example.com/1")
		canonical, err := CanonicalSource(url)
		if err != nil {
			s.Fatalf("%s: %v", url, err)
		}
		return captureBody(url, canonical, c.value("title", "Clerk"), s.at)
	case c.name == "open":
		return &events.AccountOpenRequested{Plan: c.value("plan", "free"), Limit: s.limit(c)}
	case c.name == "close":
		return &events.MonthCloseRequested{Month: events.Month(c.words[0])}
	case c.name == "erase":
		return &events.AccountEraseRequested{}
	case len(c.words) < 2:
	case c.name == "update":
		version, changes := s.version(c), c.named
		c.named = nil
		return &events.JobUpdateRequested{JobID: s.jobID(c.words[1]), IfVersion: version, Changes: changes}
	case c.name == "delete":
		return &events.JobDeleteRequested{JobID: s.jobID(c.words[1]), IfVersion: s.version(c)}
	case c.name == "plan":
		return &events.PlanChangeRequested{Plan: c.words[1], Limit: s.limit(c)}
	case c.name == "token-issue":
		return &events.TokenIssueRequested{TokenID: c.words[1], SecretHash: events.Hash([]byte(c.words[1]))}
	case c.name == "token-revoke":
		return &events.TokenRevokeRequested{TokenID: c.words[1]}
	}
	s.Fatalf("what is %s %q?", c.name, c.words)
	return nil
}

func (s *session) version(c *command) int64 {
	s.Helper()
	version, err := strconv.ParseInt(c.value("if", "0"), 10, 64)
	if err != nil {
		s.Fatalf("%v", err)
	}
	return version
}

// jobID returns the id of a job by the name that it has in transcripts, or the name where none has it.
func (s *session) jobID(name string) string {
	for id, named := range s.jobs {
		if named == name {
			return id
		}
	}
	return name
}

func (s *session) limit(c *command) int64 {
	s.Helper()
	limit, err := strconv.ParseInt(c.value("limit", "50"), 10, 64)
	if err != nil {
		s.Fatalf("%v", err)
	}
	return limit
}

func (s *session) spoil(m *events.Message, c *command) {
	delete(m.Header, c.value("without", ""))
	m.Subject = c.value("subject", m.Subject)
	m.Data = []byte(c.value("data", string(m.Data)))
	for _, key := range []string{"ce-id", "ce-time", "ce-type"} {
		if value := c.value(key, ""); value != "" {
			m.Header[key] = []string{value}
		}
	}
}

// say writes a decision in a line.
func (s *session) say(d events.Decision) string {
	said := fmt.Sprintf("%s %s", d.Position, events.OutcomeOf(d.Body))
	switch b := d.Body.(type) {
	case *events.JobCaptured:
		said += fmt.Sprintf(" %s %s", s.job(b.JobID), sayCount(b.Count))
		if b.Threshold != 0 {
			said += fmt.Sprintf(" threshold=%d%%", b.Threshold)
		}
	case *events.JobCaptureDuplicated:
		said += fmt.Sprintf(" %s %s", s.job(b.JobID), sayCount(b.Count))
	case *events.JobCaptureRejected:
		said += fmt.Sprintf(" %s %s reset=%s", b.Reason, sayCount(b.Count), b.ResetDate)
	case *events.JobCaptureRepeated:
		said += fmt.Sprintf(" first=%s month=%s", b.First, b.Month)
	case *events.RequestRefused:
		detail := b.Detail
		for id, name := range s.jobs {
			detail = strings.ReplaceAll(detail, id, name)
		}
		said += fmt.Sprintf(" %s %s: %s", cmp.Or(b.Kind, "(no kind)"), b.Reason, detail)
	case *events.JobUpdated:
		said += fmt.Sprintf(" %s version=%d changed=%s", s.job(b.JobID), b.Version, cmp.Or(strings.Join(b.Changed, ","), "nothing"))
	case *events.JobDeleted:
		said += fmt.Sprintf(" %s version=%d", s.job(b.JobID), b.Version)
	case *events.AccountOpened:
		said += fmt.Sprintf(" %s limit=%d", b.Plan, b.Limit)
	case *events.PlanChanged:
		said += fmt.Sprintf(" %s limit=%d -> %s limit=%d", b.PreviousPlan, b.PreviousLimit, b.Plan, b.Limit)
	case *events.TokenIssued:
		said += " " + b.TokenID
	case *events.TokenRevoked:
		said += " " + b.TokenID
	case *events.MonthArchived:
		said += " " + string(b.Month)
	}
	return said
}

func sayCount(c events.Count) string {
	return fmt.Sprintf("used=%d/%d month=%s", c.Used, c.Limit, c.Month)
}

func (s *session) job(id string) string {
	if s.jobs[id] == "" {
		s.jobs[id] = fmt.Sprintf("j%d", len(s.jobs)+1)
	}
	return s.jobs[id]
}

func (s *session) quota(name string, month events.Month) string {
	account := s.state.Accounts[name]
	if account == nil {
		return "no account " + name
	}
	q := account.quota(month)
	return fmt.Sprintf("%s: used=%d limit=%d remaining=%d reset=%s", month, q.Used, q.Limit, q.Remaining(), q.ResetDate())
}
