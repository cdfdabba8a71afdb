package http

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	nethttp "net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// month adds up what the node has folded of a month. Every account was opened, in this node, in January 2024.
func (n *node) month(_ context.Context, account string, month, _ events.Month) (capture.AccountMonth, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := capture.AccountMonth{Month: month, Begun: "2024-01", At: events.Position{Sequence: uint64(len(n.decisions))}}
	a := n.state.Accounts[account]
	if a == nil {
		return m, events.ErrNotFound
	}
	m.Limit = a.Limit
	archived := events.Month("")
	for i := range n.decisions {
		d := &n.decisions[i]
		if closed, ok := d.Body.(*events.MonthArchived); ok {
			if archived = closed.Month; archived == month {
				m.Archive = &capture.MonthArchive{Position: d.Position, Digest: d.Digest, Month: closed.Digest}
			}
		}
		if d.Account == account && capture.MonthOf(d, archived) == month {
			countIn(&m, d)
		}
	}
	return m, nil
}

func countIn(m *capture.AccountMonth, d *events.Decision) {
	m.Tally.Add(d)
	var of capture.DayCount
	switch b := d.Body.(type) {
	case *events.JobCaptured:
		of.Captured = 1
		if b.Job.CapturedVia == "extension" {
			m.Extension++
		}
	case *events.JobCaptureDuplicated:
		of.Duplicated = 1
	case *events.JobCaptureRejected:
		of.Rejected = 1
	default:
		return
	}
	day := d.Time.UTC().Format(time.DateOnly)
	if len(m.Days) == 0 || m.Days[len(m.Days)-1].Day != day {
		m.Days = append(m.Days, capture.DayCount{Day: day})
	}
	last := &m.Days[len(m.Days)-1]
	last.Captured, last.Duplicated, last.Rejected = last.Captured+of.Captured, last.Duplicated+of.Duplicated, last.Rejected+of.Rejected
}

