package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
)

// addConsumer lets a consumer in on the embedded server of a ledger of one partition, and returns its password.
func addConsumer(t *testing.T, l *Ledger, e *Embedded, name, account string, after uint64) (password string) {
	t.Helper()
	password = NewPassword()
	c := &Consumer{Name: name, Account: account, Created: time.Now()}
	user := &ConsumerUser{Name: name, Account: account, Partitions: []int{0}, Password: events.Hash([]byte(password)), Created: c.Created}
	if err := AddConsumerUser(e.dir, user); err != nil {
		t.Fatal(err)
	}
	if err := l.AddConsumer(within(t), c, []events.Position{{Sequence: after}}); err != nil {
		t.Fatal(err)
	}
	return password
}

func dialConsumer(e *Embedded, name, password string, options ...nats.Option) (*nats.Conn, error) {
	address, err := Addresses(e.URL)
	if err != nil {
		return nil, err
	}
	return nats.Connect(address, append(options, nats.UserInfo(name, password), nats.CustomInboxPrefix("_INBOX_"+name),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))...) // LastError has it
}

func mustDialConsumer(t *testing.T, e *Embedded, name, password string) *nats.Conn {
	t.Helper()
	nc := must[*nats.Conn](t)(dialConsumer(e, name, password))
	t.Cleanup(nc.Close)
	return nc
}

// durableOf binds to a durable as a consumer does, from its own account.
func durableOf(t *testing.T, nc *nats.Conn, name string) jetstream.Consumer {
	t.Helper()
	js := must[jetstream.JetStream](t)(jetstream.NewWithDomain(nc, Domain))
	return must[jetstream.Consumer](t)(js.Consumer(within(t), "DECISIONS_0", name))
}

// takeNext acknowledges the next decisions of a consumer and returns their numbers.
func takeNext(t *testing.T, c jetstream.Consumer, n int) (numbers []uint64) {
	t.Helper()
	for range n {
		m := must[jetstream.Msg](t)(c.Next(jetstream.FetchContext(within(t))))
		numbers = append(numbers, must[*jetstream.MsgMetadata](t)(m.Metadata()).Sequence.Stream)
		if err := m.DoubleAck(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	return numbers
}

func wantNumbers(t *testing.T, got []uint64, want ...uint64) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("given %v, want %v", got, want)
	}
}

func TestAConsumerIsGivenWhatIsItsInOrderAndGoesOn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, e := openEmbedded(t, dir)
	record(t, l, 10, repeat(4, "a", "b")...)
	ofA := addConsumer(t, l, e, "reads-a", "a", 0)
	all := addConsumer(t, l, e, "reads_all", "", 3)
	wantNumbers(t, takeNext(t, durableOf(t, mustDialConsumer(t, e, "reads-a", ofA), "reads-a"), 3), 1, 3, 5)
	wantNumbers(t, takeNext(t, durableOf(t, mustDialConsumer(t, e, "reads_all", all), "reads_all"), 2), 4, 5)

	consumers := must[[]Consumer](t)(l.Consumers(within(t)))
	if len(consumers) != 2 || consumers[0].Name != "reads-a" || consumers[0].Account != "a" || consumers[1].Account != "" {
		t.Fatalf("consumers %+v", consumers)
	}
	at := consumers[0].Progress[0]
	if len(consumers[0].Progress) != 1 || at.Acknowledged.Sequence != 5 || at.Pending != 1 || time.Since(at.LastActive) > deadline {
		t.Errorf("progress %+v", at)
	}
	err := l.AddConsumer(within(t), &consumers[0], []events.Position{{}})
	wantErr(t, err, ErrConsumerExists)

	l.Close()
	e.Close()
	before := e.URL[strings.LastIndex(e.URL, ":"):]
	l, e = openEmbedded(t, dir)
	if !strings.HasSuffix(e.URL, before) {
		t.Errorf("listens on %s, before on %s", e.URL[strings.LastIndex(e.URL, ":"):], before)
	}
	record(t, l, 10, "a")
	wantNumbers(t, takeNext(t, durableOf(t, mustDialConsumer(t, e, "reads-a", ofA), "reads-a"), 2), 7, 9)
	if err := l.RemoveConsumer(within(t), "reads-a"); err != nil {
		t.Fatal(err)
	}
	wantErr(t, l.RemoveConsumer(within(t), "reads-a"), events.ErrNotFound)
	if left := must[[]Consumer](t)(l.Consumers(within(t))); len(left) != 1 || left[0].Name != "reads_all" {
		t.Errorf("left are %+v", left)
	}
}

