package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/node"
	"jobtally/internal/projections"
)

// foldBatch is how many decisions are folded in one transaction: as many as a projector reads at once.
const foldBatch = 512

// ledgerRows are those of the fold and of deciding again, on the first part of the full ledger.
func (s *suite) ledgerRows() []row {
	return []row{
		{
			name: "fold", what: fmt.Sprintf("fold of %d decisions", s.size.decisions), unit: "/s",
			goal: goal{leastRatio: 0.8, leastValue: 25_000}, measure: s.fold, baseline: s.rawInserts,
			against: fmt.Sprintf("prepared INSERTs through database/sql on one pinned connection of exactly the rows that the fold leaves, each once and without any checking, into a file with the same schema and pragmas, a transaction for each %d decisions; rows are read, and decisions decoded, off the clock", foldBatch),
		},
		{
			name: "redecide", what: fmt.Sprintf("re-decide of %d requests, each compared with its decision", s.size.decisions), unit: "/s",
			goal: goal{leastRatio: 0.5}, measure: s.redecide, baseline: s.rawReads,
			against: "reading both streams in order with the client library alone, side by side, decoding nothing",
		},
		{
			name: "replay", what: fmt.Sprintf("replay of %d pairs of request and decision", s.size.decisions), unit: "/s",
			measure: s.replay, baseline: s.rawReads,
			against: "the same",
		},
		{
			name: "audit", what: fmt.Sprintf("audit of a ledger of %d accounts, decisions and rows", s.size.accounts), unit: "requests/s",
			measure: s.audit,
		},
	}
}

// fold folds the first decisions of the full ledger into a fresh projection. Only Apply is on the clock.
func (s *suite) fold(ctx context.Context) (result sample, err error) {
	if _, err := s.million(ctx); err != nil {
		return result, err
	}
	dir, remove := s.scratch.fresh("fold")
	defer func() { err = errors.Join(err, remove()) }()
	if err := makeDir(dir); err != nil {
		return result, err
	}
	if s.inProcess {
		p := s.newProfile("fold")
		p.start()
		defer func() { err = errors.Join(err, p.stop()) }()
	}
	return s.foldInto(ctx, filepath.Join(dir, node.ProjectionFile))
}

func (s *suite) foldInto(ctx context.Context, path string) (result sample, err error) {
	d, err := s.million(ctx)
	if err != nil {
		return result, err
	}
	from, err := projections.Open(filepath.Join(d.path, node.ProjectionFile), d.ledgerID, 1)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	into, err := projections.Open(path, d.ledgerID, 1)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, into.Close()) }()
	spent, err := s.applyAll(ctx, from, into)
	return sample{value: float64(s.size.decisions) / spent.Seconds()}, err
}

// applyAll returns how long Apply took.
func (s *suite) applyAll(ctx context.Context, from, into *projections.DB) (spent time.Duration, err error) {
	for done := 0; done < s.size.decisions; {
		var decisions []events.Decision
		aside(ctx, func() { decisions, err = from.Decisions(ctx, 0, uint64(done), min(foldBatch, s.size.decisions-done)) })
		if err = errors.Join(err, ctx.Err()); err != nil {
			return spent, err
		}
		if len(decisions) == 0 {
			return spent, fmt.Errorf("the ledger has only %d decisions", done)
		}
		began := time.Now()
		if err := into.Apply(0, decisions); err != nil {
			return spent, err
		}
		spent += time.Since(began)
		done += len(decisions)
	}
	return spent, nil
}

// foldedFile is a projection of the first decisions of the full ledger: the rows that the baseline inserts.
func (s *suite) foldedFile(ctx context.Context) (string, error) {
	if s.folded != "" {
		return s.folded, nil
	}
	dir, _ := s.scratch.fresh("folded")
	if err := makeDir(dir); err != nil {
		return "", err
	}
	path := filepath.Join(dir, node.ProjectionFile)
	if _, err := s.foldInto(ctx, path); err != nil {
		return "", err
	}
	s.folded = path
	return path, nil
}
