package projections

import (
	"context"
	"fmt"
	"path/filepath"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// jobOf is the id of the job that a request at a position captures, be it decided or not: that follows from the requests.
func (h *house) jobOf(t *testing.T, p events.Position) string {
	t.Helper()
	var requests []events.Request
	for _, m := range h.read(t, events.Requests, p.Sequence) {
		requests = append(requests, must[events.Request](t)(events.DecodeRequest(m, 0, 1)))
	}
	decisions, _ := decideAll(requests)
	captured, is := decisions[p.Sequence-1].Body.(*events.JobCaptured)
	if !is {
		t.Fatalf("at %s is %+v", p, decisions[p.Sequence-1].Body)
	}
	return captured.JobID
}

// While nothing can be folded, changes of a job are decided on its capture and on each other, which are under way.
func TestChangesAreDecidedBehindTheCaptureInFlight(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	db, seam := h.open(t, "a"), h.seam()
	held := newRecording()
	seam.AppendDecisions = held.wrap(seam.AppendDecisions)
	run(t, db, seam, true)
	record := func(want string) {
		t.Helper()
		held.wantAsked(t, want)
		held.goOn <- struct{}{}
	}
	opened := h.append(t, "demo", "open", openWith(2))
	record(events.TypeAccountOpened)
	await(t, db, opened)

	db.mu.Lock() // as an Apply does that takes long
	letGo := sync.OnceFunc(db.mu.Unlock)
	defer letGo()
	url := "https://example.com/1"
	job := h.jobOf(t, h.append(t, "demo", "1", captureOf(november, url)))
	record(events.TypeJobCaptured)
	h.append(t, "demo", "2", &events.JobUpdateRequested{JobID: job, IfVersion: 1, Changes: map[string]string{"status": "applied"}})
	record(events.TypeJobUpdated)
	h.append(t, "demo", "3", &events.JobDeleteRequested{JobID: job, IfVersion: 2})
	record(events.TypeJobDeleted)
	last := h.append(t, "demo", "4", captureOf(november, url))
	record(events.TypeJobCaptured) // the same posting, anew
	if at := db.Folded(0); at != opened.Sequence {
		t.Fatalf("folded up to %d", at)
	}
	letGo()
	if d := await(t, db, last); d.Body.(*events.JobCaptured).JobID == job {
		t.Error("it has the id of the job that was deleted")
	}
	h.audit(t, db)
}

// An update or a deletion that does not follow from the job as it is, is refused, and nothing changes.
func TestApplyRefusesAChangeThatDoesNotFollow(t *testing.T) {
	t.Parallel()
	decisions := history(t)[:5]
	job := decisions[2].Body.(*events.JobCaptured)
	updated := func(id string, version int64) events.DecisionBody {
		return &events.JobUpdated{JobID: id, Version: version, Job: job.Job, CanonicalURL: job.CanonicalURL, Changed: []string{}}
	}
	deleted := func(id string, version int64) events.DecisionBody {
		return &events.JobDeleted{JobID: id, Version: version, CanonicalURL: job.CanonicalURL}
	}
	// following are decisions that follow from those folded, whatever they say of the job.
	following := func(bodies ...events.DecisionBody) (next []events.Decision) {
		previous := decisions[4]
		for _, body := range bodies {
			d := previous
			d.Position.Sequence, d.RequestID, d.Body = previous.Position.Sequence+1, "change", body
			d.Seal(previous.Digest)
			next, previous = append(next, d), d
		}
		return next
	}
	for name, refused := range map[string][]events.Decision{
		"an update to the same version":             following(updated(job.JobID, 1)),
		"an update that leaves a version out":       following(updated(job.JobID, 3)),
		"an update again":                           following(updated(job.JobID, 2), updated(job.JobID, 2)),
		"an update of a job that is not there":      following(updated("job_none", 1)),
		"an update of a job that was deleted":       following(deleted(job.JobID, 2), updated(job.JobID, 3)),
		"a deletion that leaves a version out":      following(deleted(job.JobID, 3)),
		"a deletion of a job that is not there":     following(deleted("job_none", 1)),
		"a deletion again":                          following(deleted(job.JobID, 2), deleted(job.JobID, 3)),
		"a deletion of another account's job":       {with(following(deleted(job.JobID, 2))[0], func(d *events.Decision) { d.Account = "other"; d.Seal(events.Digest{}) })},
		"a capture of what is there, but for a URL": following(&events.JobCaptured{JobID: job.JobID, Source: events.Source{CanonicalURL: "u"}, Count: events.Count{Month: november, Used: 5, Limit: 20}}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDB(t)
			ok(t, db.Apply(0, decisions))
			before := dump(t, db)
			wantErr(t, db.Apply(0, refused), ErrMismatch)
			if got := dump(t, db); got != before {
				t.Errorf("rows changed:\n%s\nwere\n%s", got, before)
			}
			ok(t, db.Apply(0, following(updated(job.JobID, 2), updated(job.JobID, 3), deleted(job.JobID, 4))))
		})
	}
}

