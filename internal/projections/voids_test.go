package projections

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"jobtally/internal/events"
)

// shownBy is a history of decisions as the ledger shows it once it has decided up to head: what was erased by then is void.
func shownBy(history []events.Decision, head int) []events.Decision {
	erased := map[string]uint64{}
	for i := range history[:head] {
		if d := &history[i]; erases(d) {
			erased[d.Account] = d.Position.Sequence
		}
	}
	shown := append([]events.Decision(nil), history[:head]...)
	for i := range shown {
		if d := &shown[i]; d.Position.Sequence < erased[d.Account] && !erases(d) {
			*d = events.Decision{Position: d.Position, Body: &events.Erased{}}
		}
	}
	return shown
}

// drawHistory draws requests of four accounts over four months, which are closed, and of which accounts are erased; and
// the decisions on them, by a projection that folds each as it is decided.
func drawHistory(t *rapid.T, dir string) (live *DB, history []events.Decision, remove func()) {
	live, remove = freshDB(t, dir)
	p, requests := NewProjector(live, Ledger{Partitions: 1}, 0, true, quiet()), []*events.Request{}
	at, months := events.Month("2026-09"), []events.Month{"2026-09", "2026-10", "2026-11", "2026-12"}
	for _, account := range []string{"a", "b", "c"} {
		requests = append(requests, request(account, "open", openWith(rapid.Int64Range(-1, 4).Draw(t, "limit"))))
	}
	for range rapid.SampledFrom([]int{1, 10, 40, 80}).Draw(t, "n") { // left alone, rapid draws a handful
		account := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "account")
		id := rapid.StringMatching("[1-9]").Draw(t, "id")
		r := request(account, id, drawBody(t, nil))
		r.Time = in(at).Add(time.Duration(rapid.IntRange(0, 1e9).Draw(t, "later")))
		if _, is := r.Body.(*events.JobCaptureRequested); is {
			r.ID = rapid.StringMatching("[1-3]").Draw(t, "id")
			r.Body = captureOf(rapid.SampledFrom(months).Draw(t, "month"), "https://example.com/"+rapid.StringMatching("[1-3]").Draw(t, "url"))
		}
		switch rapid.IntRange(0, 15).Draw(t, "what") {
		case 2, 3, 4:
			again := *requests[len(requests)-1] // the last one
			r = &again
		case 0:
			r.Body = &events.AccountEraseRequested{}
		case 1:
			r.Account, r.Body = "", &events.MonthCloseRequested{Month: at}
			at = at.Next()
			r.Time = in(at)
		}
		requests = append(requests, r)
	}
	var flight inFlight
	for _, part := range parts(recordedWithMalformed(t, requests)) {
		for i := range part {
			decided, err := p.decideBatch(context.Background(), part[i:i+1], &flight)
			if err == nil {
				err = live.Apply(0, decided)
			}
			if err != nil {
				t.Fatal(err)
			}
			history = append(history, decided...)
		}
	}
	return live, history, remove
}

