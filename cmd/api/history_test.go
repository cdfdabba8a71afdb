package main

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// historyMonth is a month as the history tells it.
type historyMonth struct {
	Month, Status string
	quota
	Captured, Duplicated, Rejected, Repeated int64
	Digest                                   string
	Archive                                  *struct {
		Position, Digest string
		MonthDigest      string `json:"month_digest"`
	}
	CapturedVia struct{ API, Extension int64 } `json:"captured_via"`
	Days        []struct {
		Day                            string
		Captured, Duplicated, Rejected int64
	}
	Ledger *struct {
		Matches      bool
		First, Last  string
		MessagesRead int64 `json:"messages_read"`
		Differences  []struct {
			Field              string
			Projection, Ledger any
		}
		Broken string
	}
}

const historyPath = "/api/jobs/quota/history"

// month reads a month of the history.
func (c client) month(t *testing.T, month string, headers ...string) (m historyMonth, r reply) {
	t.Helper()
	r = c.get(t, historyPath+"/"+month, headers...).wants(t, http.StatusOK)
	if err := json.Unmarshal([]byte(r.body), &m); err != nil {
		t.Errorf("%s: %v", r.body, err)
	}
	return m, r
}

// counts are the counts of a month in one line.
func (m historyMonth) counts() string {
	days := make([]string, len(m.Days))
	for i, d := range m.Days {
		days[i] = fmt.Sprintf("%s %d/%d/%d", d.Day, d.Captured, d.Duplicated, d.Rejected)
	}
	return fmt.Sprintf("%s %s: %d of %d, %d left; %d/%d/%d/%d; api %d, extension %d; %s", m.Month, m.Status, m.Used, m.Limit, m.Remaining,
		m.Captured, m.Duplicated, m.Rejected, m.Repeated, m.CapturedVia.API, m.CapturedVia.Extension, strings.Join(days, ", "))
}

var nextPage = regexp.MustCompile(`^<(/api/jobs/quota/history\?[^>]+)>; rel="next"$`)

// history walks through all pages of the history.
func (c client) history(t *testing.T, limit int) (months []historyMonth) {
	t.Helper()
	for path := fmt.Sprintf("%s?limit=%d", historyPath, limit); path != ""; {
		r := c.get(t, path).wants(t, http.StatusOK)
		var page struct{ Months []historyMonth }
		if err := json.Unmarshal([]byte(r.body), &page); err != nil {
			t.Fatalf("%s: %v", r.body, err)
		}
		link := r.header.Get("Link")
		if len(page.Months) > limit || len(page.Months) < limit && link != "" {
			t.Errorf("a page of %d months for limit %d, with Link %s", len(page.Months), limit, link)
		}
		months, path = append(months, page.Months...), ""
		if link != "" {
			if path = nextPage.ReplaceAllString(link, "$1"); path == link {
				t.Fatalf("Link: %s", link)
			}
		}
	}
	return months
}

// awaitStatus waits until a month has a status: the projector closes months by itself.
func (s *service) awaitStatus(t *testing.T, month, status string) (m historyMonth) {
	t.Helper()
	for begun := time.Now(); ; {
		if m, _ = s.month(t, month); m.Status == status || time.Since(begun) > patience {
			break
		}
	}
	if m.Status != status {
		t.Fatalf("%s is %s, not %s", month, m.Status, status)
	}
	return m
}

func viaExtension(url string) string {
	return fmt.Sprintf(`{"source_url":%q,"title":"Engineer","company":"Example","captured_via":"extension"}`, url)
}

