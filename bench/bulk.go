package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/node"
)

const (
	// asking is how many requests are under way at once in a bulk: enough for full batches, and below the bounds at
	// which a node refuses.
	asking = 2048
	// bulkTimeout bounds the making of one data directory.
	bulkTimeout = 30 * time.Minute
)

// ledgerDir is a data directory that the bench made, without a service on it.
type ledgerDir struct {
	path     string
	ledgerID string
	accounts []account
	held     []int // captures that each account has
}

// plan says what is put into a data directory: so many accounts, each with a token and so many jobs.
type plan struct {
	accounts, jobsEach int
	limit              int64 // captures a month of each account
	blocks             int   // the accounts come in so many blocks, each followed by the jobs of its accounts

	posting func(serial int) events.Job // what is captured; posting, unless given
}

// build makes a data directory by appending requests through a node, as a service would, but not over HTTP. The jobs
// of an account have the serial numbers account + k * accounts.
func (p plan) build(ctx context.Context, path string, progress func(string)) (d *ledgerDir, err error) {
	ctx, cancel := context.WithTimeout(ctx, bulkTimeout)
	defer cancel()
	n, err := node.Start(ctx, node.Config{Dir: path, Decides: true, Log: quiet()})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	d = &ledgerDir{path: path, ledgerID: n.Ledger.ID, held: make([]int, p.accounts)}
	for i := range p.accounts {
		d.accounts, d.held[i] = append(d.accounts, newAccount(i)), p.jobsEach
	}
	size := (p.accounts + p.blocks - 1) / p.blocks
	for first := 0; first < p.accounts; first += size {
		b := bulk{node: n, plan: p, accounts: d.accounts, first: first, count: min(size, p.accounts-first)}
		if err := b.add(ctx); err != nil {
			return nil, err
		}
		progress(fmt.Sprintf("%s: %d of %d accounts, %d jobs", p, first+b.count, p.accounts, (first+b.count)*p.jobsEach))
	}
	return d, nil
}

func (p plan) job(serial int) events.Job {
	if p.posting == nil {
		return posting(serial)
	}
	return p.posting(serial)
}

// String names the plan.
func (p plan) String() string {
	return fmt.Sprintf("building a ledger of %d accounts with %d jobs each", p.accounts, p.jobsEach)
}

func (d *ledgerDir) tokens() []string {
	tokens := make([]string, len(d.accounts))
	for i, a := range d.accounts {
		tokens[i] = a.token.Reveal()
	}
	return tokens
}

// bulk is one block of accounts that is being added.
type bulk struct {
	node         *node.Node
	plan         plan
	accounts     []account
	first, count int
}

// add opens the accounts, issues their tokens, and captures their jobs, each step after the one before it is decided.
func (b bulk) add(ctx context.Context) error {
	now := time.Now()
	at := func(i int) account { return b.accounts[b.first+i%b.count] }
	opened := askAll(ctx, b.node, b.count, "opened", func(i int) (*events.Request, error) {
		return newRequest(at(i).name, "open", now, &events.AccountOpenRequested{Plan: "bench", Limit: b.plan.limit}), nil
	})
	if opened != nil {
		return opened
	}
	issued := askAll(ctx, b.node, b.count, "token_issued", func(i int) (*events.Request, error) {
		t := at(i).token
		return newRequest(at(i).name, "token", now, &events.TokenIssueRequested{TokenID: t.ID(), SecretHash: t.Hash()}), nil
	})
	if issued != nil {
		return issued
	}
	return askAll(ctx, b.node, b.count*b.plan.jobsEach, "captured", func(i int) (*events.Request, error) {
		serial := b.first + i%b.count + i/b.count*b.plan.accounts
		return captureRequest(at(i).name, serial, b.plan.job(serial), time.Now())
	})
}

// askAll appends so many requests, waits for the decision on each, and asserts its outcome.
func askAll(ctx context.Context, n *node.Node, count int, outcome string, request func(i int) (*events.Request, error)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var running sync.WaitGroup
	for range min(asking, count) {
		running.Go(func() {
			for i := int(next.Add(1)) - 1; i < count && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := ask(ctx, n, outcome, i, request); err != nil {
					cancel(err)
				}
			}
		})
	}
	running.Wait()
	return context.Cause(ctx)
}

func ask(ctx context.Context, n *node.Node, outcome string, i int, request func(i int) (*events.Request, error)) error {
	r, err := request(i)
	if err != nil {
		return err
	}
	position, err := n.Append(ctx, r)
	if err != nil {
		return err
	}
	d, err := n.Projection.Await(ctx, position)
	if err != nil {
		return err
	}
	if got := events.OutcomeOf(d.Body); got != outcome {
		return fmt.Errorf("the request at %s was %s, not %s", position, got, outcome)
	}
	return nil
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
