package main

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"jobtally/internal/events"
)

// addConsumer has an operator add a consumer, and returns what is printed to be pasted into a shell, to read so many.
func addConsumer(t *testing.T, count int, args ...string) (commands string) {
	t.Helper()
	said := mustOperate(t, append([]string{"consumer", "add"}, args...)...)
	at := strings.Index(said, "export NATS_URL=")
	if at < 0 {
		t.Fatalf("no command in %q", said)
	}
	return strings.Replace(said[at:], "--count 10", fmt.Sprint("--count ", count), 1)
}

// paste runs commands in a shell that has the nats command, and whose user has no settings of it.
func paste(t *testing.T, commands string) (output string, err error) {
	t.Helper()
	nats := natsCLI(t) // built first, which takes longer than the commands may
	cmd := exec.CommandContext(within(t), "bash", "-e", "-c", commands)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(nats)+":"+os.Getenv("PATH"), "HOME="+t.TempDir(), "XDG_CONFIG_HOME=")
	text, err := cmd.CombinedOutput()
	return string(text), err
}

// given returns the ids of the decisions that the nats command printed and acknowledged, in order.
func given(output string) (ids []string) {
	for _, found := range regexp.MustCompile(`(?m)^  ce-id: (\S+)$`).FindAllStringSubmatch(output, -1) {
		ids = append(ids, found[1])
	}
	return ids
}

// wantGiven runs commands that read, and wants these decisions of them, each acknowledged.
func wantGiven(t *testing.T, commands string, want ...string) (output string) {
	t.Helper()
	output, err := paste(t, commands)
	if err != nil || !slices.Equal(given(output), want) || strings.Count(output, "Acknowledged message") != len(want) {
		t.Fatalf("given %v, want %v; %v\n%s", given(output), want, err, output)
	}
	return output
}

// awaitWritten waits until the server has written down that a consumer acknowledged all up to a decision, of which nothing is
// outstanding. Numbers below 128 are a byte each in its file.
func awaitWritten(t *testing.T, dir, consumer string, sequence byte) {
	t.Helper()
	path := filepath.Join(dir, "jetstream", "jetstream", "$G", "streams", "DECISIONS_0", "obs", consumer, "o.dat")
	ticker, ctx := time.NewTicker(5*time.Millisecond), within(t)
	defer ticker.Stop()
	for {
		state, err := os.ReadFile(path)
		if err == nil && len(state) == 8 && state[3] == sequence && state[6] == 0 {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("%s has %v: %v", path, state, err)
		}
	}
}

// environment takes the credentials out of the commands, for others to follow.
func environment(commands string) string { return commands[:strings.Index(commands, "\n")+1] }

// TestTheNATSCommandReadsWhatIsPrinted pastes what `consumer add` prints into a shell, as it is: through a restart of the
// service, and its death.
func TestTheNATSCommandReadsWhatIsPrinted(t *testing.T) {
	dir := t.TempDir()
	s, base := service(t, "--data", dir)
	anna, bruno := openIn(t, dir, base, "anna"), openIn(t, dir, base, "bruno") // decided at 0-3 to 0-6
	for _, job := range []string{"1", "2", "3"} {
		anna.mustCapture(t, job)
		bruno.mustCapture(t, job)
	}
	of := addConsumer(t, 2, "of-anna", "--account", "anna", "--from", "beginning", "--data", dir)
	all := addConsumer(t, 4, "all", "--from", "0-5", "--data", dir)
	live := addConsumer(t, 1, "live", "--account", "bruno", "--data", dir)
	output := wantGiven(t, of, "0-7", "0-9")
	if !strings.Contains(output, "ce-account: anna") || strings.Contains(output, "bruno") {
		t.Errorf("the consumer of anna is given\n%s", output)
	}
	wantGiven(t, all, "0-6", "0-7", "0-8", "0-9")

	s.interrupt(t)
	s, base = service(t, "--data", dir)
	anna.base, bruno.base = base, base
	wantGiven(t, strings.Replace(all, "--count 4", "--count 1", 1), "0-10")

	// What it acknowledged in the last tenth of a second before the server is killed it may be given again, half a minute later.
	awaitWritten(t, dir, "all", 10)
	s.kill(t)
	_, base = service(t, "--data", dir)
	anna.base, bruno.base = base, base
	anna.mustCapture(t, "4")
	bruno.mustCapture(t, "4")
	wantGiven(t, live, "0-14")
	wantGiven(t, all, "0-11", "0-12", "0-13", "0-14")
	wantGiven(t, of, "0-11", "0-13")

	if _, err := paste(t, environment(of)+`nats --timeout 500ms --js-domain LEDGER --inbox-prefix _INBOX_of-anna consumer next DECISIONS_0 all`); err == nil {
		t.Error("a consumer reads with the durable of another")
	}
	mustOperate(t, "consumer", "remove", "of-anna", "--data", dir)
	if output, err := paste(t, of); err == nil || !strings.Contains(output, "Authorization Violation") {
		t.Errorf("removed: %v\n%s", err, output)
	}
}

