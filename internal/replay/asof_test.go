package replay_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"jobtally/internal/capture"
	"jobtally/internal/events"
	"jobtally/internal/replay"
)

// TestMonthAsOfIsWhatWasFolded holds months as of any position of ledgers against what the pairs up to there add up to,
// whatever was asked, archived or erased since.
func TestMonthAsOfIsWhatWasFolded(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		tape := drawTape(t)
		account := rapid.SampledFrom(someAccounts).Draw(t, "account")
		p := tape.partitions[events.PartitionOf(account, len(tape.partitions))]
		if len(p.decisions) == 0 {
			return
		}
		at := events.Position{Partition: p.number, Sequence: rapid.Uint64Range(1, uint64(len(p.decisions))).Draw(t, "at")}
		own := filter(tape.all(p.number), func(pair *replay.Pair) bool {
			return pair.Request.Account == account && pair.Position.Sequence <= at.Sequence
		})
		for month := events.Month("2025-10"); month < "2027-06"; month = month.Next() {
			want := countOf(own, month)
			got, err := tape.source().MonthAsOf(t.Context(), account, month, want.First.Sequence, at)
			if p.erasedAfter(account, at) {
				if !errors.Is(err, events.ErrNotFound) {
					t.Fatalf("%s of an account that was erased since: %v", month, err)
				}
				continue
			}
			if err != nil || got.Broken != nil {
				t.Fatalf("%s: %v, %v", month, err, got.Broken)
			}
			if got.Tally != want {
				t.Fatalf("%s at %s is\n%+v, want\n%+v", month, at, got.Tally, want)
			}
		}
	})
}

// countOf adds up a month of an account. Its erasure is in no month of it.
func countOf(pairs []replay.Pair, month events.Month) (count capture.Tally) {
	for _, p := range pairs {
		if _, erased := p.Decision.Body.(*events.AccountErased); !erased && p.Month == month {
			count.Add(&p.Decision)
		}
	}
	return count
}

func (p *tapePartition) erasedAfter(account string, at events.Position) bool {
	for _, m := range p.decisions[at.Sequence:] {
		d, err := events.DecodeDecision(m, p.number)
		if _, erased := d.Body.(*events.AccountErased); err == nil && erased && d.Account == account {
			return true
		}
	}
	return false
}

// aMonthOfAnna is a tape on which anna captures in a month before and in one after a closing.
func aMonthOfAnna() (*tape, events.Position) {
	november := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	tape := newTape(1, november)
	tape.ask("anna", november, &events.AccountOpenRequested{Plan: "free", Limit: 9})
	tape.ask("bob", november, &events.AccountOpenRequested{Plan: "free", Limit: 9})
	for job := range 5 {
		tape.ask("anna", november.AddDate(0, 0, job), captureOf(job, november))
		tape.ask("bob", november, captureOf(job, november))
	}
	tape.now = november.AddDate(0, 1, 0)
	closeMonths(tape)
	tape.decide()
	last := tape.ask("anna", tape.now, captureOf(8, tape.now))
	tape.decide()
	return tape, last
}

func TestMonthAsOfCountsWhatItReads(t *testing.T) {
	t.Parallel()
	tape, at := aMonthOfAnna()
	sum, err := tape.source().MonthAsOf(t.Context(), "anna", "2026-11", 1, at)
	if err != nil || sum.Broken != nil {
		t.Fatal(err, sum.Broken)
	}
	if sum.After != 0 || sum.Last != 13 || sum.Messages != 2*6 || sum.Captured != 5 || !maps.Equal(sum.Via, map[string]int64{"api": 3, "extension": 2}) {
		t.Errorf("November is %+v", sum)
	}
	if want := []replay.Day{{Date: "2026-11-22", Captured: 1}, {Date: "2026-11-23", Captured: 1}}; !reflect.DeepEqual(sum.Days[:2], want) {
		t.Errorf("its days are %v", sum.Days)
	}
}

// A projection that lost its row of a month asks for it without knowing where it begins, and is told all of it.
func TestMonthAsOfFindsWhatAProjectionLost(t *testing.T) {
	t.Parallel()
	tape, at := aMonthOfAnna()
	for month, captured := range map[events.Month]int64{"2026-10": 0, "2026-11": 5, "2026-12": 1} {
		if sum, err := tape.source().MonthAsOf(t.Context(), "anna", month, 0, at); err != nil || sum.Captured != captured {
			t.Errorf("%s: %d captured, %v, want %d", month, sum.Captured, err, captured)
		}
	}
}

func TestMonthAsOfSaysWhatIsBroken(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(*tapePartition){
		"a request that is missing":  func(p *tapePartition) { p.requests[4] = events.Message{Sequence: 5} },
		"a decision that is missing": func(p *tapePartition) { p.decisions[4] = events.Message{Sequence: 5} },
		"a decision that was changed": func(p *tapePartition) {
			m := &p.decisions[4]
			m.Header = maps.Clone(m.Header)
			m.Header["ce-digest"] = []string{fmt.Sprintf("%064d", 1)}
		},
	} {
		tape, at := aMonthOfAnna()
		harm(tape.partitions[0])
		if sum, err := tape.source().MonthAsOf(t.Context(), "anna", "2026-11", 1, at); err != nil || sum.Broken == nil {
			t.Errorf("%s: broken %v, error %v", name, sum.Broken, err)
		}
	}
}

