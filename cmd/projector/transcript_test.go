package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"jobtally/internal/ledger"
	"jobtally/internal/node"
)

var rewrite = flag.Bool("rewrite", false, "write testdata/*.txt as the programs behave now")

// TestTranscripts plays the sessions in testdata with the real programs, and compares what they print:
//
//	# a remark
//	$ projector status     a command, one of ours or of the system's, what it prints, and [exit N] unless that is 0
//	& projector run        a program that goes on running
//	& node DIR TIME        a node on a data directory, whose clock stands still
//	^C                     Ctrl-C for it; then what it logged
//
// $NATS is a server without a ledger, $DIR an empty directory, $TOKEN_ID the id of the last token issued, $NODE the server
// of the node.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := terminal{t: t, dir: t.TempDir()}
			if bytes.Contains(want, []byte("$NATS")) {
				s.nats = natsServer(t)
			}
			remark := false
			for line := range strings.Lines(string(want)) {
				if line == "\n" && remark {
					s.screen.WriteString(line)
				}
				remark = line[0] == '#'
				s.line(strings.TrimSuffix(line, "\n"))
			}
			got := s.screen.String()
			if got == string(want) {
				return
			}
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			t.Errorf("%s has another transcript now; to accept it, run the test with -rewrite\n%s", file, firstDifference(got, string(want)))
		})
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range g {
		if i == len(w) || g[i] != w[i] {
			return fmt.Sprintf("line %d\n got: %s\nwant: %s", i+1, g[i], strings.Join(w[min(i, len(w)):min(i+1, len(w))], ""))
		}
	}
	return fmt.Sprintf("it ends after line %d", len(g))
}

// terminal plays a session. The screen is what is seen, with everything that differs from run to run under a name.
type terminal struct {
	t         *testing.T
	nats, dir string
	tokenID   string
	running   *process
	node      *node.Node
	nodeURL   string
	screen    strings.Builder
}

// line plays a line of a transcript, unless it is something that was printed.
func (s *terminal) line(line string) {
	switch {
	case strings.HasPrefix(line, "#"):
		fmt.Fprintln(&s.screen, line)
	case strings.HasPrefix(line, "$ "):
		fmt.Fprintln(&s.screen, line)
		output, code := s.settled(strings.Fields(s.expand(line[2:])))
		s.print(output)
		if code != 0 {
			fmt.Fprintf(&s.screen, "[exit %d]\n", code)
		}
		fmt.Fprintln(&s.screen)
	case strings.HasPrefix(line, "& "):
		fmt.Fprintln(&s.screen, line)
		command := strings.Fields(s.expand(line[2:]))
		if command[0] == "node" {
			s.startNode(command[1], command[2])
			break
		}
		s.running = spawn(s.t, command[0], command[1:]...)
		s.running.await(s.t, "msg=(deciding|listening)")
		fmt.Fprintln(&s.screen)
	case line == "^C" && s.node != nil:
		fmt.Fprintln(&s.screen, line)
		fmt.Fprintln(&s.screen)
		s.stopNode()
	case line == "^C":
		fmt.Fprintln(&s.screen, line)
		s.running.interrupt(s.t)
		s.print(s.running.logged() + "\n")
		fmt.Fprintln(&s.screen)
	}
}