// openIn opens an account of the service on a data directory and returns a client of it.
func openIn(t *testing.T, dir, base, account string) client {
	t.Helper()
	mustOperate(t, "account", "open", account, "--data", dir)
	return client{base: base, token: strings.TrimSpace(mustOperate(t, "token", "issue", "--account", account, "--data", dir))}
}

// Who read an account that was erased is told so also once there is another of that name.
func TestAConsumerOfAnErasedAccountIsListedAsThat(t *testing.T) {
	dir := t.TempDir()
	_, base := service(t, "--data", dir)
	openIn(t, dir, base, "anna")
	mustOperate(t, "consumer", "add", "before", "--account", "anna", "--data", dir)
	mustOperate(t, "consumer", "add", "zoe", "--data", dir)
	mustOperate(t, "erase", "--account", "anna", "--yes", "--data", dir)
	mustOperate(t, "account", "open", "anna", "--data", dir)
	mustOperate(t, "consumer", "add", "later", "--account", "anna", "--data", dir)
	list := mustOperate(t, "consumer", "list", "--data", dir)
	if !regexp.MustCompile(`(?s)\nbefore +anna \(erased\) .*\nlater +anna  .*\nzoe `).MatchString(list) {
		t.Errorf("the list is\n%s", list)
	}
}

