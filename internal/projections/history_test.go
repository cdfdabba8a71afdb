package projections

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// asked are requests at times, recorded one after another.
type asked struct{ requests []*events.Request }

func (a *asked) ask(at time.Time, account, id string, body events.RequestBody) {
	r := request(account, id, body)
	r.Time = at
	a.requests = append(a.requests, r)
}

func (a *asked) capture(at time.Time, account, url string) {
	a.ask(at, account, url, captureOf(events.MonthOf(at), url))
}

// folded is a projection of what was asked.
func (a *asked) folded(t *testing.T) (*DB, []events.Decision) {
	t.Helper()
	db := newDB(t)
	decisions, _ := decideAll(recorded(t, a.requests...))
	ok(t, db.Apply(0, decisions))
	return db, decisions
}

// summary is a month in one line.
func summary(m capture.AccountMonth) string {
	text := fmt.Sprintf("%s since %s: %d of %d, %d/%d/%d", m.Month, m.Begun, m.Captured, m.Limit, m.Duplicated, m.Rejected, m.Repeated)
	for _, d := range m.Days {
		text += fmt.Sprintf(" %s %d/%d/%d", d.Day[5:], d.Captured, d.Duplicated, d.Rejected)
	}
	if m.Archive != nil {
		text += " archived at " + m.Archive.Position.String()
	}
	return text
}

func TestMonthsTellLimitsDaysAndArchives(t *testing.T) {
	t.Parallel()
	var a asked
	a.ask(in("2026-03"), "nobody", "x", captureOf("2026-03", "https://example.com/1")) // refused: a row, and no account
	a.ask(in("2026-04"), "demo", "open", openWith(2))
	a.capture(in("2026-04"), "demo", "https://example.com/1")
	a.ask(in("2026-04").Add(24*time.Hour), "demo", "again", captureOf("2026-04", "https://example.com/1"))
	a.ask(in("2026-05"), "demo", "more", &events.PlanChangeRequested{Plan: "more", Limit: 9})
	a.ask(in("2026-06"), "", "close", &events.MonthCloseRequested{Month: "2026-04"})
	a.capture(in("2026-07"), "demo", "https://example.com/2")
	a.capture(in("2026-04"), "demo", "https://example.com/3") // late: it counts in May
	a.ask(in("2026-07"), "demo", "less", &events.PlanChangeRequested{Plan: "less", Limit: 1})
	a.ask(in("2026-08"), "nobody", "open", openWith(-1))
	db, decisions := a.folded(t)

	for _, c := range []struct{ account, month, want string }{
		{"demo", "2026-04", "2026-04 since 2026-04: 1 of 2, 1/0/0 04-02 1/0/0 04-03 0/1/0 archived at 0-6"},
		{"demo", "2026-05", "2026-05 since 2026-04: 1 of 9, 0/0/0 04-02 1/0/0"},
		{"demo", "2026-06", "2026-06 since 2026-04: 0 of 9, 0/0/0"},
		{"demo", "2026-07", "2026-07 since 2026-04: 1 of 1, 0/0/0 07-02 1/0/0"},
		{"demo", "2026-09", "2026-09 since 2026-04: 0 of 1, 0/0/0"},
		{"nobody", "2026-08", "2026-08 since 2026-08: 0 of -1, 0/0/0"},
	} {
		m := must[capture.AccountMonth](t)(db.Month(within(t), c.account, events.Month(c.month), "2026-07"))
		if got := summary(m); got != c.want || m.At.Sequence != uint64(len(decisions)) {
			t.Errorf("%s: %s at %s, want %s", c.account, got, m.At, c.want)
		}
	}
	m := must[capture.AccountMonth](t)(db.Month(within(t), "demo", "2026-04", "2026-07"))
	archived := decisions[5].Body.(*events.MonthArchived)
	if m.Archive.Digest != decisions[5].Digest || m.Archive.Month != archived.Digest || m.Digest != decisions[3].Digest {
		t.Errorf("the proof of April is %+v, its digest %s", m.Archive, m.Digest)
	}
	_, err := db.Month(within(t), "unknown", "2026-07", "2026-07")
	wantErr(t, err, events.ErrNotFound)
}

// A limit is the one of the end of a month, whatever holds now; that of the current month is the one of now.
func TestLimitOfAMonthThatAClockBehindCounted(t *testing.T) {
	t.Parallel()
	var a asked
	a.ask(in("2026-07"), "demo", "open", openWith(5))
	a.ask(in("2026-08"), "demo", "plan", &events.PlanChangeRequested{Plan: "more", Limit: 7})
	a.capture(in("2026-06"), "demo", "https://example.com/1")
	db, _ := a.folded(t)
	for current, want := range map[events.Month]string{
		"2026-06": "2026-06 since 2026-06: 1 of 7, 0/0/0",
		"2026-07": "2026-07 since 2026-06: 0 of 7, 0/0/0, 2026-06 since 2026-06: 1 of 5, 0/0/0",
		"2026-08": "2026-08 since 2026-06: 0 of 7, 0/0/0, 2026-07 since 2026-06: 0 of 5, 0/0/0, 2026-06 since 2026-06: 1 of 5, 0/0/0",
	} {
		if got := pages(t, db, "demo", current, 10); strings.Join(got, ", ") != want {
			t.Errorf("in %s the months are %q, want %s", current, got, want)
		}
	}
}

