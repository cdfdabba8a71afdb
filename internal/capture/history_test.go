package capture

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"pgregory.net/rapid"

	"jobtally/internal/events"
)

// fataler is what the tests here need of *testing.T and *rapid.T.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// step is a request and the decision on it.
type step struct {
	request  events.Request
	decision events.Decision
}

// history is a partition as a projector works through it: a message in, a decision out, both in their wire form.
type history struct {
	state *State
	steps []step
}

func newHistory() *history { return &history{state: NewState()} }

// take reads a message as the next of REQUESTS_0, decides it, and folds the decision as it reads back from its own
// message, which must be what was decided.
func (h *history) take(t fataler, m events.Message) step {
	t.Helper()
	r := h.next(t, m)
	d := Decide(h.state, &r)
	read, err := events.DecodeDecision(d.Message(), 0)
	if err != nil || !reflect.DeepEqual(read, d) {
		t.Fatalf("decided\n%+v %+v\nreads as\n%+v %+v, %v", d, d.Body, read, read.Body, err)
	}
	h.state.Fold(&read)
	h.steps = append(h.steps, step{r, d})
	return h.steps[len(h.steps)-1]
}

// next reads a message as the next request. A job that it names by a number, as in "@2", is the one of that number that the
// account captured: its id is known only then.
func (h *history) next(t fataler, m events.Message) events.Request {
	t.Helper()
	m.Sequence = uint64(len(h.steps)) + 1
	r, err := events.DecodeRequest(m, 0, 1)
	if err != nil {
		t.Fatalf("%s: %v", m.Subject, err)
	}
	var named *string
	switch b := r.Body.(type) {
	case *events.JobUpdateRequested:
		named = &b.JobID
	case *events.JobDeleteRequested:
		named = &b.JobID
	default:
		return r
	}
	var number int
	if _, err := fmt.Sscanf(*named, "@%d", &number); err != nil {
		return r
	}
	captured := pastOf(h.steps, r.Account).captured()
	if number > len(captured) {
		return r
	}
	*named = captured[number-1].decision.Body.(*events.JobCaptured).JobID
	m = r.Message(1)
	m.Sequence = r.Position.Sequence
	if r, err = events.DecodeRequest(m, 0, 1); err != nil {
		t.Fatalf("%s: %v", m.Subject, err)
	}
	return r
}

// replay returns the history of the messages.
func replay(t fataler, messages []events.Message) *history {
	t.Helper()
	h := newHistory()
	for _, m := range messages {
		h.take(t, m)
	}
	return h
}

// clone returns a state that shares nothing with s.
func (s *State) clone() *State {
	c := NewState()
	for name, a := range s.Accounts {
		c.Accounts[name] = &Account{
			Plan: a.Plan, Limit: a.Limit, Digest: a.Digest,
			Used: maps.Clone(a.Used), Jobs: maps.Clone(a.Jobs), First: maps.Clone(a.First), Tokens: maps.Clone(a.Tokens),
			Tracked: maps.Clone(a.Tracked),
		}
	}
	return c
}

// message writes a request for a ledger of one partition.
func message(account, id string, at time.Time, body events.RequestBody) events.Message {
	r := events.Request{Account: account, ID: id, Time: at, Body: body}
	return r.Message(1)
}

// captureBody asks for a job at a URL. The title tells one payload from another.
func captureBody(url, canonical, title string, at time.Time) *events.JobCaptureRequested {
	return &events.JobCaptureRequested{
		Month:        events.MonthOf(at),
		Job:          events.Job{SourceURL: url, Title: title, Status: "saved", CapturedVia: "api"},
		CanonicalURL: canonical, SourceRules: SourceRules,
		PayloadHash: events.Hash([]byte(url), []byte(title)),
	}
}

var allAccounts = []string{"a", "b", "c"}

// drawHistory draws messages in which collisions are frequent: few accounts, URLs, ids, tokens and months, and a clock
// that jumps between them.
func drawHistory(t *rapid.T, label string, accounts ...string) []events.Message {
	var opened []events.Message
	for _, account := range accounts {
		if rapid.IntRange(0, 4).Draw(t, label+": "+account+" opened first") > 0 {
			opened = append(opened, message(account, "open", drawInstant(t), &events.AccountOpenRequested{Plan: "free", Limit: drawSmallLimit(t)}))
		}
	}
	next := rapid.Custom(func(t *rapid.T) events.Message {
		return drawMessage(t, rapid.SampledFrom(accounts).Draw(t, "account"))
	})
	length := rapid.SampledFrom([]int{1, 4, 16, 64, 128}).Draw(t, label+": length") // left alone, rapid draws a handful
	return slices.Concat(opened, rapid.SliceOfN(next, length, length).Draw(t, label))
}

