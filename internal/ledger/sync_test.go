package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"

	"jobtally/internal/events"
)

// platter is what a power failure would leave of a directory: the files as they were last synced, under the names that
// they had when the directory was synced. It hears of each fsync.
type platter struct {
	mu     sync.Mutex
	files  map[uint64]*synced // by inode
	names  map[string]uint64  // of the directory when that was synced
	syncs  int
	dirs   int
	refuse error
}

// synced is a file as it was last synced.
type synced struct {
	file *os.File // held open, so that its inode is not given to another
	data []byte
}

// under puts a platter under the syncer of partition 0.
func under(l *Ledger) *platter {
	p := &platter{files: map[uint64]*synced{}}
	l.appenders[0].syncer.fsync = p.fsync
	return p
}

func (p *platter) fsync(f *os.File) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse != nil {
		return p.refuse
	}
	p.syncs++
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.IsDir() {
		_, err := p.keep(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), true)
		return err
	}
	p.dirs++
	p.names = map[string]uint64{}
	blocks, err := filepath.Glob(filepath.Join(f.Name(), "*.blk"))
	for _, block := range blocks {
		inode, err := p.keep(block, false)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil {
			p.names[filepath.Base(block)] = inode
		}
	}
	return err
}

// keep takes in a file as it is now, or, unless it was synced, only if it is new: the server syncs a file before it puts
// it in the place of another.
func (p *platter) keep(path string, wasSynced bool) (inode uint64, err error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	inode = info.Sys().(*syscall.Stat_t).Ino
	known := p.files[inode]
	switch {
	case known == nil:
		known = &synced{file: file}
		p.files[inode] = known
	case !wasSynced:
		return inode, file.Close()
	default:
		defer file.Close()
	}
	more, err := io.ReadAll(io.NewSectionReader(file, int64(len(known.data)), info.Size()-int64(len(known.data))))
	known.data = append(known.data, more...)
	return inode, err
}

// holds says whether a power failure now would leave a text.
func (p *platter) holds(text string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, inode := range p.names {
		if bytes.Contains(p.files[inode].data, []byte(text)) {
			return true
		}
	}
	return false
}