// What a consumer does not acknowledge it is given again, and nothing behind it meanwhile.
func TestNothingOvertakesWhatIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	l, e := openEmbedded(t, t.TempDir())
	record(t, l, 10, "a", "a", "a")
	password := addConsumer(t, l, e, "slow", "a", 0)
	c := durableOf(t, mustDialConsumer(t, e, "slow", password), "slow")
	held := must[jetstream.Msg](t)(c.Next(jetstream.FetchContext(within(t))))
	if m, err := c.Next(jetstream.FetchMaxWait(100 * time.Millisecond)); !errors.Is(err, nats.ErrTimeout) {
		t.Errorf("given %v beside one that is not acknowledged: %v", m, err)
	}
	if err := held.Nak(); err != nil {
		t.Fatal(err)
	}
	wantNumbers(t, takeNext(t, c, 3), 1, 2, 3)
}

// TestAConsumerMayDoNothingElse has a consumer try what others do, and what nobody does.
func TestAConsumerMayDoNothingElse(t *testing.T) {
	t.Parallel()
	l, e := openEmbedded(t, t.TempDir())
	record(t, l, 10, "a", "b")
	addConsumer(t, l, e, "other", "b", 0)
	nc := mustDialConsumer(t, e, "reads", addConsumer(t, l, e, "reads", "a", 0))
	for _, subject := range forbiddenToAConsumer() {
		if err := nc.PublishRequest(subject, nc.NewInbox(), []byte("{}")); err != nil {
			t.Fatal(err)
		}
		wantViolation(t, nc, fmt.Sprintf("Publish to %q", subject))
	}
	for _, subject := range []string{">", "*.>", "_INBOX.>", "_INBOX_other.>", "requests.>", "jobs.>", "accounts.>", "$JS.>", "_R_.>"} {
		if _, err := nc.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
		wantViolation(t, nc, fmt.Sprintf("Subscription to %q", subject))
	}
	if h := heads(t, l); h.Requests != 2 || h.Decisions != 2 {
		t.Errorf("something was recorded: %+v", h)
	}
}

func forbiddenToAConsumer() (subjects []string) {
	subjects = []string{
		"requests.0.a.capture", "requests.0.~.month_close", "jobs.0.a.captured", "accounts.0.a.opened", "_INBOX_other.x", "$SYS.REQ.SERVER.PING",
		"$JS.ACK.DECISIONS_0.other.1.2.1.1.0", "$JS.ACK.REQUESTS_0.reads.1.1.1.1.0", "$KV.jobtally_webhooks.x",
	}
	for _, api := range []string{"$JS.API.", "$JS.LEDGER.API."} {
		for _, call := range []string{
			"INFO", "STREAM.LIST", "STREAM.NAMES", "STREAM.CREATE.x", "CONSUMER.CREATE.DECISIONS_0", "CONSUMER.CREATE.DECISIONS_0.x", "CONSUMER.CREATE.DECISIONS_0.reads",
			"CONSUMER.CREATE.DECISIONS_0.x.jobs.>", "CONSUMER.DURABLE.CREATE.DECISIONS_0.reads", "CONSUMER.DELETE.DECISIONS_0.reads", "CONSUMER.LIST.DECISIONS_0",
			"CONSUMER.RESET.DECISIONS_0.reads", "CONSUMER.PAUSE.DECISIONS_0.reads", "CONSUMER.UNPIN.DECISIONS_0.reads",
			"CONSUMER.MSG.NEXT.DECISIONS_0.other", "CONSUMER.INFO.DECISIONS_0.other", "CONSUMER.MSG.NEXT.REQUESTS_0.reads", "CONSUMER.INFO.REQUESTS_0.reads",
			"DIRECT.GET.DECISIONS_0", "DIRECT.GET.DECISIONS_0.jobs.0.b.captured",
		} {
			subjects = append(subjects, api+call)
		}
		for _, stream := range []string{"REQUESTS_0", "DECISIONS_0"} {
			for _, call := range []string{"INFO.", "DELETE.", "PURGE.", "UPDATE.", "SNAPSHOT.", "RESTORE.", "MSG.GET.", "MSG.DELETE."} {
				subjects = append(subjects, api+"STREAM."+call+stream)
			}
		}
	}
	return append(subjects, "$JS.API.CONSUMER.MSG.NEXT.DECISIONS_0.reads", "$JS.API.CONSUMER.INFO.DECISIONS_0.reads")
}

