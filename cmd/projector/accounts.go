package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"jobtally/internal/capture"
	"jobtally/internal/events"
	"jobtally/internal/node"
)

// accounts are those that are open, by name, as decisions say: no projection is needed to tell of them.
type accounts map[string]*openAccount

// openAccount is what decisions say of an account.
type openAccount struct {
	capture.StoredAccount
	captured map[events.Month]int64 // in the months that they count in
	tokens   map[string]*capture.Token
}

// readAccounts folds the decisions of a partition under some subjects, and says up to where.
func readAccounts(ctx context.Context, o *node.Operator, partition int, subjects ...string) (accounts, events.Position, error) {
	found, at := accounts{}, events.Position{Partition: partition}
	heads, err := o.Ledger.Heads(ctx, partition)
	if err != nil {
		return nil, at, err
	}
	at.Sequence = heads.Decisions
	for batch, err := range o.Ledger.ReadTo(ctx, events.Decisions, partition, subjects, 0, at.Sequence) {
		if err != nil {
			return nil, at, err
		}
		for _, m := range batch {
			d, err := events.DecodeDecision(m, partition)
			if err != nil {
				return nil, at, err
			}
			found.fold(&d)
		}
	}
	return found, at, nil
}

// readAccount returns one account that is open, as of a position.
func readAccount(ctx context.Context, o *node.Operator, name string, subjects ...string) (*openAccount, events.Position, error) {
	found, at, err := readAccounts(ctx, o, events.PartitionOf(name, o.Ledger.Partitions), subjects...)
	if err == nil && found[name] == nil {
		err = fmt.Errorf("account %s is not open", name)
	}
	return found[name], at, err
}

func (a accounts) fold(d *events.Decision) {
	switch b := d.Body.(type) {
	case *events.AccountOpened:
		a[d.Account] = &openAccount{
			StoredAccount: capture.StoredAccount{Name: d.Account, OpenedAt: d.Time},
			captured:      map[events.Month]int64{}, tokens: map[string]*capture.Token{},
		}
		a[d.Account].set(d, b.Plan, b.Limit, b.Who)
	case *events.AccountErased:
		delete(a, d.Account)
	}
	if account := a[d.Account]; account != nil {
		account.fold(d)
	}
}

func (a *openAccount) fold(d *events.Decision) {
	switch b := d.Body.(type) {
	case *events.PlanChanged:
		a.set(d, b.Plan, b.Limit, b.Who)
	case *events.JobCaptured:
		a.captured[b.Month]++
	case *events.TokenIssued:
		a.tokens[b.TokenID] = &capture.Token{ID: b.TokenID, Account: d.Account, IssuedAt: d.Time, TokenTerms: b.TokenTerms}
	case *events.TokenRevoked:
		if t := a.tokens[b.TokenID]; t != nil {
			t.Revoked = true
		}
	}
}

func (a *openAccount) set(d *events.Decision, plan string, limit int64, who events.Who) {
	a.Plan, a.Limit, a.PlanPosition, a.PlanAt, a.PlanSetBy = plan, limit, d.Position, d.Time, who
}

// byID returns the tokens in the order of their ids.
func (a *openAccount) byID() []*capture.Token {
	return slices.SortedFunc(maps.Values(a.tokens), func(t, u *capture.Token) int { return strings.Compare(t.ID, u.ID) })
}
