package projections

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/events"
	"jobtally/internal/ledger"
)

// service is what one process runs, wired as a node is: the lock, the server, the ledger, the projection, the projector.
type service struct {
	*house
	db            *DB
	seam          Ledger
	appendRequest func(context.Context, *events.Request) (events.Position, error)

	found       events.Heads // at the start
	foundFolded uint64

	projector *running
	closers   []func()
}

// startService starts all but the projector, with a fault unless that is nil.
func startService(t *testing.T, dir string, f *fault) *service {
	t.Helper()
	s := startLedger(t, dir)
	s.db = must[*DB](t)(Open(s.path("projection"), s.ID, 1))
	s.closers = append(s.closers, func() { ok(t, s.db.Close()) })
	s.foundFolded = s.db.Folded(0)
	s.db.commit = f.commit
	s.seam = s.house.seam()
	s.seam.Read = f.read(s.seam.Read)
	s.seam.AppendDecisions = f.appendDecisions(t, s.db, s.seam.AppendDecisions)
	s.appendRequest = f.appendRequest(s.Append)
	return s
}

// startLedger starts all but the projection and the projector.
func startLedger(t *testing.T, dir string) *service {
	t.Helper()
	s := &service{house: &house{dir: dir}}
	t.Cleanup(func() { s.stop(t) })
	unlock := must[func() error](t)(ledger.LockDir(dir))
	s.closers = append(s.closers, func() { ok(t, unlock()) })
	server := must[*ledger.Embedded](t)(ledger.StartEmbedded(dir, 0, quiet()))
	s.closers = append(s.closers, server.Close)
	s.connection = must[*ledger.Connection](t)(server.Connect("test", quiet()))
	s.closers = append(s.closers, s.connection.Close)
	must[bool](t)(ledger.Create(within(t), s.connection, ledger.Spec{Partitions: 1, Replicas: 1}))
	s.Ledger = must[*ledger.Ledger](t)(server.Open(within(t), s.connection))
	s.closers = append(s.closers, s.Ledger.Close)
	s.found = s.heads(t)
	return s
}

func (s *service) run(t *testing.T) {
	t.Helper()
	s.projector = run(t, s.db, s.seam, true)
	s.closers = append(s.closers, func() { s.projector.stop(t) })
}

// stop ends the service as a signal does.
func (s *service) stop(t *testing.T) {
	t.Helper()
	for _, closer := range slices.Backward(s.closers) {
		closer()
	}
	s.closers = nil
}

// answer is what a client was told: the first answer to its request.
type answer struct {
	position events.Position
	digest   events.Digest
}

// clients capture postings into one account, each its own, in batches: all of a batch at once.
type clients struct {
	dir, account string
	postings     []string // which are also the request ids
	size         int      // of a batch

	// tell is told of each acknowledgement before its client goes on.
	tell func(id string, a answer)

	mu           sync.Mutex
	asked        int               // how often was asked: the clock of the clients
	acknowledged map[string]answer // by request id
}

func newClients(t *testing.T, batches, size int) *clients {
	return clientsOf(t.TempDir(), batches, size)
}

func clientsOf(dir string, batches, size int) *clients {
	c := &clients{dir: dir, account: "demo", size: size, acknowledged: map[string]answer{}, tell: func(string, answer) {}}
	for i := range batches * size {
		c.postings = append(c.postings, fmt.Sprintf("https://example.com/%d", i))
	}
	return c
}

// ask asks for one batch, and returns once everyone is answered.
func (c *clients) ask(t *testing.T, s *service, batch int) {
	t.Helper()
	c.askFor(t, s, c.postings[batch*c.size:(batch+1)*c.size])
}

func (c *clients) askForAll(t *testing.T, s *service) {
	t.Helper()
	c.askFor(t, s, c.postings)
}

func (c *clients) askFor(t *testing.T, s *service, postings []string) {
	t.Helper()
	errs, ctx := make(chan error, len(postings)), within(t)
	for _, posting := range postings {
		go func() { errs <- c.capture(ctx, s, posting) }()
	}
	for range postings {
		ok(t, <-errs)
	}
}

// capture asks until there is an answer, as a client does: under the same request id.
func (c *clients) capture(ctx context.Context, s *service, posting string) error {
	position, err := s.appendRequest(ctx, c.request(posting))
	for ctx.Err() == nil && (errors.Is(err, events.ErrUnavailable) || errors.Is(err, events.ErrUnknownOutcome)) {
		position, err = s.appendRequest(ctx, c.request(posting))
	}
	if err != nil {
		return err
	}
	d, err := s.db.Await(ctx, position)
	if repeated, is := d.Body.(*events.JobCaptureRepeated); err == nil && is {
		d, err = s.db.Decision(ctx, repeated.First)
	}
	if err != nil {
		return err
	}
	return c.acknowledge(ctx, s, posting, d)
}

