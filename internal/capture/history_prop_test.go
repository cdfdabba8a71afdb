package capture

import (
	"bytes"
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"jobtally/internal/events"
)

// totals returns the counts of all accounts and months.
func (s *State) totals() map[string]map[events.Month]int64 {
	all := map[string]map[events.Month]int64{}
	for name, account := range s.Accounts {
		all[name] = maps.Clone(account.Used)
	}
	return all
}

// TestUsedIsTheNumberOfCapturedJobs: a capture counts one, in its own month and account, and stays within the limit;
// nothing else counts, and nothing takes away.
func TestUsedIsTheNumberOfCapturedJobs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory()
		urls := map[[2]string]bool{}
		for _, m := range drawHistory(t, "history", allAccounts...) {
			want := h.state.totals()
			s := h.take(t, m)
			d, account := s.decision, s.decision.Account
			switch b := d.Body.(type) {
			case *events.AccountOpened:
				if want[account] != nil {
					t.Fatalf("%s: account %s opened a second time", d.Position, account)
				}
				want[account] = map[events.Month]int64{}
			case *events.JobCaptured:
				want[account][b.Month]++
				limit := h.state.Accounts[account].Limit
				if b.Used != want[account][b.Month] || b.Limit != limit || limit != Unlimited && b.Used > limit {
					t.Fatalf("%s: captured with %d of %d used, counted %d", d.Position, b.Used, b.Limit, want[account][b.Month])
				}
				if urls[[2]string{account, b.CanonicalURL}] {
					t.Fatalf("%s: %s is a second job in account %s", d.Position, b.CanonicalURL, account)
				}
				urls[[2]string{account, b.CanonicalURL}] = true
			case *events.JobDeleted:
				delete(urls, [2]string{account, b.CanonicalURL})
			case *events.JobCaptureRejected:
				if b.Used != want[account][b.Month] || b.Limit == Unlimited || b.Used < b.Limit {
					t.Fatalf("%s: rejected with %d of %d used", d.Position, b.Used, b.Limit)
				}
			}
			if got := h.state.totals(); !reflect.DeepEqual(got, want) {
				t.Fatalf("%s %s: counts %v, want %v", d.Position, events.OutcomeOf(d.Body), got, want)
			}
		}
		for name, account := range h.state.Accounts {
			for month := range account.Used {
				if want := pastOf(h.steps, name).used(month); account.Used[month] != want {
					t.Fatalf("account %s counts %d in %s, and has %d jobs of it", name, account.Used[month], month, want)
				}
			}
		}
	})
}

func TestDecidingAgainGivesTheSameBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		messages := drawHistory(t, "history", allAccounts...)
		once, again := replay(t, messages), replay(t, messages)
		for i := range messages {
			a, b := once.steps[i].decision, again.steps[i].decision
			if !reflect.DeepEqual(a.Message(), b.Message()) {
				t.Fatalf("%s: decided\n%+v\nand again\n%+v", a.Position, a.Message(), b.Message())
			}
		}
		if !reflect.DeepEqual(once.state, again.state) {
			t.Fatalf("the states differ")
		}
	})
}

// TestFoldingDecisionsAloneIsEnough: whoever has the decisions needs no request to go on.
func TestFoldingDecisionsAloneIsEnough(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := replay(t, drawHistory(t, "history", allAccounts...))
		folded := &history{state: NewState(), steps: slices.Clone(h.steps)}
		for _, s := range h.steps {
			d, err := events.DecodeDecision(s.decision.Message(), 0)
			if err != nil {
				t.Fatal(err)
			}
			folded.state.Fold(&d)
		}
		if !reflect.DeepEqual(folded.state, h.state) {
			t.Fatalf("folded\n%+v\nwant\n%+v", folded.state, h.state)
		}
		for _, m := range drawHistory(t, "what follows", allAccounts...) {
			if a, b := h.take(t, m).decision, folded.take(t, m).decision; !reflect.DeepEqual(a, b) {
				t.Fatalf("decided\n%+v %+v\nafter folding\n%+v %+v", a, a.Body, b, b.Body)
			}
		}
	})
}

// checkChain returns the first decision of the account that does not follow from the one before it, or nil. What came
// before the account was opened is no part of its chain: each such refusal follows from nothing.
func checkChain(decisions []events.Decision) *events.Decision {
	var previous events.Digest
	open := false
	for i := range decisions {
		d := &decisions[i]
		if d.Verify(previous) != nil {
			return d
		}
		if _, opened := d.Body.(*events.AccountOpened); opened || open {
			open, previous = true, d.Digest
		}
	}
	return nil
}

// TestChainsVerify: the decisions of each account are a chain, from which none can be left out and in which no two can
// change places.
func TestChainsVerify(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := replay(t, drawHistory(t, "history", allAccounts...))
		for _, account := range append(slices.Clone(allAccounts), "") {
			var chain []events.Decision
			for _, s := range pastOf(h.steps, account) {
				chain = append(chain, s.decision)
			}
			if d := checkChain(chain); d != nil {
				t.Fatalf("account %q: %s does not follow", account, d.Position)
			}
			open := slices.IndexFunc(chain, func(d events.Decision) bool { _, ok := d.Body.(*events.AccountOpened); return ok })
			if open < 0 || len(chain)-open < 3 {
				continue
			}
			i := rapid.IntRange(open, len(chain)-2).Draw(t, "left out")
			if checkChain(slices.Delete(slices.Clone(chain), i, i+1)) == nil {
				t.Fatalf("account %q: %s is left out, and nobody knows", account, chain[i].Position)
			}
			chain[i], chain[i+1] = chain[i+1], chain[i]
			if checkChain(chain) == nil {
				t.Fatalf("account %q: two changed places, and nobody knows", account)
			}
		}
	})
}

