package projections

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// seen is what can be read of an account: no two moments of changingHistory between which it changes are alike.
type seen struct {
	limit, november, december int64
	issued, revoked           bool
}

// changingHistory is a history in which everything that is cached changes, and what each account shows after so many
// decisions.
func changingHistory(t *testing.T, accounts []string, rounds int) (decisions []events.Decision, shows map[string][]seen) {
	t.Helper()
	var requests []*events.Request
	ask := func(account string, body events.RequestBody) {
		requests = append(requests, request(account, fmt.Sprintf("r%d", len(requests)), body))
	}
	for _, account := range accounts {
		ask(account, openWith(1000))
	}
	for i := range rounds {
		account := accounts[i%len(accounts)]
		switch n := i / len(accounts); {
		case n == rounds/len(accounts)/3:
			ask(account, &events.TokenIssueRequested{TokenID: account, SecretHash: events.Hash([]byte(account))})
		case n == rounds/len(accounts)*2/3:
			ask(account, &events.TokenRevokeRequested{TokenID: account})
		case n%5 == 4:
			ask(account, &events.PlanChangeRequested{Plan: "other", Limit: 1000 + int64(n)})
		default:
			month := []events.Month{november, november, december}[n%3]
			ask(account, captureOf(month, fmt.Sprintf("https://example.com/%d", i)))
		}
	}
	decisions, _ = decideAll(recorded(t, requests...))
	return decisions, showing(accounts, decisions)
}

// showing returns what each account shows after 0, 1, 2 ... decisions.
func showing(accounts []string, decisions []events.Decision) map[string][]seen {
	state, shows := capture.NewState(), map[string][]seen{}
	for i := -1; i < len(decisions); i++ {
		if i >= 0 {
			state.Fold(&decisions[i])
		}
		for _, name := range accounts {
			var now seen
			if a := state.Accounts[name]; a != nil {
				accepted, issued := a.Tokens[name]
				now = seen{a.Limit, a.Used[november], a.Used[december], issued, issued && !accepted}
			}
			shows[name] = append(shows[name], now)
		}
	}
	return shows
}

// reader reads one account again and again, and knows how many decisions the last quota and the last tokens showed.
type reader struct {
	db                *DB
	account           string
	shows             []seen
	quotaAt, tokensAt int
}

// read checks that what match finds comes at or after what was folded and what was read before.
func (r *reader) read(what string, folded uint64, at *int, match func(seen) bool) error {
	from := max(*at, int(folded))
	i := slices.IndexFunc(r.shows[from:], match)
	if i < 0 {
		return fmt.Errorf("%s of %s is not what it was at %d decisions or later: %d were folded, %d seen", what, r.account, from, folded, *at)
	}
	*at = from + i
	return nil
}

func (r *reader) quota(month events.Month) error {
	folded := r.db.Folded(0)
	q, err := r.db.Quota(context.Background(), r.account, month)
	if err != nil && !errors.Is(err, events.ErrNotFound) {
		return err
	}
	return r.read(fmt.Sprintf("quota %+v", q), folded, &r.quotaAt, func(s seen) bool {
		used := map[events.Month]int64{november: s.november, december: s.december}[month]
		return q == capture.Quota{Month: month, Used: used, Limit: s.limit} && (err == nil) == (s.limit > 0)
	})
}

func (r *reader) token() error {
	folded := r.db.Folded(0)
	tokens, err := r.db.Tokens(context.Background(), r.account)
	if err != nil {
		return err
	}
	return r.read(fmt.Sprintf("tokens %v", tokens), folded, &r.tokensAt, func(s seen) bool {
		return s.issued == (len(tokens) == 1) && s.revoked == (len(tokens) == 1 && tokens[0].Revoked)
	})
}

// Reads never lag behind what is folded and never go back, whatever is cached, evicted, or read while it changes.
func TestReadsAreNeverBehindTheFoldAndNeverGoBack(t *testing.T) {
	t.Parallel()
	accounts := []string{"a", "b", "c"}
	decisions, shows := changingHistory(t, accounts, 900)
	db := newDB(t)
	var folded atomic.Bool
	var reading sync.WaitGroup
	failures := make(chan error, 4*len(accounts))
	for n := range cap(failures) {
		r := &reader{db: db, account: accounts[n%len(accounts)], shows: shows[accounts[n%len(accounts)]]}
		reading.Go(func() {
			for i := 0; !folded.Load(); i++ {
				month := []events.Month{november, november, december}[i/7%3]
				err := errors.Join(r.quota(month), r.token())
				if err != nil {
					failures <- err
					return
				}
				if i%11 == n { // as if there were no room
					db.cache.quotas.forget(r.account)
					db.cache.tokens.forget(r.account)
				}
			}
			failures <- errors.Join(r.quota(november), r.quota(december), r.token())
		})
	}
	for i := 0; i < len(decisions); {
		next := min(i+1+i%5, len(decisions))
		ok(t, db.Apply(0, decisions[i:next]))
		i = next
	}
	folded.Store(true)
	reading.Wait()
	for range cap(failures) {
		ok(t, <-failures)
	}
}