// startNode starts a node in this process, as no program has a clock that can be set.
func (s *terminal) startNode(dir, clock string) {
	now, err := time.Parse(time.RFC3339, clock)
	if err != nil {
		s.t.Fatal(err)
	}
	s.node, err = node.Start(within(s.t), node.Config{
		Dir: dir, Decides: true, Now: func() time.Time { return now }, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(s.stopNode)
	if s.nodeURL, err = ledger.EmbeddedURL(dir); err != nil {
		s.t.Fatal(err)
	}
	fmt.Fprintln(&s.screen)
}

func (s *terminal) stopNode() {
	if s.node != nil {
		if err := s.node.Close(); err != nil {
			s.t.Error(err)
		}
		s.node = nil
	}
}

func (s *terminal) expand(line string) string {
	return strings.NewReplacer("$NATS", s.nats, "$DIR", s.dir, "$TOKEN_ID", s.tokenID, "$NODE", s.nodeURL).Replace(line)
}

// settled runs a command, and a status again until everything is folded: an operator hears of a decision when it is
// recorded, which is before the projectors have folded it.
func (s *terminal) settled(command []string) (output string, code int) {
	lagging, still := regexp.MustCompile(`(?m)^\d+  .*\(\d`), regexp.MustCompile(`no node runs|is stuck|no progress`)
	for deadline := time.Now().Add(patience); ; {
		output, code = s.run(command)
		if !lagging.MatchString(output) || still.MatchString(output) || time.Now().After(deadline) {
			return output, code
		}
	}
}

func (s *terminal) run(command []string) (output string, code int) {
	path := program(s.t, command[0])
	if command[0] == "nats" {
		path = natsCLI(s.t)
	}
	if _, err := os.Stat(path); err != nil {
		path = command[0]
	}
	cmd := exec.CommandContext(within(s.t), path, command[1:]...)
	cmd.Args[0] = command[0]
	cmd.Dir = s.dir
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

var (
	ledgerID = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
	issued   = regexp.MustCompile(`jt_([0-9A-Za-z]{12})_[0-9A-Za-z]{38}`)
	row      = regexp.MustCompile(`(?m)^\d+  .*$`)
	digest   = regexp.MustCompile(`\b[0-9a-f]{8}\b`)
	age      = regexp.MustCompile(`\(\d[^)]*s\) *`)
	size     = regexp.MustCompile(`: \d[0-9.]* [KMG]?i?B`)
	stamp    = regexp.MustCompile(`^(\{"time":")[^"]+`) // of a look, as JSON
	measured = regexp.MustCompile(`("[a-z]+_(?:bytes|seconds|version)":)[0-9.e+-]+`)
	link     = regexp.MustCompile(`[0-9a-f]{64}`)
	seconds  = regexp.MustCompile(`( in |"seconds":)[0-9.e-]+`)
	counted  = regexp.MustCompile(`(counts: )\d{4}-\d\d`)
	logTime  = regexp.MustCompile(`time=\S+`)
	packed   = regexp.MustCompile(`\d+ bytes|"bytes":\d+`) // as many as compression leaves
	instant  = regexp.MustCompile(`\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ`)
	ofNow    = regexp.MustCompile(`\b20\d\d-\d\d,<now>`)
	reset    = regexp.MustCompile(`(again on |"reset_date":")20\d\d-\d\d-\d\d`)
	lastFour = regexp.MustCompile(`(jt_[0-9A-Za-z]{12}  |"last_four":")[0-9A-Za-z]{4}`)
	password = regexp.MustCompile(`(NATS_PASSWORD=)\S+`)
	bcrypted = regexp.MustCompile(`"\$2a\$[^"]+"`)
	address  = regexp.MustCompile(`127\.0\.0\.1:\d{4,}`)
)

func (s *terminal) print(output string) {
	if t := issued.FindStringSubmatch(output); t != nil {
		s.tokenID = t[1]
	}
	output = issued.ReplaceAllString(output, "<token>")
	output = ledgerID.ReplaceAllString(output, "<ledger>")
	output = row.ReplaceAllStringFunc(output, func(row string) string {
		return strings.TrimRight(age.ReplaceAllString(digest.ReplaceAllString(row, "<digest>"), "(<age>)  "), " ")
	})
	output = size.ReplaceAllString(output, ": <size>")
	output = measured.ReplaceAllString(output, "$1<n>")
	output = stamp.ReplaceAllString(output, "$1<time>")
	output = packed.ReplaceAllString(output, "<bytes>")
	output = link.ReplaceAllString(output, "<digest>")
	output = seconds.ReplaceAllString(output, "$1<seconds>")
	output = counted.ReplaceAllString(output, "$1<month>")
	output = logTime.ReplaceAllString(output, "time=<time>")
	output = instant.ReplaceAllStringFunc(output, func(text string) string {
		if at, err := time.Parse(time.RFC3339, text); err == nil && time.Since(at).Abs() < time.Hour {
			return "<now>"
		}
		return text
	})
	output = ofNow.ReplaceAllString(output, "<month>,<now>")
	output = reset.ReplaceAllString(output, "$1<day>")
	output = lastFour.ReplaceAllString(output, "$1<four>")
	output = bcrypted.ReplaceAllString(password.ReplaceAllString(output, "$1<password>"), `"<bcrypt>"`)
	names := []string{s.dir, "$DIR"}
	if s.nats != "" {
		names = append(names, s.nats, "$NATS")
	}
	if s.tokenID != "" {
		names = append(names, s.tokenID, "$TOKEN_ID")
	}
	output = strings.NewReplacer(names...).Replace(output)
	s.screen.WriteString(address.ReplaceAllString(output, "<address>"))
}
