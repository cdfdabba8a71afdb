package projections

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"jobtally/internal/events"
)

// past asks for a little of everything, and returns the position of the last.
func (h *house) past(t *testing.T, prefix string) events.Position {
	t.Helper()
	h.append(t, "demo", prefix+"open", openWith(70))
	h.append(t, "rich", prefix+"open", openWith(-1))
	h.capture(t, "demo", prefix, 50)
	h.capture(t, "rich", prefix, 20)
	h.append(t, "demo", prefix+"again", captureOf(november, "https://example.com/"+prefix+"/1"))
	h.append(t, "demo", prefix+"token", &events.TokenIssueRequested{TokenID: prefix, SecretHash: events.Hash([]byte(prefix))})
	h.append(t, "nobody", prefix, captureOf(november, "https://example.com/1"))
	first := h.append(t, "rich", prefix+"changes", captureOf(november, "https://example.com/"+prefix+"/changes"))
	job := h.jobOf(t, first)
	h.append(t, "rich", prefix+"update", &events.JobUpdateRequested{JobID: job, IfVersion: 1, Changes: map[string]string{"status": "applied"}})
	h.append(t, "rich", prefix+"conflict", &events.JobDeleteRequested{JobID: job, IfVersion: 1})
	h.append(t, "rich", prefix+"delete", &events.JobDeleteRequested{JobID: job})
	return h.append(t, "demo", prefix+"plan", &events.PlanChangeRequested{Plan: "plan", Limit: 70})
}

func copyFile(t *testing.T, to, from string) {
	t.Helper()
	ok(t, os.WriteFile(to, must[[]byte](t)(os.ReadFile(from)), 0o600))
}

func TestProjectorDecidesWhatComes(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	before := h.past(t, "before") // undecided when the projector starts
	db := h.open(t, "a")
	r := run(t, db, h.seam(), true)
	await(t, db, before)
	after := h.past(t, "after")
	await(t, db, after)
	h.audit(t, db)
	if err := r.Failure(); err != nil {
		t.Fatal(err)
	}
	r.stop(t)
}

func TestProjectorFoldsWhatAnOlderFileLacks(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	db := h.open(t, "a")
	r := run(t, db, h.seam(), true)
	await(t, db, h.past(t, "first"))
	r.stop(t)
	ok(t, db.Close())
	copyFile(t, h.path("older"), h.path("a"))

	db = h.open(t, "a")
	r = run(t, db, h.seam(), true)
	second := h.past(t, "second")
	await(t, db, second)
	r.stop(t)
	third := h.past(t, "third") // decided by nobody yet

	older := h.open(t, "older")
	if at := older.Folded(0); at >= second.Sequence {
		t.Fatalf("the older file is at %d", at)
	}
	run(t, older, h.seam(), true)
	await(t, older, third)
	h.audit(t, older)

	t.Log("and a lost file is folded anew: what is decided is not decided again")
	anew, seam := h.open(t, "anew"), h.seam()
	seam.AppendDecisions = func(_ context.Context, _ int, after uint64, _ []events.Message) error {
		t.Errorf("decides again what follows %d", after)
		return events.ErrFenced
	}
	run(t, anew, seam, true)
	await(t, anew, third)
	h.audit(t, older, anew)
}

// The tail of the decisions is not synced to disk. Requests are, and so is what is folded.
func TestProjectorAppendsLostDecisionsAgain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kept  func(folded uint64) uint64
		extra bool // with requests that nobody decided yet
	}{
		"a few":                {func(folded uint64) uint64 { return folded - 7 }, false},
		"a few, and undecided": {func(folded uint64) uint64 { return folded - 7 }, true},
		"all":                  {func(uint64) uint64 { return 0 }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			db := h.open(t, "a")
			r := run(t, db, h.seam(), true)
			last := h.past(t, "first")
			await(t, db, last)
			r.stop(t)
			_, digest := db.Digest(0)

			h.keep(t, events.Decisions, c.kept(last.Sequence))
			if c.extra {
				last = h.past(t, "second")
			}

			follower := h.open(t, "follower")
			run(t, follower, h.seam(), false)
			run(t, db, h.seam(), true)
			await(t, db, last)
			await(t, follower, last)
			h.audit(t, db, follower)
			if _, got := db.Digest(0); !c.extra && got != digest {
				t.Fatalf("digest %s, was %s", got, digest)
			}
		})
	}
}