// months goes through the months one by one.
func (n *node) months(ctx context.Context, account string, current, before events.Month, limit int) (months []capture.AccountMonth, err error) {
	for month := current; month >= "2024-01" && len(months) < limit; month = events.MonthOf(month.Start().Add(-1)) {
		m, err := n.month(ctx, account, month, current)
		if errors.Is(err, events.ErrNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		m.Days = nil
		if month < before && (month == current || m.Requests > 0) {
			months = append(months, m)
		}
	}
	return months, nil
}

// replay finds in the ledger what was read from the projection.
func (n *node) replay(ctx context.Context, account string, m *capture.AccountMonth) (capture.ReplayedMonth, error) {
	again, err := n.month(ctx, account, m.Month, m.Month)
	return capture.ReplayedMonth{MonthCount: again.MonthCount, First: events.Position{Sequence: 1}, Last: m.At, Messages: 2 * again.Requests}, err
}

// turnTo makes it noon of a day, and asks for what a projector asks for then.
func (n *node) turnTo(t *testing.T, day string, closed ...events.Month) {
	t.Helper()
	at, err := time.Parse(time.DateOnly, day)
	if err != nil {
		t.Fatal(err)
	}
	n.now = at.Add(12 * time.Hour)
	for _, month := range closed {
		r := &events.Request{ID: "close", Time: n.now, Body: &events.MonthCloseRequested{Month: month}}
		if _, err := n.append(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
}

// fill captures two jobs, one through the extension, meets one of them again, and is rejected with a third.
func (n *node) fill(t *testing.T) {
	t.Helper()
	n.send(t, "POST", "/api/jobs", gopher).wants(t, 201, "…")
	n.send(t, "POST", "/api/jobs", strings.Replace(crab, "{", `{"captured_via":"extension",`, 1)).wants(t, 201, "…")
	n.now = n.now.AddDate(0, 0, 1)
	n.send(t, "POST", "/api/jobs", gopher).wants(t, 200, "…")
	n.send(t, "POST", "/api/jobs", heron, "Idempotency-Key: k").wantsProblem(t, codeQuotaExceeded)
	n.send(t, "POST", "/api/jobs", heron, "Idempotency-Key: k").wantsProblem(t, codeQuotaExceeded)
}

const (
	january = `"used":2,"limit":2,"remaining":0,"reset_date":"2024-02-01","captured":2,"duplicated":1,"rejected":1,"repeated":1,"digest":"DIGEST10"`
	details = `,"captured_via":{"api":1,"extension":1},"days":[{"day":"2024-01-15","captured":2,"duplicated":0,"rejected":0},` +
		`{"day":"2024-01-16","captured":0,"duplicated":1,"rejected":1}]`
)

// proved puts the digests of decisions into a text.
func (n *node) proved(text string) string {
	for i := len(n.decisions); i > 0; i-- {
		text = strings.ReplaceAll(text, fmt.Sprintf(`"DIGEST%d"`, i), `"`+n.digest(i)+`"`)
	}
	return text
}

func TestMonth(t *testing.T) {
	n := newNode(t)
	n.fill(t)
	n.send(t, "GET", historyPath+"/2024-01", "").wants(t, 200, n.proved(`{"month":"2024-01","status":"current",`+january+details+`}`))

	n.turnTo(t, "2024-02-01")
	x := n.send(t, "GET", historyPath+"/2024-01", "")
	x.wants(t, 200, n.proved(`{"month":"2024-01","status":"closing",`+january+details+`}`))
	x.wantsHeader(t, "Content-Type: application/json", "Cache-Control: private, no-cache", "Vary:", "Ledger-Position: 0-10")
	n.send(t, "GET", historyPath+"/2024-02", "").wants(t, 200, `{"month":"2024-02","status":"current","used":0,"limit":2,"remaining":2,`+
		`"reset_date":"2024-03-01","captured":0,"duplicated":0,"rejected":0,"repeated":0,"captured_via":{"api":0,"extension":0},"days":[]}`)

	n.turnTo(t, "2024-02-01", "2024-01")
	archive := fmt.Sprintf(`,"archive":{"position":"0-11","digest":"DIGEST11","month_digest":"%064d"}`, 0)
	archived := n.send(t, "GET", historyPath+"/2024-01", "")
	archived.wants(t, 200, n.proved(`{"month":"2024-01","status":"archived",`+january+archive+details+`}`))
	archived.wantsHeader(t, "Cache-Control: private, max-age=3600, immutable", "Vary: Authorization")
	if x.Header.Get("ETag") == archived.Header.Get("ETag") {
		t.Error("another answer under the same ETag")
	}
	same := n.send(t, "GET", historyPath+"/2024-01", "", "If-None-Match: "+archived.Header.Get("ETag"))
	same.wants(t, 304, "")
	same.wantsHeader(t, "Cache-Control: private, max-age=3600, immutable", "Vary: Authorization", "ETag: "+archived.Header.Get("ETag"))
}

func TestMonthsThatAreNotThere(t *testing.T) {
	n := newNode(t)
	n.turnTo(t, "2024-03-05")
	for _, month := range []string{"2023-12", "2024-04", "0000-01", "9999-12"} {
		x := n.send(t, "GET", historyPath+"/"+month, "")
		if body := x.wantsProblem(t, codeMonthNotFound); !strings.Contains(body, "the account's months are 2024-01 to 2024-03") {
			t.Errorf("%s: %s", month, body)
		}
	}
	for _, month := range []string{"2024-13", "2024", "24-01", "2024-01-01", "2024_01", "%20", "2024-01%00"} {
		n.send(t, "GET", historyPath+"/"+month, "").wantsProblem(t, codeInvalidMonth)
	}
	delete(n.state.Accounts, "anna")
	n.send(t, "GET", historyPath+"/2024-01", "").wantsProblem(t, codeAccountUnknown)
	n.send(t, "GET", historyPath, "").wantsProblem(t, codeAccountUnknown)
}

func TestHistory(t *testing.T) {
	n := newNode(t)
	n.fill(t)
	n.turnTo(t, "2024-04-01", "2024-01")
	n.send(t, "POST", "/api/jobs", heron).wants(t, 201, "…")
	n.turnTo(t, "2024-05-01")
	first := n.send(t, "GET", historyPath+"?limit=2", "")
	first.wants(t, 200, n.proved(`{"months":[`+
		`{"month":"2024-05","status":"current","used":0,"limit":2,"remaining":2,"reset_date":"2024-06-01","captured":0,"duplicated":0,"rejected":0,"repeated":0},`+
		`{"month":"2024-04","status":"closing","used":1,"limit":2,"remaining":1,"reset_date":"2024-05-01","captured":1,"duplicated":0,"rejected":0,"repeated":0,"digest":"DIGEST12"}]}`))
	first.wantsHeader(t, `Link: </api/jobs/quota/history?cursor=MjAyNC0wNA&limit=2>; rel="next"`, "Cache-Control: private, no-cache")
	rest := n.send(t, "GET", historyPath+"?cursor=MjAyNC0wNA&limit=2", "")
	rest.wants(t, 200, n.proved(`{"months":[{"month":"2024-01","status":"archived",`+january)+"…")
	rest.wantsHeader(t, "Link:")
	n.send(t, "GET", historyPath+"?cursor=MjAyNC0wMQ", "").wants(t, 200, `{"months":[]}`) // after the last
	n.send(t, "GET", historyPath+"?limit=2", "", "If-None-Match: "+first.Header.Get("ETag")).wants(t, 304, "")
	n.send(t, "GET", historyPath, "", "Authorization: Bearer "+n.bob.Reveal()).wants(t, 200,
		`{"months":[{"month":"2024-05","status":"current","used":0,"limit":-1,"remaining":-1,…`)
}

func TestFailuresOfReadingMonths(t *testing.T) {
	n := newNode(t)
	fire := errors.New("on fire")
	n.Replay = func(context.Context, string, *capture.AccountMonth) (m capture.ReplayedMonth, err error) {
		return m, fire
	}
	n.send(t, "GET", historyPath+"/2024-01?source=ledger", "").wantsProblem(t, codeInternal)
	n.Month = func(context.Context, string, events.Month, events.Month) (m capture.AccountMonth, err error) {
		return m, fire
	}
	n.send(t, "GET", historyPath+"/2024-01", "").wantsProblem(t, codeInternal)
	n.Months = func(context.Context, string, events.Month, events.Month, int) ([]capture.AccountMonth, error) {
		return nil, fire
	}
	n.send(t, "GET", historyPath, "").wantsProblem(t, codeInternal)
}

func TestReplay(t *testing.T) {
	n := newNode(t)
	n.fill(t)
	n.turnTo(t, "2024-02-01", "2024-01")
	whole := n.send(t, "GET", historyPath+"/2024-01", "")
	x := n.send(t, "GET", historyPath+"/2024-01?source=ledger", "", "If-None-Match: "+whole.Header.Get("ETag"), "If-None-Match: *")
	x.wants(t, 200, strings.TrimSuffix(whole.body, "}")+`,"ledger":{"matches":true,"first":"0-1","last":"0-11","messages_read":16,"differences":[]}}`)
	x.wantsHeader(t, "Cache-Control: no-store", "ETag:", "Vary:")
	if log := n.log.String(); strings.Contains(log, "ERROR") {
		t.Errorf("log %s", log)
	}
}

// TestReplayNamesEachDifference changes everything that is compared.
func TestReplayNamesEachDifference(t *testing.T) {
	n := newNode(t)
	n.fill(t)
	n.Replay = func(ctx context.Context, account string, m *capture.AccountMonth) (capture.ReplayedMonth, error) {
		replayed, err := n.replay(ctx, account, m)
		replayed.Requests, replayed.Captured, replayed.Duplicated, replayed.Rejected, replayed.Repeated = 11, 12, 13, 14, 15
		replayed.Extension, replayed.Digest = 16, events.Digest{}
		replayed.MonthCount.First.Sequence, replayed.MonthCount.Last = 17, events.Position{}
		replayed.Days = []capture.DayCount{{Day: "2024-01-14", Rejected: 1}, {Day: "2024-01-15", Captured: 2}, {Day: "2024-01-16"}}
		replayed.Broken = errors.New("decision 0-7 does not follow")
		return replayed, err
	}
	x := n.send(t, "GET", historyPath+"/2024-01?source=ledger", "")
	_, ledger, _ := strings.Cut(x.body, `"ledger":`)
	var want strings.Builder
	for _, d := range []string{
		`"requests","projection":8,"ledger":11`, `"captured","projection":2,"ledger":12`, `"duplicated","projection":1,"ledger":13`,
		`"rejected","projection":1,"ledger":14`, `"repeated","projection":1,"ledger":15`, `"captured_via.extension","projection":1,"ledger":16`,
		`"first","projection":"0-1","ledger":"0-17"`, `"last","projection":"0-10","ledger":null`,
		n.proved(`"digest","projection":"DIGEST10","ledger":`) + fmt.Sprintf(`"%064d"`, 0),
		`"days.2024-01-14.rejected","projection":0,"ledger":1`,
		`"days.2024-01-16.duplicated","projection":1,"ledger":0`, `"days.2024-01-16.rejected","projection":1,"ledger":0`,
	} {
		want.WriteString(`,{"field":` + d + `}`)
	}
	if want := `{"matches":false,"first":"0-1","last":"0-10","messages_read":16,"differences":[` + want.String()[1:] +
		`],"broken":"decision 0-7 does not follow"}}`; ledger != want {
		t.Errorf("ledger %s\nwant   %s", ledger, want)
	}
	var line struct {
		Level, Account, Month, Broken string
		Differences                   []string
	}
	lines := strings.Split(n.log.String(), "\n")
	text := lines[slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, "does not match the ledger") })]
	if err := json.Unmarshal([]byte(text), &line); err != nil || line.Level != "ERROR" || line.Account != "anna" || line.Month != "2024-01" || len(line.Differences) != 12 {
		t.Errorf("the operator is told %s", text)
	}
}

