package projections

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// clock is a clock that a test sets.
type clock struct{ now atomic.Pointer[time.Time] }

func clockAt(at time.Time) *clock {
	c := &clock{}
	c.set(at)
	return c
}

func (c *clock) set(at time.Time)     { c.now.Store(&at) }
func (c *clock) read() time.Time      { return *c.now.Load() }
func in(month events.Month) time.Time { return month.Start().Add(36 * time.Hour) }

func (h *house) seamAt(c *clock) Ledger {
	seam := h.seam()
	seam.Now = c.read
	return seam
}

// ask appends a request that was made at a time.
func (h *house) ask(t *testing.T, at time.Time, account, id string, body events.RequestBody) events.Position {
	t.Helper()
	r := request(account, id, body)
	r.Time = at
	return must[events.Position](t)(h.Append(within(t), r))
}

func (h *house) captureAt(t *testing.T, at time.Time, account, url string) events.Position {
	t.Helper()
	return h.ask(t, at, account, url, captureOf(events.MonthOf(at), url))
}

// awaitArchived waits until a month is archived.
func awaitArchived(t *testing.T, db *DB, month events.Month) {
	t.Helper()
	until(t, fmt.Sprintf("an archive of %s", month), func() bool { return db.Archived(0) >= month })
}

// archives are the archived months of the ledger, by their decisions.
func (h *house) archives(t *testing.T) (archives []events.Decision) {
	t.Helper()
	for _, d := range h.decisions(t) {
		if _, ok := d.Body.(*events.MonthArchived); ok {
			archives = append(archives, d)
		}
	}
	return archives
}

func (h *house) decisions(t *testing.T) (decisions []events.Decision) {
	t.Helper()
	for _, m := range h.read(t, events.Decisions, h.heads(t).Decisions) {
		decisions = append(decisions, must[events.Decision](t)(events.DecodeDecision(m, 0)))
	}
	return decisions
}

// archiveOf works out what closing a month is to say, from the plain list of the decisions before it.
func archiveOf(month events.Month, past []events.Decision) *events.MonthArchived {
	want := &events.MonthArchived{Month: month}
	archived := events.Month("")
	type account struct {
		name string
		of   []events.Decision
	}
	var accounts []account
	for _, d := range past {
		belongs := capture.CountsIn(events.MonthOf(d.Time), archived)
		switch b := d.Body.(type) {
		case *events.JobCaptured:
			belongs = b.Month
		case *events.JobCaptureDuplicated:
			belongs = b.Month
		case *events.JobCaptureRejected:
			belongs = b.Month
		case *events.JobCaptureRepeated:
			belongs = b.Month
		case *events.MonthArchived:
			archived = b.Month
			continue
		}
		if belongs != month {
			continue
		}
		add(&want.Totals, &d)
		if d.Account == "" {
			continue
		}
		i := slices.IndexFunc(accounts, func(a account) bool { return a.name == d.Account })
		if i < 0 {
			i, accounts = len(accounts), append(accounts, account{name: d.Account})
		}
		accounts[i].of = append(accounts[i].of, d)
	}
	slices.SortFunc(accounts, func(a, b account) int { return cmp.Compare(a.name, b.name) })
	for _, a := range accounts {
		tally := capture.Tally{Digest: a.of[len(a.of)-1].Digest}
		for _, d := range a.of {
			add(&tally.Totals, &d)
		}
		leaf := tally.Leaf(a.name, month)
		want.Digest = events.Hash(want.Digest[:], leaf[:])
		want.Accounts++
	}
	return want
}

func add(t *events.Totals, d *events.Decision) {
	outcome := events.OutcomeOf(d.Body)
	t.Requests++
	for name, n := range map[string]*int64{"captured": &t.Captured, "duplicated": &t.Duplicated, "rejected": &t.Rejected, "repeated": &t.Repeated} {
		if outcome == name {
			*n++
		}
	}
	if t.First.Sequence == 0 {
		t.First = d.Position
	}
	t.Last = d.Position
}

