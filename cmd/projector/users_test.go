package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
)

// guarded is a nats-server with the configuration that is for operators to use.
type guarded struct {
	address string
	config  string // a copy that a test may change
	server  *process
}

// passwords have what a password may have: digits alone, and characters that are special in a URL.
var passwords = map[string]string{
	"api": "2026112212", "projector": "projector-s3cret", "operator": "op@s3cret/:#%?", "consumer": "consumer-s3cret",
}

func guardedServer(t *testing.T) *guarded {
	t.Helper()
	text, err := os.ReadFile("../../deploy/nats/jobtally.conf")
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "jobtally.conf")
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for user, password := range passwords {
		t.Setenv("NATS_"+strings.ToUpper(user)+"_PASSWORD", `"`+password+`"`)
	}
	s := spawn(t, "nats-server", "--config", config, "--addr", "127.0.0.1", "--port", "-1",
		"--store_dir", filepath.Join(t.TempDir(), "store"))
	address := s.await(t, `Listening for client connections on (\S+)`)[1]
	s.await(t, "Server is ready")
	return &guarded{address: address, config: config, server: s}
}

func (g *guarded) url(user string) string {
	return (&url.URL{Scheme: "nats", User: url.UserPassword(user, passwords[user]), Host: g.address}).String()
}

// as has the commands and programs that follow be those of a user, by the environment.
func (g *guarded) as(t *testing.T, user string) { t.Setenv("JOBTALLY_NATS", g.url(user)) }

// visitor is a connection of a user without any of jobtally.
type visitor struct{ *nats.Conn }

func (g *guarded) visit(t *testing.T, user string) visitor {
	t.Helper()
	nc, err := nats.Connect(g.url(user), nats.CustomInboxPrefix("_INBOX_"+user),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})) // LastError has it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return visitor{nc}
}