// Of an account that is erased nothing is left in the word index, nor anywhere in the file; opened again it has nothing of it.
func TestNothingErasedIsLeftInTheWordIndex(t *testing.T) {
	t.Parallel()
	tr := newTrackerOf(t, 11)
	for account, word := range map[string]string{"anna": "zebrafinch", "bob": "kingfisher"} {
		tr.ask(account, openWith(-1))
		for i := range 2*chunkSize + 50 {
			body := captureOf(november, fmt.Sprintf("https://example.com/%s/%d", word, i))
			body.Job.Company, body.Job.Description = "Company", fmt.Sprintf("common %s%d", word, i)
			tr.ask(account, body)
		}
		tr.settle()
		for range 20 {
			id := pick(tr, tr.ever[account]...)
			tr.ask(account, &events.JobUpdateRequested{JobID: id, Changes: map[string]string{"description": word + "again common"}})
		}
		tr.settle()
	}
	dir := filepath.Dir(tr.db.path)
	for _, word := range []string{"zebrafinch", "kingfisher"} {
		if len(found(t, dir, []string{word})) == 0 {
			t.Fatalf("%s is in no file: nothing can be shown", word)
		}
	}
	count := func(account, text string) int {
		return len(must[capture.JobPage](t)(tr.db.Jobs(within(t), account, capture.JobQuery{Text: text, Limit: 1000})).Jobs)
	}
	before := count("bob", "kingfisher common")
	tr.ask("anna", &events.AccountEraseRequested{})
	tr.settle()
	if in := found(t, dir, []string{"zebrafinch"}); len(in) > 0 {
		t.Fatalf("left: %s", in)
	}
	if rows := column(t, tr.db, "SELECT account FROM chunks WHERE account = 'anna' UNION ALL SELECT account FROM words WHERE account = 'anna'"); len(rows) > 0 {
		t.Fatalf("%d rows are left in the word index", len(rows))
	}
	if n := count("anna", "common"); n != 0 || count("bob", "kingfisher common") != before || before != 2*chunkSize+50 {
		t.Errorf("%d jobs of the erased account; of the other %d, were %d", n, count("bob", "kingfisher common"), before)
	}
	tr.ask("anna", openWith(-1))
	tr.askCapture("anna", "https://example.com/anew")
	tr.settle()
	if count("anna", "common") != 0 || count("anna", "") != 1 {
		t.Errorf("opened again it has %d jobs, %d with the words of before", count("anna", ""), count("anna", "common"))
	}
	ok(t, tr.db.Close())
	if in := found(t, dir, []string{"zebrafinch"}); len(in) > 0 {
		t.Fatalf("left after a stop: %s", in)
	}
}

