package projections

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"jobtally/internal/events"
)

// secrets are what is asked of an account, as it stands in files. The last is a hash, which only SQLite has as it is.
func secrets(account string) (texts []string) {
	secret := "secret-" + account
	hash := events.Hash([]byte(secret))
	return []string{
		secret + "-title", secret + "-company", secret + ".example.com/source", secret + ".example.com/canonical",
		secret + "-notes", secret + "-request-", hash.String(), string(hash[:]),
	}
}

// keepSecrets opens an account, and has it keep n jobs.
func (h *house) keepSecrets(t *testing.T, account string, n int) (last events.Position) {
	t.Helper()
	s := secrets(account)
	h.append(t, account, s[5]+"open", openWith(-1))
	h.append(t, account, s[5]+"token", &events.TokenIssueRequested{TokenID: "token-" + account, SecretHash: events.Digest([]byte(s[7]))})
	for i := range n {
		body := captureOf(november, fmt.Sprintf("https://%s/%d", s[3], i))
		body.Job.Title, body.Job.Company, body.Job.SourceURL, body.Job.Notes = s[0], s[1], "https://"+s[2], s[4]
		last = h.append(t, account, fmt.Sprintf("%s%d", s[5], i), body)
	}
	return last
}

// erase asks for the erasure of an account.
func (h *house) erase(t *testing.T, account string) events.Position {
	t.Helper()
	return h.append(t, account, "erase", &events.AccountEraseRequested{})
}

func (h *house) unremoved(t *testing.T, account string, erasure events.Position) int {
	t.Helper()
	seam := h.seam()
	return must[int](t)(seam.Unremoved(within(t), account, erasure))
}

// awaitRemoved waits until nothing of an account is left that its erasure removes.
func (h *house) awaitRemoved(t *testing.T, account string, erasure events.Position) {
	t.Helper()
	until(t, "no messages of an erased account", func() bool { return h.unremoved(t, account, erasure) == 0 })
}

// found returns the files below a directory in which one of the texts stands.
func found(t *testing.T, dir string, texts []string) (found []string) {
	t.Helper()
	ok(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return nil // the server writes some file anew
		}
		content, err := os.ReadFile(path)
		for _, text := range texts {
			if bytes.Contains(content, []byte(text)) {
				found = append(found, fmt.Sprintf("%q in %s", text, filepath.Base(path)))
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}))
	return found
}

// After an erasure nothing that was asked or decided of the account is in any file: while everything runs, and after a
// stop. What is of others is there.
func TestNothingOfAnErasedAccountIsInAnyFile(t *testing.T) {
	t.Parallel()
	h := newErasableHouse(t)
	db, follower := h.open(t, "a"), h.open(t, "follower")
	r, f := run(t, db, h.seam(), true), run(t, follower, h.seam(), false)
	accounts := []string{"anna", "bob"}
	for _, account := range accounts {
		h.keepSecrets(t, account, 20)
	}
	last := events.Position{Sequence: h.heads(t).Requests}
	await(t, db, last)
	await(t, follower, last)
	for _, account := range accounts {
		for i, text := range secrets(account) {
			for _, where := range []string{"1.blk", "a.db", "follower.db"} {
				in := slices.ContainsFunc(found(t, h.dir, []string{text}), func(file string) bool { return strings.Contains(file, " in "+where) })
				if !in && (where != "1.blk" || i != 7) {
					t.Fatalf("%q is not in %s before: nothing can be shown", text, where)
				}
			}
		}
	}
	erasure := h.erase(t, "anna")
	await(t, db, erasure)
	await(t, follower, erasure)
	h.awaitRemoved(t, "anna", erasure)
	wantNothing := func(when string) {
		t.Helper()
		if in := found(t, h.dir, secrets("anna")); len(in) > 0 {
			t.Fatalf("%s: %s", when, in)
		}
		if in := found(t, h.dir, secrets("bob")); len(in) == 0 {
			t.Fatalf("%s: nothing of the other is left", when)
		}
	}
	wantNothing("while everything runs")
	r.stop(t)
	f.stop(t)
	ok(t, errors.Join(db.Close(), follower.Close()))
	h.Ledger.Close()
	wantNothing("after a stop")
}