// Whoever folds afresh what is left after erasures has the same rows, and the same digest, as who folded everything when
// it was decided. So has who folded a part of it before, at whatever moments it looked.
func TestFoldingVoidsGivesTheSameFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	met := map[string]int{}
	checkUntilHad(t, met, []string{
		"captured", "duplicated", "rejected", "repeated", "refused", "opened", "month_archived", "erased", "erased in several months", "void",
	}, func(rt *rapid.T) {
		live, history, removeLive := drawHistory(rt, dir)
		defer removeLive()
		fresh, removeFresh := freshDB(rt, dir)
		defer removeFresh()
		if err := fresh.Apply(0, shownBy(history, len(history))); err != nil {
			rt.Fatal(err)
		}
		between, removeBetween := freshDB(rt, dir)
		defer removeBetween()
		for folded, head := 0, 0; folded < len(history); {
			head = rapid.IntRange(max(folded+1, head), len(history)).Draw(rt, "head")
			to := rapid.IntRange(folded+1, head).Draw(rt, "folds to")
			if err := between.Apply(0, shownBy(history, head)[folded:to]); err != nil {
				rt.Fatal(err)
			}
			folded = to
		}
		want := dump(t, live)
		for name, db := range map[string]*DB{"afresh": fresh, "between": between} {
			if got := dump(t, db); got != want {
				rt.Fatalf("live:\n%s\n%s:\n%s", want, name, got)
			}
			sequence, digest := live.Digest(0)
			if s, d := db.Digest(0); s != sequence || d != digest {
				rt.Fatalf("%s: digest %s at %d, live %s at %d", name, d, s, digest, sequence)
			}
		}
		for i := range history {
			met[events.OutcomeOf(history[i].Body)]++
			if b, is := history[i].Body.(*events.AccountErased); is && len(b.Months) > 1 {
				met["erased in several months"]++
			}
		}
		for _, d := range shownBy(history, len(history)) {
			if _, void := d.Body.(*events.Erased); void {
				met["void"]++
			}
		}
	})
}

// The same with a ledger of its own, and everything that it takes: several accounts, opened again, erased twice and in the
// middle of an open month, requests before the opening and after the erasure, repeats, and such that cannot be read.
func TestAFreshNodeHasWhatOneHasThatFoldedBefore(t *testing.T) {
	t.Parallel()
	h := newErasableHouse(t)
	c := clockAt(in("2026-09"))
	db := h.open(t, "a")
	r := run(t, db, h.seamAt(c), true)
	h.captureAt(t, in("2026-09"), "anna", "https://example.com/before")
	for _, account := range []string{"anna", "bob", "carl"} {
		h.ask(t, in("2026-09"), account, "open", openWith(3))
		for i := range 5 {
			h.captureAt(t, in("2026-09"), account, fmt.Sprintf("https://example.com/%d", i))
		}
		h.captureAt(t, in("2026-09"), account, "https://example.com/1")
		h.ask(t, in("2026-09"), account, "again", captureOf("2026-09", "https://example.com/1"))
	}
	for _, body := range []events.RequestBody{
		captureOf("2026-09", "https://example.com/broken"), &events.AccountEraseRequested{}, &events.MonthCloseRequested{Month: "2026-09"},
	} {
		broken := request("anna", "broken", body).Message(1)
		broken.Data = []byte("{")
		await(t, db, events.Position{Sequence: h.heads(t).Requests})
		h.record(t, h.heads(t).Requests, broken)
	}
	var erasures []events.Position
	erase := func(at events.Month, account string) {
		erasures = append(erasures, h.ask(t, in(at), account, "erase", &events.AccountEraseRequested{}))
	}
	erase("2026-09", "anna")
	h.ask(t, in("2026-09"), "anna", "open2", openWith(1))
	h.captureAt(t, in("2026-09"), "anna", "https://example.com/second")
	c.set(in("2026-10"))
	r.stop(t)
	r = run(t, db, h.seamAt(c), true)
	awaitArchived(t, db, "2026-09")
	h.captureAt(t, in("2026-10"), "anna", "https://example.com/october")
	h.captureAt(t, in("2026-10"), "bob", "https://example.com/october")
	erase("2026-10", "anna")
	erase("2026-10", "bob")
	h.captureAt(t, in("2026-10"), "carl", "https://example.com/october")
	h.ask(t, in("2026-10"), "bob", "open2", openWith(1))
	c.set(in("2026-11"))
	r.stop(t)
	r = run(t, db, h.seamAt(c), true)
	awaitArchived(t, db, "2026-10")
	erase("2026-11", "carl")
	await(t, db, erasures[3])
	for i, account := range []string{"anna", "anna", "bob", "carl"} {
		h.awaitRemoved(t, account, erasures[i])
	}
	r.stop(t)

	fresh := h.open(t, "fresh")
	run(t, fresh, h.seamAt(c), false)
	await(t, fresh, erasures[3])
	h.wantSame(t, db, fresh)
	wantClean(t, h)
}

