package ledger

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"jobtally/internal/events"
)

// TestNoErrorHasThePassword gives URLs with a password that nobody answers to, or that cannot be read because of it.
func TestNoErrorHasThePassword(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"nats://api:s3cret@127.0.0.1:1", "api:s3cret@127.0.0.1:1", "nats://s3cret@127.0.0.1:1", "s3cret@127.0.0.1:1",
		"nats://api:s3cret@127.0.0.1:1,nats://api:s3cret@127.0.0.1:2", "nats://api:x,s3cret@127.0.0.1:1",
		"nats://api:%s3cret@127.0.0.1:1", "nats://api:s3cret#1@127.0.0.1:1", "nats://api:s3cret/1@127.0.0.1:1",
		"tsl://api:s3cret@127.0.0.1:1", "http://s3cret@127.0.0.1:1", "nats://127.0.0.1:1,s3cret://127.0.0.1:2",
		"nats://api:1/s3cret@127.0.0.1:1", "nats://api:s3cret 1@127.0.0.1:1", "nats://api:s3cret?@127.0.0.1:1", "nats://api:s3cret@", "",
	} {
		var log bytes.Buffer
		nc, err := Connect(url, "test", slog.New(slog.NewTextHandler(&log, nil)))
		if err == nil {
			nc.Close()
			t.Fatalf("%s: connected", url)
		}
		if said := err.Error() + log.String(); strings.Contains(said, "s3cret") || !strings.Contains(said, "NATS server") {
			t.Errorf("%s: %s", url, said)
		}
	}
}

// TestAMisspeltSchemeIsRefused has a server that would take anybody: it is not asked.
func TestAMisspeltSchemeIsRefused(t *testing.T) {
	t.Parallel()
	at := startNATS(t, server.Options{StoreDir: t.TempDir()}).Addr().String()
	for _, url := range []string{"tsl://" + at, "http://" + at, "nats://" + at + ",natss://" + at} {
		_, err := Connect(url, "test", slog.New(slog.DiscardHandler))
		wantErr(t, err, errScheme)
	}
}

func TestAnswersComeUnderTheNameOfTheUser(t *testing.T) {
	t.Parallel()
	s := startNATS(t, server.Options{StoreDir: t.TempDir(), Users: []*server.User{
		{Username: "api", Password: "a"}, {Username: "a.>", Password: "a"},
	}})
	for user, prefix := range map[string]string{"api:a": "_INBOX_api.", "a.%3E:a": "_INBOX."} {
		nc := dial(t, user+"@"+s.Addr().String())
		if inbox := nc.NewInbox(); !strings.HasPrefix(inbox, prefix) {
			t.Errorf("%s is answered under %s", user, inbox)
		}
	}
}

// TestMayAppend asks for a right that the user has and for one that it has not, and leaves no trace.
func TestMayAppend(t *testing.T) {
	t.Parallel()
	s := startNATS(t, server.Options{StoreDir: t.TempDir(), Users: []*server.User{
		{Username: "owner", Password: "o"},
		{Username: "half", Password: "h", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"accounts.>"}}}},
	}})
	l := open(t, dial(t, "owner:o@"+s.Addr().String()), Spec{Partitions: 1, Replicas: 1})
	half := must[*Ledger](t)(Open(within(t), dial(t, "half:h@"+s.Addr().String())))
	t.Cleanup(half.Close)
	for _, stream := range []events.Stream{events.Requests, events.Decisions} {
		if err := l.MayAppend(within(t), stream); err != nil {
			t.Errorf("the owner may not append to %s: %v", stream, err)
		}
	}
	if err := half.MayAppend(within(t), events.Requests); err != nil {
		t.Error(err)
	}
	err := half.MayAppend(within(t), events.Decisions)
	wantErr(t, err, nats.ErrPermissionViolation)
	if !strings.Contains(err.Error(), `the NATS user (half) lacks a right: nats: permissions violation: Permissions Violation for Publish to "accounts.0.~.none"`) {
		t.Error(err)
	}
	if heads := must[events.Heads](t)(l.Heads(within(t), 0)); heads != (events.Heads{}) {
		t.Errorf("it left %s", fmt.Sprint(heads))
	}
}

// TestAServerThatHangsIsLeftForAnother has the server that a connection is to say nothing more, while the line to it stays.
func TestAServerThatHangsIsLeftForAnother(t *testing.T) {
	t.Parallel()
	lines := map[string]*line{}
	for range 2 {
		l := newLine(t, startNATS(t, server.Options{StoreDir: t.TempDir()}))
		lines[l.address] = l
	}
	nc := dial(t, strings.Join(slices.Collect(maps.Keys(lines)), ","))
	again := nc.StatusChanged(nats.CONNECTED)
	hangs := lines[nc.ConnectedAddr()]
	hangs.toServer.Lock()
	defer hangs.toServer.Unlock()
	await(t, again)
	if nc.ConnectedAddr() == hangs.address {
		t.Error("it is connected to the server that hangs")
	}
}
