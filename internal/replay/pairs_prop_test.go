package replay_test

import (
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"jobtally/internal/capture"
	"jobtally/internal/events"
	"jobtally/internal/replay"
)

var someAccounts = []string{"anna", "bob", "carol", "dave"}

// drawTape draws a ledger: months that are closed and not, requests of clocks that are ahead and behind, erasures that are
// finished and not, and requests that are not decided yet.
func drawTape(t *rapid.T) *tape {
	tape := newTape(rapid.IntRange(1, 2).Draw(t, "partitions"), time.Date(2026, 1, 20, 0, 0, 0, 0, time.UTC))
	tape.batch = rapid.IntRange(1, 9).Draw(t, "batch")
	for range rapid.IntRange(0, 80).Draw(t, "steps") {
		tape.now = tape.now.Add(time.Duration(rapid.IntRange(0, 72).Draw(t, "hours")) * time.Hour)
		account := rapid.SampledFrom(someAccounts).Draw(t, "account")
		at := tape.now
		if rapid.IntRange(0, 4).Draw(t, "skewed") == 0 {
			at = at.Add(time.Duration(rapid.IntRange(-60*24, 60*24).Draw(t, "skew")) * time.Hour)
		}
		switch kind := rapid.IntRange(0, 19).Draw(t, "kind"); {
		case kind < 10:
			tape.ask(account, at, captureOf(rapid.IntRange(0, 9).Draw(t, "job"), at))
		case kind < 12:
			tape.ask(account, at, &events.AccountOpenRequested{Plan: "free", Limit: 3})
		case kind < 13:
			tape.ask(account, at, &events.PlanChangeRequested{Plan: "pro", Limit: 5})
		case kind < 17:
			tape.decide()
		case kind < 19:
			closeMonths(tape)
		default:
			erase(t, tape, account, at)
		}
	}
	return tape
}

// closeMonths closes what is over, as a projector does.
func closeMonths(tape *tape) {
	tape.decide()
	for _, p := range tape.partitions {
		month := p.state.Archived.Next()
		if p.state.Archived == "" {
			month = events.MonthOf(events.MonthOf(tape.now).Start().Add(-1))
		}
		for ; month.Next().Start().Before(tape.now); month = month.Next() {
			tape.askClose(p, month)
		}
	}
	tape.decide()
}

func erase(t *rapid.T, tape *tape, account string, at time.Time) {
	position := tape.ask(account, at, &events.AccountEraseRequested{})
	tape.decide()
	tape.remove(account, position, rapid.IntRange(0, 200).Draw(t, "removed"))
}

// all are the pairs that there are, found without Pairs: those with a request that was not erased.
func (t *tape) all(partition int) (pairs []replay.Pair) {
	p := t.partitions[partition]
	erasedAt := map[string]uint64{}
	for _, m := range p.decisions {
		if d, _ := events.DecodeDecision(m, partition); strings.HasSuffix(m.Subject, ".erased") {
			erasedAt[d.Account] = m.Sequence
		}
	}
	archived := events.Month("")
	for i, asked := range p.requests {
		pair := replay.Pair{Position: events.Position{Partition: partition, Sequence: uint64(i + 1)}, Asked: asked}
		pair.Request, _ = events.DecodeRequest(asked, partition, len(t.partitions))
		if asked.Void() || !asked.Remains() && asked.Sequence < erasedAt[pair.Request.Account] {
			continue
		}
		if pair.Decided.Sequence = asked.Sequence; i < len(p.decisions) {
			pair.Decided = p.decisions[i]
		}
		pair.Decision, _ = events.DecodeDecision(pair.Decided, partition)
		if !pair.Undecided() {
			pair.Month = capture.MonthOf(&pair.Decision, archived)
		}
		if closed, ok := pair.Decision.Body.(*events.MonthArchived); ok {
			archived = closed.Month
		}
		pairs = append(pairs, pair)
	}
	return pairs
}

func collect(t interface{ Fatal(...any) }, pairs iter.Seq2[replay.Pair, error]) (collected []replay.Pair) {
	for pair, err := range pairs {
		if err != nil {
			t.Fatal(err)
		}
		collected = append(collected, pair)
	}
	return collected
}