// A ledger of three months, closed by the projector that decides: each month once it is over, in order, with everything
// that counted in it; and what is stamped with an archived month counts in the first open one.
func TestMonthsAreClosedInOrder(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := clockAt(in("2026-09"))
	h.ask(t, in("2026-09"), "demo", "open", openWith(2))
	h.ask(t, in("2026-09"), "rich", "open", openWith(capture.Unlimited))
	for i := range 4 { // of demo two are rejected
		for _, account := range []string{"demo", "rich"} {
			h.captureAt(t, in("2026-09"), account, fmt.Sprintf("https://example.com/%d", i))
		}
	}
	h.captureAt(t, in("2026-09"), "rich", "https://example.com/1") // repeated
	h.ask(t, in("2026-09"), "rich", "again", captureOf("2026-09", "https://example.com/1"))
	h.ask(t, in("2026-09"), "nobody", "x", captureOf("2026-09", "https://example.com/1"))
	h.captureAt(t, in("2026-10"), "demo", "https://example.com/october")
	db := h.open(t, "a")
	r := run(t, db, h.seamAt(c), true)
	await(t, db, events.Position{Sequence: h.heads(t).Requests})
	if archived := db.Archived(0); archived != "" {
		t.Fatalf("%s was closed while it lasted", archived)
	}
	r.stop(t)

	t.Log("down over three ends of months: each is closed at the next start, in order")
	c.set(in("2026-12"))
	r = run(t, db, h.seamAt(c), true)
	awaitArchived(t, db, "2026-11")
	late := await(t, db, h.captureAt(t, in("2026-09"), "demo", "https://example.com/late"))
	if got := late.Body.(*events.JobCaptured); got.Month != "2026-12" || got.Used != 1 {
		t.Errorf("a late capture counted as %d of %s", got.Used, got.Month)
	}
	again := await(t, db, h.captureAt(t, in("2026-10"), "demo", "https://example.com/late"))
	if got := again.Body.(*events.JobCaptureRepeated); got.Month != "2026-12" {
		t.Errorf("a late repeat counted in %s", got.Month)
	}
	r.stop(t)
	h.wantArchives(t, "2026-09", "2026-10", "2026-11")
	if got := h.archives(t)[2].Body.(*events.MonthArchived); got.Requests != 0 || got.Accounts != 0 {
		t.Errorf("a month without requests was archived as %+v", got)
	}
	wantClean(t, h)
}

// wantArchives compares the archived months with what follows from the decisions before each, and the links of their
// chain.
func (h *house) wantArchives(t *testing.T, months ...events.Month) {
	t.Helper()
	decisions, previous := h.decisions(t), events.Digest{}
	var got []events.Month
	for _, d := range h.archives(t) {
		archived := d.Body.(*events.MonthArchived)
		got = append(got, archived.Month)
		want := archiveOf(archived.Month, decisions[:d.Position.Sequence-1])
		if *archived != *want {
			t.Errorf("%s was archived as\n%+v, want\n%+v", archived.Month, archived, want)
		}
		ok(t, d.Verify(previous))
		previous = d.Digest
	}
	if !slices.Equal(got, months) {
		t.Errorf("archived %q, want %q", got, months)
	}
}

func wantClean(t *testing.T, h *house) {
	t.Helper()
	found, s := h.findings(t, nil)
	wantFindings(t, found)
	if s.RowsSkipped != "" || s.Rows == 0 {
		t.Errorf("summary %+v", s)
	}
}

// A month is closed once its grace passed and not before, by whichever of two projectors is first.
func TestMonthIsClosedOnceItsGracePassed(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	end := events.Month("2026-10").Next().Start()
	h.ask(t, in("2026-10"), "demo", "open", openWith(9))
	last := h.captureAt(t, in("2026-10"), "demo", "https://example.com/1")
	db, other := h.open(t, "a"), h.open(t, "b")
	for _, early := range []time.Time{end.Add(-1), end, end.Add(closeGrace - 1)} {
		r := run(t, db, h.seamAt(clockAt(early)), true)
		await(t, db, last)
		last = h.captureAt(t, early, "demo", fmt.Sprintf("https://example.com/%d", early.UnixNano()))
		await(t, db, last)
		r.stop(t)
	}
	if heads := h.heads(t); heads.Requests != last.Sequence {
		t.Fatalf("something was asked: heads %+v after %s", heads, last)
	}
	c := clockAt(end.Add(closeGrace))
	run(t, db, h.seamAt(c), true)
	run(t, other, h.seamAt(c), true)
	awaitArchived(t, db, "2026-10")
	awaitArchived(t, other, "2026-10")
	h.wantArchives(t, "2026-10")
}

