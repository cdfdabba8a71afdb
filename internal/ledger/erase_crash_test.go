package ledger

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
)

// Blocks are replaced while others append. Whatever instant the power fails at: what was acknowledged is there, and once
// Erase returned, nothing of the account.
func TestPowerFailureDuringAnErasure(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, e := openEmbedded(t, dir)
	p := under(l)
	accounts := repeat(20, "anna", "anna", "bob")
	record(t, l, 120<<10, accounts...)
	at := decideErasure(t, l, "anna", 40)
	must[events.Position](t)(l.Append(within(t), request("before")))
	if !p.holds("secret-anna") || !p.holds("before") {
		t.Fatal("nothing is on the platter")
	}
	var appended <-chan outcome
	blocks := len(p.files)
	must[int](t)(l.Erase(within(t), "anna", at, func(removed, _ int) {
		if removed == 41 { // the first of the requests
			appended = appendLarge(t, l, p, 300)
		}
		if !p.holds(secret("bob", 3)) {
			t.Errorf("after %d messages were removed a power failure would leave nothing of bob", removed)
		}
	}))
	if p.holds("secret-anna") {
		t.Error("a power failure brings back what was erased")
	}
	outcomes := take(t, appended, 300)
	if n := count(outcomes, nil); n != 300 {
		t.Fatalf("%d of 300 were acknowledged", n)
	}
	if replaced := len(p.files) - blocks; replaced < 5 {
		t.Fatalf("%d blocks were replaced and synced", replaced)
	}
	l.Close()
	e.Close()

	p.remain(t, filepath.Join(dir, testMsgs), nil)
	if err := os.Remove(filepath.Join(dir, "jetstream", stoppedFile)); err != nil { // it was written after the failure
		t.Fatal(err)
	}
	l, _ = openEmbedded(t, dir)
	wantNothingLeft(t, dir, "anna")
	wantRecorded(t, l, outcomes)
	wantErased(t, l, "anna", accounts)
	if got := heads(t, l).Requests; got != 60+1+1+300 {
		t.Fatalf("the head is %d", got)
	}
}