// decisions is what a consumer reads them by.
func (v visitor) decisions(t *testing.T) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.NewWithDomain(v.Conn, "LEDGER")
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// TestEachUserDoesItsWork runs the parts apart, each as its own user, through all that they do.
func TestEachUserDoesItsWork(t *testing.T) {
	g, a, b, c := guardedServer(t), t.TempDir(), t.TempDir(), t.TempDir()
	g.as(t, "operator")
	said := mustOperate(t, "init", "--partitions", "2") + mustOperate(t, "init", "--partitions", "2")
	g.as(t, "projector")
	decider := spawn(t, "projector", "run", "--data", c)
	decider.await(t, "msg=deciding")
	g.as(t, "api")
	api, base := service(t, "--data", a)
	other, otherBase := service(t, "--data", b)

	g.as(t, "operator")
	said += mustOperate(t, "account", "open", "anna", "--limit", "1000") + mustOperate(t, "account", "open", "ops")
	said += mustOperate(t, "account", "plan", "ops", "--plan", "pro")
	anna := client{base: base, token: strings.TrimSpace(mustOperate(t, "token", "issue", "--account", "anna"))}
	ops := client{base: base, token: strings.TrimSpace(mustOperate(t, "token", "issue", "--account", "ops", "--scope", "admin"))}
	anna.mustHaveUsed(t, 0)
	var capturing sync.WaitGroup
	for worker := range 40 { // enough at once for atomic batches
		capturing.Go(func() {
			for i := range 5 {
				if _, err := anna.capture(within(t), fmt.Sprint(worker, "-", i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	capturing.Wait()
	anna.mustHaveUsed(t, 200)
	converge(t, g.url("operator"), a, b, c)
	anna.base = otherBase
	anna.mustHaveUsed(t, 200)

	if read := g.visit(t, "consumer").readAll(t, 2); read != 205 {
		t.Errorf("the consumer read %d decisions, want 205", read)
	}
	said += mustOperate(t, "status", "--data", a) + mustOperate(t, "audit", "--data", a) + mustOperate(t, "replay", "--account", "anna")
	said += mustOperate(t, "backup", "--data", a, "--to", filepath.Join(t.TempDir(), "backup.db"))
	said += mustOperate(t, "erase", "--account", "anna", "--yes")
	if _, err := ops.until(within(t), "DELETE", "/api/admin/accounts/ops", "", "", http.StatusOK); err != nil {
		t.Error(err)
	}
	decider.await(t, "erased account removed from the ledger")
	said += mustOperate(t, "audit", "--data", c)
	for _, p := range []*process{other, api, decider} {
		p.interrupt(t)
		said += p.logged()
	}
	said += mustOperate(t, "rebuild", "--data", a)
	for user, password := range passwords {
		if strings.Contains(said, password) || strings.Contains(said, url.QueryEscape(password)) {
			t.Errorf("the password of %s is in what was said", user)
		}
	}
	if log := g.server.logged(); strings.Contains(log, "Violation") {
		t.Errorf("a user had to do what it may not:\n%s", log)
	}
}

// readAll reads the decisions that there are in each partition with an ordered consumer, and the first with a durable one.
func (v visitor) readAll(t *testing.T, partitions int) (read int) {
	t.Helper()
	js, ctx := v.decisions(t), within(t)
	for p := range partitions {
		name := fmt.Sprint("DECISIONS_", p)
		stream, err := js.Stream(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		have := int(stream.CachedInfo().State.Msgs)
		if have == 0 {
			continue
		}
		ordered, err := js.OrderedConsumer(ctx, name, jetstream.OrderedConsumerConfig{})
		if err != nil {
			t.Fatal(err)
		}
		messages, err := ordered.Messages()
		if err != nil {
			t.Fatal(err)
		}
		for range have {
			if _, err := messages.Next(jetstream.NextContext(ctx)); err != nil {
				t.Fatal(err)
			}
			read++
		}
		messages.Stop()
		v.readDurably(t, js, name)
	}
	return read
}

func (v visitor) readDurably(t *testing.T, js jetstream.JetStream, stream string) {
	t.Helper()
	ctx := within(t)
	durable, err := js.CreateOrUpdateConsumer(ctx, stream, jetstream.ConsumerConfig{Durable: "relay"})
	if err != nil {
		t.Fatal(err)
	}
	m, err := durable.Next(jetstream.FetchContext(ctx))
	if err == nil {
		err = m.DoubleAck(ctx)
	}
	if err = errors.Join(err, js.DeleteConsumer(ctx, stream, "relay")); err != nil {
		t.Error(err)
	}
}

// TestNoUserMayDoMore has each user try what others do, and what nobody does.
func TestNoUserMayDoMore(t *testing.T) {
	g := guardedServer(t)
	mustOperate(t, "init", "--partitions", "1", "--nats", g.url("operator"))
	// Seen from account CONSUMERS, the ledger is behind another prefix.
	var nobody, noReader []string
	for _, api := range []string{"$JS.API.", "$JS.LEDGER.API."} {
		for _, stream := range []string{"REQUESTS_0", "DECISIONS_0"} {
			for _, call := range []string{"DELETE.", "PURGE.", "UPDATE.", "SNAPSHOT.", "RESTORE."} {
				nobody = append(nobody, api+"STREAM."+call+stream)
			}
			noReader = append(noReader, api+"STREAM.MSG.DELETE."+stream, api+"STREAM.MSG.GET."+stream, "$JS.API.CONSUMER.CREATE."+stream+".x")
		}
		noReader = append(noReader, api+"STREAM.LIST", api+"STREAM.INFO.REQUESTS_0", api+"CONSUMER.CREATE.REQUESTS_0.x",
			api+"CONSUMER.CREATE.REQUESTS_0.x.requests.>", api+"CONSUMER.CREATE.REQUESTS_0", api+"CONSUMER.DURABLE.CREATE.REQUESTS_0.x",
			api+"CONSUMER.MSG.NEXT.REQUESTS_0.x", api+"CONSUMER.INFO.REQUESTS_0.x", api+"CONSUMER.LIST.DECISIONS_0", api+"STREAM.CREATE.x")
	}
	decisions, closing := []string{"jobs.0.anna.captured", "accounts.0.anna.opened"}, "requests.0.~.month_close"
	asks := []string{"requests.0.anna.capture", "requests.0.anna.account_open"}
	var deletes []string
	for _, stream := range []string{"REQUESTS_0", "DECISIONS_0", "WEBHOOK_DELIVERIES", "WEBHOOK_POISON"} {
		deletes = append(deletes, "$JS.API.STREAM.MSG.DELETE."+stream)
	}
	poison, acknowledgement := "webhooks.poison.anna.x", "$JS.ACK.DECISIONS_0.x.1.1.1.1.1"
	forbidden := map[string][]string{
		"api":       append(append([]string{closing, poison, acknowledgement, "$JS.API.STREAM.CREATE.x"}, decisions...), deletes...),
		"projector": append([]string{"$JS.API.STREAM.CREATE.x", "requests.0.anna.month_close"}, asks...),
		"operator":  append([]string{closing, poison, acknowledgement}, decisions...),
		"consumer":  append(append(append(noReader, closing, "$JS.ACK.REQUESTS_0.x.1.1.1.1.1"), decisions...), asks...),
	}
	for user, subjects := range forbidden {
		v := g.visit(t, user)
		for _, subject := range append(subjects, nobody...) {
			v.mustNotPublish(t, user, subject)
		}
		for _, subject := range []string{">", "_INBOX.>", "requests.>", "jobs.>", "accounts.>", "$JS.>", "*.>"} {
			v.mustNotSubscribe(t, user, subject)
		}
		for other := range forbidden {
			if other != user {
				v.mustNotSubscribe(t, user, "_INBOX_"+other+".>")
				v.mustNotPublish(t, user, "_INBOX_"+other+".x")
			}
		}
	}
	wantEmptyLedger(t, g)
}

func (v visitor) mustNotPublish(t *testing.T, user, subject string) {
	t.Helper()
	if err := v.PublishRequest(subject, v.NewInbox(), []byte("{}")); err != nil {
		t.Fatal(err)
	}
	v.mustBeRefused(t, user, fmt.Sprintf("Publish to %q", subject))
}

func (v visitor) mustNotSubscribe(t *testing.T, user, subject string) {
	t.Helper()
	if _, err := v.SubscribeSync(subject); err != nil {
		t.Fatal(err)
	}
	v.mustBeRefused(t, user, fmt.Sprintf("Subscription to %q", subject))
}

// mustBeRefused looks once the server has answered everything that was sent.
func (v visitor) mustBeRefused(t *testing.T, user, what string) {
	t.Helper()
	if err := v.FlushWithContext(within(t)); err != nil {
		t.Fatal(err)
	}
	if last := v.LastError(); last == nil || !strings.Contains(last.Error(), what) {
		t.Errorf("%s was not refused: %s; the last error is %v", user, what, last)
	}
}

func wantEmptyLedger(t *testing.T, g *guarded) {
	t.Helper()
	for _, p := range statusOf(t, "--nats", g.url("operator")).Ledgers[0].Partitions {
		if p.Requests != 0 || p.Decisions != 0 {
			t.Errorf("something was recorded: %+v", p)
		}
	}
}

// TestTheProjectorMayAskForWhatIsItsOwn asks as MayAppend does, for what no test waits that it happens.
func TestTheProjectorMayAskForWhatIsItsOwn(t *testing.T) {
	g := guardedServer(t)
	mustOperate(t, "init", "--partitions", "1", "--nats", g.url("operator"))
	v := g.visit(t, "projector")
	erasure := events.Request{Account: "anna", Body: &events.AccountEraseRequested{}}
	for _, subject := range []string{events.ClosesSubject(0), erasure.Message(1).Subject} {
		m := nats.NewMsg(subject)
		m.Header.Set(jetstream.ExpectedStreamHeader, "none")
		if _, err := v.RequestMsgWithContext(within(t), m); err != nil {
			t.Errorf("%s: %v", subject, err)
		}
	}
	wantEmptyLedger(t, g)
}

// TestAnswersToAConsumerAreNoDecisions has a server send its answers, and what it delivers, to subjects of the ledger: it
// does not look whether the user may publish there.
func TestAnswersToAConsumerAreNoDecisions(t *testing.T) {
	g := guardedServer(t)
	mustOperate(t, "init", "--partitions", "1", "--nats", g.url("operator"))
	v, decider := g.visit(t, "consumer"), g.visit(t, "projector")
	js, ctx := v.decisions(t), within(t)
	if _, err := js.CreateConsumer(ctx, "DECISIONS_0", jetstream.ConsumerConfig{Name: "pull"}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreatePushConsumer(ctx, "DECISIONS_0", jetstream.ConsumerConfig{
		Name: "push", DeliverSubject: "requests.0.anna.capture", AckPolicy: jetstream.AckNonePolicy,
	}); err != nil {
		t.Log(err) // as good
	}
	if _, err := decider.RequestWithContext(ctx, "jobs.0.anna.captured", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	for _, reply := range []string{"requests.0.anna.capture", "jobs.0.anna.captured", "accounts.0.anna.opened"} {
		for _, question := range []string{"STREAM.INFO.DECISIONS_0", "CONSUMER.INFO.DECISIONS_0.pull", "CONSUMER.MSG.NEXT.DECISIONS_0.pull"} {
			if err := v.PublishRequest("$JS.LEDGER.API."+question, reply, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	// What was asked before this is answered before it, and what is delivered comes to an ordered consumer too.
	if read := v.readAll(t, 1); read != 1 {
		t.Errorf("there are %d decisions, want the one", read)
	}
	if p := statusOf(t, "--nats", g.url("operator")).Ledgers[0].Partitions[0]; p.Requests != 0 || p.Decisions != 1 {
		t.Errorf("%d requests and %d decisions, want none and one", p.Requests, p.Decisions)
	}
}

// TestAUserThatLacksARightIsTold starts each part as another user.
func TestAUserThatLacksARightIsTold(t *testing.T) {
	g := guardedServer(t)
	_, err := operate(t, "init", "--nats", g.url("api"))
	wantTold(t, "init as api", err, "api", "$JS.API.STREAM.CREATE.REQUESTS_0")
	mustOperate(t, "init", "--partitions", "1", "--nats", g.url("operator"))
	for _, c := range []struct{ user, subject string }{{"consumer", "$JS.API.STREAM.LIST"}, {"projector", "requests.0.~.none"}} {
		p := spawn(t, "api", "--nats", g.url(c.user), "--data", t.TempDir(), "--addr", "127.0.0.1:0")
		select {
		case <-p.ended:
		case <-within(t).Done():
			t.Fatalf("api as %s goes on:\n%s", c.user, p.logged())
		}
		if code := p.cmd.ProcessState.ExitCode(); code != 1 {
			t.Errorf("api as %s exits with %d", c.user, code)
		}
		wantTold(t, "api as "+c.user, errors.New(p.logged()), c.user, c.subject)
	}
	for _, c := range []struct{ user, subject string }{
		{"consumer", "$JS.API.STREAM.LIST"}, {"api", "jobs.0.~.none"}, {"operator", "jobs.0.~.none"},
	} {
		_, err := operate(t, "run", "--nats", g.url(c.user), "--data", t.TempDir())
		wantTold(t, "projector run as "+c.user, err, c.user, c.subject)
	}
	_, err = operate(t, "account", "open", "anna", "--nats", g.url("projector"))
	wantTold(t, "account open as projector", err, "projector", "requests.0.anna.account_open")
	_, err = operate(t, "status", "--nats", g.url("consumer"))
	wantTold(t, "status as consumer", err, "consumer", "$JS.API.STREAM.LIST")
	wantEmptyLedger(t, g)

	wrong := strings.Replace(g.url("projector"), "projector-s3cret", "wr0ng", 1)
	_, err = operate(t, "status", "--nats", wrong)
	if err == nil || !strings.Contains(err.Error(), "nats://projector:xxxxx@"+g.address) || strings.Contains(err.Error(), "wr0ng") {
		t.Errorf("with the wrong password: %v", err)
	}
}

// wantTold wants an error that names the user and the subject, and no password.
func wantTold(t *testing.T, what string, err error, user, subject string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error", what)
		return
	}
	said := strings.ReplaceAll(err.Error(), `\"`, `"`)
	if !strings.Contains(said, "the NATS user ("+user+") lacks a right") || !strings.Contains(said, fmt.Sprintf("Publish to %q", subject)) {
		t.Errorf("%s: %s", what, said)
	}
	if strings.Contains(said, passwords[user]) {
		t.Errorf("%s: the password is in %s", what, said)
	}
}