// wantViolation looks once the server has answered everything that was sent.
func wantViolation(t *testing.T, nc *nats.Conn, what string) {
	t.Helper()
	if err := nc.FlushWithContext(within(t)); err != nil {
		t.Fatal(err)
	}
	if last := nc.LastError(); last == nil || !strings.Contains(last.Error(), what) {
		t.Errorf("not refused: %s; the last error is %v", what, last)
	}
}

// TestAnswersToAConsumerReachNothingElse has the server send its answers, and what it delivers, where a consumer may not
// publish: to the ledger, and to what another consumer asks and acknowledges. The server does not look; the account does.
func TestAnswersToAConsumerReachNothingElse(t *testing.T) {
	t.Parallel()
	l, e := openEmbedded(t, t.TempDir())
	record(t, l, 10, "a", "b")
	otherConn := mustDialConsumer(t, e, "other", addConsumer(t, l, e, "other", "b", 0))
	other := durableOf(t, otherConn, "other")
	forged := must[*nats.Subscription](t)(otherConn.SubscribeSync("_INBOX_other.forged"))
	if err := otherConn.FlushWithContext(within(t)); err != nil {
		t.Fatal(err)
	}
	held := must[jetstream.Msg](t)(other.Next(jetstream.FetchContext(within(t)))) // not acknowledged
	reads := mustDialConsumer(t, e, "reads", addConsumer(t, l, e, "reads", "a", 0))
	for _, answer := range []string{
		"requests.0.a.capture", "jobs.0.a.captured", "accounts.0.a.opened", held.Reply(), forged.Subject, "$JS.API.CONSUMER.DELETE.DECISIONS_0.other",
		"$JS.LEDGER.API.CONSUMER.DELETE.DECISIONS_0.other", "$JS.LEDGER.API.CONSUMER.MSG.NEXT.DECISIONS_0.other", "$JS.API.STREAM.PURGE.DECISIONS_0",
	} {
		// A status comes without a body, which is how a durable is acknowledged; the first of these gets the decision.
		for _, question := range []string{`{"batch":1,"no_wait":true}`, `{"batch":1,"no_wait":true}`} {
			if err := reads.PublishRequest("$JS.LEDGER.API.CONSUMER.MSG.NEXT.DECISIONS_0.reads", answer, []byte(question)); err != nil {
				t.Fatal(err)
			}
		}
		if err := reads.PublishRequest("$JS.LEDGER.API.CONSUMER.INFO.DECISIONS_0.reads", answer, nil); err != nil {
			t.Fatal(err)
		}
	}
	// What was asked before this was answered before it.
	durableOf(t, reads, "reads")
	if h := heads(t, l); h.Requests != 2 || h.Decisions != 2 {
		t.Errorf("something was recorded, or removed: %+v", h)
	}
	info := must[*jetstream.ConsumerInfo](t)(other.Info(within(t)))
	if told, _, err := forged.Pending(); told != 0 || err != nil {
		t.Errorf("%d answers came to the other consumer: %v", told, err)
	}
	if info.NumAckPending != 1 || info.AckFloor.Consumer != 0 || info.NumWaiting != 0 {
		t.Errorf("the other consumer has %+v", info)
	}
}