// A month that is broken does not match, whatever it adds up to; and one without requests is the same in any partition.
func TestReplayMatchesOnlyWhatIsWhole(t *testing.T) {
	n := newNode(t)
	n.turnTo(t, "2024-02-01")
	n.Replay = func(_ context.Context, _ string, m *capture.AccountMonth) (capture.ReplayedMonth, error) {
		return capture.ReplayedMonth{Broken: errors.New("a message is missing"), First: m.At, Last: m.At}, nil
	}
	n.send(t, "GET", historyPath+"/2024-02?source=ledger", "").wants(t, 200,
		`{"month":"2024-02","status":"current","used":0,"limit":2,"remaining":2,"reset_date":"2024-03-01","captured":0,"duplicated":0,"rejected":0,"repeated":0,`+
			`"captured_via":{"api":0,"extension":0},"days":[],"ledger":{"matches":false,"first":"0-5","last":"0-5","messages_read":0,"differences":[],"broken":"a message is missing"}}`)
}

func TestReplayThatFails(t *testing.T) {
	n := newNode(t)
	for err, want := range map[error]code{
		events.ErrUnavailable: codeReplayUnavailable, events.ErrNotFound: codeAccountUnknown, events.ErrUnknownType: codeInternal,
		capture.ErrMonthTooLarge: codeMonthTooLarge,
	} {
		n.Replay = func(context.Context, string, *capture.AccountMonth) (capture.ReplayedMonth, error) {
			return capture.ReplayedMonth{}, fmt.Errorf("read: %w", err)
		}
		n.send(t, "GET", historyPath+"/2024-01?source=ledger", "").wantsProblem(t, want)
	}
}