// A follower that is ahead of the decisions waits for whoever decides to append the lost ones again.
func TestFollowerWaitsForLostDecisions(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	db, ahead := h.open(t, "a"), h.open(t, "ahead")
	r, f := run(t, db, h.seam(), true), run(t, ahead, h.seam(), false)
	last := h.past(t, "first")
	await(t, db, last)
	await(t, ahead, last)
	r.stop(t)
	f.stop(t)
	h.keep(t, events.Decisions, last.Sequence-7)

	f = run(t, ahead, h.seam(), false)
	run(t, db, h.seam(), true)
	next := h.past(t, "second")
	await(t, ahead, next)
	await(t, db, next)
	h.audit(t, db, ahead)
	if err := f.Failure(); err != nil {
		t.Fatal(err)
	}
}

// A ledger that lost decided requests, and decided others since, is another one than the follower knows.
func TestFollowerRefusesOtherDecisionsUnderItsNumbers(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	db := h.open(t, "follower")
	r := run(t, db, h.seam(), true)
	last := h.past(t, "first")
	await(t, db, last)
	r.stop(t)
	h.keep(t, events.Requests, last.Sequence-7)
	h.keep(t, events.Decisions, last.Sequence-7)
	h.capture(t, "demo", "other", 10)

	follower := run(t, db, h.seam(), false)
	run(t, h.open(t, "decider"), h.seam(), true)
	if err := follower.wait(t); !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), "is another one than was folded") {
		t.Fatalf("the follower ended with %v", err)
	}
}

func TestProjectorRefusesWhatDoesNotMatch(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		harm func(t *testing.T, h *house, last uint64)
		want error
		says string
	}{
		"folded beyond the requests": {func(t *testing.T, h *house, last uint64) {
			h.keep(t, events.Requests, last-5)
			h.keep(t, events.Decisions, last-5)
		}, ErrMismatch, "`rm -f "},
		"decided beyond the requests": {func(t *testing.T, h *house, last uint64) {
			h.keep(t, events.Requests, last-5)
		}, ErrMismatch, "restore REQUESTS_0 from a backup"},
		"another ledger's past": {func(t *testing.T, h *house, last uint64) {
			h.keep(t, events.Decisions, last-1)
			m := h.read(t, events.Decisions, last-1)[last-2]
			m.Header["ce-id"] = []string{events.Position{Sequence: last}.String()}
			h.record(t, last-1, m)
		}, ErrMismatch, "is another one than was folded; stop jobtally, remove it with `rm -f "},
		"a decision that does not follow": {func(t *testing.T, h *house, last uint64) {
			p := h.append(t, "demo", "new", captureOf(november, "https://example.com/new"))
			m := h.read(t, events.Decisions, 5)[4] // a decision, but not the one on this request
			m.Header["ce-id"] = []string{p.String()}
			h.record(t, last, m)
		}, ErrMismatch, "does not follow"},
		"a request removed": {func(t *testing.T, h *house, last uint64) {
			h.append(t, "demo", "removed", captureOf(november, "https://example.com/removed"))
			h.append(t, "demo", "kept", captureOf(november, "https://example.com/kept"))
			h.api(t, "STREAM.MSG.DELETE.REQUESTS_0", fmt.Sprintf(`{"seq":%d}`, last+1))
		}, events.ErrGap, "REQUESTS_0 goes from"},
		"a decision of a type of tomorrow": {func(t *testing.T, h *house, last uint64) {
			p := h.append(t, "demo", "new", captureOf(november, "https://example.com/new"))
			m := h.read(t, events.Decisions, 1)[0]
			m.Header["ce-id"], m.Header["ce-type"] = []string{p.String()}, []string{"jobtally.job.shared.v1"}
			h.record(t, last, m)
		}, events.ErrUnknownType, "jobtally.job.shared.v1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			db := h.open(t, "a")
			r := run(t, db, h.seam(), true)
			last := h.past(t, "past")
			await(t, db, last)
			r.stop(t)
			c.harm(t, h, last.Sequence)
			heads := h.heads(t)

			p := NewProjector(db, h.seam(), 0, true, quiet())
			err := p.Run(within(t))

			wantErr(t, err, c.want)
			if !strings.Contains(err.Error(), c.says) {
				t.Fatalf("error %q does not say %q", err, c.says)
			}
			if p.Failure() != err {
				t.Fatalf("failure %v, want %v", p.Failure(), err)
			}
			if db.Folded(0) != last.Sequence || h.heads(t) != heads {
				t.Fatalf("folded up to %d, heads %+v; were %d and %+v", db.Folded(0), h.heads(t), last.Sequence, heads)
			}
		})
	}
}

// answersTwiceFromThePast has the ledger lack requests at the first two looks, and counts all.
func answersTwiceFromThePast(l *Ledger) *atomic.Int32 {
	looks, heads := new(atomic.Int32), l.Heads
	l.Heads = func(ctx context.Context, partition int) (events.Heads, error) {
		now, err := heads(ctx, partition)
		if looks.Add(1) <= 2 {
			now.Requests = 1
		}
		return now, err
	}
	return looks
}