// A reader keeps the write-ahead log from being emptied. It is emptied once the reader ends, though nothing is folded then,
// or by the next process.
func TestLogWithWhatWasErasedIsEmptiedByItself(t *testing.T) {
	t.Parallel()
	h := newErasableHouse(t)
	h.keepSecrets(t, "anna", 5)
	erasure := h.erase(t, "anna")
	db := h.open(t, "a")
	var end func()
	seam := h.seam()
	appendDecisions := seam.AppendDecisions
	seam.AppendDecisions = func(ctx context.Context, partition int, after uint64, decisions []events.Message) error {
		if after+uint64(len(decisions)) == erasure.Sequence {
			ok(t, db.awaitFolded(ctx, 0, after))
			end = beginRead(t, db)
		}
		return appendDecisions(ctx, partition, after, decisions)
	}
	r := run(t, db, seam, true)
	await(t, db, erasure)
	inLog := func() bool {
		return strings.Contains(string(must[[]byte](t)(os.ReadFile(db.path+"-wal"))), secrets("anna")[0])
	}
	if !inLog() {
		t.Fatal("the reader did not keep the log from being emptied")
	}
	r.stop(t)
	copyFile(t, h.path("killed"), db.path)
	copyFile(t, h.path("killed")+"-wal", db.path+"-wal")
	copyFile(t, h.path("killed")+erasingSuffix, db.path+erasingSuffix)
	end()
	until(t, "an empty log", func() bool { return !inLog() })

	killed := h.open(t, "killed")
	if got := found(t, h.dir, secrets("anna")[:1]); slices.ContainsFunc(got, func(file string) bool { return strings.Contains(file, "killed") }) {
		t.Fatalf("after a start: %s", got)
	}
	if a, b := dump(t, db), dump(t, killed); a != b {
		t.Fatalf("the copy differs:\n%s\n%s", a, b)
	}
}

// Whatever becomes of a removal, the next start finishes it: by the same projector, or by another, which had folded the
// erasure long before as a follower.
func TestRemovalIsFinishedAtTheNextStart(t *testing.T) {
	t.Parallel()
	h := newErasableHouse(t)
	h.keepSecrets(t, "anna", 10)
	h.keepSecrets(t, "bob", 3)
	erasure := h.erase(t, "anna")
	a, b := h.open(t, "a"), h.open(t, "b")
	follower := run(t, b, h.seam(), false)
	for _, c := range []struct {
		db    *DB
		until int
		left  int
	}{{a, 1, 23}, {a, 13, 10}, {b, 3, 7}} {
		if c.db == b {
			await(t, b, erasure)
			follower.stop(t)
		}
		seam, cut := h.seam(), make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		seam.Erase = cutShort(ctx, h, c.until, cut)
		r := run(t, c.db, seam, true)
		await(t, c.db, h.append(t, "bob", "more", &events.PlanChangeRequested{Plan: "more", Limit: -1}))
		<-cut
		cancel()
		r.stop(t)
		if left := h.unremoved(t, "anna", erasure); left != c.left {
			t.Fatalf("%d messages are left, want %d", left, c.left)
		}
		fresh := h.open(t, fmt.Sprint("fresh", c.left))
		f := run(t, fresh, h.seam(), false)
		head := events.Position{Sequence: h.heads(t).Decisions}
		fresh.Await(within(t), head)
		f.stop(t)
		if x, y := dump(t, c.db), dump(t, fresh); x != y {
			t.Fatalf("who folded before has\n%s\nwho folds in the middle\n%s", x, y)
		}
	}
	run(t, b, h.seam(), true)
	h.awaitRemoved(t, "anna", erasure)
	run(t, a, h.seam(), true)
}

// cutShort is an Erase that ends after so many messages, and does not return before ctx ends.
func cutShort(ended context.Context, h *house, after int, cut chan<- struct{}) func(context.Context, string, uint64, func(int, int)) (int, error) {
	return func(ctx context.Context, account string, before uint64, progress func(int, int)) (int, error) {
		erasing, cancel := context.WithCancel(ctx)
		defer cancel()
		n, err := h.Erase(erasing, account, before, func(removed, _ int) {
			if removed == after {
				cancel()
			}
		})
		close(cut)
		<-ended.Done()
		return n, err
	}
}