// TestHistoryOfSeveralMonths lives through a year with a change of plan, months without a capture, and late requests.
func TestHistoryOfSeveralMonths(t *testing.T) {
	t.Parallel()
	data, clock := t.TempDir(), clockAt(t, "2026-08-30T12:00:00Z")
	s := start(t, data, clock.now, "--plans", "free=2")
	s.capture(t, jobURL(1)).wants(t, http.StatusCreated)
	clock.set(t, "2026-08-31T23:59:59.999Z")
	s.capture(t, jobURL(1), "Idempotency-Key: again").wants(t, http.StatusOK)
	s.post(t, viaExtension(jobURL(2))).wants(t, http.StatusCreated)
	s.capture(t, jobURL(3), "Idempotency-Key: third").wantsExhausted(t, 2, 2, "2026-09-01")
	s.capture(t, jobURL(3), "Idempotency-Key: third").wantsExhausted(t, 2, 2, "2026-09-01")
	const august = "2 of 2, 0 left; 2/1/1/1; api 1, extension 1; 2026-08-30 1/0/0, 2026-08-31 1/1/1"
	m, r := s.month(t, "2026-08")
	if m.counts() != "2026-08 current: "+august || m.ResetDate != "2026-09-01" || m.Archive != nil || len(m.Digest) != 64 {
		t.Errorf("August is %s\n%s", m.counts(), r.body)
	}
	if got := r.header.Get("Cache-Control"); got != "private, no-cache" {
		t.Errorf("a current month has Cache-Control %s", got)
	}

	clock.set(t, "2026-09-01T00:00:00Z")
	if m, _ := s.month(t, "2026-08"); m.counts() != "2026-08 closing: "+august {
		t.Errorf("over and not archived it is %s", m.counts())
	}
	if m, _ := s.month(t, "2026-09"); m.counts() != "2026-09 current: 0 of 2, 2 left; 0/0/0/0; api 0, extension 0; " || m.Digest != "" {
		t.Errorf("without requests September is %s, digest %q", m.counts(), m.Digest)
	}
	s.stop(t)

	clock.set(t, "2026-10-15T12:00:00Z")
	s = start(t, data, clock.now, "--plans", "free=2")
	m = s.awaitStatus(t, "2026-08", "archived")
	if m.counts() != "2026-08 archived: "+august {
		t.Errorf("archived it is %s", m.counts())
	}
	s.awaitStatus(t, "2026-09", "archived")
	s.wantsProof(t, m)
	s.capture(t, jobURL(4)).wants(t, http.StatusCreated)
	s.operator(t, "account", "plan", "demo", "--limit", "7") // by the clock of the operator: much later
	s.settle(t)

	if got := months(s.history(t, 1)); got != "2026-10 2026-08" {
		t.Errorf("the history has %s: those with requests, and the current one", got)
	}
	s.wantsRevalidation(t)
	for _, month := range []string{"2026-08", "2026-09", "2026-10"} {
		if m, r := s.month(t, month+"?source=ledger"); !m.Ledger.Matches || len(m.Ledger.Differences) > 0 || r.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %s", month, r.body)
		}
	}
}

func months(of []historyMonth) string {
	names := make([]string, len(of))
	for i, m := range of {
		names[i] = m.Month
	}
	return strings.Join(names, " ")
}

// wantsProof proves an archived month by what its history says.
func (s *service) wantsProof(t *testing.T, m historyMonth) {
	t.Helper()
	if m.Archive == nil || len(m.Archive.MonthDigest) != 64 {
		t.Fatalf("the archive is %+v", m.Archive)
	}
	s.operator(t, "audit", "--receipt", m.Archive.Position+":"+m.Archive.Digest)
}

// wantsRevalidation checks that a client that has a month is not sent it again.
func (s *service) wantsRevalidation(t *testing.T) {
	t.Helper()
	for path, cached := range map[string]string{"/2026-08": "private, max-age=3600, immutable", "/2026-10": "private, no-cache", "": "private, no-cache"} {
		first := s.get(t, historyPath+path).wants(t, http.StatusOK)
		again := s.get(t, historyPath+path, "If-None-Match: "+first.header.Get("ETag")).wants(t, http.StatusNotModified)
		for _, r := range []reply{first, again} {
			if got := r.header.Get("Cache-Control"); got != cached || (r.header.Get("Vary") == "Authorization") != (path == "/2026-08") {
				t.Errorf("%s: Cache-Control %s, Vary %s", path, got, r.header.Get("Vary"))
			}
		}
		s.get(t, historyPath+path, `If-None-Match: "other"`).wants(t, http.StatusOK)
	}
}

// tamper changes the SQLite file behind the back of the service.
func (s *service) tamper(t *testing.T, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+s.projection()+"?_busy_timeout=5000")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if result, err := db.Exec(statement); err != nil {
		t.Fatal(err)
	} else if n, _ := result.RowsAffected(); n != 1 {
		t.Fatalf("%s changed %d rows", statement, n)
	}
}

func TestLedgerSourceNamesWhatWasTamperedWith(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember)
	for i := range 5 {
		s.capture(t, jobURL(i)).wants(t, http.StatusCreated)
	}
	s.accounts(t, 5, "other")[0].capture(t, jobURL(1)).wants(t, http.StatusCreated)
	const november = "2026-11?source=ledger"
	honest, r := s.month(t, november)
	if l := honest.Ledger; !l.Matches || l.First != "0-1" || l.MessagesRead != 2*(2+5) { // opening, token, five captures
		t.Errorf("untouched: %s", r.body)
	}
	for _, c := range []struct{ do, undo, field string }{
		{"UPDATE months SET used = used - 1 WHERE account = 'demo'", "UPDATE months SET used = used + 1 WHERE account = 'demo'", "captured"},
		{"UPDATE months SET extension = 2 WHERE account = 'demo'", "UPDATE months SET extension = 0 WHERE account = 'demo'", "captured_via.extension"},
		{"UPDATE months SET first = 3 WHERE account = 'demo'", "UPDATE months SET first = 1 WHERE account = 'demo'", "first"},
		{"UPDATE months SET digest = zeroblob(32) WHERE account = 'demo'", "UPDATE months SET digest = unhex('" + honest.Digest + "') WHERE account = 'demo'", "digest"},
		{"UPDATE days SET rejected = 9 WHERE account = 'demo'", "UPDATE days SET rejected = 0 WHERE account = 'demo'", "days.2026-11-15.rejected"},
	} {
		s.tamper(t, c.do)
		m, r := s.month(t, november)
		if m.Ledger.Matches || len(m.Ledger.Differences) != 1 || m.Ledger.Differences[0].Field != c.field {
			t.Errorf("%s: %s", c.do, r.body)
		}
		s.tamper(t, c.undo)
		if m, r := s.month(t, november); !m.Ledger.Matches {
			t.Errorf("%s: %s", c.undo, r.body)
		}
	}
	s.tamper(t, "DELETE FROM months WHERE account = 'demo'")
	if m, r := s.month(t, november); m.Ledger.Matches || m.Ledger.Differences[0].Field != "requests" {
		t.Errorf("without its row: %s", r.body)
	}
	s.wait(t, &s.stderr, regexp.MustCompile("does not match the ledger.*account=demo month=2026-11"))
}