func filter(pairs []replay.Pair, keep func(*replay.Pair) bool) (kept []replay.Pair) {
	for _, p := range pairs {
		if keep(&p) {
			kept = append(kept, p)
		}
	}
	return kept
}

func mustBeSame(t interface{ Fatalf(string, ...any) }, what string, got, want []replay.Pair) {
	same := func(a, b replay.Pair) bool { return reflect.DeepEqual(a, b) }
	if !slices.EqualFunc(got, want, same) {
		t.Fatalf("%s gives\n%s\nwant\n%s", what, written(got), written(want))
	}
}

func written(pairs []replay.Pair) string {
	var b strings.Builder
	for _, p := range pairs {
		fmt.Fprintf(&b, "%s %s %s -> %s\n", p.Position, p.Month, p.Asked.Subject, p.Decided.Subject)
	}
	return b.String()
}

// TestPairsAreEveryRequestOnce holds pairs of ledgers against what is on the tape: every pair exactly once and in order,
// of an account, a stretch and a month exactly those of the whole that are meant.
func TestPairsAreEveryRequestOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		tape := drawTape(t)
		source := tape.source()
		for n := range tape.partitions {
			all := tape.all(n)
			head := uint64(len(tape.partitions[n].requests))
			mustBeSame(t, "the whole", collect(t, source.Pairs(t.Context(), n, "", 0, head)), all)
			after, last := rapid.Uint64Range(0, head).Draw(t, "after"), rapid.Uint64Range(0, head+3).Draw(t, "last")
			within := func(p *replay.Pair) bool { return p.Position.Sequence > after && p.Position.Sequence <= last }
			mustBeSame(t, "a stretch", collect(t, source.Pairs(t.Context(), n, "", after, last)), filter(all, within))
			for _, account := range append(someAccounts, "nobody") {
				mustBeSame(t, account, collect(t, source.Pairs(t.Context(), n, account, after, last)),
					filter(all, func(p *replay.Pair) bool { return within(p) && p.Request.Account == account }))
			}
			checkMonths(t, source, n, all)
			checkAccounts(t, tape, n, head)
		}
	})
}

// checkMonths holds the stretches of months against the whole.
func checkMonths(t *rapid.T, source replay.Source, n int, all []replay.Pair) {
	p, err := source.Partition(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	for month := events.Month("2025-10"); month < "2027-06"; month = month.Next() {
		after, last, err := p.Month(t.Context(), month)
		if err != nil {
			t.Fatal(err)
		}
		of := func(pair *replay.Pair) bool {
			return pair.Month == month || pair.Undecided() && p.OwnMonth(pair) == month
		}
		mustBeSame(t, string(month), filter(collect(t, p.Pairs(t.Context(), "", after, last)), of), filter(all, of))
		since, err := p.Since(t.Context(), month)
		if err != nil {
			t.Fatal(err)
		}
		for _, pair := range all {
			if pair.Position.Sequence <= since && (pair.Month >= month || !pair.Request.Time.Before(month.Start())) {
				t.Fatalf("%s of %s, asked %s, is not after %d, where %s is to begin", pair.Position, pair.Month, pair.Request.Time, since, month)
			}
		}
	}
}

// checkAccounts holds the parts of accounts in months against what was counted as they were decided.
func checkAccounts(t *rapid.T, tape *tape, n int, head uint64) {
	for _, account := range someAccounts {
		if events.PartitionOf(account, len(tape.partitions)) != n {
			continue
		}
		for month := events.Month("2025-10"); month < "2027-06"; month = month.Next() {
			got, err := tape.source().AccountMonth(t.Context(), account, month, 0, head)
			if err != nil || got.Broken != nil {
				t.Fatal(err, got.Broken)
			}
			want := capture.Tally{}
			if tally := tape.partitions[n].accounts[account][month]; tally != nil {
				want = *tally
			}
			if got.Tally != want {
				t.Fatalf("%s has in %s %+v, want %+v", account, month, got.Tally, want)
			}
		}
	}
}