func TestReplayOfALargeMonthIsRefused(t *testing.T) {
	n := newNode(t)
	requests := int64(maxReplayed)
	n.Month = func(ctx context.Context, account string, month, current events.Month) (capture.AccountMonth, error) {
		m, err := n.month(ctx, account, month, current)
		m.Requests = requests
		return m, err
	}
	n.Replay = func(_ context.Context, _ string, m *capture.AccountMonth) (capture.ReplayedMonth, error) {
		return capture.ReplayedMonth{MonthCount: m.MonthCount, First: m.At, Last: m.At}, nil
	}
	n.send(t, "GET", historyPath+"/2024-01?source=ledger", "").wants(t, 200, "…")
	requests++
	x := n.send(t, "GET", historyPath+"/2024-01?source=ledger", "")
	if body := x.wantsProblem(t, codeMonthTooLarge); !strings.Contains(body, "has 100001 requests") || !strings.Contains(body, "projector replay") {
		t.Errorf("the client is told %s", body)
	}
	x.wantsHeader(t, "Retry-After:")
}

// replaying is a node whose replays go on until their context ends.
func replaying(n *node) (begun chan struct{}) {
	begun = make(chan struct{})
	n.Replay = func(ctx context.Context, _ string, _ *capture.AccountMonth) (m capture.ReplayedMonth, err error) {
		begun <- struct{}{}
		<-ctx.Done()
		return m, fmt.Errorf("%w: read DECISIONS_0: %w", events.ErrUnavailable, ctx.Err()) // as the ledger says it
	}
	return begun
}

