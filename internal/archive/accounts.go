package archive

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"iter"
	"math"

	"jobtally/internal/events"
)

// recorded is a line of the file of accounts.
type recorded struct {
	account
	text []byte
	at   int64
}

// key orders the lines of an account: those that its erasures left, in order, and then its own.
func (a *account) key() uint64 {
	if a.Erased != nil {
		return a.Erased.Sequence
	}
	return math.MaxUint64
}

func (a *account) compare(b *account) int {
	return cmp.Or(cmp.Compare(a.Account, b.Account), cmp.Compare(a.key(), b.key()))
}

// chunk is a stretch of the file of accounts: those with names after one and up to another.
type chunk struct {
	after, upTo *string // nil for the beginning and the end
	lines       []recorded
	entries     map[string]map[uint64]events.Digest // by account and sequence
}

// accountsReader reads the file of accounts in chunks, so that of many accounts only some are in memory.
type accountsReader struct {
	pull  func() (recorded, bool)
	stop  func()
	ahead *recorded // was read, and is of the next chunk
	after *string   // the last name of the chunk before
	lines int64
	err   error // with which reading ended
}

func (p *partVerifier) readAccounts(ctx context.Context) *accountsReader {
	r := &accountsReader{}
	r.pull, r.stop = iter.Pull(func(yield func(recorded) bool) {
		var last *account
		_, r.err = p.read(ctx, p.part.Accounts, func(at int64, line []byte) bool {
			next := recorded{text: bytes.Clone(line), at: at}
			if json.Unmarshal(line, &next.account) != nil || !bytes.Equal(next.line(), line) {
				p.report(Difference{File: p.part.Accounts.Name, Line: at, What: "it is no account as an export writes one"})
				return true
			}
			if last != nil && last.compare(&next.account) >= 0 {
				p.report(Difference{File: p.part.Accounts.Name, Line: at, Account: next.Account, What: "it comes after " + last.Account})
				return true
			}
			last = &next.account
			return yield(next)
		})
	})
	return r
}

// chunk returns the next accounts, at least so many unless there are fewer: all lines of each.
func (r *accountsReader) chunk(most int) (chunk, error) {
	c := chunk{after: r.after, entries: map[string]map[uint64]events.Digest{}}
	if r.ahead != nil {
		c.add(*r.ahead)
		r.ahead = nil
	}
	for {
		next, ok := r.pull()
		if !ok {
			return c, r.err
		}
		r.lines++
		if n := len(c.lines); n >= most && c.lines[n-1].Account != next.Account {
			r.ahead, r.after = &next, &c.lines[n-1].Account
			c.upTo = r.after
			return c, nil
		}
		c.add(next)
	}
}

func (c *chunk) add(r recorded) {
	c.lines = append(c.lines, r)
	for _, e := range r.Entries {
		if c.entries[r.Account] == nil {
			c.entries[r.Account] = map[uint64]events.Digest{}
		}
		c.entries[r.Account][e.Position.Sequence] = e.Previous
	}
}

// compareAccounts compares what adds up with what is recorded of the same accounts.
func (p *partVerifier) compareAccounts(c *census, recorded []recorded) {
	about := func(at int64, a *account, what string) Difference {
		return Difference{File: p.part.Accounts.Name, Line: at, Account: a.Account, What: what}
	}
	for a := range c.lines() {
		for len(recorded) > 0 && recorded[0].compare(&a) < 0 {
			p.report(about(recorded[0].at, &recorded[0].account, "nothing here adds up to this account"))
			recorded = recorded[1:]
		}
		if len(recorded) == 0 || recorded[0].compare(&a) > 0 {
			p.report(about(0, &a, "the account is missing"))
			continue
		}
		p.differs(about(recorded[0].at, &a, "what the pairs of the account add up to"), string(a.line()), string(recorded[0].text))
		recorded = recorded[1:]
	}
	for _, r := range recorded {
		p.report(about(r.at, &r.account, "nothing here adds up to this account"))
	}
}