func drawInstant(t *rapid.T) time.Time {
	return rapid.SampledFrom([]time.Time{
		time.Date(2026, 11, 30, 23, 59, 59, 999_999_999, time.UTC),
		time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC),
		time.Date(2026, 12, 31, 12, 0, 0, 0, time.UTC),
		time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC),
	}).Draw(t, "at")
}

func drawSmallLimit(t *rapid.T) int64 {
	return rapid.SampledFrom([]int64{2, 3, 1, 0, 5, Unlimited}).Draw(t, "limit")
}

func drawMessage(t *rapid.T, account string) events.Message {
	at := drawInstant(t)
	number := func(label string) string { return string(rune('1' + rapid.IntRange(0, 8).Draw(t, label))) }
	id := "id " + number("id")
	switch rapid.IntRange(0, 24).Draw(t, "what") {
	case 0:
		return message(account, id, at, &events.AccountOpenRequested{Plan: "free", Limit: drawSmallLimit(t), Who: drawWho(t)})
	case 1, 2:
		plan := rapid.SampledFrom([]string{"free", "pro"}).Draw(t, "plan")
		return message(account, id, at, &events.PlanChangeRequested{Plan: plan, Limit: drawSmallLimit(t), Who: drawWho(t)})
	case 3:
		return message(account, id, at, &events.TokenIssueRequested{
			TokenID: drawToken(t), SecretHash: events.Hash([]byte(id)), TokenTerms: drawTerms(t), Who: drawWho(t),
		})
	case 4:
		return message(account, id, at, &events.TokenRevokeRequested{TokenID: drawToken(t), Who: drawWho(t)})
	case 5:
		return drawMalformed(t, account, id, at)
	case 6, 7, 8:
		return message(account, id, at, &events.JobUpdateRequested{JobID: drawJobName(t), IfVersion: drawIfVersion(t), Changes: drawChanges(t)})
	case 9, 10:
		return message(account, id, at, &events.JobDeleteRequested{JobID: drawJobName(t), IfVersion: drawIfVersion(t)})
	}
	url := "https://example.com/jobs/" + number("url")
	if rapid.Bool().Draw(t, "id of its own") {
		id = url // so that the next capture of this URL is likely to be a retry
	}
	title := rapid.SampledFrom([]string{"Clerk", "Clerk", "Clerk", "Baker"}).Draw(t, "title")
	return message(account, id, at, captureBody(url+"?utm_source=x", url, title, at))
}

// drawJobName draws the number that history.next finds a job by; of the later ones there are often none.
func drawJobName(t *rapid.T) string {
	return fmt.Sprintf("@%d", rapid.SampledFrom([]int{1, 1, 2, 3, 4}).Draw(t, "job"))
}

func drawIfVersion(t *rapid.T) int64 {
	return rapid.SampledFrom([]int64{0, 0, 1, 2, 3}).Draw(t, "if version")
}

func drawChanges(t *rapid.T) map[string]string {
	values := map[string][]string{
		"title": {"Clerk", "Baker"}, "company": {"Example", "Other"}, "notes": {"", "call back"}, "status": {"saved", "applied"}, "location": {"", "Ulm"},
	}
	changes := map[string]string{}
	for _, field := range rapid.SliceOfN(rapid.SampledFrom(slices.Sorted(maps.Keys(values))), 1, 3).Draw(t, "fields") {
		changes[field] = rapid.SampledFrom(values[field]).Draw(t, field)
	}
	return changes
}

func drawWho(t *rapid.T) events.Who {
	return rapid.SampledFrom([]events.Who{{}, {By: "operator"}, {By: "token:t1", Reason: "asked \"nicely\""}}).Draw(t, "who")
}

func drawTerms(t *rapid.T) events.TokenTerms {
	return rapid.SampledFrom([]events.TokenTerms{
		{}, {Scopes: []string{events.ScopeAdmin}, Name: "laptop"}, {LastFour: "x7_-", ExpiresAt: time.Date(2027, 1, 1, 0, 0, 0, 1, time.UTC)},
	}).Draw(t, "terms")
}

func drawToken(t *rapid.T) string {
	return rapid.SampledFrom([]string{"t1", "t2", "t3"}).Draw(t, "token")
}

func drawMalformed(t *rapid.T, account, id string, at time.Time) events.Message {
	m := message(account, id, at, captureBody("https://example.com/jobs/1", "https://example.com/jobs/1", "Clerk", at))
	switch rapid.IntRange(0, 2).Draw(t, "malformed") {
	case 0:
		m.Data = m.Data[1:]
	case 1:
		delete(m.Header, "ce-time")
	case 2:
		m.Subject = "requests.0." + account // names no account
	}
	return m
}