// A block that the server removes, since all of its messages were erased, is no failure of the disk.
func TestSyncWhileBlocksAreRemoved(t *testing.T) {
	t.Parallel()
	l, e := openEmbedded(t, t.TempDir())
	must[events.Position](t)(l.Append(within(t), request("one")))
	dir := e.blocks("REQUESTS_0")
	s := newSyncer(dir)
	for _, number := range []int{2, 3} {
		if err := os.WriteFile(s.path(number), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.fsync = func(f *os.File) error {
		if filepath.Base(f.Name()) == "1.blk" {
			os.Remove(s.path(2))
		}
		return nil
	}
	if err := s.sync(1); err != nil || s.number != 3 {
		t.Fatalf("the last block is %d: %v", s.number, err)
	}
}

// What the server compacts it does not sync. It must not take the place of what is synced.
func TestSyncDuringAnErasureIsOfAllBlocks(t *testing.T) {
	t.Parallel()
	s := newSyncer(t.TempDir())
	write := func(number int) {
		t.Helper()
		anew := s.path(number) + ".tmp"
		if err := os.WriteFile(anew, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(anew, s.path(number)); err != nil {
			t.Fatal(err)
		}
	}
	var order []string
	s.fsync = func(f *os.File) error {
		order = append(order, filepath.Base(f.Name()))
		return nil
	}
	write(1)
	write(2)
	if err := s.sync(1); err != nil {
		t.Fatal(err)
	}
	if err := s.beginErasing(); err != nil {
		t.Fatal(err)
	}
	if err := s.sync(2); err != nil {
		t.Fatal(err)
	}
	order = nil
	write(1)
	write(4)
	if err := s.sync(3); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(order, " "), "1.blk 2.blk 4.blk "+filepath.Base(s.dir); got != want {
		t.Fatalf("synced %s, want %s", got, want)
	}
	if err := s.endErasing(); err != nil || s.erasures.Load() != 0 {
		t.Fatal(err)
	}
}

const eraseEnv = "JOBTALLY_TEST_ERASE"

var killedAccounts = repeat(50, "anna", "bob")

// A process that is killed while it erases leaves what the next one finishes, wherever it was.
func TestKillDuringAnErasure(t *testing.T) {
	if dir := os.Getenv(eraseEnv); dir != "" {
		l, _ := openEmbedded(t, dir)
		if heads(t, l).Requests == 0 {
			record(t, l, 20<<10, killedAccounts...)
			decideErasure(t, l, "anna", 50)
		}
		must[int](t)(l.Erase(within(t), "anna", 101, func(removed, _ int) { fmt.Println("removed", removed) }))
		return
	}
	t.Parallel()
	dir := t.TempDir()
	for _, kill := range []int{1, 7, 30, 20, 25} { // in the decisions, and from the fourth in the requests
		child := exec.Command(os.Args[0], "-test.run=^TestKillDuringAnErasure$")
		child.Env = append(os.Environ(), eraseEnv+"="+dir)
		child.Stderr = os.Stderr
		out := must[*bufio.Scanner](t)(pipe(child))
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		removed := 0
		for out.Scan() {
			if n, is := strings.CutPrefix(out.Text(), "removed "); is {
				if removed = must[int](t)(strconv.Atoi(n)); removed == kill {
					break
				}
			}
		}
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		child.Wait() // killed is an error too
		if removed != kill {
			t.Fatalf("%d were removed, want %d", removed, kill)
		}
	}
	l, _ := openEmbedded(t, dir)
	wantNoHalves(t, l, "anna", killedAccounts)
	if got := heads(t, l); got != (events.Heads{Requests: 101, Decisions: 101}) {
		t.Fatalf("heads %+v", got)
	}
	if removed := must[int](t)(l.Erase(within(t), "anna", 101, nothing)); removed > 100-1-7-30-20-25 {
		t.Fatalf("removed %d more", removed)
	}
	wantNothingLeft(t, dir, "anna")
	wantErased(t, l, "anna", killedAccounts)
}

func pipe(child *exec.Cmd) (*bufio.Scanner, error) {
	out, err := child.StdoutPipe()
	return bufio.NewScanner(out), err
}

// A disk that is full stops the erasure. Once it has room again the server is started again, and the next call finishes.
func TestEraseOnAFullDisk(t *testing.T) {
	if !mayFillDisk(t) {
		return
	}
	dir := t.TempDir()
	l, e := openEmbedded(t, dir)
	// Nine are a block, so that what is noted goes into the next one. The server does not compact it for three.
	accounts := append(repeat(3, "anna", "bob", "bob"), "bob")
	record(t, l, 900<<10, accounts...)
	at := decideErasure(t, l, "anna", 3)
	var empty func()
	_, err := l.Erase(within(t), "anna", at, func(removed, _ int) {
		if removed == 5 { // the last of the requests is left
			empty = fillDisk(t, room) // a block is larger
		}
	})
	wantErr(t, err, events.ErrUnavailable)
	until(t, func() bool { return e.Failure() != nil })
	empty()
	until(t, func() bool { return e.Failure() == nil })
	until(t, func() bool { // the client connects again
		_, err := l.Erase(within(t), "anna", at, nothing)
		return err == nil
	})
	wantNothingLeft(t, dir, "anna")
	wantErased(t, l, "anna", accounts)
}

// A decision is acknowledged before it is written: a power failure, or a kill, would lose it. What it says is not done
// before it is in the file.
func TestEraseWaitsUntilItsDecisionIsWritten(t *testing.T) {
	t.Parallel()
	l, e := openEmbedded(t, t.TempDir())
	record(t, l, 10, "anna", "bob")
	dir := e.blocks("DECISIONS_0")
	ended, cancel := context.WithCancel(within(t))
	cancel()
	wantErr(t, awaitMessage(ended, dir, 3), context.Canceled)
	wantErr(t, awaitMessage(ended, dir, 3), events.ErrUnavailable)
	written := make(chan error, 1)
	go func() { written <- awaitMessage(within(t), dir, 3) }()
	if at := decideErasure(t, l, "anna", 1); at != 3 {
		t.Fatalf("the erasure is %d", at)
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if content := must[[]byte](t)(os.ReadFile(filepath.Join(dir, "1.blk"))); !strings.Contains(string(content), "accounts.0.anna.erased") {
		t.Fatal("it is not written")
	}
}

// An operator may have the server compress what it stores.
func TestScrubReadsCompressedBlocks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, e := openEmbedded(t, dir)
	for _, name := range []string{"REQUESTS_0", "DECISIONS_0"} {
		js := jetstreamOf(t, l.nc)
		config := must[jetstream.Stream](t)(js.Stream(within(t), name)).CachedInfo().Config
		config.Compression = jetstream.S2Compression
		must[jetstream.Stream](t)(js.UpdateStream(within(t), config))
	}
	l.Close()
	e.Close()
	l, e = openEmbedded(t, dir) // only then does it compress
	accounts := repeat(6, "anna", "anna", "bob")
	record(t, l, 900<<10, accounts...)
	at := decideErasure(t, l, "anna", 12)
	first := filepath.Join(e.blocks("REQUESTS_0"), "1.blk")
	until(t, func() bool { return must[os.FileInfo](t)(os.Stat(first)).Size() < 1<<20 })
	drop(t, l, "REQUESTS_0", 2)
	if err := markErasing(e.options.StoreDir); err != nil {
		t.Fatal(err)
	}
	killed := copyStore(t, dir)
	l, e = openEmbedded(t, killed)
	block := must[[]byte](t)(readBlock(filepath.Join(e.blocks("REQUESTS_0"), "1.blk")))
	if text := string(block); strings.Contains(text, secret("anna", 2)) || !strings.Contains(text, secret("anna", 1)) {
		t.Fatal("message 2 is still there, or message 1 is not")
	}
	must[int](t)(l.Erase(within(t), "anna", at, nothing))
	for _, path := range must[[]string](t)(filepath.Glob(filepath.Join(killed, "jetstream/jetstream/$G/streams/*/msgs/*.blk"))) {
		if strings.Contains(string(must[[]byte](t)(readBlock(path))), "secret-anna") {
			t.Fatalf("what anna had is still in %s", path)
		}
	}
	wantErased(t, l, "anna", accounts)
}