// TestOtherAccountsDoNotMatter: an account's chain is a function of its own requests and their positions. Whatever
// others ask for at the positions between, each of its decisions is the same to the byte, digest included.
func TestOtherAccountsDoNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		messages := drawHistory(t, "history", allAccounts...)
		other := slices.Clone(messages)
		for i, m := range messages {
			if r, _ := events.DecodeRequest(m, 0, 1); r.Account != "a" {
				other[i] = drawMessage(t, rapid.SampledFrom([]string{"b", "c", "d"}).Draw(t, "other account"))
			}
		}
		one, two := pastOf(replay(t, messages).steps, "a"), pastOf(replay(t, other).steps, "a")
		for i := range one {
			if !reflect.DeepEqual(one[i].decision.Message(), two[i].decision.Message()) {
				t.Fatalf("decided\n%+v\nin other company\n%+v", one[i].decision.Message(), two[i].decision.Message())
			}
		}
	})
}

// withoutPositions returns the body of a decision with what comes from positions left out: a new job's id is derived
// from its position, so jobs are numbered instead, and first answers are named by their place in the account.
func withoutPositions(p past, i int) events.DecisionBody {
	place := func(at events.Position) uint64 {
		return uint64(slices.IndexFunc(p, func(s step) bool { return s.request.Position == at })) + 1
	}
	job := func(id string) string {
		return string(rune('A' + slices.IndexFunc(p.captured(), func(s step) bool { return s.decision.Body.(*events.JobCaptured).JobID == id })))
	}
	switch b := p[i].decision.Body.(type) {
	case *events.JobCaptured:
		c := *b
		c.JobID = job(b.JobID)
		return &c
	case *events.JobCaptureDuplicated:
		c := *b
		c.JobID = job(b.JobID)
		return &c
	case *events.JobUpdated:
		c := *b
		c.JobID = job(b.JobID)
		return &c
	case *events.JobDeleted:
		c := *b
		c.JobID = job(b.JobID)
		return &c
	case *events.JobCaptureRepeated:
		return &events.JobCaptureRepeated{First: events.Position{Sequence: place(b.First)}, Month: b.Month}
	case *events.RequestRefused:
		return &events.RequestRefused{Kind: b.Kind, Reason: b.Reason} // the detail may name the first answer's position
	}
	return p[i].decision.Body
}

// TestInterleavingDoesNotMatter: merged in another order, the requests of each account are answered the same. The digests
// are not the same, because positions enter them: a receipt names one place in one ledger.
func TestInterleavingDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lists := map[string][]events.Message{}
		for _, account := range allAccounts {
			lists[account] = drawHistory(t, "of "+account, account)
		}
		one, two := replay(t, merge(t, lists)).steps, replay(t, merge(t, lists)).steps
		for _, account := range allAccounts {
			a, b := pastOf(one, account), pastOf(two, account)
			for i := range a {
				if !reflect.DeepEqual(withoutPositions(a, i), withoutPositions(b, i)) {
					t.Fatalf("decided\n%+v\nin another order\n%+v", a[i].decision.Body, b[i].decision.Body)
				}
				moved := a[i].decision.Position != b[i].decision.Position
				if moved && a[i].decision.Digest == b[i].decision.Digest {
					t.Fatalf("%s and %s have one digest", a[i].decision.Position, b[i].decision.Position)
				}
			}
		}
	})
}

// merge draws an order of the lists' messages in which each list keeps its own.
func merge(t *rapid.T, lists map[string][]events.Message) (merged []events.Message) {
	var turns []string
	for _, account := range allAccounts {
		turns = append(turns, slices.Repeat([]string{account}, len(lists[account]))...)
	}
	next := map[string]int{}
	for _, account := range rapid.Permutation(turns).Draw(t, "turns") {
		merged = append(merged, lists[account][next[account]])
		next[account]++
	}
	return merged
}

// TestDecideLeavesStateAndRequestAlone: deciding changes nothing that it was given; folding is what changes the state.
func TestDecideLeavesStateAndRequestAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory()
		for _, m := range drawHistory(t, "history", allAccounts...) {
			r, again := h.next(t, m), h.next(t, m)
			state := h.state.clone()
			d := Decide(h.state, &r)
			if !reflect.DeepEqual(h.state, state) || !reflect.DeepEqual(r, again) {
				t.Fatalf("deciding %+v changed the state or the request", r)
			}
			if b := Decide(h.state, &r); !bytes.Equal(b.Data, d.Data) || b.Digest != d.Digest {
				t.Fatalf("asked twice, Decide says\n%s\n%s", d.Data, b.Data)
			}
			h.take(t, m)
		}
	})
}