// wantSame wants two projections with the same rows.
func (h *house) wantSame(t *testing.T, a, b *DB) {
	t.Helper()
	if x, y := dump(t, a), dump(t, b); x != y {
		t.Fatalf("%s has\n%s\n%s has\n%s", filepath.Base(a.path), x, filepath.Base(b.path), y)
	}
}

// removedHouse is a ledger from which anna is erased, with a projection that folded everything before, and one that stopped
// early; bob goes on after it.
type removedHouse struct {
	*house
	db, early *DB
	erasure   events.Position
}

func newRemoved(t *testing.T, behind uint64) *removedHouse {
	t.Helper()
	h := &removedHouse{house: newErasableHouse(t)}
	h.db, h.early = h.open(t, "a"), h.open(t, "early")
	h.append(t, "bob", "open", openWith(-1))
	h.capture(t, "bob", "before", 3)
	h.append(t, "anna", "open", openWith(-1))
	h.capture(t, "anna", "anna", 9) // 6 to 14
	last := h.capture(t, "bob", "between", 2)
	r := run(t, h.db, h.seam(), true)
	await(t, h.db, last)
	r.stop(t)
	for _, m := range h.read(t, events.Decisions, last.Sequence-behind) {
		ok(t, h.early.Apply(0, []events.Decision{must[events.Decision](t)(events.DecodeDecision(m, 0))}))
	}
	h.erasure = h.erase(t, "anna")
	r = run(t, h.db, h.seam(), true)
	await(t, h.db, h.erasure)
	h.awaitRemoved(t, "anna", h.erasure)
	r.stop(t)
	return h
}

// A projection that stopped at a decision which is erased since is still of a prefix of the ledger. What it has of others is
// what shows that.
func TestCheckGoesPastWhatWasErased(t *testing.T) {
	t.Parallel()
	for name, behind := range map[string]uint64{"at the last": 2, "in the middle": 6, "at the first": 11} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newRemoved(t, behind)
			p := NewProjector(h.early, h.seam(), 0, false, quiet())
			must[events.Heads](t)(p.Check(within(t)))

			t.Log("one that has something else of the other account is refused")
			other := must[[]events.Decision](t)(h.early.Decisions(within(t), 0, 0, 4))[3]
			_, err := h.early.writer.ExecContext(within(t), "UPDATE decisions SET digest = zeroblob(32) WHERE sequence = 4")
			ok(t, err)
			_, err = p.Check(within(t))
			wantErr(t, err, ErrMismatch)
			_, err = h.early.writer.ExecContext(within(t), "UPDATE decisions SET digest = ? WHERE sequence = 4", other.Digest[:])
			ok(t, err)

			run(t, h.early, h.seam(), true)
			await(t, h.early, h.erasure)
			h.wantSame(t, h.db, h.early)
			await(t, h.early, h.append(t, "bob", "next", captureOf(november, "https://example.com/next")))
		})
	}
}

// One that folded voids, and stopped before the erasure, has no row there either.
func TestCheckGoesPastVoids(t *testing.T) {
	t.Parallel()
	h := newRemoved(t, 2)
	db := h.open(t, "between")
	for _, m := range h.read(t, events.Decisions, 10) {
		ok(t, db.Apply(0, []events.Decision{must[events.Decision](t)(events.DecodeDecision(m, 0))}))
	}
	must[events.Heads](t)(NewProjector(db, h.seam(), 0, false, quiet()).Check(within(t)))
	run(t, db, h.seam(), false)
	await(t, db, h.erasure)
	h.wantSame(t, h.db, db)
}