func TestHistoryShowsEachAccountItsOwn(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember)
	s.capture(t, jobURL(1)).wants(t, http.StatusCreated)
	for _, path := range []string{"", "/2026-11", "/2026-11?source=ledger"} {
		s.get(t, historyPath+path, "Authorization:").wantsProblem(t, http.StatusUnauthorized, "token_missing")
	}
	// The operator opens accounts by today's clock, which is not the one of this service.
	other := s.accounts(t, 3, "other")[0]
	if got := other.history(t, 100); len(got) != 1 || got[0].Used != 0 || got[0].Limit != 3 {
		t.Errorf("another account's history is %+v", got)
	}
	if m, _ := other.month(t, "2026-11"); m.Captured != 0 || len(m.Days) != 0 {
		t.Errorf("another account's month is %s", m.counts())
	}
}

func TestHistoryExplainsBadInput(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember)
	for _, c := range []struct {
		path   string
		status int
		code   string
		field  string
		says   string
	}{
		{"?limit=0", 400, "invalid_request", "limit", "limit must be a whole number from 1 to 100"},
		{"?limit=101", 400, "invalid_request", "limit", "from 1 to 100"},
		{"?limit=-1", 400, "invalid_request", "limit", "from 1 to 100"},
		{"?limit=ten", 400, "invalid_request", "limit", "from 1 to 100"},
		{"?limit=", 400, "invalid_request", "limit", "from 1 to 100"},
		{"?limit=99999999999999999999", 400, "invalid_request", "limit", "from 1 to 100"},
		{"?limit=1&limit=2", 400, "invalid_request", "limit", "more than once"},
		{"?cursor=2026-10", 400, "invalid_request", "cursor", "must be one that a Link header gave"},
		{"?cursor=", 400, "invalid_request", "cursor", "Link header"},
		{"?cursor=%FF", 400, "invalid_request", "cursor", "Link header"},
		{"?cursor=MjAyNi0xMw", 400, "invalid_request", "cursor", "Link header"}, // 2026-13
		{"?Limit=3", 400, "invalid_request", "Limit", "did you mean limit?"},
		{"?page=2", 400, "invalid_request", "page", "what it takes is cursor, limit"},
		{"?source=ledger", 400, "invalid_request", "source", "is not a parameter of this call"},
		{"?limit=%zz", 400, "invalid_request", "", "the query of the URL cannot be read"},
		{"/2026-13", 400, "invalid_month", "", "a month looks like 2026-11"},
		{"/2026-1", 400, "invalid_month", "", "2026-11"},
		{"/november", 400, "invalid_month", "", "2026-11"},
		{"/2026-11-01", 400, "invalid_month", "", "2026-11"},
		{"/2026-11%20", 400, "invalid_month", "", "2026-11"},
		{"/2026-12", 404, "month_not_found", "", "the account's months are 2026-11 to 2026-11"},
		{"/2026-10", 404, "month_not_found", "", "2026-11 to 2026-11"},
		{"/0001-01", 404, "month_not_found", "", "2026-11 to 2026-11"},
		{"/9999-12?source=ledger", 404, "month_not_found", "", "2026-11 to 2026-11"},
		{"/2026-11?source=projection", 400, "invalid_request", "source", "must be ledger, or left out"},
		{"/2026-11?source=", 400, "invalid_request", "source", "must be ledger"},
		{"/2026-11?sourc=ledger", 400, "invalid_request", "sourc", "did you mean source?"},
		{"/2026-11/days", 404, "not_found", "", "nothing is served under this path"},
	} {
		r := s.get(t, historyPath+c.path).wantsProblem(t, c.status, c.code)
		if !strings.Contains(r.Detail, c.says) || c.field != "" && !slices.ContainsFunc(r.Errors, func(e struct{ Field, Detail string }) bool { return e.Field == c.field }) {
			t.Errorf("%s: %s", c.path, r.body)
		}
	}
}
