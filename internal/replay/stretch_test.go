package replay_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/replay"
)

// quarter is a ledger of three archived months and an open one, with as many accounts and captures of each in a month.
func quarter(accounts, captures int) *tape {
	tape := newTape(1, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	for a := range accounts {
		tape.ask(fmt.Sprint("account-", a), tape.now, &events.AccountOpenRequested{Plan: "free", Limit: int64(captures)})
	}
	tape.decide()
	for month := range 4 {
		tape.now = time.Date(2026, time.Month(month+1), 1, 0, 0, 30, 0, time.UTC)
		tape.ask("account-0", tape.now, captureOf(1000*month, tape.now)) // before the month before is closed
		tape.now = tape.now.AddDate(0, 0, 2)
		if month > 0 {
			tape.close(events.MonthOf(tape.now.AddDate(0, -1, 0)))
		}
		for n := range captures {
			for a := range accounts {
				tape.now = tape.now.Add(time.Minute)
				tape.ask(fmt.Sprint("account-", a), tape.now, captureOf(1000*month+n, tape.now))
			}
		}
		tape.decide()
	}
	return tape
}

func (t *tape) close(month events.Month) {
	t.decide()
	for _, p := range t.partitions {
		t.askClose(p, month)
	}
	t.decide()
}

// TestAMonthReadsLittleMoreThanItself counts what is read for a month, of an account and of all, archived and open.
func TestAMonthReadsLittleMoreThanItself(t *testing.T) {
	t.Parallel()
	const accounts, captures, archives = 20, 30, 3
	tape := quarter(accounts, captures)
	for _, c := range []struct {
		month        events.Month
		account      string
		pairs, extra int
	}{
		{"2026-02", "", accounts*captures + 2, 2}, // the closing of January and an early capture of March are in between
		{"2026-02", "account-7", captures, 0},
		{"2026-02", "account-0", captures + 1, 1},        // its early capture of March
		{"2026-04", "", accounts*captures + 1, 66/2 + 1}, // the decisions among which early ones are looked for; a closing
		{"2026-04", "account-7", captures, 66 / 2},
		{"2026-04", "account-0", captures + 1, 66 / 2},
	} {
		tape.read = 0
		p, err := tape.source().Partition(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		after, last, err := p.Month(t.Context(), c.month)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, pair := range collect(t, p.Pairs(t.Context(), c.account, after, last)) {
			if pair.Month == c.month {
				found++
			}
		}
		if most := archives + 2*(c.pairs+c.extra); found != c.pairs || tape.read > most {
			t.Errorf("%s of %q: %d pairs and %d messages read, want %d and at most %d", c.month, c.account, found, tape.read, c.pairs, most)
		}
	}
}

// TestTheOpenMonthIsFoundBehindAClockThatWasFarAhead has a node whose clock was a month ahead.
func TestTheOpenMonthIsFoundBehindAClockThatWasFarAhead(t *testing.T) {
	t.Parallel()
	tape := newTape(1, time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC))
	tape.ask("anna", tape.now, &events.AccountOpenRequested{Plan: "free", Limit: -1})
	ahead := tape.ask("anna", tape.now.AddDate(0, 1, 0), captureOf(1, tape.now.AddDate(0, 1, 0)))
	for job := range 500 {
		tape.ask("bob", tape.now, captureOf(job, tape.now))
	}
	tape.now = tape.now.AddDate(0, 1, 0)
	tape.close("2026-01")
	p, err := tape.source().Partition(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if after, _, err := p.Month(t.Context(), "2026-02"); err != nil || after != ahead.Sequence-1 {
		t.Errorf("February begins after %d, %v, want %d", after, err, ahead.Sequence-1)
	}
}

func TestAccountMonthFollowsTheChain(t *testing.T) {
	t.Parallel()
	tape := quarter(2, 5)
	decisions := tape.partitions[0].decisions
	broken := func(after uint64) error {
		month, err := tape.source().AccountMonth(t.Context(), "account-1", "2026-02", after, 1000)
		if err != nil {
			t.Fatal(err)
		}
		return month.Broken
	}
	if err := broken(0); err != nil {
		t.Error(err)
	}
	for i, m := range decisions {
		if !strings.Contains(m.Subject, ".account-1.") {
			continue
		}
		d, err := events.DecodeDecision(m, 0)
		if err != nil {
			t.Fatal(err)
		}
		d.Seal(events.Hash([]byte("another decision before")))
		decisions[i] = d.Message()
		if err := broken(0); err == nil || !strings.Contains(err.Error(), d.Position.String()) {
			t.Errorf("with another decision at %s: %v", d.Position, err)
		}
		if err := broken(d.Position.Sequence); err != nil {
			t.Errorf("after %s: %v", d.Position, err)
		}
		decisions[i] = m
	}
}

func TestAMissingMessageIsNoErasure(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what   string
		remove func(*tapePartition)
		says   string
	}{
		{"a decision", func(p *tapePartition) { p.decisions[7] = events.Message{Sequence: 8} }, "decision 0-8 is missing"},
		{"a request", func(p *tapePartition) { p.requests[7] = events.Message{Sequence: 8} }, "request 0-8 is missing"},
		{"both", func(p *tapePartition) {
			p.requests[7], p.decisions[7] = events.Message{Sequence: 8}, events.Message{Sequence: 8}
		}, "1 requests of partition 0 are missing"},
	} {
		tape := quarter(2, 5)
		c.remove(tape.partitions[0])
		var failed error
		for _, err := range tape.source().Pairs(t.Context(), 0, "", 0, 1000) {
			failed = err
		}
		if !errors.Is(failed, events.ErrGap) || !strings.Contains(failed.Error(), c.says) {
			t.Errorf("without %s: %v", c.what, failed)
		}
	}
}

func TestPairsEndWithTheContext(t *testing.T) {
	t.Parallel()
	tape := quarter(2, 5)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	var failed error
	for _, err := range tape.source().Pairs(ctx, 0, "", 0, 1000) {
		if n++; n == 3 {
			cancel()
		}
		failed = err
	}
	if !errors.Is(failed, context.Canceled) {
		t.Errorf("after %d pairs: %v", n, failed)
	}
}

func TestFirstMonth(t *testing.T) {
	t.Parallel()
	tape := newTape(2, time.Date(2026, 3, 5, 0, 0, 0, 0, time.UTC))
	first := func(partition int) events.Month {
		p, err := tape.source().Partition(t.Context(), partition)
		if err != nil {
			t.Fatal(err)
		}
		month, err := p.First(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return month
	}
	partition := events.PartitionOf("anna", 2)
	if month := first(partition); month != "" {
		t.Errorf("of nothing: %s", month)
	}
	position := tape.ask("anna", tape.now, &events.AccountOpenRequested{Plan: "free", Limit: 3})
	if month := first(partition); month != "2026-03" {
		t.Errorf("of an undecided request: %s", month)
	}
	tape.now = tape.now.AddDate(0, 2, 0)
	tape.close("2026-03")
	erased := tape.ask("anna", tape.now, &events.AccountEraseRequested{})
	tape.decide()
	tape.remove("anna", erased, 9)
	if month := first(partition); month != "2026-03" || !tape.partitions[partition].requests[position.Sequence-1].Void() {
		t.Errorf("of an erased account: %s", month)
	}
	if month := first(1 - partition); month != "2026-03" {
		t.Errorf("of a closed month without requests: %s", month)
	}
}

func TestAccountMonthAddsUpItsPairs(t *testing.T) {
	t.Parallel()
	tape := newTape(4, time.Date(2026, 1, 31, 23, 0, 0, 0, time.UTC))
	at := func(text string) time.Time {
		parsed, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	tape.ask("anna", at("2026-01-01T00:00:00Z"), &events.AccountOpenRequested{Plan: "free", Limit: 3})
	tape.ask("anna", at("2026-01-02T10:00:00Z"), captureOf(1, at("2026-01-02T10:00:00Z")))
	tape.now = at("2026-02-01T00:10:00Z")
	tape.close("2026-01")
	late := tape.ask("anna", at("2026-01-31T23:59:59Z"), captureOf(2, at("2026-01-31T23:59:59Z")))
	tape.ask("anna", at("2026-02-03T23:59:59Z"), captureOf(1, at("2026-02-03T23:59:59Z"))) // a duplicate
	tape.again("anna", "key", at("2026-02-04T00:00:00Z"), captureOf(3, at("2026-02-04T00:00:00Z")))
	tape.again("anna", "key", at("2026-02-04T00:00:01Z"), captureOf(3, at("2026-02-04T00:00:01Z"))) // a repeat
	tape.ask("anna", at("2026-02-04T01:00:00+02:00"), captureOf(4, at("2026-02-03T23:00:00Z")))
	tape.ask("anna", at("2026-02-05T00:00:00Z"), captureOf(5, at("2026-02-05T00:00:00Z"))) // rejected
	last := tape.ask("anna", at("2026-02-06T00:00:00Z"), &events.PlanChangeRequested{Plan: "pro", Limit: 9})
	tape.decide()
	tape.ask("anna", at("2026-02-07T00:00:00Z"), captureOf(6, at("2026-02-07T00:00:00Z"))) // undecided

	want := replay.Month{
		Days: []replay.Day{
			{Date: "2026-01-31", Captured: 1}, {Date: "2026-02-03", Captured: 1, Duplicated: 1},
			{Date: "2026-02-04", Captured: 1}, {Date: "2026-02-05", Rejected: 1},
		},
		Via: map[string]int64{"api": 2, "extension": 1},
	}
	want.Totals = events.Totals{Requests: 7, Captured: 3, Duplicated: 1, Rejected: 1, Repeated: 1, First: late, Last: last}
	want.Digest = tape.partitions[last.Partition].accounts["anna"]["2026-02"].Digest
	for _, after := range []uint64{0, 1, 2, late.Sequence - 1} {
		got, err := tape.source().AccountMonth(t.Context(), "anna", "2026-02", after, 1000)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("after %d: %+v, %v\nwant %+v", after, got, err, want)
		}
	}
	if got, err := tape.source().AccountMonth(t.Context(), "anna", "2026-03", 0, 1000); err != nil || got.Requests != 0 || got.Days != nil {
		t.Errorf("of a month without requests: %+v, %v", got, err)
	}
}

// TestAPartitionStaysAsItWas has a month closed and an account erased while a partition is read.
func TestAPartitionStaysAsItWas(t *testing.T) {
	t.Parallel()
	tape := newTape(1, time.Date(2026, 1, 20, 0, 0, 0, 0, time.UTC))
	for _, account := range []string{"anna", "bob"} {
		tape.ask(account, tape.now, &events.AccountOpenRequested{Plan: "free", Limit: 9})
	}
	tape.decide()
	tape.ask("anna", tape.now, captureOf(1, tape.now))
	tape.now = tape.now.AddDate(0, 1, 0)
	p, err := tape.source().Partition(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	before := tape.all(0)

	tape.close("2026-01")
	tape.ask("bob", tape.now.AddDate(0, -1, 0), &events.PlanChangeRequested{Plan: "pro", Limit: 10})
	tape.decide()
	mustBeSame(t, "after a month was closed", collect(t, p.Pairs(t.Context(), "", 0, 1000)), before)
	if after, last, err := p.Month(t.Context(), "2026-01"); err != nil || after != 0 || last != 3 {
		t.Errorf("January lies after %d up to %d, %v", after, last, err)
	}

	erased := tape.ask("anna", tape.now, &events.AccountEraseRequested{})
	tape.decide()
	ofBob := filter(before, func(p *replay.Pair) bool { return p.Request.Account == "bob" })
	for _, removed := range []int{1, 100} {
		tape.remove("anna", erased, removed)
		mustBeSame(t, "while an account is erased", collect(t, p.Pairs(t.Context(), "", 0, 1000)), ofBob)
	}
}