// A server of a cluster that hung, and goes on, answers from its past until it learns that it leads no more.
func TestProjectorGoesOnAfterAnswersFromThePast(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	db, seam := h.open(t, "a"), h.seam()
	r := run(t, db, seam, true)
	last := h.past(t, "past")
	await(t, db, last)
	r.stop(t)
	looks := answersTwiceFromThePast(&seam)
	seam.Doubt = deadline
	r = run(t, db, seam, true)
	next := h.append(t, "demo", "next", captureOf(november, "https://example.com/next"))
	await(t, db, next)
	until(t, "no failures", func() bool { return r.Failure() == nil })
	r.stop(t)

	t.Log("what is found for as long as the doubt lasts is so")
	h.keep(t, events.Requests, last.Sequence)
	looks.Store(2)
	seam.Doubt = retryAfter / 2
	wantErr(t, NewProjector(db, seam, 0, true, quiet()).Run(within(t)), ErrMismatch)
	if n := looks.Load() - 2; n != 2 {
		t.Errorf("it looked %d times", n)
	}
}

// Who starts beside a server that answers from its past is not told that requests were lost.
func TestStartOutlastsAnswersFromThePast(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	db, seam := h.open(t, "a"), h.seam()
	r := run(t, db, seam, true)
	last := h.past(t, "past")
	await(t, db, last)
	r.stop(t)
	looks := answersTwiceFromThePast(&seam)
	seam.Doubt = deadline
	got := must[events.Heads](t)(NewProjector(db, seam, 0, true, quiet()).Check(within(t)))
	if got.Requests != last.Sequence || looks.Load() != 3 {
		t.Errorf("heads %+v after %d looks", got, looks.Load())
	}

	t.Log("what is found for as long as the doubt lasts is so, and a start that is given up waits for no more")
	seam.Heads = func(context.Context, int) (events.Heads, error) { return events.Heads{Requests: 1}, nil }
	seam.Doubt = retryAfter / 2
	_, err := NewProjector(db, seam, 0, true, quiet()).Check(within(t))
	wantErr(t, err, ErrMismatch)
	seam.Doubt = 2 * deadline
	given, giveUp := context.WithCancel(within(t))
	giveUp()
	_, err = NewProjector(db, seam, 0, true, quiet()).Check(given)
	if err == nil {
		t.Error("no error")
	}
}