// TestNoPasswordOfAConsumerIsWrittenAnywhere looks for it in everything that is kept and logged.
func TestNoPasswordOfAConsumerIsWrittenAnywhere(t *testing.T) {
	dir := t.TempDir()
	s, base := service(t, "--data", dir, "--log-level", "debug")
	openIn(t, dir, base, "anna").mustCapture(t, "1")
	commands := addConsumer(t, 1, "of-anna", "--account", "anna", "--from", "beginning", "--data", dir)
	wantGiven(t, commands, "0-5")
	password := regexp.MustCompile(`NATS_PASSWORD=(\S+)`).FindStringSubmatch(commands)[1]
	if _, err := paste(t, strings.Replace(commands, password, password+"x", 1)); err == nil {
		t.Error("another password is as good")
	}
	said := mustOperate(t, "consumer", "list", "--data", dir) + mustOperate(t, "consumer", "list", "--json", "--data", dir)
	s.interrupt(t)
	if strings.Contains(said+s.logged(), password) {
		t.Error("the password is in what was said, or in the log")
	}
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if strings.Contains(string(text), password) {
			t.Errorf("the password is in %s", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// admit puts the account that `consumer add` prints into a copy of the configuration for operators, has the server take it
// up, and returns the rest of what is printed.
func (g *guarded) admit(t *testing.T, count int, args ...string) (commands string) {
	t.Helper()
	said := mustOperate(t, append([]string{"consumer", "add"}, args...)...)
	block := regexp.MustCompile(`(?ms)^  CONSUMER_.*?^  }\n`).FindString(said)
	config, err := os.ReadFile(g.config)
	if err != nil || block == "" {
		t.Fatalf("%v in %q", err, said)
	}
	text := strings.Replace(string(config), "\naccounts {\n", "\naccounts {\n"+block, 1)
	if err := os.WriteFile(g.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	g.reload(t)
	g.reload(t) // before that, nats-server 2.15.2 lets a new account reach no other
	return strings.Replace(said[strings.Index(said, "export NATS_URL="):], "--count 10", fmt.Sprint("--count ", count), 1)
}

// reload tells the server that its configuration changed, and waits until it has taken that up.
func (g *guarded) reload(t *testing.T) {
	t.Helper()
	const done = "Reloaded server configuration"
	before, ctx := strings.Count(g.server.logged(), done), within(t)
	if err := g.server.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for {
		_, changed := g.server.said("^$")
		if strings.Count(g.server.logged(), done) > before {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("it was not taken up:\n%s", g.server.logged())
		}
	}
}

// TestAConsumerOfAnExternalServer follows what `consumer add` says, with the configuration that is for operators.
func TestAConsumerOfAnExternalServer(t *testing.T) {
	g, data := guardedServer(t), t.TempDir()
	g.as(t, "operator")
	mustOperate(t, "init", "--partitions", "2")
	g.as(t, "projector")
	spawn(t, "projector", "run", "--data", data).await(t, "msg=deciding")
	g.as(t, "api")
	_, base := service(t, "--data", t.TempDir())
	g.as(t, "operator")
	other := "bruno"
	for events.PartitionOf(other, 2) == events.PartitionOf("anna", 2) {
		other += "o"
	}
	anna, bruno := open(t, g.url("operator"), base, "anna"), open(t, g.url("operator"), base, other)
	anna.mustCapture(t, "1")
	bruno.mustCapture(t, "1")
	of := g.admit(t, 1, "of-anna", "--account", "anna", "--from", "beginning")
	all := g.admit(t, 3, "all", "--from", "beginning")
	output, err := paste(t, of)
	if ids := given(output); err != nil || len(ids) != 1 || !strings.Contains(output, "ce-account: anna") {
		t.Errorf("given %v: %v\n%s", ids, err, output)
	}
	if output, err := paste(t, all); err != nil || len(given(output)) != 6 {
		t.Errorf("given %v, want all of both partitions: %v\n%s", given(output), err, output)
	}
	list := mustOperate(t, "consumer", "list")
	if strings.Count(list, "\nall ") != 2 || strings.Count(list, "\nof-anna ") != 1 {
		t.Errorf("the list is\n%s", list)
	}
	user := visitorOf(t, of)
	for _, subject := range []string{
		"requests.0.anna.capture", "jobs.0.anna.captured", "$JS.API.STREAM.INFO.DECISIONS_0", "$JS.LEDGER.API.STREAM.INFO.DECISIONS_0",
		"$JS.LEDGER.API.CONSUMER.CREATE.DECISIONS_0.x", "$JS.LEDGER.API.CONSUMER.DELETE.DECISIONS_0.of-anna", "$JS.LEDGER.API.CONSUMER.MSG.NEXT.DECISIONS_0.all",
		"$JS.LEDGER.API.CONSUMER.MSG.NEXT.DECISIONS_1.all", "$JS.LEDGER.API.STREAM.MSG.GET.DECISIONS_0", "$JS.LEDGER.API.CONSUMER.MSG.NEXT.REQUESTS_0.of-anna",
	} {
		user.mustNotPublish(t, "of-anna", subject)
	}
	for _, subject := range []string{">", "jobs.>", "requests.>", "_INBOX_all.>", "$JS.>"} {
		user.mustNotSubscribe(t, "of-anna", subject)
	}
	mustOperate(t, "consumer", "remove", "of-anna")
	if output, err := paste(t, strings.Replace(of, "nats --js", "nats --timeout 500ms --js", 1)); err == nil {
		t.Errorf("removed, and given\n%s", output)
	}
}

// visitorOf connects as the consumer that commands are for.
func visitorOf(t *testing.T, commands string) visitor {
	t.Helper()
	is := regexp.MustCompile(`NATS_URL=nats://(\S+) NATS_USER=(\S+) NATS_PASSWORD=(\S+)`).FindStringSubmatch(commands)
	u := url.URL{Scheme: "nats", User: url.UserPassword(is[2], is[3]), Host: is[1]}
	nc, err := nats.Connect(u.String(), nats.CustomInboxPrefix("_INBOX_"+is[2]), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return visitor{nc}
}

// TestCommandsOfTheNATSPage runs the commands of docs/NATS.md as they stand, beside a service's data directory.
func TestCommandsOfTheNATSPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/NATS.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	_, base := service(t, "--data", data)
	demo := client{base: base, token: strings.TrimSpace(mustOperate(t, "token", "issue", "--account", "demo", "--data", data))}
	for _, job := range []string{"1", "2", "3", "4", "5"} { // decided at 0-4 to 0-8
		demo.mustCapture(t, job)
	}
	var script strings.Builder
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	for _, block := range blocks {
		script.WriteString("printf '\\036'\n" + block[1])
	}
	output, err := paste(t, "cd "+dir+"\nPATH="+filepath.Dir(program(t, "projector"))+":$PATH\n"+script.String())
	printed := strings.Split(output, "\x1e")[1:]
	if err != nil || len(printed) != len(blocks) {
		t.Fatalf("%v\n%s", err, output)
	}
	for i, want := range []string{
		"consumer billing is given the decisions on jobs of demo after 0-0", "ce-id: 0-6", "billing   demo     0          0-6           2 ",
		"jobs.0.demo.captured", `"used":5`, "Acknowledgment Floor: Consumer sequence: 5 Stream sequence: 8",
	} {
		if !strings.Contains(printed[i], want) {
			t.Errorf("block %d has no %q:\n%s", i+1, want, printed[i])
		}
	}
}