// pages walks through all months of an account.
func pages(t *testing.T, db *DB, account string, current events.Month, limit int) (all []string) {
	t.Helper()
	for before := current.Next(); ; {
		page := must[[]capture.AccountMonth](t)(db.Months(within(t), account, current, before, limit))
		for _, m := range page {
			all = append(all, summary(m))
		}
		if len(page) < limit {
			return all
		}
		before = page[limit-1].Month
	}
}

func TestPagesHaveEachMonthOnce(t *testing.T) {
	t.Parallel()
	var a asked
	a.ask(in("2016-01"), "demo", "open", openWith(-1))
	a.ask(in("2016-01"), "quiet", "open", openWith(-1))
	current := events.Month("2016-01")
	for i := range 120 {
		if i%7 != 3 { // some months have no requests
			a.capture(in(current), "demo", fmt.Sprintf("https://example.com/%d", i))
		}
		current = current.Next()
	}
	a.capture(in(current.Next().Next()), "demo", "https://example.com/ahead") // of a clock that is ahead: not told yet
	db, _ := a.folded(t)
	want := pages(t, db, "demo", current, 1000)
	if len(want) != 1+120-17 || !strings.HasPrefix(want[0], "2026-01 since 2016-01: 0 of -1") || !slices.IsSortedFunc(want, func(a, b string) int { return strings.Compare(b, a) }) {
		t.Fatalf("%d months: %q", len(want), want)
	}
	for limit := 1; limit < 20; limit++ {
		if got := pages(t, db, "demo", current, limit); !reflect.DeepEqual(got, want) {
			t.Errorf("in pages of %d there are %q", limit, got)
		}
	}
	if got := pages(t, db, "quiet", current, 5); len(got) != 2 {
		t.Errorf("an account that was only opened has %q", got)
	}
	if got := pages(t, db, "unknown", current, 5); got != nil {
		t.Errorf("an account that is not open has %q", got)
	}
}

// What a month shows is never beyond the position that this node tells, so that no later read of another kind is behind it.
func TestMonthIsToldOnceItIsFoldedEverywhere(t *testing.T) {
	t.Parallel()
	var a asked
	a.ask(in("2026-04"), "demo", "open", openWith(9))
	a.capture(in("2026-04"), "demo", "https://example.com/1")
	decisions, _ := decideAll(recorded(t, a.requests...))
	db := newDB(t)
	ok(t, db.Apply(0, decisions[:1]))
	inFile, tell, answered := make(chan struct{}), make(chan struct{}), make(chan uint64, 1)
	db.commit = func(tx *sql.Tx) error {
		err := tx.Commit()
		close(inFile)
		<-tell
		return err
	}
	var running sync.WaitGroup
	running.Go(func() {
		if err := db.Apply(0, decisions[1:]); err != nil {
			t.Error(err)
		}
	})
	<-inFile
	running.Go(func() {
		m, err := db.Month(context.Background(), "demo", "2026-04", "2026-04")
		if err != nil || m.Captured != 1 {
			t.Errorf("month %+v, %v", m, err)
		}
		answered <- db.Folded(0)
	})
	f := db.partitions[0]
	until(t, "a wait for the position", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.waiting[2]) == 1 })
	close(tell)
	if got := <-answered; got != 2 {
		t.Errorf("the month was told at position %d", got)
	}
	running.Wait()
}

// A month whose position is not told, for the commit failed, is waited for no longer than the client waits.
func TestMonthOfACommitOfUnknownOutcomeEndsWithTheClient(t *testing.T) {
	t.Parallel()
	var a asked
	a.ask(in("2026-04"), "demo", "open", openWith(9))
	db, _ := a.folded(t)
	_, err := db.writer.ExecContext(within(t), "UPDATE partitions SET sequence = 2")
	ok(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := db.Month(ctx, "demo", "2026-04", "2026-04"); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestReceiptProvesAnArchivedMonth(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ask(t, in("2026-09"), "demo", "open", openWith(9))
	h.ask(t, in("2026-09"), "other", "open", openWith(9))
	h.captureAt(t, in("2026-09"), "demo", "https://example.com/1")
	close := h.ask(t, in("2026-10"), "", "close", &events.MonthCloseRequested{Month: "2026-09"})
	h.captureAt(t, in("2026-10"), "demo", "https://example.com/2")
	db := h.open(t, "a")
	r := run(t, db, h.seamAt(clockAt(in("2026-10"))), true)
	await(t, db, events.Position{Sequence: close.Sequence + 1})
	r.stop(t)
	prove := func(digest events.Digest) (found []string) {
		_, _, err := h.auditOf(t, &found).Receipt(within(t), close, digest)
		ok(t, err)
		return found
	}
	digest := h.archives(t)[0].Digest
	wantFindings(t, prove(digest))
	wantFindings(t, prove(events.Hash(digest[:])), "0-4  receipt: digest")
}