// A message that nobody erased is missed.
func TestCheckMissesWhatWasNotErased(t *testing.T) {
	t.Parallel()
	h := newRemoved(t, 0)
	last := h.early.Folded(0)
	h.api(t, "STREAM.MSG.DELETE.DECISIONS_0", fmt.Sprintf(`{"seq":%d}`, last))
	_, err := NewProjector(h.early, h.seam(), 0, false, quiet()).Check(within(t))
	wantErr(t, err, events.ErrGap)
	fresh := h.open(t, "fresh")
	wantErr(t, NewProjector(fresh, h.seam(), 0, false, quiet()).Run(within(t)), events.ErrGap)
}

// The decisions may lose their tail, and with it an erasure that is folded: the rows of what it erased are gone, and no
// message is. They are decided again.
func TestLostDecisionsOfAnErasedAccountAreMadeAgain(t *testing.T) {
	t.Parallel()
	for name, kept := range map[string]uint64{"the erasure": 16, "in the middle": 9, "before the account": 3, "all": 0, "all but the last": 17} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			db, follower := h.open(t, "a"), h.open(t, "follower")
			h.append(t, "bob", "open", openWith(-1))
			h.capture(t, "bob", "before", 3)
			h.append(t, "anna", "open", openWith(-1))
			h.capture(t, "anna", "anna", 9)
			h.capture(t, "bob", "between", 2)
			h.erase(t, "anna") // 17
			last := h.capture(t, "bob", "after", 3)
			seam := h.seam()
			seam.Erase = func(context.Context, string, uint64, func(int, int)) (int, error) { return 0, events.ErrUnavailable }
			r, f := run(t, db, seam, true), run(t, follower, seam, false)
			await(t, db, last)
			await(t, follower, last)
			r.stop(t)
			f.stop(t)
			decisions := h.read(t, events.Decisions, last.Sequence)
			h.keep(t, events.Decisions, kept)
			copyFile(t, beside(db.path, "remake-0"), db.path) // left by one that was killed

			f = run(t, follower, seam, false)
			r = run(t, db, seam, true)
			next := h.append(t, "bob", "next", captureOf(november, "https://example.com/next"))
			await(t, db, next)
			await(t, follower, next)
			for i, m := range h.read(t, events.Decisions, last.Sequence) {
				was := must[events.Decision](t)(events.DecodeDecision(decisions[i], 0))
				if is := must[events.Decision](t)(events.DecodeDecision(m, 0)); is.Digest != was.Digest {
					t.Fatalf("decision %d: %+v, was %+v", i+1, is, was)
				}
			}
			h.wantSame(t, db, follower)
			r.stop(t)
			f.stop(t)
			if files := must[[]string](t)(filepath.Glob(beside(db.path, "remake*"))); len(files) > 0 {
				t.Errorf("left %s", files)
			}
		})
	}
}

// An account is half removed, and who folded voids up to the middle of it starts again behind what is removed: what is left
// there does not follow from voids.
func TestNothingIsFoldedOfAnAccountBehindItsVoids(t *testing.T) {
	t.Parallel()
	h := newErasableHouse(t)
	h.append(t, "anna", "open", openWith(-1))
	h.capture(t, "anna", "anna", 9)
	erasure := h.erase(t, "anna")
	db, seam, cut := h.open(t, "a"), h.seam(), make(chan struct{})
	seam.Erase = cutShort(t.Context(), h, 3, cut)
	run(t, db, seam, true)
	<-cut
	for _, folded := range []uint64{1, 3, 6, 10} {
		between := h.open(t, fmt.Sprint("between", folded))
		for _, m := range h.read(t, events.Decisions, folded) {
			ok(t, between.Apply(0, []events.Decision{must[events.Decision](t)(events.DecodeDecision(m, 0))}))
		}
		for _, decides := range []bool{false, true} {
			r := run(t, between, h.seam(), decides)
			await(t, between, erasure)
			r.stop(t)
		}
		h.wantSame(t, db, between)
	}
}
