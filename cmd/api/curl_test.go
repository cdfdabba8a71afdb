package main

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write what the commands of docs/API.md print now")

const walkPage = "../../docs/API.md"

// TestTheWalkThroughTheAPI runs the commands of docs/API.md as they stand, in one shell, against the real service, and
// compares what they print with what the page shows, but for what differs from run to run.
func TestTheWalkThroughTheAPI(t *testing.T) {
	t.Parallel()
	needs(t, "curl", "curl", "--version")
	needs(t, "jq", "jq", "--version")
	needs(t, "python3", "python3", "--version")
	page, err := os.ReadFile(walkPage)
	if err != nil {
		t.Fatal(err)
	}
	steps := stepsOf(string(page))
	if len(steps) == 0 {
		t.Fatal("no commands")
	}
	dir := t.TempDir()
	s := startBinary(t, filepath.Join(dir, "data"), allowLoopback...)
	printed := s.shell(t, dir, steps)
	shown := string(page)
	for i, step := range steps {
		if settled(printed[i]) == settled(step.output) {
			continue
		}
		if !*rewrite {
			t.Errorf("$ %s\nprints\n%s\nand the page shows\n%s", step.command, settled(printed[i]), settled(step.output))
		}
		shown = strings.Replace(shown, "$ "+step.command+"\n"+step.output, "$ "+step.command+"\n"+strings.ReplaceAll(printed[i], "\r", ""), 1)
	}
	if *rewrite && shown != string(page) {
		if err := os.WriteFile(walkPage, []byte(shown), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// step is a command of the page and what it prints.
type step struct{ command, output string }

// stepsOf reads the blocks of a page that are consoles. A command begins with "$ ", and goes on behind a backslash.
func stepsOf(page string) (steps []step) {
	block := regexp.MustCompile("(?ms)^```console\n(.*?)^```$")
	for _, m := range block.FindAllStringSubmatch(page, -1) {
		var open bool
		for line := range strings.Lines(m[1]) {
			command, begins := strings.CutPrefix(line, "$ ")
			last := len(steps) - 1
			switch {
			case begins:
				steps = append(steps, step{command: command})
			case open:
				steps[last].command += line
			default:
				steps[last].output += line
			}
			open = (begins || open) && strings.HasSuffix(line, "\\\n")
		}
	}
	for i := range steps {
		steps[i].command = strings.TrimSuffix(steps[i].command, "\n")
	}
	return steps
}

// shell runs the commands in one shell beside the data of the service, and returns what each printed.
func (s *service) shell(t *testing.T, dir string, steps []step) (printed []string) {
	t.Helper()
	const before, mark = "http://127.0.0.1:8080", "\x1e"
	script := "set -o pipefail\n"
	for _, step := range steps {
		script += "printf '\\036'\n" + strings.ReplaceAll(step.command, before, s.url) + "\n"
	}
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, binary := range map[string]string{"api": apiBinary, "projector": projectorBinary} {
		if err := os.Symlink(binary, filepath.Join(dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	docs, err := filepath.Abs(filepath.Dir(walkPage))
	if err == nil {
		err = os.Symlink(docs, filepath.Join(dir, "docs"))
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir, cmd.Env = dir, append(command("bash").Env, "no_proxy=127.0.0.1", "NO_PROXY=127.0.0.1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil || errs.Len() > 0 {
		t.Fatalf("%v\n%s\n%s", err, errs.String(), out.String())
	}
	printed = strings.Split(strings.ReplaceAll(out.String(), s.url, before), mark)[1:]
	if len(printed) != len(steps) {
		t.Fatalf("%d commands printed %d times", len(steps), len(printed))
	}
	return printed
}

// unsettled is what differs from run to run.
var unsettled = []struct {
	is   *regexp.Regexp
	name string
}{
	{regexp.MustCompile(`jt_[0-9A-Za-z]{12}_[0-9A-Za-z]{38}`), "<token>"},
	{regexp.MustCompile(`jt_[0-9A-Za-z]{12}`), "<prefix>"},
	{regexp.MustCompile(`("last_four": ?)"[0-9A-Za-z]{4}"`), `$1"<four>"`},
	{regexp.MustCompile(`job_[a-z2-7]{24}`), "<job>"},
	{regexp.MustCompile(`wh_[a-z2-7]{20}`), "<webhook>"},
	{regexp.MustCompile(`[0-9a-f]{64}`), "<digest>"},
	{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), "<key>"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z`), "<time>"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d`), "<day>"},
	{regexp.MustCompile(`"\d{4}-\d\d"`), `"<month>"`},
	{regexp.MustCompile(`;t=\d+`), ";t=<seconds>"},
	{regexp.MustCompile(`;w=\d+`), ";w=<seconds>"},
	{regexp.MustCompile(`cursor=[\w%-]+`), "cursor=<cursor>"},
	{regexp.MustCompile(`(?i)(etag: )"[0-9a-f]{32}"`), `$1"<tag>"`},
	{regexp.MustCompile(`((?:token:|"id": ?"))[0-9A-Za-z]{12}\b`), "$1<id>"},
	{regexp.MustCompile(`\r`), ""},
}

func settled(text string) string {
	for _, u := range unsettled {
		text = u.is.ReplaceAllString(text, u.name)
	}
	return strings.TrimRight(text, "\n")
}