// What someone has waited for shows, also where it was cached before.
func TestWhoAwaitsADecisionReadsItsCommit(t *testing.T) {
	t.Parallel()
	accounts := []string{"a"}
	decisions, shows := changingHistory(t, accounts, 150)
	db, ctx := newDB(t), within(t)
	next := make(chan int)
	failed := make(chan error, len(decisions))
	go func() {
		defer close(failed)
		for i := range next {
			_, err := db.Await(ctx, decisions[i].Position)
			r := &reader{db: db, account: "a", shows: shows["a"][:i+2]}
			failed <- errors.Join(err, r.quota(november), r.token())
		}
	}()
	for i := range decisions {
		next <- i
		awaitWaiting(t, db, 1)
		ok(t, db.Apply(0, decisions[i:i+1]))
		ok(t, <-failed)
	}
	close(next)
}

// wantQuota reads a quota twice: once it may come from the file, and once it does not.
func wantQuota(t *testing.T, db *DB, month events.Month, used, limit int64) {
	t.Helper()
	for range 2 {
		got := must[capture.Quota](t)(db.Quota(context.Background(), "demo", month))
		if want := (capture.Quota{Month: month, Used: used, Limit: limit}); got != want {
			t.Fatalf("quota %+v, want %+v", got, want)
		}
	}
}

func TestCachedQuotaFollowsMonthsAndPlans(t *testing.T) {
	t.Parallel()
	decisions, _ := decideAll(recorded(t,
		request("demo", "open", openWith(10)),
		request("demo", "1", captureOf(november, "https://example.com/1")),
		request("demo", "2", captureOf(december, "https://example.com/2")),
		request("demo", "3", captureOf(november, "https://example.com/3")), // late
		request("demo", "plan", &events.PlanChangeRequested{Plan: "other", Limit: 2}),
		request("demo", "4", captureOf(november, "https://example.com/4")), // rejected
		request("demo", "5", captureOf(december, "https://example.com/5")),
		request("demo", "6", captureOf(december, "https://example.com/2")), // duplicate
	))
	db := newDB(t)
	fold := func(i int) { t.Helper(); ok(t, db.Apply(0, decisions[i:i+1])) }

	_, err := db.Quota(within(t), "demo", november)
	wantErr(t, err, events.ErrNotFound)
	fold(0)
	wantQuota(t, db, november, 0, 10)
	fold(1)
	wantQuota(t, db, november, 1, 10)
	fold(2)
	wantQuota(t, db, november, 1, 10)
	wantQuota(t, db, december, 1, 10)
	fold(3)
	wantQuota(t, db, december, 1, 10)
	wantQuota(t, db, november, 2, 10)
	fold(4)
	wantQuota(t, db, november, 2, 2)
	wantQuota(t, db, december, 1, 2)
	for i := 5; i < 8; i++ {
		fold(i)
	}
	wantQuota(t, db, december, 2, 2)
	wantQuota(t, db, november, 2, 2)
}

// A token that another partition's account has under the same id comes beside the one that is cached.
func TestCachedTokensFollowTheCommit(t *testing.T) {
	t.Parallel()
	hash := events.Hash([]byte("secret"))
	decisions, _ := decideAll(recorded(t,
		request("demo", "open", openWith(10)),
		request("other", "open", openWith(10)),
		request("demo", "issue", &events.TokenIssueRequested{TokenID: "t", SecretHash: hash}),
		request("other", "issue", &events.TokenIssueRequested{TokenID: "t", SecretHash: hash}),
		request("demo", "revoke", &events.TokenRevokeRequested{TokenID: "t"}),
	))
	db := newDB(t)
	fold := func(i int) { t.Helper(); ok(t, db.Apply(0, decisions[i:i+1])) }
	wants := func(want ...capture.Token) {
		t.Helper()
		for range 2 {
			got := must[[]capture.Token](t)(db.Tokens(context.Background(), "t"))
			same := func(a, b capture.Token) bool {
				return a.ID == "t" && a.Account == b.Account && a.SecretHash == b.SecretHash && a.Revoked == b.Revoked
			}
			if !slices.EqualFunc(got, want, same) {
				t.Fatalf("tokens %v, want %v", got, want)
			}
		}
	}
	demo, other := capture.Token{Account: "demo", SecretHash: hash}, capture.Token{Account: "other", SecretHash: hash}

	wants()
	fold(0)
	fold(1)
	fold(2)
	wants(demo)
	fold(3)
	wants(demo, other)
	fold(4)
	demo.Revoked = true
	wants(demo, other)
}