// A file that opens well may be damaged further in. Whoever comes upon it stops, for trying again does not mend it.
func TestProjectorStopsAtADamagedTable(t *testing.T) {
	t.Parallel()
	for _, table := range []string{"accounts", "decisions", "months", "jobs", "jobs_by_url", "first_answers"} {
		t.Run(table, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			db := h.open(t, "a")
			r := run(t, db, h.seam(), true)
			await(t, db, h.past(t, "past"))
			r.stop(t)
			ruin(t, db, table)

			db = h.open(t, "a")
			h.append(t, "demo", "next", captureOf(november, "https://example.com/next"))
			err := NewProjector(db, h.seam(), 0, true, quiet()).Run(within(t))

			wantErr(t, err, ErrMismatch)
			for _, want := range []string{"is damaged", "`projector rebuild --data " + h.dir + "`"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
}

// ruin closes a projection and overwrites the first page of one of its tables or indexes.
func ruin(t *testing.T, db *DB, table string) {
	t.Helper()
	var page, size int64
	ok(t, db.writer.QueryRowContext(within(t), "SELECT rootpage FROM sqlite_schema WHERE name = ?", table).Scan(&page))
	ok(t, db.writer.QueryRowContext(within(t), "PRAGMA page_size").Scan(&size))
	ok(t, db.Close())
	f := must[*os.File](t)(os.OpenFile(db.path, os.O_WRONLY, 0))
	_, err := f.WriteAt(bytes.Repeat([]byte{0xff}, int(size)), (page-1)*size)
	ok(t, errors.Join(err, f.Close()))
}

func TestUnknownRequestTypeStopsThePartition(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	last := h.past(t, "past")
	m := request("demo", "new", captureOf(november, "https://example.com/new")).Message(1)
	m.Header["ce-type"] = []string{"jobtally.job.share_requested.v1"}
	h.record(t, last.Sequence, m)
	h.append(t, "demo", "behind", captureOf(november, "https://example.com/behind"))

	db := h.open(t, "a")
	p := NewProjector(db, h.seam(), 0, true, quiet())
	err := p.Run(within(t))

	wantErr(t, err, events.ErrUnknownType)
	wantErr(t, p.Failure(), events.ErrUnknownType)
	for _, want := range []string{fmt.Sprintf("0-%d", last.Sequence+1), "jobtally.job.share_requested.v1", "a newer jobtally wrote it: run that one"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
	if heads := h.heads(t); heads.Decisions != last.Sequence || db.Folded(0) != last.Sequence {
		t.Fatalf("decided up to %d and folded up to %d, want everything before it, %d", heads.Decisions, db.Folded(0), last.Sequence)
	}
	h.auditTo(t, last.Sequence, db)
}

func TestMalformedRequestsAreRefused(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	last := h.past(t, "past")
	header := func(key, value string) events.Message {
		m := request("demo", "x", captureOf(november, "https://example.com/x")).Message(1)
		m.Header[key] = []string{value}
		return m
	}
	spoiled := []events.Message{
		{Subject: "requests.0.demo.job_capture", Data: []byte("\x00\xff not json")},
		{Subject: "requests.0.demo.job_capture"},
		{Subject: "requests.0.DEMO.job_capture", Data: []byte("{}")},
		{Subject: "requests.0.one.token.too.many", Data: []byte("{}")},
		{Subject: "requests.0.demo.\xff", Data: []byte("{}")},
		header("ce-id", ""), header("ce-id", "%FF"), header("ce-id", "\xff"), header("ce-id", "%00"), header("ce-id", strings.Repeat("x", 5000)),
		header("ce-time", "yesterday"), header("ce-time", "9999-12-31T23:59:59-23:59"), header("ce-time", "0000-01-01T00:00:00+23:59"),
		header("ce-type", ""), header("ce-type", events.TypeAccountOpenRequested),
	}
	for i, m := range spoiled {
		h.record(t, last.Sequence+uint64(i), m)
	}
	next := h.append(t, "rich", "next", captureOf(november, "https://example.com/next"))

	db, follower := h.open(t, "a"), h.open(t, "follower")
	run(t, db, h.seam(), true)
	run(t, follower, h.seam(), false)

	if d := await(t, db, next); events.OutcomeOf(d.Body) != "captured" {
		t.Fatalf("the request behind them was %s", events.OutcomeOf(d.Body))
	}
	for i := range spoiled {
		d := await(t, db, events.Position{Sequence: last.Sequence + 1 + uint64(i)})
		if refused, is := d.Body.(*events.RequestRefused); !is || refused.Reason != events.ReasonMalformed || refused.Detail == "" {
			t.Errorf("message %d, %.40q: decided as %+v", i, spoiled[i].Data, d.Body)
		}
	}
	await(t, follower, next) // whoever has only the decisions can read them all
	h.audit(t, db, follower)
}

func TestTwoDecidingProjectors(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	a, b := h.open(t, "a"), h.open(t, "b")
	first := run(t, a, h.seam(), true)
	run(t, b, h.seam(), true)
	h.append(t, "demo", "open", openWith(500))
	last := h.capture(t, "demo", "race", 600)
	await(t, a, last)
	await(t, b, last)
	h.audit(t, a, b)

	t.Log("one stops, the other goes on")
	first.stop(t)
	last = h.past(t, "alone")
	await(t, b, last)
	h.audit(t, b)

	t.Log("the one that stopped comes back")
	run(t, a, h.seam(), true)
	await(t, a, last)
	last = h.past(t, "again")
	await(t, a, last)
	await(t, b, last)
	h.audit(t, a, b)
}

func TestStandbyTakesOver(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	standby := h.open(t, "standby")
	fencedOnce := make(chan struct{}, 1)
	seam := h.seam()
	appendDecisions := seam.AppendDecisions
	seam.AppendDecisions = func(ctx context.Context, partition int, after uint64, decisions []events.Message) error {
		select {
		case fencedOnce <- struct{}{}: // another one was first, and dies at once
			return fmt.Errorf("test: %w", events.ErrFenced)
		default:
			return appendDecisions(ctx, partition, after, decisions)
		}
	}
	last := h.past(t, "past")
	began := time.Now()
	run(t, standby, seam, true)
	await(t, standby, last)
	if waited := time.Since(began); waited < patience {
		t.Errorf("took over after %v, want no sooner than %v", waited, patience)
	}
	h.audit(t, standby)
}

func TestFollowerNeverDecides(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	deciding, following := h.open(t, "deciding"), h.open(t, "following")
	seam := h.seam()
	seam.AppendDecisions = func(context.Context, int, uint64, []events.Message) error {
		t.Error("the follower decided")
		return events.ErrFenced
	}
	h.past(t, "early")
	run(t, following, seam, false)
	run(t, deciding, h.seam(), true)
	last := h.past(t, "late")
	await(t, deciding, last)
	await(t, following, last)
	h.audit(t, deciding, following)
}