// A request that asks for what is not due is refused, whoever wrote it.
func TestMonthsAreNotClosedEarlyTwiceOrOutOfOrder(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ask(t, in("2026-09"), "demo", "open", openWith(9))
	db := h.open(t, "a")
	run(t, db, h.seamAt(clockAt(in("2026-09"))), true)
	for _, c := range []struct {
		month events.Month
		at    time.Time
		want  string
	}{
		{"2026-09", events.Month("2026-10").Start().Add(-1), events.ReasonMonthNotOver},
		{"2026-09", events.Month("2026-10").Start(), "month_archived"},
		{"2026-09", in("2026-12"), events.ReasonMonthNotNext},
		{"2026-08", in("2026-12"), events.ReasonMonthNotNext},
		{"2026-11", in("2026-12"), events.ReasonMonthNotNext},
		{"2026-10", in("2026-10"), events.ReasonMonthNotOver},
		{"2026-10", in("2026-12"), "month_archived"},
	} {
		d := await(t, db, h.ask(t, c.at, "", "close", &events.MonthCloseRequested{Month: c.month}))
		got := events.OutcomeOf(d.Body)
		if refused, is := d.Body.(*events.RequestRefused); is {
			got = refused.Reason
		}
		if got != c.want {
			t.Errorf("closing %s at %s: %s, want %s", c.month, c.at, got, c.want)
		}
	}
	h.wantArchives(t, "2026-09", "2026-10")
	wantClean(t, h)
}

// What counts when a month is closed is what was decided before, also when it is closed in the middle of a stream that is
// decided in one go.
func TestClosingInTheMiddleOfABatch(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ask(t, in("2026-09"), "demo", "open", openWith(9))
	for _, month := range []events.Month{"2026-09", "2026-10"} {
		for i := range 5 {
			h.captureAt(t, in("2026-09"), "demo", fmt.Sprintf("https://example.com/%s/%d", month, i))
		}
		h.ask(t, in("2026-11"), "", string(month), &events.MonthCloseRequested{Month: month})
	}
	last := h.captureAt(t, in("2026-09"), "demo", "https://example.com/last")
	db := h.open(t, "a")
	r := run(t, db, h.seamAt(clockAt(in("2026-11"))), true)
	if d := await(t, db, last); d.Body.(*events.JobCaptured).Month != "2026-11" {
		t.Errorf("the last counted in %+v", d.Body)
	}
	r.stop(t)
	h.wantArchives(t, "2026-09", "2026-10")
	if got := column(t, db, "SELECT month || ' ' || used FROM months ORDER BY month"); strings.Join(got, ", ") != "2026-09 5, 2026-10 5, 2026-11 1" {
		t.Errorf("months %q", got)
	}
	if got := column(t, db, "SELECT month || ' ' || day || ' ' || captured FROM days ORDER BY month"); strings.Join(got, ", ") != "2026-09 2026-09-02 5, 2026-10 2026-09-02 5, 2026-11 2026-09-02 1" {
		t.Errorf("days %q", got)
	}
	wantClean(t, h)
}

// A standby closes a month that nobody closes, though nothing is asked.
func TestStandbyClosesAMonthThatIsOverdue(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ask(t, in("2026-10"), "demo", "open", openWith(9))
	last := h.captureAt(t, in("2026-10"), "demo", "https://example.com/1")
	c := clockAt(in("2026-10"))
	first, standby := h.open(t, "a"), h.open(t, "b")
	r := run(t, first, h.seamAt(c), true)
	await(t, first, last)
	p := NewProjector(standby, h.seamAt(c), 0, true, quiet())
	stood := make(chan error, 1)
	go func() { stood <- p.standBy(within(t)) }()
	await(t, standby, last)
	r.stop(t)
	c.set(events.Month("2026-11").Start().Add(closeGrace + 3*closeEvery))
	ok(t, <-stood) // it lost its patience, as with requests that stay undecided
	run(t, standby, h.seamAt(c), true)
	awaitArchived(t, standby, "2026-10")
	h.wantArchives(t, "2026-10")
}