func TestARemovedConsumerIsCutOff(t *testing.T) {
	t.Parallel()
	l, e := openEmbedded(t, t.TempDir())
	for _, again := range []bool{false, true} {
		password := addConsumer(t, l, e, "reads", "a", 0)
		if _, err := dialConsumer(e, "reads", password+"x"); !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("with another password: %v", err)
		}
		closed := make(chan struct{})
		nc := must[*nats.Conn](t)(dialConsumer(e, "reads", password, nats.NoReconnect(), nats.ClosedHandler(func(*nats.Conn) { close(closed) })))
		t.Cleanup(nc.Close)
		if err := errors.Join(RemoveConsumerUser(e.dir, "reads"), l.RemoveConsumer(within(t), "reads")); err != nil {
			t.Fatal(err)
		}
		if again { // at once, so that only its time tells one from the other
			addConsumer(t, l, e, "reads", "b", 0)
		}
		select {
		case <-closed:
		case <-within(t).Done():
			t.Fatalf("it is still connected; made anew: %v", again)
		}
		if _, err := dialConsumer(e, "reads", password); !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("with the password of before: %v", err)
		}
	}
	if files := finds(t, e.dir, "password_sha256"); len(files) != 1 {
		t.Errorf("users are in %v", files)
	}
}

func TestConsumerUsersAreForTheirOwnerOnly(t *testing.T) {
	t.Parallel()
	l, e := openEmbedded(t, t.TempDir())
	password := addConsumer(t, l, e, "reads", "a", 0)
	wantMode(t, filepath.Join(e.dir, "consumers"), 0o700)
	wantMode(t, filepath.Join(e.dir, "consumers", "reads.json"), 0o600)
	if files := finds(t, e.dir, password); len(files) > 0 {
		t.Errorf("the password is in %v", files)
	}
	wantErr(t, AddConsumerUser(e.dir, &ConsumerUser{Name: "reads"}), ErrConsumerExists)
	wantErr(t, RemoveConsumerUser(e.dir, "nobody"), fs.ErrNotExist)

	// A name is part of a path: one that leads elsewhere, or to a file of another name, is nobody's.
	text := must[[]byte](t)(os.ReadFile(userPath(e.dir, "reads")))
	for _, path := range []string{"outside.json", "consumers/copied.json"} {
		if err := os.WriteFile(filepath.Join(e.dir, path), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"../outside", "copied", "", "READS", "reads/", strings.Repeat("a", 300)} {
		if _, err := dialConsumer(e, name, password); !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("as %q: %v", name, err)
		}
	}
}

