package replay_test

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/events"
	"jobtally/internal/replay"
)

// tape is a ledger in memory that is asked and decided by the real rules, with months closed and accounts erased.
type tape struct {
	partitions []*tapePartition
	batch      int // messages that are yielded at once
	read       int // messages that were yielded
	now        time.Time
}

type tapePartition struct {
	number    int
	requests  []events.Message // void where erased
	decisions []events.Message
	state     *capture.State
	totals    map[events.Month]*capture.Tally
	accounts  map[string]map[events.Month]*capture.Tally // of what is not erased
	of        map[string]int64                           // requests of an account that an erasure would remove
}

func newTape(partitions int, now time.Time) *tape {
	t := &tape{batch: 7, now: now}
	for n := range partitions {
		t.partitions = append(t.partitions, &tapePartition{
			number: n, state: capture.NewState(), totals: map[events.Month]*capture.Tally{},
			accounts: map[string]map[events.Month]*capture.Tally{}, of: map[string]int64{},
		})
	}
	return t
}

// ask appends a request at a time that a node's clock says it is.
func (t *tape) ask(account string, at time.Time, body events.RequestBody) events.Position {
	n := len(t.partitions[events.PartitionOf(account, len(t.partitions))].requests)
	return t.again(account, fmt.Sprintf("request-%d", n+1), at, body)
}

// again appends a request under an id.
func (t *tape) again(account, id string, at time.Time, body events.RequestBody) events.Position {
	p := t.partitions[events.PartitionOf(account, len(t.partitions))]
	r := events.Request{Account: account, ID: id, Time: at.UTC(), Body: body}
	return p.add(r.Message(len(t.partitions)))
}

// askClose appends the request for a month of a partition to be closed.
func (t *tape) askClose(p *tapePartition, month events.Month) {
	r := events.Request{
		ID: "month-close-" + string(month), Time: t.now, Body: &events.MonthCloseRequested{Month: month},
		Position: events.Position{Partition: p.number},
	}
	p.add(r.Message(len(t.partitions)))
}

func (p *tapePartition) add(m events.Message) events.Position {
	m.Sequence = uint64(len(p.requests) + 1)
	p.requests = append(p.requests, m)
	return events.Position{Partition: p.number, Sequence: m.Sequence}
}

func captureOf(job int, at time.Time) *events.JobCaptureRequested {
	url := fmt.Sprintf("https://example.com/jobs/%d", job)
	return &events.JobCaptureRequested{
		Month: events.MonthOf(at), CanonicalURL: url, SourceRules: 1, PayloadHash: events.Hash([]byte(url)),
		Job: events.Job{SourceURL: url, Title: fmt.Sprint("Job ", job), Status: "saved", CapturedVia: events.CapturedVia()[job%2]},
	}
}

// decide decides everything that is undecided.
func (t *tape) decide() {
	for _, p := range t.partitions {
		for len(p.decisions) < len(p.requests) {
			p.decideNext(len(t.partitions))
		}
	}
}

func (p *tapePartition) decideNext(partitions int) {
	r, err := events.DecodeRequest(p.requests[len(p.decisions)], p.number, partitions)
	if err != nil {
		panic(err)
	}
	p.state.Closing, p.state.Erasing = nil, nil
	switch b := r.Body.(type) {
	case *events.MonthCloseRequested:
		p.state.Closing = p.closing(b.Month)
	case *events.AccountEraseRequested:
		p.state.Erasing = p.erasing(r.Account)
	}
	archived := p.state.Archived
	d := capture.Decide(p.state, &r)
	p.state.Fold(&d)
	p.decisions = append(p.decisions, d.Message())
	p.count(&d, archived)
}

func (p *tapePartition) count(d *events.Decision, archived events.Month) {
	if _, closed := d.Body.(*events.MonthArchived); closed {
		return
	}
	month := capture.MonthOf(d, archived)
	if p.totals[month] == nil {
		p.totals[month] = &capture.Tally{}
	}
	p.totals[month].Add(d)
	if _, erased := d.Body.(*events.AccountErased); erased {
		return // it counts in no account
	}
	p.of[d.Account]++
	if p.accounts[d.Account] == nil {
		p.accounts[d.Account] = map[events.Month]*capture.Tally{}
	}
	if p.accounts[d.Account][month] == nil {
		p.accounts[d.Account][month] = &capture.Tally{}
	}
	p.accounts[d.Account][month].Add(d)
}

func (p *tapePartition) closing(month events.Month) *events.MonthArchived {
	var leaves capture.Leaves
	for _, account := range slices.Sorted(maps.Keys(p.accounts)) {
		if tally := p.accounts[account][month]; tally != nil {
			leaves.Add(tally.Leaf(account, month))
		}
	}
	var totals capture.Tally
	if tally := p.totals[month]; tally != nil {
		totals = *tally
	}
	return leaves.Archive(month, totals.Totals)
}

func (p *tapePartition) erasing(account string) *events.AccountErased {
	erased := &events.AccountErased{Requests: p.of[account], Months: []events.ErasedMonth{}}
	for _, month := range slices.Sorted(maps.Keys(p.accounts[account])) {
		tally := p.accounts[account][month]
		erased.Months = append(erased.Months, events.ErasedMonth{Month: month, Totals: tally.Totals, Leaf: tally.Leaf(account, month)})
	}
	delete(p.of, account)
	delete(p.accounts, account)
	return erased
}

// remove removes messages of an account before its erasure, as far as it gets: so many of its decisions, and then of its
// requests.
func (t *tape) remove(account string, before events.Position, most int) {
	p := t.partitions[before.Partition]
	for _, stream := range [][]events.Message{p.decisions, p.requests} {
		for i := range stream {
			m := &stream[i]
			if m.Sequence < before.Sequence && strings.Contains(m.Subject, "."+account+".") && !m.Remains() && most > 0 {
				*m, most = events.Message{Sequence: m.Sequence}, most-1
			}
		}
	}
}

func (t *tape) source() replay.Source {
	return replay.Source{ID: "tape", Partitions: len(t.partitions), Heads: t.heads, ReadTo: t.readTo}
}

func (t *tape) heads(_ context.Context, partition int) (events.Heads, error) {
	p := t.partitions[partition]
	return events.Heads{Requests: uint64(len(p.requests)), Decisions: uint64(len(p.decisions))}, nil
}

func (t *tape) readTo(_ context.Context, stream events.Stream, partition int, subjects []string, after, last uint64) iter.Seq2[[]events.Message, error] {
	messages := t.partitions[partition].requests
	if stream == events.Decisions {
		messages = t.partitions[partition].decisions
	}
	return func(yield func([]events.Message, error) bool) {
		var batch []events.Message
		for _, m := range messages[min(after, uint64(len(messages))):] {
			if m.Sequence > last {
				break
			}
			if m.Void() || !under(m.Subject, subjects) {
				continue
			}
			t.read++
			if batch = append(batch, m); len(batch) == t.batch {
				if !yield(batch, nil) {
					return
				}
				batch = nil
			}
		}
		if len(batch) > 0 {
			yield(batch, nil)
		}
	}
}

func under(subject string, filters []string) bool {
	return len(filters) == 0 || slices.ContainsFunc(filters, func(filter string) bool {
		return slices.EqualFunc(strings.Split(subject, "."), strings.Split(filter, "."), func(token, want string) bool {
			return want == "*" || token == want
		})
	})
}