// What the ledger does not have yet says nothing of a projection that is ahead of it.
func TestMonthAsOfWaitsForTheLedger(t *testing.T) {
	t.Parallel()
	tape, at := aMonthOfAnna()
	at.Sequence++
	if _, err := tape.source().MonthAsOf(t.Context(), "anna", "2026-12", 0, at); !errors.Is(err, events.ErrUnavailable) {
		t.Errorf("error %v", err)
	}
}

// An account that is erased while its month is read is gone, and no mismatch.
func TestMonthAsOfOfAnAccountThatIsErasedMeanwhile(t *testing.T) {
	t.Parallel()
	tape, at := aMonthOfAnna()
	source := tape.source()
	readTo, erased := source.ReadTo, false
	source.ReadTo = func(ctx context.Context, stream events.Stream, partition int, subjects []string, after, last uint64) iter.Seq2[[]events.Message, error] {
		if len(subjects) > 0 && subjects[0] == events.Requests.SubjectOf("anna", 0) && !erased {
			erased = true
			position := tape.ask("anna", tape.now, &events.AccountEraseRequested{})
			tape.decide()
			tape.remove("anna", position, 5)
		}
		return readTo(ctx, stream, partition, subjects, after, last)
	}
	if sum, err := source.MonthAsOf(t.Context(), "anna", "2026-11", 1, at); !errors.Is(err, events.ErrNotFound) || !erased {
		t.Errorf("%+v, error %v", sum.Tally, err)
	}
}

// aLongMonthOfAnna is a tape on which anna captures much in a month that is archived, and once after midnight before it is.
func aLongMonthOfAnna() (*tape, events.Position) {
	november := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	tape := newTape(1, november)
	for _, account := range []string{"anna", "bob"} {
		tape.ask(account, november, &events.AccountOpenRequested{Plan: "free", Limit: 9})
	}
	for job := range 2000 {
		tape.ask("anna", november, captureOf(job, november))
	}
	tape.now = november.AddDate(0, 0, 10)
	tape.ask("anna", tape.now, captureOf(2000, tape.now))
	tape.ask("bob", tape.now, captureOf(2000, tape.now))
	closeMonths(tape)
	return tape, tape.ask("anna", tape.now, captureOf(2001, tape.now))
}

// Of an open month the archived ones are not read, wherever the projection says that it begins.
func TestMonthAsOfOfAnOpenMonthReadsLittle(t *testing.T) {
	t.Parallel()
	tape, at := aLongMonthOfAnna()
	tape.decide()
	for _, first := range []uint64{0, 1, 2003, at.Sequence} {
		tape.read = 0
		sum, err := tape.source().MonthAsOf(t.Context(), "anna", "2026-12", first, at)
		if err != nil || sum.Broken != nil || sum.Requests != 2 || sum.First.Sequence != 2003 {
			t.Fatalf("first at %d: %+v, %v", first, sum, err)
		}
		if sum.Messages != 4 || tape.read > 100 {
			t.Errorf("first at %d: read %d messages of the account, %d in all", first, sum.Messages, tape.read)
		}
	}
}

// Where pairs of the open month were erased their place is not known. All are found nevertheless.
func TestMonthAsOfOfAnOpenMonthAfterAnErasure(t *testing.T) {
	t.Parallel()
	tape, at := aLongMonthOfAnna()
	position := tape.ask("bob", tape.now, &events.AccountEraseRequested{})
	tape.decide()
	tape.remove("bob", position, 4)
	if sum, err := tape.source().MonthAsOf(t.Context(), "anna", "2026-12", 0, at); err != nil || sum.Broken != nil || sum.Requests != 2 {
		t.Errorf("%+v, %v", sum, err)
	}
}

// No more is read of an account than a client can wait for.
func TestMonthAsOfIsBounded(t *testing.T) {
	t.Parallel()
	tape, at := aMonthOfAnna()
	source := tape.source()
	readTo := source.ReadTo
	source.ReadTo = func(ctx context.Context, stream events.Stream, partition int, subjects []string, after, last uint64) iter.Seq2[[]events.Message, error] {
		if !slices.Equal(subjects, []string{events.Requests.SubjectOf("anna", 0)}) {
			return readTo(ctx, stream, partition, subjects, after, last)
		}
		return func(yield func([]events.Message, error) bool) { yield(make([]events.Message, 250_001), nil) }
	}
	for _, month := range []events.Month{"2026-11", "2026-12"} {
		if _, err := source.MonthAsOf(t.Context(), "anna", month, 1, at); !errors.Is(err, capture.ErrMonthTooLarge) {
			t.Errorf("%s: error %v", month, err)
		}
	}
}