// remain writes what a power failure leaves into the messages of a stream, in which it removes all blocks first.
func (p *platter) remain(t *testing.T, msgs string, tail []byte) {
	t.Helper()
	blocks := must[[]string](t)(filepath.Glob(filepath.Join(msgs, "*.blk")))
	for _, block := range blocks {
		if err := os.Remove(block); err != nil {
			t.Fatal(err)
		}
	}
	last := ""
	for name, inode := range p.names {
		if len(name) > len(last) || len(name) == len(last) && name > last {
			last = name
		}
		if err := os.WriteFile(filepath.Join(msgs, name), p.files[inode].data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	data := append(slices.Clone(p.files[p.names[last]].data), tail...)
	if err := os.WriteFile(filepath.Join(msgs, last), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

const testMsgs = "jetstream/jetstream/$G/streams/REQUESTS_0/msgs"

// What was acknowledged is on the platter, over the ends of blocks, and the ledger goes on after it without a gap: also
// when messages came that nobody synced, when the server's index knows of them, and when half of one was written.
func TestPowerFailureLosesNothingAcknowledged(t *testing.T) {
	t.Parallel()
	for name, tail := range map[string][]byte{
		"nothing more": nil, "zeros": make([]byte, 4096), "half a message": []byte("\x00\x02\x00\x00garbage"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			l, e := openEmbedded(t, dir)
			p := under(l)
			outcomes := take(t, appendLarge(t, l, p, 300), 300)
			if n := count(outcomes, nil); n != 300 {
				t.Fatalf("%d of 300 were acknowledged: %v", n, outcomes[0].err)
			}
			if len(p.names) < 2 || p.dirs < 2 {
				t.Fatalf("%d blocks and %d syncs of the directory: want a new block meanwhile", len(p.names), p.dirs)
			}
			foreign := open(t, must[*nats.Conn](t)(Connect(e.URL, "foreign", quiet())), Spec{Replicas: 1})
			take(t, appendAll(t, foreign, "unsynced", 20), 20)
			l.Close()
			e.Close()

			p.remain(t, filepath.Join(dir, testMsgs), tail)
			if _, err := os.Stat(filepath.Join(dir, testMsgs, streamIndex)); err != nil {
				t.Fatalf("the index that knows too much: %v", err)
			}
			if err := os.Remove(filepath.Join(dir, "jetstream", stoppedFile)); err != nil { // it was written after the failure
				t.Fatal(err)
			}
			l, _ = openEmbedded(t, dir)
			wantRecorded(t, l, outcomes)
			if got := must[events.Position](t)(l.Append(within(t), request("after"))); got.Sequence != 301 {
				t.Fatalf("the next request has position %s, want 0-301", got)
			}
			wantSequences(t, read(t, l, events.Requests, 0, 301), 1, 301)
		})
	}
}

// appendLarge appends n requests, some at once, which fill more than a block of the server. Each must be on the platter
// when it is acknowledged.
func appendLarge(t *testing.T, l *Ledger, p *platter, n int) <-chan outcome {
	ctx := within(t)
	outcomes := make(chan outcome, n)
	numbers := make(chan int)
	go func() {
		defer close(numbers)
		for i := range n {
			numbers <- i
		}
	}()
	for range 8 {
		go func() {
			for i := range numbers {
				r := request(fmt.Sprintf("large-%d-", i))
				r.Body.(*events.JobCaptureRequested).Job.Description = strings.Repeat("x", 50<<10)
				position, err := l.Append(ctx, r)
				if err == nil && !p.holds(r.ID) {
					t.Errorf("%s was acknowledged before it was synced", r.ID)
				}
				outcomes <- outcome{r.ID, position, err}
			}
		}()
	}
	return outcomes
}

func TestOneSyncServesAllWhoWait(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	p := under(l)
	const n = 1000
	outcomes := take(t, appendAll(t, l, "r", n), n)
	if got := count(outcomes, nil); got != n {
		t.Fatalf("%d of %d appends succeeded: %v", got, n, outcomes[0].err)
	}
	if p.syncs > n/4 {
		t.Fatalf("%d syncs for %d requests", p.syncs, n)
	}
	wantRecorded(t, l, outcomes)
}

func TestNoDecisionBeforeItsRequestIsDurable(t *testing.T) {
	t.Parallel()
	l, e := openEmbedded(t, t.TempDir())
	foreign := open(t, must[*nats.Conn](t)(Connect(e.URL, "foreign", quiet())), Spec{Replicas: 1})
	must[events.Position](t)(foreign.Append(within(t), request("unsynced")))

	recorded := uint64(1)
	l.appenders[0].syncer.fsync = func(f *os.File) error {
		recorded = heads(t, foreign).Decisions
		return f.Sync()
	}
	if err := l.AppendDecisions(within(t), 0, 0, decisionsFrom("a", 1)); err != nil {
		t.Fatal(err)
	}
	if recorded != 0 {
		t.Fatal("the decision was recorded before its request was synced")
	}
}

// After an fsync failed the kernel may report the next as successful although the data is gone.
func TestFailedSyncIsForGood(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	must[events.Position](t)(l.Append(within(t), request("before")))
	p := under(l)
	p.refuse = errors.New("input/output error")
	_, err := l.Append(within(t), request("lost"))
	wantErr(t, err, events.ErrUnknownOutcome)
	wantErr(t, err, p.refuse)

	cause := p.refuse
	p.refuse = nil
	_, err = l.Append(within(t), request("after"))
	wantErr(t, err, cause)
	err = l.AppendDecisions(within(t), 0, 0, decisionsFrom("a", 2))
	wantErr(t, err, cause)
	if got := heads(t, l).Decisions; got != 0 {
		t.Fatalf("%d decisions on requests that may be lost", got)
	}
}

// The server writes a block anew when it removes messages from it.
func TestSyncFollowsAReplacedBlock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, _ := openEmbedded(t, dir)
	must[events.Position](t)(l.Append(within(t), request("before")))
	block := filepath.Join(dir, testMsgs, "1.blk")
	data := must[[]byte](t)(os.ReadFile(block))
	if err := errors.Join(os.WriteFile(block+".new", data, 0o600), os.Rename(block+".new", block)); err != nil {
		t.Fatal(err)
	}
	p := under(l)
	if err := l.appenders[0].syncer.sync(2); err != nil {
		t.Fatal(err)
	}
	named := must[fs.FileInfo](t)(os.Stat(block))
	held := must[fs.FileInfo](t)(l.appenders[0].syncer.block.Stat())
	if !os.SameFile(named, held) || !p.holds(string(data)) {
		t.Fatal("the file that was replaced was synced")
	}
}

func TestIndexesAreTrustedAfterAStopInOrder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	requests := filepath.Join(dir, testMsgs, streamIndex)
	decisions := strings.Replace(requests, "REQUESTS", "DECISIONS", 1)
	l, e := openEmbedded(t, dir)
	must[events.Position](t)(l.Append(within(t), request("one")))
	wantForgotten := func(when string, forgotten bool) {
		t.Helper()
		if err := forgetIndexes(filepath.Join(dir, "jetstream")); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(requests); (err != nil) != forgotten {
			t.Errorf("%s: forgotten %v, want %v", when, err != nil, forgotten)
		}
		if _, err := os.Stat(decisions); err != nil {
			t.Errorf("%s: the index of the decisions, of which every one can be made again: %v", when, err)
		}
	}
	l.Close()
	e.Close()
	wantForgotten("after a stop in order", false)
	wantForgotten("once it is in use again", true)
}
