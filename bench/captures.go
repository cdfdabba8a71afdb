package main

import (
	"context"
	"fmt"
	"time"
)

// captureRows are those of POST /api/jobs on a ledger that holds little.
func (s *suite) captureRows() []row {
	distinct := func(ctx context.Context) (sample, error) { return s.distinctCaptures(ctx, 64) }
	return []row{
		s.distinctRow(64, 5_000),
		s.distinctRow(256, 10_000),
		s.singleRow(),
		{
			name: "duplicates", what: "captures, 64 connections, every one a duplicate", unit: "/s",
			against: "captures of distinct postings at 64 connections", goal: goal{leastRatio: 1},
			measure: s.duplicateCaptures, baseline: distinct,
		},
		{
			name: "rejected", what: "captures, 64 connections, every one rejected", unit: "/s",
			against: "captures of distinct postings at 64 connections", goal: goal{leastRatio: 1},
			measure: s.rejectedCaptures, baseline: distinct,
		},
	}
}

func (s *suite) distinctRow(connections int, least float64) row {
	return row{
		name: fmt.Sprintf("captures-%d", connections),
		what: fmt.Sprintf("durable captures, %d connections, distinct URLs over %d accounts", connections, s.size.accounts),
		unit: "/s", goal: goal{leastRatio: 0.5, leastValue: least},
		against:  fmt.Sprintf("the same messages, encoded beforehand, appended as fsynced atomic batches of %d, one in flight, to a fresh embedded nats-server with the streams of a ledger", connections),
		measure:  func(ctx context.Context) (sample, error) { return s.distinctCaptures(ctx, connections) },
		baseline: func(ctx context.Context) (sample, error) { return s.rawAppends(ctx, connections) },
	}
}

// singleRow compares medians of latency: its values are in milliseconds.
func (s *suite) singleRow() row {
	median := func(result sample, err error) (sample, error) {
		result.value = float64(result.p50) / float64(time.Millisecond)
		return result, err
	}
	return row{
		name: "captures-1", what: "durable captures, 1 connection, p50", unit: "ms", goal: goal{mostRatio: 2.5},
		against:  "p50 of one fsynced publish of the same message to a fresh embedded nats-server, one after another",
		measure:  func(ctx context.Context) (sample, error) { return median(s.distinctCaptures(ctx, 1)) },
		baseline: func(ctx context.Context) (sample, error) { return median(s.rawAppends(ctx, 1)) },
	}
}

// distinctCaptures captures postings that no account has, on a copy of the nearly empty ledger.
func (s *suite) distinctCaptures(ctx context.Context, connections int) (result sample, err error) {
	d, err := s.accounts(ctx)
	if err != nil {
		return result, err
	}
	held := make([]int, len(d.accounts))
	err = s.withCopy(ctx, d.path, func(running *service) (err error) {
		result, err = s.captureAll(ctx, running, d, held, connections)
		return err
	})
	return result, err
}

// captureAll captures distinct postings and then compares the quotas with what each account held before and captured.
func (s *suite) captureAll(ctx context.Context, running *service, d *ledgerDir, held []int, connections int) (sample, error) {
	first := s.newSerials()
	l, err := s.captureLoad(running, d, connections, 201, func(n int) int { return first + n })
	if err != nil {
		return sample{}, err
	}
	r, err := s.profiled(ctx, fmt.Sprintf("captures-%d", connections), l)
	if err != nil {
		return r.sample, err
	}
	return r.sample, checkQuotas(running.addr, l.tokens, held, r.sent)
}

func (s *suite) captureLoad(running *service, d *ledgerDir, connections, status int, serial func(int) int) (*load, error) {
	form, err := captureForm()
	return &load{
		addr: running.addr, connections: connections, warmup: s.size.warmup, window: s.size.window,
		form: form, tokens: d.tokens(), serial: serial, status: status,
	}, err
}

// duplicateCaptures captures the one posting that each account has.
func (s *suite) duplicateCaptures(ctx context.Context) (sample, error) {
	accounts := s.size.accounts
	return s.uncounted(ctx, 200, func(n int) int { return n % accounts })
}

// rejectedCaptures captures new postings for accounts whose quota is used up.
func (s *suite) rejectedCaptures(ctx context.Context) (sample, error) {
	first := s.newSerials()
	return s.uncounted(ctx, 403, func(n int) int { return first + n })
}

// uncounted captures what is not to be counted, and asserts that it was not.
func (s *suite) uncounted(ctx context.Context, status int, serial func(int) int) (result sample, err error) {
	d, err := s.atLimit(ctx)
	if err != nil {
		return result, err
	}
	err = s.withCopy(ctx, d.path, func(running *service) error {
		l, err := s.captureLoad(running, d, 64, status, serial)
		if err != nil {
			return err
		}
		r, err := l.run(ctx)
		if err != nil {
			return err
		}
		result = r.sample
		held := append([]int(nil), d.held...)
		return checkQuotas(running.addr, l.tokens, held, 0)
	})
	return result, err
}