func (n *node) replayRequest(ctx context.Context) *nethttp.Request {
	r := httptest.NewRequestWithContext(ctx, "GET", historyPath+"/2024-01?source=ledger", nil)
	r.Header.Set("Authorization", "Bearer "+n.anna.Reveal())
	return r
}

func TestReplayIsBoundedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		begun, started := replaying(n), time.Now()
		go func() { <-begun }()
		x := n.send(t, "GET", historyPath+"/2024-01?source=ledger", "")
		if body := x.wantsProblem(t, codeReplayUnavailable); !strings.Contains(body, "not read in 20 seconds") {
			t.Errorf("the client is told %s", body)
		}
		x.wantsHeader(t, "Retry-After: 5")
		if took := time.Since(started); took != replayTimeout {
			t.Errorf("it took %s", took)
		}
	})
}

// A replay ends when its client goes away, and then there is room for another.
func TestReplaysAreBoundedInNumberAndEndWithTheirClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		begun := replaying(n)
		handler := NewHandler(Config{Backend: n.Backend, Now: func() time.Time { return n.now }})
		ask := func(ctx context.Context) *httptest.ResponseRecorder {
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, n.replayRequest(ctx))
			return w
		}
		gone, cancel := context.WithCancel(t.Context())
		answers := make(chan *httptest.ResponseRecorder, maxReplays)
		for range maxReplays {
			go func() { answers <- ask(gone) }()
			<-begun
		}
		for range 3 {
			w := ask(t.Context())
			if w.Code != 503 || w.Header().Get("Retry-After") != "5" || !strings.Contains(w.Body.String(), "2 months are being replayed already") {
				t.Errorf("beyond the bound: %d %s", w.Code, w.Body)
			}
		}
		cancel()
		for range maxReplays {
			if w := <-answers; !strings.Contains(w.Body.String(), `"code":"interrupted"`) {
				t.Errorf("a client that went away is told %s", w.Body)
			}
		}
		go func() { <-begun }()
		if w := ask(t.Context()); !strings.Contains(w.Body.String(), "not read in 20 seconds") {
			t.Errorf("there was no room for another: %d %s", w.Code, w.Body)
		}
	})
}