// A removal that fails is tried again, and does not keep the partition from deciding. One that is done is not done again.
func TestFailedRemovalIsTriedAgainWhileDecidingGoesOn(t *testing.T) {
	t.Parallel()
	h := newErasableHouse(t)
	h.keepSecrets(t, "anna", 3)
	h.append(t, "bob", "open", openWith(-1))
	db, seam := h.open(t, "a"), h.seam()
	var failures, erased atomic.Int64
	recovered := make(chan struct{})
	seam.Erase = func(ctx context.Context, account string, before uint64, progress func(int, int)) (int, error) {
		select {
		case <-recovered:
			erased.Add(1)
			return h.Erase(ctx, account, before, progress)
		default:
			failures.Add(1)
			return 0, fmt.Errorf("test: %w", events.ErrUnavailable)
		}
	}
	r := run(t, db, seam, true)
	erasure := h.erase(t, "anna")
	await(t, db, erasure)
	until(t, "two failures", func() bool { return failures.Load() > 1 })
	await(t, db, h.capture(t, "bob", "beside", 10))
	if err := r.Failure(); err != nil {
		t.Fatalf("the projector fails with it: %v", err)
	}
	close(recovered)
	h.awaitRemoved(t, "anna", erasure)
	await(t, db, h.append(t, "nobody", "wakes", captureOf(november, "https://example.com/1")))
	r.stop(t)
	run(t, db, seam, true)
	await(t, db, h.capture(t, "bob", "after", 1))
	second := h.erase(t, "bob")
	await(t, db, second)
	h.awaitRemoved(t, "bob", second)
	if n := erased.Load(); n != 2 {
		t.Errorf("erased %d times, want once for each account", n)
	}
}

// A rebuild that was cut short leaves what it folded, to go on from there. An erasure that comes then takes that too; one
// that comes before is folded by it, and by the file that comes in the place of the one that serves.
func TestNothingErasedIsLeftByARebuild(t *testing.T) {
	t.Parallel()
	h := newErasableHouse(t)
	db := h.open(t, "a")
	run(t, db, h.seam(), true)
	h.keepSecrets(t, "bob", 5)
	h.keepSecrets(t, "anna", 30)
	await(t, db, h.keepSecrets(t, "carl", 5))
	cut, cancel := context.WithCancel(within(t))
	r := Rebuild{Path: db.path, LedgerID: h.ID, Ledger: h.seam(), Progress: func(folded, _ uint64) {
		if folded >= 20 {
			cancel()
		}
	}}
	r.Ledger.Read = inTens(r.Ledger.Read)
	if _, err := r.Make(cut); !errors.Is(err, context.Canceled) {
		t.Fatalf("it was not cut short: %v", err)
	}
	left := func(account string) []string {
		return slices.DeleteFunc(found(t, h.dir, secrets(account)), func(file string) bool { return strings.Contains(file, "nats") })
	}
	if !slices.ContainsFunc(left("anna"), func(file string) bool { return strings.Contains(file, "a.rebuild") }) {
		t.Fatal("the rebuild had nothing of the account")
	}
	erasure := h.erase(t, "anna")
	await(t, db, erasure)
	h.awaitRemoved(t, "anna", erasure)
	until(t, "nothing left", func() bool { return len(left("anna")) == 0 })

	t.Log("one that is erased while it is made, before and after that is decided")
	r.Progress = nil
	r.step = func(at string) {
		if at == "sealed" {
			await(t, db, h.erase(t, "carl"))
		}
	}
	must[Made](t)(r.Make(within(t)))
	r.step = nil
	must[[]events.Position](t)(r.Adopt(within(t), db))
	until(t, "nothing left", func() bool { return len(left("carl")) == 0 && len(left("anna")) == 0 })
	if len(left("bob")) == 0 {
		t.Error("nothing is left of the other")
	}
	await(t, db, h.append(t, "bob", "next", captureOf(november, "https://example.com/next")))
	until(t, "an end of scrubbing", func() bool { // which waited for the rebuild
		return len(must[[]string](t)(filepath.Glob(filepath.Join(h.dir, "*"+erasingSuffix)))) == 0
	})
}

// A capture that was under way when its account was erased is refused, and erased too.
func TestWhatComesAfterAnErasureIsErasedToo(t *testing.T) {
	t.Parallel()
	h := newErasableHouse(t)
	h.keepSecrets(t, "anna", 3)
	first := h.erase(t, "anna")
	stray := h.append(t, "anna", secrets("anna")[5]+"late", captureOf(november, "https://"+secrets("anna")[3]+"/late"))
	broken := request("anna", secrets("anna")[5]+"broken", captureOf(november, "https://"+secrets("anna")[3])).Message(1)
	broken.Header["ce-time"] = []string{"never"}
	h.record(t, stray.Sequence, broken)
	db := h.open(t, "a")
	run(t, db, h.seam(), true)
	await(t, db, first)
	var erasures []events.Decision
	until(t, "a second erasure", func() bool {
		erasures = must[[]events.Decision](t)(db.Erasures(t.Context(), "anna"))
		return len(erasures) == 2
	})
	if got := erasures[1].Body.(*events.AccountErased); got.Requests != 2 {
		t.Errorf("the second erased %+v", got)
	}
	h.awaitRemoved(t, "anna", erasures[1].Position)
	until(t, "nothing left", func() bool { return len(found(t, h.dir, secrets("anna"))) == 0 }) // of the projection's log, which is emptied after that
	t.Log("the next thing to be asked is the next, and an account that is open again keeps what it has")
	h.append(t, "anna", "open", openWith(2))
	again := await(t, db, h.append(t, "anna", "new", captureOf(november, "https://example.com/new")))
	if again.Position.Sequence != erasures[1].Position.Sequence+2 || events.OutcomeOf(again.Body) != "captured" {
		t.Errorf("decided %s at %s", events.OutcomeOf(again.Body), again.Position)
	}
}