func TestFailedApplyChangesNothingThatIsCached(t *testing.T) {
	t.Parallel()
	db, decisions := newDB(t), history(t)
	ok(t, db.Apply(0, decisions[:5]))
	wantQuota(t, db, november, 4, 20)
	_, err := db.writer.ExecContext(within(t), "CREATE TEMP TRIGGER at_the_end BEFORE UPDATE ON partitions BEGIN SELECT RAISE(ABORT, 'the last write fails'); END")
	ok(t, err)
	if err := db.Apply(0, decisions[5:6]); err == nil {
		t.Fatal("no error")
	}
	wantQuota(t, db, november, 4, 20)
	_, err = db.writer.ExecContext(within(t), "DROP TRIGGER at_the_end")
	ok(t, err)
	ok(t, db.Apply(0, decisions[5:6]))
	wantQuota(t, db, november, 5, 20)
}

// A row may be read from the file between a commit and committed. It stays as it is.
func TestCachedCountNeverGoesBack(t *testing.T) {
	t.Parallel()
	db, decisions := newDB(t), history(t)
	ok(t, db.Apply(0, decisions[:9]))
	wantQuota(t, db, november, 8, 20)
	db.cache.committed(decisions[:6])
	wantQuota(t, db, november, 8, 20)
}

// A decision is in the file a moment before it is folded. Whoever saw it then could read a count that lacks it.
func TestDecisionIsNotSeenBeforeItIsFolded(t *testing.T) {
	t.Parallel()
	db, decisions, ctx := newDB(t), history(t), within(t)
	ok(t, db.Apply(0, decisions[:5]))
	db.partitions[0].sequence.Store(4) // as between the commit and the advance
	must[events.Decision](t)(db.Decision(ctx, decisions[3].Position))
	_, err := db.Decision(ctx, decisions[4].Position)
	wantErr(t, err, events.ErrNotFound)
}

// What is cached is read without the file.
func TestCachedRowsNeedNoFile(t *testing.T) {
	t.Parallel()
	db, decisions, ctx := newDB(t), history(t), within(t)
	ok(t, db.Apply(0, decisions))
	wantQuota(t, db, november, 20, -1)
	tokens := must[[]capture.Token](t)(db.Tokens(ctx, "t1"))
	ok(t, db.reading.Close())

	wantQuota(t, db, november, 20, -1)
	if again := must[[]capture.Token](t)(db.Tokens(ctx, "t1")); !reflect.DeepEqual(again, tokens) {
		t.Fatalf("tokens %v, were %v", again, tokens)
	}
	for what, err := range map[string]error{
		"another month": second(db.Quota(ctx, "demo", december)),
		"another token": second(db.Tokens(ctx, "t2")),
	} {
		if err == nil {
			t.Errorf("%s was read of a closed file", what)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	db, ctx := newDB(t), within(t)
	for i := range 100 {
		name := fmt.Sprintf("made-up-%d", i)
		must[[]capture.Token](t)(db.Tokens(ctx, name))
		wantErr(t, second(db.Quota(ctx, name, november)), events.ErrNotFound)
	}
	if tokens, quotas := db.cache.tokens.size(), db.cache.quotas.size(); tokens != 0 || quotas != 0 {
		t.Errorf("%d tokens and %d quotas are kept of what is not there", tokens, quotas)
	}

	shelf := newShelf[int]()
	for i := range 3 * compartments * compartmentSize {
		name := fmt.Sprint(i)
		of := shelf.of(name)
		of.keep(name, i)
		of.keep(name, i) // again: nothing goes for it
		if got, kept := of.rows[name]; !kept || got != i {
			t.Fatalf("%s was not kept", name)
		}
	}
	if size := shelf.size(); size != compartments*compartmentSize {
		t.Errorf("%d rows are kept, want %d", size, compartments*compartmentSize)
	}
}

func (s *shelf[row]) size() (n int) {
	for i := range s.compartments {
		n += len(s.compartments[i].rows)
	}
	return n
}

// BenchmarkCache measures reads of what is cached, and what a commit costs with and without rows to change.
func BenchmarkCache(b *testing.B) {
	db := openDB(b, b.TempDir()+"/projection.db")
	decisions, _ := decideAll(recorded(b, append([]*events.Request{request("demo", "open", openWith(-1)),
		request("demo", "t", &events.TokenIssueRequested{TokenID: "t1", SecretHash: events.Hash(nil)})}, distinctRequests(512)...)...))
	ok(b, db.Apply(0, decisions[:2]))
	ctx := b.Context()
	b.Run("quota and token", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			must[capture.Quota](b)(db.Quota(ctx, "demo", november))
			must[[]capture.Token](b)(db.Tokens(ctx, "t1"))
		}
	})
	b.Run("quota and token from the file", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			db.cache.quotas.forget("demo")
			db.cache.tokens.forget("t1")
			must[capture.Quota](b)(db.Quota(ctx, "demo", november))
			must[[]capture.Token](b)(db.Tokens(ctx, "t1"))
		}
	})
	for name, c := range map[string]*cache{"commit of 512, cached": db.cache, "commit of 512, not cached": newCache()} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.committed(decisions[2:])
			}
		})
	}
}

func distinctRequests(n int) (requests []*events.Request) {
	for i := range n {
		url := fmt.Sprintf("https://example.com/%d", i)
		requests = append(requests, request("demo", url, captureOf(november, url)))
	}
	return requests
}