// Accounts and tokens are told as they are, in pages by name, with who set the plan, and when.
func TestAccountsAndTokensAreTold(t *testing.T) {
	t.Parallel()
	tr, ctx := newTrackerOf(t, 13), within(t)
	who := events.Who{By: "token:t9", Reason: "asked \"nicely\""}
	var want []capture.StoredAccount
	for i := range 7 {
		name := fmt.Sprintf("account-%d", i)
		tr.ask(name, &events.AccountOpenRequested{Plan: "free", Limit: 50, Who: events.Who{By: "operator"}})
		at, position := tr.asked[len(tr.asked)-1].Time, events.Position{Sequence: uint64(len(tr.asked))}
		want = append(want, capture.StoredAccount{
			Name: name, Plan: "free", Limit: 50, OpenedAt: at, PlanAt: at, PlanPosition: position, PlanSetBy: events.Who{By: "operator"},
		})
	}
	tr.ask("account-3", &events.PlanChangeRequested{Plan: "custom", Limit: 7, Who: who})
	want[3].Plan, want[3].Limit, want[3].PlanSetBy = "custom", 7, who
	want[3].PlanAt, want[3].PlanPosition = tr.asked[7].Time, events.Position{Sequence: 8}
	terms := events.TokenTerms{Scopes: []string{events.ScopeJobsRead, events.ScopeAdmin}, Name: "laptop", LastFour: "x7_-", ExpiresAt: time.Date(2027, 1, 1, 1, 0, 0, 5, time.FixedZone("", 3600))}
	var tokens []capture.Token
	for i, terms := range []events.TokenTerms{{}, terms, {Name: "other"}} {
		id := fmt.Sprintf("t%d", i)
		tr.ask("account-3", &events.TokenIssueRequested{TokenID: id, SecretHash: events.Hash([]byte(id)), TokenTerms: terms, Who: who})
		token := capture.Token{ID: id, Account: "account-3", SecretHash: events.Hash([]byte(id)), IssuedAt: tr.asked[len(tr.asked)-1].Time, TokenTerms: terms}
		token.ExpiresAt = token.ExpiresAt.UTC()
		tokens = append(tokens, token)
	}
	tr.ask("account-3", &events.TokenRevokeRequested{TokenID: "t2", Who: who})
	tokens[2].Revoked = true
	tr.ask("account-5", &events.AccountEraseRequested{})
	tr.settle()
	want = append(want[:5], want[6])

	var got []capture.StoredAccount
	for after, more := "", true; more; {
		page := must[[]capture.StoredAccount](t)(tr.db.Accounts(ctx, after, 4))
		if more = len(page) == 4; more {
			after = page[3].Name
		}
		got = append(got, page...)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("accounts\n%+v, want\n%+v", got, want)
	}
	for _, account := range want {
		if got := must[capture.StoredAccount](t)(tr.db.Account(ctx, account.Name)); !reflect.DeepEqual(got, account) {
			t.Errorf("account\n%+v, want\n%+v", got, account)
		}
	}
	for _, name := range []string{"account-5", "nobody", ""} {
		_, err := tr.db.Account(ctx, name)
		wantErr(t, err, events.ErrNotFound)
	}
	scopesOf := func(tokens []capture.Token) []capture.Token { // no scopes are no scopes
		for i := range tokens {
			if len(tokens[i].Scopes) == 0 {
				tokens[i].Scopes = nil
			}
		}
		return tokens
	}
	first := must[[]capture.Token](t)(tr.db.TokensOf(ctx, "account-3", "", 2))
	rest := must[[]capture.Token](t)(tr.db.TokensOf(ctx, "account-3", "t1", 2))
	if told := scopesOf(append(first, rest...)); !reflect.DeepEqual(told, tokens) {
		t.Errorf("tokens\n%+v, want\n%+v", told, tokens)
	}
	if one := scopesOf(must[[]capture.Token](t)(tr.db.Tokens(ctx, "t1"))); !reflect.DeepEqual(one, tokens[1:2]) {
		t.Errorf("token\n%+v, want\n%+v", one, tokens[1:2])
	}
	for _, account := range []string{"account-1", "nobody"} {
		if told := must[[]capture.Token](t)(tr.db.TokensOf(ctx, account, "", 2)); len(told) > 0 {
			t.Errorf("tokens of %s: %+v", account, told)
		}
	}
}

// Tries go on while other files come in the place of the one that they read, and hold nobody up.
func TestTriesGoOnThroughAReplace(t *testing.T) {
	t.Parallel()
	c, s := newTracker(t, 1, 20)
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	var trying sync.WaitGroup
	for i := range 4 {
		trying.Go(func() {
			for ctx.Err() == nil {
				r := request(c.account, fmt.Sprint("try", i), captureOf(november, fmt.Sprintf("https://example.com/try/%d", i)))
				if d, err := s.db.Try(ctx, []*events.Request{r}); err != nil || len(d) != 1 {
					t.Errorf("%d decisions, %v", len(d), err)
					return
				}
			}
		})
	}
	for range 5 {
		r := s.rebuild(nil)
		must[Made](t)(r.Make(within(t)))
		must[[]events.Position](t)(r.Adopt(within(t), s.db))
	}
	cancel()
	trying.Wait()
}

func TestDecidingWaitsForOneTryHoweverManyThereAre(t *testing.T) {
	t.Parallel()
	db := newDB(t)
	var requests []*events.Request
	for i := range 100 {
		requests = append(requests, request("demo", fmt.Sprint(i), captureOf(november, fmt.Sprintf("https://example.com/%d", i))))
	}
	decoded := recorded(t, requests...)
	const loads, clients = 50, 16
	var tries atomic.Int64
	var trying sync.WaitGroup
	ctx, cancel := context.WithCancel(within(t))
	for range clients {
		trying.Go(func() {
			for ctx.Err() == nil {
				if _, err := db.Try(ctx, requests); err != nil {
					t.Error(err)
					return
				}
				tries.Add(1)
			}
		})
	}
	until(t, "all of them try", func() bool { return tries.Load() >= clients })
	before := tries.Load()
	for range loads {
		_, _, err := db.Load(0, decoded)
		ok(t, err)
	}
	between := tries.Load() - before
	cancel()
	trying.Wait()
	if most := int64(loads * clients / 3); between > most {
		t.Errorf("%d tries went between %d loads of who decides, not %d at most", between, loads, most)
	}
}