// SQLite moves rows from page to page as they come, and leaves copies behind. None is left of what is erased, nor written
// again by what is folded next.
func TestNothingErasedIsLeftInThePagesOfTheFile(t *testing.T) {
	t.Parallel()
	const n = 3000
	db, random := newDB(t), rand.New(rand.NewPCG(1, 2))
	var requests []*events.Request
	ask := func(n int, accounts ...string) {
		for range n {
			account := accounts[random.IntN(len(accounts))]
			url := fmt.Sprintf("https://secret-%s.example.com/%x", account, random.Uint64())
			requests = append(requests, request(account, fmt.Sprintf("id-%s-%x", account, random.Uint64()), captureOf(november, url)))
		}
	}
	for _, account := range []string{"anna", "bob", "carl"} {
		requests = append(requests, request(account, "open", openWith(-1)))
	}
	ask(n, "anna", "bob", "carl")
	requests = append(requests, request("anna", "erase", &events.AccountEraseRequested{}))
	ask(n, "bob", "carl")

	wantNone := func() {
		t.Helper()
		if in := found(t, filepath.Dir(db.path), []string{"secret-anna", "id-anna-"}); len(in) > 0 {
			t.Fatalf("left: %s", in)
		}
	}
	p, flight := NewProjector(db, Ledger{Partitions: 1}, 0, true, quiet()), inFlight{}
	for _, part := range parts(recorded(t, requests...)) {
		for len(part) > 0 {
			size := min(len(part), 100)
			decisions := must[[]events.Decision](t)(p.decideBatch(within(t), part[:size], &flight))
			ok(t, db.Apply(0, decisions))
			if part = part[size:]; erases(&decisions[0]) {
				wantNone()
			}
		}
	}
	ok(t, db.Close())
	wantNone()
	if in := found(t, filepath.Dir(db.path), []string{"secret-bob", "id-carl-"}); len(in) != 2 {
		t.Fatalf("of the others is left: %s", in)
	}
	if exists(db.erasingPath()) {
		t.Error("it is to be scrubbed again")
	}
	db = openDB(t, db.path)
	if got := column(t, db, "PRAGMA integrity_check"); got[0] != "ok" {
		t.Error(got)
	}
}

// An account that is opened again while the erasure of what came late is asked for is not erased with it.
func TestAnAccountThatIsOpenedAgainIsNotErasedWithWhatCameLate(t *testing.T) {
	t.Parallel()
	h := newErasableHouse(t)
	db, seam := h.open(t, "a"), h.seam()
	appendUnopened, asked := seam.AppendUnopened, make(chan error, 1)
	var captured events.Position
	seam.AppendUnopened = func(ctx context.Context, r *events.Request) (events.Position, error) {
		// An operator opens the account, and a client captures: both are answered before this one is.
		h.append(t, "anna", "opened again", openWith(-1))
		captured = h.append(t, "anna", "captured", captureOf(november, "https://example.com/new"))
		await(t, db, captured)
		position, err := appendUnopened(ctx, r)
		asked <- err
		return position, err
	}
	r := run(t, db, seam, true)
	h.keepSecrets(t, "anna", 2)
	await(t, db, h.erase(t, "anna"))
	await(t, db, h.append(t, "anna", "late", captureOf(november, "https://example.com/late")))
	wantErr(t, <-asked, events.ErrFenced)
	r.stop(t)
	if d := await(t, db, captured); events.OutcomeOf(d.Body) != "captured" {
		t.Errorf("the capture became %+v", d.Body)
	}
	if head := h.heads(t).Requests; head != captured.Sequence {
		t.Errorf("something was asked after the capture at %s: the head is %d", captured, head)
	}
}
