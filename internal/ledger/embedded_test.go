package ledger

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
)

func TestLockDir(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made", "here")
	unlock := must[func() error](t)(LockDir(dir))

	_, err := LockDir(dir)
	wantErr(t, err, ErrLocked)
	if !strings.Contains(err.Error(), dir) {
		t.Fatalf("error %q does not name %s", err, dir)
	}

	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	unlock = must[func() error](t)(LockDir(dir))
	defer unlock()
	wantMode(t, dir, 0o700)
	wantMode(t, filepath.Join(dir, "lock"), 0o600)
}

func TestLockDirWhereThereIsAFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LockDir(path); err == nil || errors.Is(err, ErrLocked) {
		t.Fatalf("error %v", err)
	}
}

func wantMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	if got := must[fs.FileInfo](t)(os.Stat(path)).Mode().Perm(); got != want {
		t.Fatalf("%s has mode %o, want %o", path, got, want)
	}
}

// Two servers on one directory are what the lock is for: whoever takes it first, as every run mode does, is alone.
func TestOneServerOnADirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	start := func() (*Embedded, func() error, error) {
		unlock, err := LockDir(dir)
		if err != nil {
			return nil, nil, err
		}
		e, err := StartEmbedded(dir, 0, quiet())
		return e, unlock, err
	}
	first, unlock, err := start()
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = start()
	wantErr(t, err, ErrLocked)

	first.Close()
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	second, unlock, err := start()
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
}

func TestEmbeddedURL(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e, _ := startEmbedded(t, dir)
	wantMode(t, filepath.Join(dir, "nats.url"), 0o600)
	url := must[string](t)(EmbeddedURL(dir))
	if url != e.URL {
		t.Fatalf("url %q, want %q", url, e.URL)
	}

	nc := must[*nats.Conn](t)(Connect(url, "operator", quiet()))
	open(t, nc, Spec{Replicas: 1})
	nc.Close()
	if _, err := Connect("nats://"+e.server.Addr().String(), "stranger", quiet()); !errors.Is(err, nats.ErrAuthorization) {
		t.Fatalf("without credentials: error %v", err)
	}
	if host := e.server.Addr().String(); !strings.HasPrefix(host, "127.0.0.1:") {
		t.Fatalf("listens on %s", host)
	}

	e.Close()
	if _, err := EmbeddedURL(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("after Close: error %v", err)
	}
}

func TestLedgerSurvivesARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e, nc := startEmbedded(t, dir)
	l := open(t, nc, Spec{Partitions: 2, Replicas: 1})
	id := l.ID
	at := must[events.Position](t)(l.Append(within(t), request("before")))
	l.Close()
	nc.Close()
	e.Close()

	_, nc = startEmbedded(t, dir)
	l = open(t, nc, Spec{Replicas: 1})
	if l.ID != id || l.Partitions != 2 {
		t.Fatalf("ledger %s with %d partitions, want %s with 2", l.ID, l.Partitions, id)
	}
	if m := must[events.Message](t)(l.Get(within(t), events.Requests, at)); m.Header["ce-id"][0] != "before" {
		t.Fatalf("%s is %+v", at, m)
	}
	if got := must[events.Position](t)(l.Append(within(t), request("after"))); got.Sequence != at.Sequence+1 {
		t.Fatalf("position %s after %s", got, at)
	}
}

// A server that syncs in intervals has nothing to gain from batches, which cost their staging all the same.
func TestEmbeddedSyncsInIntervals(t *testing.T) {
	t.Parallel()
	e := must[*Embedded](t)(StartEmbedded(t.TempDir(), 3*time.Second, quiet()))
	t.Cleanup(e.Close)
	if got := e.server.JetStreamConfig(); got.SyncInterval != 3*time.Second {
		t.Errorf("SyncInterval is %v", got.SyncInterval)
	}
	nc := must[*nats.Conn](t)(e.Connect("test", quiet()))
	t.Cleanup(nc.Close)
	must[bool](t)(Create(within(t), nc, Spec{Replicas: 1}))
	l := must[*Ledger](t)(e.Open(within(t), nc))
	t.Cleanup(l.Close)
	outcomes := take(t, appendAll(t, l, "r", 200), 200)
	wantRecorded(t, l, outcomes)
	for _, m := range read(t, l, events.Requests, 0, 200) {
		if len(m.Header[headerBatchID]) > 0 {
			t.Fatalf("message %d came in a batch", m.Sequence)
		}
	}
}

func TestEmbeddedOnAnUnusableDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "jetstream"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := StartEmbedded(dir, 0, quiet()); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "jetstream")) {
		t.Fatalf("error %v, want one that names the directory", err)
	}
}

// TestSyncBesideTheLedger has a stream synced that is not of the ledger, and one that is not there.
func TestSyncBesideTheLedger(t *testing.T) {
	for _, every := range []time.Duration{0, time.Hour} {
		e := must[*Embedded](t)(StartEmbedded(t.TempDir(), every, quiet()))
		t.Cleanup(e.Close)
		nc := must[*nats.Conn](t)(e.Connect("test", quiet()))
		t.Cleanup(nc.Close)
		js := must[jetstream.JetStream](t)(jetstream.New(nc))
		must[jetstream.Stream](t)(js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "BESIDE", Subjects: []string{"beside"}, Storage: jetstream.FileStorage}))
		must[*jetstream.PubAck](t)(js.Publish(t.Context(), "beside", nil))
		if err := e.Sync("BESIDE"); err != nil {
			t.Error(err)
		}
		if err := e.Sync("NOWHERE"); (err == nil) != (every != 0) {
			t.Errorf("a stream that is not there, synced each %s: %v", every, err)
		}
	}
}
