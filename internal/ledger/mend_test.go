package ledger

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"jobtally/internal/events"
)

// roomEnv marks the process in which the disk is full: one that may not write files beyond this many bytes, which it
// notices as it would notice a disk without room.
const (
	roomEnv = "JOBTALLY_TEST_FULL_DISK"
	room    = 3 << 20
)

// A full disk refuses appends, with the reason, until it has room again. Then the ledger goes on by itself, with
// everything that was acknowledged and nothing that was refused.
func TestFullLedgerDisk(t *testing.T) {
	if !mayFillDisk(t) {
		return
	}
	dir := t.TempDir()
	l, e := openEmbedded(t, dir)
	empty := fillDisk(t, room)

	outcomes := take(t, appendLarge(t, l, under(l), 100), 100)
	if n := count(outcomes, nil); n == 0 || n == 100 {
		t.Fatalf("%d of 100 were acknowledged, want those that found room", n)
	}
	until(t, func() bool { return errors.Is(e.Failure(), syscall.EFBIG) })
	_, err := l.Append(within(t), request("on a full disk"))
	wantErr(t, err, events.ErrUnavailable)
	wantErr(t, err, syscall.EFBIG)
	_, err = l.Heads(within(t), 0)
	wantErr(t, err, syscall.EFBIG)

	empty()
	until(t, func() bool { return e.Failure() == nil })
	until(t, func() bool { // the client connects again
		_, err := l.Append(within(t), request("with room"))
		return err == nil
	})
	wantRecorded(t, l, outcomes)
	if err := l.AppendDecisions(within(t), 0, 0, decisionsFrom("a", 2)); err != nil {
		t.Fatal(err)
	}
}

// mayFillDisk says whether this is a process of its own for the test. Otherwise the test is run in one, and passes or fails as it does.
func mayFillDisk(t *testing.T) bool {
	t.Helper()
	if os.Getenv(roomEnv) != "" {
		return true
	}
	t.Parallel()
	child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	child.Env = append(os.Environ(), roomEnv+"=1")
	if out, err := child.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Fatalf("%v\n%s", err, out)
	}
	return false
}

// fillDisk leaves room for files of so many bytes, until it is emptied.
func fillDisk(t *testing.T, room uint64) (empty func()) {
	t.Helper()
	var whole syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &whole); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(syscall.SIGXFSZ)
	limit := func(to syscall.Rlimit) {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &to); err != nil {
			t.Fatal(err)
		}
	}
	limit(syscall.Rlimit{Cur: room, Max: whole.Max})
	return func() { limit(whole) }
}

// Nobody but this process decides on its embedded server. A fence there means that the server counts decisions which it
// has not, as after their asynchronous writing failed.
func TestFenceOnTheEmbeddedServerStartsItAgain(t *testing.T) {
	t.Parallel()
	l, e := openEmbedded(t, t.TempDir())
	must[events.Position](t)(l.Append(within(t), request("one")))
	before := e.server
	wantErr(t, l.AppendDecisions(within(t), 0, 7, decisionsFrom("a", 1)), events.ErrFenced)
	until(t, func() bool { return e.Failure() != nil })
	until(t, func() bool { return e.Failure() == nil })
	until(t, func() bool { return l.AppendDecisions(within(t), 0, 0, decisionsFrom("a", 1)) == nil })
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.server == before {
		t.Fatal("the same server runs on")
	}
}

// What lies among the streams, and is none of the ledger's, is nobody's failure.
func TestHealthIsThatOfTheLedgersStreams(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, e := openEmbedded(t, dir)
	stray := filepath.Join(dir, "jetstream/jetstream/$G/streams/REQUESTS_0.bak")
	if err := os.Mkdir(stray, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := e.health(l.streamNames()); err != nil {
		t.Fatalf("a stray directory: %v", err)
	}
	if err := e.health(map[string]bool{"REQUESTS_0.bak": true}); err == nil {
		t.Fatal("a stream that is not there is healthy")
	}
}

// A server that a busy machine does not let look at its listeners in time says that it takes no connections.
func TestABusyMachineIsNoReasonToStartTheServerAgain(t *testing.T) {
	t.Parallel()
	streams := map[string]bool{"REQUESTS_0": true}
	for kind, sick := range map[server.HealthZErrorType]bool{server.HealthzErrorConn: false, server.HealthzErrorJetStream: true} {
		err := sickness([]server.HealthzError{{Type: kind, Error: "it says so"}}, streams)
		if sick != (err != nil) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// until waits for what nothing signals.
func until(t *testing.T, reached func() bool) {
	t.Helper()
	looks := time.NewTicker(10 * time.Millisecond)
	defer looks.Stop()
	for ctx := within(t); !reached(); {
		select {
		case <-looks.C:
		case <-ctx.Done():
			t.Fatal("not reached")
		}
	}
}

func TestProbeLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := probe(dir); err != nil {
		t.Fatal(err)
	}
	if left := must[[]os.DirEntry](t)(os.ReadDir(dir)); len(left) != 0 {
		t.Fatalf("left %v", left)
	}
	if err := probe(filepath.Join(dir, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("error %v", err)
	}
}