func TestNamesOfConsumers(t *testing.T) {
	t.Parallel()
	for name, ok := range map[string]bool{
		"billing": true, "0": true, "a_b-c": true, strings.Repeat("a", 64): true,
		"": false, strings.Repeat("a", 65): false, "A": false, "a.b": false, "a b": false, "a/b": false, "é": false, "*": false, "-a": false, "-": false,
		"api": false, "projector": false, "operator": false, "consumer": false, "jobtally": false, "webhook_": false, "webhook_1": false,
	} {
		if err := ValidConsumer(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// A durable that a program made for itself is nobody's that `consumer remove` would know.
func TestADurableOfAProgramIsNoConsumer(t *testing.T) {
	t.Parallel()
	l, _ := openEmbedded(t, t.TempDir())
	if _, err := l.js.CreateConsumer(within(t), "DECISIONS_0", jetstream.ConsumerConfig{Durable: "example"}); err != nil {
		t.Fatal(err)
	}
	err := l.AddConsumer(within(t), &Consumer{Name: "example"}, []events.Position{{}})
	if err == nil || errors.Is(err, ErrConsumerExists) || !strings.Contains(err.Error(), "take another name") {
		t.Errorf("added: %v", err)
	}
	if left := must[[]Consumer](t)(l.Consumers(within(t))); len(left) != 0 {
		t.Errorf("consumers are %+v", left)
	}
}

// TestOneOfTwoWhoAddAtOnceIsRefused has two add a consumer of one name to the same partitions, in the same second.
func TestOneOfTwoWhoAddAtOnceIsRefused(t *testing.T) {
	t.Parallel()
	l, _ := openEmbedded(t, t.TempDir())
	now := time.Now().UTC().Truncate(time.Second)
	for _, created := range []time.Time{now, now.Add(time.Microsecond)} { // as the one who comes later finds none yet
		_, err := l.js.CreateConsumer(within(t), events.Decisions.Name(0), durableConfig(&Consumer{Name: "reads", Created: created}, events.Position{}))
		if created == now && err != nil {
			t.Fatal(err)
		} else if created != now {
			wantErr(t, err, jetstream.ErrConsumerExists)
		}
	}
}

// The port stays, unless another process has it by then.
func TestThePortIsKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	address := func(e *Embedded) string { return e.server.Addr().String() }
	e, _ := startEmbedded(t, dir)
	first := address(e)
	e.Close()
	taken := must[net.Listener](t)(net.Listen("tcp", first))
	e, nc := startEmbedded(t, dir)
	if second := address(e); second == first || !nc.IsConnected() {
		t.Errorf("listens on %s, which is taken", second)
	}
	taken.Close()
	second := address(e)
	e.Close()
	e, _ = startEmbedded(t, dir)
	if third := address(e); third != second {
		t.Errorf("listens on %s, before on %s", third, second)
	}
	e.Close()
	for _, text := range []string{"", "x\n", "0\n", "99999\n"} { // a start that cannot read it makes one
		if err := os.WriteFile(filepath.Join(dir, portFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		e, _ = startEmbedded(t, dir)
		e.Close()
	}
}

// What a process that was killed left says where its server listened, and its password: the port is the same, the password is not.
func TestNobodyIsToldAnOldPassword(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e, _ := startEmbedded(t, dir)
	taken, path := e.server.Addr().String(), e.urlPath()
	e.Close()
	if err := os.WriteFile(path, []byte(e.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	// The server says that its port is taken before it listens on another.
	defer must[net.Listener](t)(net.Listen("tcp", taken)).Close()
	was := errors.New("nothing was logged")
	log := slog.New(slog.NewTextHandler(onWrite(func() { _, was = os.Stat(path) }), nil))
	e = must[*Embedded](t)(StartEmbedded(dir, 0, log))
	defer e.Close()
	if !errors.Is(was, fs.ErrNotExist) {
		t.Errorf("before it listens: %v", was)
	}
}

type onWrite func()

func (w onWrite) Write(p []byte) (int, error) {
	w()
	return len(p), nil
}

// Where a consumer is to begin with what is not there any more is told; what was erased with its account is no loss.
func TestPruned(t *testing.T) {
	t.Parallel()
	at := func(sequence uint64) events.Position { return events.Position{Sequence: sequence} }
	want := func(l *Ledger, after, first uint64) {
		t.Helper()
		if got := must[uint64](t)(l.Pruned(within(t), at(after))); got != first {
			t.Errorf("after %d: %d, want %d", after, got, first)
		}
	}
	l := newLedger(t)
	want(l, 0, 0)
	record(t, l, 10, "a", "a", "b", "b")
	erasure := decideErasure(t, l, "a", 2)
	if _, err := l.Erase(within(t), "a", erasure, nothing); err != nil {
		t.Fatal(err)
	}
	for after := range erasure + 1 {
		want(l, after, 0)
	}
	s := must[jetstream.Stream](t)(jetstreamOf(t, l.nc).Stream(within(t), "DECISIONS_0"))
	if err := s.Purge(within(t), jetstream.WithPurgeSequence(4)); err != nil {
		t.Fatal(err)
	}
	want(l, 0, 4)
	want(l, 2, 4)
	want(l, 3, 0)
	want(l, 5, 0)
}

// A file that a killed command left half written lets nobody in, and can be removed.
func TestAHalfWrittenUserIsNobody(t *testing.T) {
	t.Parallel()
	l, e := openEmbedded(t, t.TempDir())
	password := addConsumer(t, l, e, "reads", "", 0)
	whole := must[[]byte](t)(os.ReadFile(userPath(e.dir, "reads")))
	if !json.Valid(whole) {
		t.Fatalf("%s", whole)
	}
	if err := os.WriteFile(userPath(e.dir, "reads"), whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := dialConsumer(e, "reads", password); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("error %v", err)
	}
	if _, err := ConsumerUsers(e.dir); err == nil || !strings.Contains(err.Error(), "`projector consumer remove reads`") {
		t.Errorf("error %v", err)
	}
	if err := RemoveConsumerUser(e.dir, "reads"); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(userPath(e.dir, ".reads~"), whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if users, err := ConsumerUsers(e.dir); len(users) != 0 || err != nil {
		t.Errorf("let in are %v, %v", users, err)
	}
}

// Half a file of a consumer that could not be written would keep all others from being listed.
func TestAUserThatAFullDiskHasNoRoomForIsNotThere(t *testing.T) {
	if !mayFillDisk(t) {
		return
	}
	dir, reads := t.TempDir(), &ConsumerUser{Name: "reads"}
	empty := fillDisk(t, 10)
	wantErr(t, AddConsumerUser(dir, reads), syscall.EFBIG)
	if users, err := ConsumerUsers(dir); len(users) != 0 || err != nil {
		t.Errorf("let in are %v, %v", users, err)
	}
	empty()
	if err := AddConsumerUser(dir, reads); err != nil {
		t.Error(err)
	}
}

// A server that was started again, as after a full disk, knows the consumers, and they connect again by themselves.
func TestConsumersComeBackToAServerThatWasStartedAgain(t *testing.T) {
	t.Parallel()
	l, e := openEmbedded(t, t.TempDir())
	record(t, l, 10, "a", "a")
	nc := must[*nats.Conn](t)(dialConsumer(e, "reads", addConsumer(t, l, e, "reads", "a", 0), nats.MaxReconnects(-1), nats.ReconnectWait(reconnectWait)))
	t.Cleanup(nc.Close)
	wantNumbers(t, takeNext(t, durableOf(t, nc, "reads"), 1), 1)
	e.doubt(errors.New("a test"))
	until(t, func() bool { return e.Failure() != nil || nc.Stats().Reconnects > 0 })
	until(t, func() bool { return e.Failure() == nil && nc.Stats().Reconnects > 0 && nc.IsConnected() })
	wantNumbers(t, takeNext(t, durableOf(t, nc, "reads"), 1), 2)
}

// With an account goes what was made to read it: it may be opened again, for somebody else.
func TestAnErasureRemovesTheConsumersOfTheAccount(t *testing.T) {
	t.Parallel()
	l, e := openEmbedded(t, t.TempDir())
	record(t, l, 10, "a", "b")
	addConsumer(t, l, e, "of-a", "a", 0)
	addConsumer(t, l, e, "of-b", "b", 0)
	addConsumer(t, l, e, "all", "", 0)
	erasure := decideErasure(t, l, "a", 1)
	password := addConsumer(t, l, e, "of-a-anew", "a", erasure)
	for range 2 { // what is erased twice keeps who came since
		must[int](t)(l.Erase(within(t), "a", erasure, nothing))
	}
	var names []string
	for _, c := range must[[]Consumer](t)(l.Consumers(within(t))) {
		names = append(names, c.Name)
	}
	if !slices.Equal(names, []string{"all", "of-a-anew", "of-b"}) {
		t.Errorf("there are %v", names)
	}
	if users := must[[]ConsumerUser](t)(ConsumerUsers(e.dir)); len(users) != 4 {
		t.Errorf("users %+v", users)
	}
	record(t, l, 10, "a")
	wantNumbers(t, takeNext(t, durableOf(t, mustDialConsumer(t, e, "of-a-anew", password), "of-a-anew"), 1), erasure+1)
}
