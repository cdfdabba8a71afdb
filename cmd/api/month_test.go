package main

import (
	"net/http"
	"testing"
	"time"
)

func TestTheCountStartsAt0AtMidnightUTCOnTheFirst(t *testing.T) {
	t.Parallel()
	clock := clockAt(t, "2026-11-22T12:00:00Z")
	s := start(t, t.TempDir(), clock.now, "--plans", "free=2")
	url := 0
	next := func() string { url++; return jobURL(url) }
	for _, turn := range []struct{ month, last, lastReset, first, firstReset string }{
		{"2026-01", "2026-01-31T23:59:59.999Z", "2026-02-01", "2026-02-01T00:00:00Z", "2026-03-01"},
		{"2027-02", "2027-02-28T23:59:59.999Z", "2027-03-01", "2027-03-01T00:00:00Z", "2027-04-01"},
		{"2027-12", "2027-12-31T23:59:59.999Z", "2028-01-01", "2028-01-01T00:00:00Z", "2028-02-01"},
		{"2028-02", "2028-02-29T23:59:59.999Z", "2028-03-01", "2028-03-01T00:00:00Z", "2028-04-01"},
		{"2028-04", "2028-04-30T23:59:59.9999Z", "2028-05-01", "2028-05-01T00:00:00Z", "2028-06-01"},
		// The server's zone does not matter: these are the last and the first moment in UTC.
		{"2028-06", "2028-07-01T13:59:59.999+14:00", "2028-07-01", "2028-06-30T13:00:00-11:00", "2028-08-01"},
	} {
		clock.set(t, turn.last)
		s.wantsQuota(t, quota{0, 2, 2, turn.lastReset})
		s.capture(t, next()).wants(t, http.StatusCreated)
		r := s.capture(t, next()).wants(t, http.StatusCreated)
		if got := r.header.Get("RateLimit"); got != `"captures";r=0;t=1` {
			t.Errorf("in the last millisecond RateLimit is %s", got)
		}
		s.capture(t, next()).wantsExhausted(t, 2, 2, turn.lastReset)
		s.wantsQuota(t, quota{2, 2, 0, turn.lastReset})

		clock.set(t, turn.first)
		s.wantsQuota(t, quota{0, 2, 2, turn.firstReset})
		s.capture(t, next()).wants(t, http.StatusCreated)
		s.wantsQuota(t, quota{1, 2, 1, turn.firstReset})

		db := s.readProjection(t)
		const used, rejected = "SELECT used FROM months WHERE account='demo' AND month=?", "SELECT rejected FROM months WHERE account='demo' AND month=?"
		if u, r := number(t, db, used, turn.month), number(t, db, rejected, turn.month); u != 2 || r != 1 {
			t.Errorf("%s: used %d, rejected %d in the file, want 2 and 1", turn.month, u, r)
		}
	}
}

func TestEveryDayOfAMonthResetsOnTheFirstOfTheNext(t *testing.T) {
	t.Parallel()
	clock := clockAt(t, "2028-01-31T00:00:00Z")
	s := start(t, t.TempDir(), clock.now)
	for day := clock.now(); day.Year() == 2028; day = day.AddDate(0, 0, 1) {
		clock.set(t, day.Format(time.RFC3339))
		want := time.Date(2028, day.Month()+1, 1, 0, 0, 0, 0, time.UTC).Format(time.DateOnly)
		s.wantsQuota(t, quota{0, 50, 50, want})
	}
}

func TestAClockThatJumpsBackCountsInTheMonthItShows(t *testing.T) {
	t.Parallel()
	clock := clockAt(t, "2026-11-30T23:59:59.999Z")
	s := start(t, t.TempDir(), clock.now, "--plans", "free=2")
	s.capture(t, jobURL(1)).wants(t, http.StatusCreated)
	clock.set(t, "2026-12-01T00:00:00Z")
	s.capture(t, jobURL(2)).wants(t, http.StatusCreated)
	clock.set(t, "2026-11-30T23:59:59.998Z")
	s.wantsQuota(t, quota{1, 2, 1, december})
	s.capture(t, jobURL(3)).wants(t, http.StatusCreated)
	s.capture(t, jobURL(4)).wantsExhausted(t, 2, 2, december)
	s.capture(t, jobURL(2)).wants(t, http.StatusOK) // captured tomorrow, and known all the same
	clock.set(t, "2026-12-01T00:00:00.001Z")
	s.wantsQuota(t, quota{1, 2, 1, "2027-01-01"})
	s.capture(t, jobURL(4)).wants(t, http.StatusCreated)
	s.capture(t, jobURL(5)).wantsExhausted(t, 2, 2, "2027-01-01")
}

func TestAJobOfLastMonthIsADuplicateInThis(t *testing.T) {
	t.Parallel()
	clock := clockAt(t, "2026-11-30T12:00:00Z")
	s := start(t, t.TempDir(), clock.now)
	first := s.capture(t, jobURL(1)).wants(t, http.StatusCreated)
	clock.set(t, "2026-12-24T12:00:00Z")
	if again := s.capture(t, jobURL(1)).wants(t, http.StatusOK); again.Job.ID != first.Job.ID {
		t.Errorf("job %s, last month it was %s", again.Job.ID, first.Job.ID)
	}
	s.wantsQuota(t, quota{0, 50, 50, "2027-01-01"})
}
