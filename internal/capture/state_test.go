package capture

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"jobtally/internal/events"
)

// partOf returns what deciding the requests needs of a state, and nothing else: of each request its account with plan,
// limit and digest; of a capture moreover the count of its month, the job under its canonical URL and the first answer
// to its request id; of a change of a job that job; of a token request that token.
func partOf(s *State, requests ...events.Request) *State {
	part := NewState()
	for _, r := range requests {
		whole := s.Accounts[r.Account]
		if whole == nil {
			continue
		}
		account := part.Accounts[r.Account]
		if account == nil {
			account = NewAccount(whole.Plan, whole.Limit)
			account.Digest = whole.Digest
			part.Accounts[r.Account] = account
		}
		switch b := r.Body.(type) {
		case *events.JobCaptureRequested:
			keep(account.Used, whole.Used, b.Month)
			keep(account.Jobs, whole.Jobs, b.CanonicalURL)
			keep(account.First, whole.First, r.ID)
		case *events.JobUpdateRequested:
			keep(account.Tracked, whole.Tracked, b.JobID)
		case *events.JobDeleteRequested:
			keep(account.Tracked, whole.Tracked, b.JobID)
		case *events.TokenIssueRequested:
			keep(account.Tokens, whole.Tokens, b.TokenID)
		case *events.TokenRevokeRequested:
			keep(account.Tokens, whole.Tokens, b.TokenID)
		}
	}
	return part
}

func keep[K comparable, V any](part, whole map[K]V, key K) {
	if value, ok := whole[key]; ok {
		part[key] = value
	}
}

// TestPartOfTheStateIsEnough: a state that holds only what a request needs gives the same decision, and one that holds
// what each of a batch needs decides and folds the whole batch.
func TestPartOfTheStateIsEnough(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		messages := drawHistory(t, "history", allAccounts...)
		h, after := replay(t, messages), replay(t, messages)
		var batch []events.Request // which also changes jobs that it captures itself
		for _, m := range drawHistory(t, "batch", allAccounts...) {
			batch = append(batch, after.take(t, m).request)
		}
		part := partOf(h.state, batch...)
		for i := range batch {
			r := &batch[i]
			whole, single, batched := Decide(h.state, r), Decide(partOf(h.state, *r), r), Decide(part, r)
			if !reflect.DeepEqual(single, whole) || !reflect.DeepEqual(batched, whole) {
				t.Fatalf("decided\n%T %+v\nwith what it needs\n%T %+v\nwith what the batch needs\n%T %+v",
					whole.Body, whole.Body, single.Body, single.Body, batched.Body, batched.Body)
			}
			h.state.Fold(&whole)
			part.Fold(&batched)
		}
	})
}

// TestEveryPartOfTheStateIsNeeded: with any of the parts missing, something is decided wrongly.
func TestEveryPartOfTheStateIsNeeded(t *testing.T) {
	at := time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)
	url := "https://example.com/jobs/1"
	h := replay(t, []events.Message{
		message("a", "open", at, &events.AccountOpenRequested{Plan: "free", Limit: 1}),
		message("a", "id 1", at, captureBody(url, url, "Clerk", at)),
		message("a", "issue", at, &events.TokenIssueRequested{TokenID: "t1", SecretHash: events.Hash()}),
	})
	job := h.state.Accounts["a"].Jobs[url]
	for name, tt := range map[string]struct {
		body events.RequestBody
		id   string
		want string
		lose func(*Account)
	}{
		"the month":        {captureBody(url+"/2", url+"/2", "Clerk", at), "id 2", "rejected", func(a *Account) { clear(a.Used) }},
		"the URL":          {captureBody(url, url, "Clerk", at), "id 2", "duplicated", func(a *Account) { clear(a.Jobs) }},
		"the first answer": {captureBody(url, url, "Clerk", at), "id 1", "repeated", func(a *Account) { clear(a.First) }},
		"the job":          {&events.JobDeleteRequested{JobID: job}, "id 2", "deleted", func(a *Account) { clear(a.Tracked) }},
		"the token":        {&events.TokenRevokeRequested{TokenID: "t1"}, "id 2", "token_revoked", func(a *Account) { clear(a.Tokens) }},
		"the digest":       {&events.PlanChangeRequested{Plan: "pro"}, "id 2", "plan_changed", func(a *Account) { a.Digest = events.Digest{} }},
	} {
		m := message("a", tt.id, at, tt.body)
		m.Sequence = 4
		r, err := events.DecodeRequest(m, 0, 1)
		if err != nil {
			t.Fatal(err)
		}
		part := partOf(h.state, r)
		whole := Decide(part, &r)
		tt.lose(part.Accounts["a"])
		if lost := Decide(part, &r); events.OutcomeOf(whole.Body) != tt.want || lost.Digest == whole.Digest {
			t.Errorf("%s: decided %+v, and without it %+v", name, whole.Body, lost.Body)
		}
	}
}

// TestFoldConsultsNoRules: what is decided is folded, also where today's rules would decide otherwise.
func TestFoldConsultsNoRules(t *testing.T) {
	s := NewState()
	fold := func(sequence uint64, body events.DecisionBody) {
		d := events.Decision{Position: events.Position{Sequence: sequence}, Account: "a", RequestID: "id 1", Body: body}
		d.Seal(events.Digest{})
		s.Fold(&d)
	}
	fold(1, &events.TokenIssued{TokenID: "t0"})
	if len(s.Accounts) != 0 {
		t.Fatalf("a decision for an account that is not open left %+v", s.Accounts)
	}
	fold(2, &events.AccountOpened{Plan: "free", Limit: 0})
	count := events.Count{Month: "2026-11", Used: 1, Limit: 0}
	fold(3, &events.JobCaptured{JobID: "job_1", Source: events.Source{CanonicalURL: "u"}, Count: count})
	fold(4, &events.TokenRevoked{TokenID: "t1"})
	account := s.Accounts["a"]
	want := &Account{
		Plan: "free", Digest: account.Digest, Used: map[events.Month]int64{"2026-11": 1}, Jobs: map[string]string{"u": "job_1"},
		First: map[string]FirstAnswer{"id 1": {Position: events.Position{Sequence: 3}}}, Tokens: map[string]bool{"t1": false},
		Tracked: map[string]TrackedJob{"job_1": {Version: 1, CanonicalURL: "u", Content: &events.Job{}}},
	}
	if !reflect.DeepEqual(account, want) || account.Digest == (events.Digest{}) {
		t.Errorf("folded %+v, want %+v", account, want)
	}
}

// TestStateDoesNotGrowWithRefusals: repeats and refusals are remembered by the ledger, not by the state.
func TestStateDoesNotGrowWithRefusals(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory()
		for _, m := range drawHistory(t, "history", allAccounts...) {
			before := h.state.clone()
			d := h.take(t, m).decision
			if !slices.Contains([]string{"repeated", "refused"}, events.OutcomeOf(d.Body)) {
				continue
			}
			if account := before.Accounts[d.Account]; account != nil {
				account.Digest = d.Digest
			}
			if !reflect.DeepEqual(h.state, before) {
				t.Fatalf("%s: %+v left more than its digest", d.Position, d.Body)
			}
		}
	})
}
