package http

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// catalogue has the plans of the tests.
var catalogue = map[string]int64{"free": 50, "pro": 500, "premium": -1}

func (n *node) account(_ context.Context, name string) (capture.StoredAccount, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.state.Accounts[name] == nil {
		return capture.StoredAccount{}, events.ErrNotFound
	}
	return n.stored(name), nil
}

// stored returns an account that is open.
func (n *node) stored(name string) (a capture.StoredAccount) {
	for _, d := range n.decisions {
		if d.Account != name {
			continue
		}
		switch b := d.Body.(type) {
		case *events.AccountOpened:
			a = capture.StoredAccount{Name: name, Plan: b.Plan, Limit: b.Limit, OpenedAt: d.Time, PlanPosition: d.Position, PlanAt: d.Time, PlanSetBy: b.Who}
		case *events.PlanChanged:
			a.Plan, a.Limit, a.PlanPosition, a.PlanAt, a.PlanSetBy = b.Plan, b.Limit, d.Position, d.Time, b.Who
		}
	}
	return a
}

func (n *node) accounts(_ context.Context, after string, limit int) (accounts []capture.StoredAccount, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(n.state.Accounts)) {
		if name > after && len(accounts) < limit {
			accounts = append(accounts, n.stored(name))
		}
	}
	return accounts, nil
}

func (n *node) tokensOf(_ context.Context, account, after string, limit int) (tokens []capture.Token, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, t := range n.tokensIn(account) {
		if t.ID > after && len(tokens) < limit {
			tokens = append(tokens, t)
		}
	}
	return tokens, nil
}

// tokensIn returns the tokens of an account by their ids, also once it is erased: a call may be under way with one of them.
// gone is revoked without a decision.
func (n *node) tokensIn(account string) []capture.Token {
	tokens := map[string]capture.Token{}
	for _, d := range n.decisions {
		if d.Account != account {
			continue
		}
		switch b := d.Body.(type) {
		case *events.TokenIssued:
			tokens[b.TokenID] = capture.Token{
				ID: b.TokenID, Account: account, SecretHash: b.SecretHash, IssuedAt: d.Time, TokenTerms: b.TokenTerms, Revoked: b.TokenID == n.gone.ID(),
			}
		case *events.TokenRevoked:
			t := tokens[b.TokenID]
			t.Revoked = true
			tokens[b.TokenID] = t
		}
	}
	sorted := slices.Collect(maps.Values(tokens))
	slices.SortFunc(sorted, func(a, b capture.Token) int { return strings.Compare(a.ID, b.ID) })
	return sorted
}

func (n *node) lastUsed(id string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if at, used := n.used[id]; used {
		return at.Format(time.DateOnly)
	}
	return ""
}