func (c *clients) request(posting string) *events.Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := request(c.account, posting, captureOf(november, posting))
	r.Time = r.Time.Add(time.Duration(c.asked) * time.Millisecond)
	c.asked++
	return r
}

// acknowledge notes an answer, which must be that of before, and be there for whoever reads now.
func (c *clients) acknowledge(ctx context.Context, s *service, posting string, d events.Decision) error {
	captured, is := d.Body.(*events.JobCaptured)
	if !is || d.RequestID != posting {
		return fmt.Errorf("the capture of %s was answered with %s, %+v", posting, d.Position, d.Body)
	}
	if _, err := s.db.Job(ctx, c.account, captured.JobID); err != nil {
		return fmt.Errorf("captured at %s, but the job is not in the file: %w", d.Position, err)
	}
	q, err := s.db.Quota(ctx, c.account, november)
	if err != nil {
		return err
	}
	if q.Used < captured.Used {
		return fmt.Errorf("captured as number %d, but the quota says %+v", captured.Used, q)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := answer{d.Position, d.Digest}
	if before, known := c.acknowledged[posting]; known && before != now {
		return fmt.Errorf("%s was answered with %+v, and now with %+v", posting, before, now)
	}
	c.acknowledged[posting] = now
	c.tell(posting, now)
	return nil
}

// audit compares the ledger up to its heads, and the projection up to where it is, with what an undisturbed run makes of
// the same requests, and everything that was acknowledged with that. It returns the decisions of that run.
func (c *clients) audit(t *testing.T, s *service, heads events.Heads) []events.Decision {
	t.Helper()
	decisions := s.auditHeads(t, heads, s.db)
	for posting, a := range c.acknowledged {
		if a.position.Sequence > uint64(len(decisions)) {
			t.Fatalf("%s was acknowledged at %s: lost, the requests end at %d", posting, a.position, len(decisions))
		}
		d := decisions[a.position.Sequence-1]
		if _, captured := d.Body.(*events.JobCaptured); !captured || d.RequestID != posting || d.Digest != a.digest {
			t.Fatalf("%s was acknowledged at %s with %s; that is %+v of %s with %s", posting, a.position, a.digest, d.Body, d.RequestID, d.Digest)
		}
	}
	counted := map[string]int{}
	for _, d := range decisions {
		if captured, is := d.Body.(*events.JobCaptured); is {
			if counted[captured.CanonicalURL]++; counted[captured.CanonicalURL] > 1 {
				t.Fatalf("%s is counted twice, the second time at %s", captured.CanonicalURL, d.Position)
			}
		}
	}
	return decisions
}

// auditAll is the audit of everything, once everybody is answered.
func (c *clients) auditAll(t *testing.T, s *service) {
	t.Helper()
	head := s.heads(t)
	if at := s.db.Folded(0); head.Decisions != head.Requests || at != head.Requests {
		t.Fatalf("%+v, folded up to %d", head, at)
	}
	decisions := c.audit(t, s, head)
	var captured []string
	for _, d := range decisions {
		if _, is := d.Body.(*events.JobCaptured); is {
			captured = append(captured, d.RequestID)
		}
	}
	slices.Sort(captured)
	if want := slices.Sorted(slices.Values(c.postings)); !slices.Equal(captured, want) {
		t.Fatalf("captured\n%q, want\n%q", captured, want)
	}
	if answered := slices.Sorted(maps.Keys(c.acknowledged)); !slices.Equal(answered, captured) {
		t.Fatalf("acknowledged\n%q, want\n%q", answered, captured)
	}
	n := int64(len(c.postings))
	if q := must[capture.Quota](t)(s.db.Quota(within(t), c.account, november)); q.Used != n || q.Remaining() != 0 {
		t.Fatalf("quota %+v, want all of %d used", q, n)
	}
	s.wantAnew(t)
}

// wantAnew folds the ledger into a new file, and wants the same there.
func (s *service) wantAnew(t *testing.T) {
	t.Helper()
	anew := must[*DB](t)(Open(filepath.Join(t.TempDir(), "anew.db"), s.ID, 1))
	ok(t, NewProjector(anew, s.house.seam(), 0, false, quiet()).foldTo(within(t), s.heads(t).Decisions))
	wantSame(t, s.db, anew)
	ok(t, anew.Close())
}
