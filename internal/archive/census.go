package archive

import (
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"

	"jobtally/internal/capture"
	"jobtally/internal/events"
	"jobtally/internal/replay"
)

// mostAccounts bounds the memory that a partition takes: of so many accounts at once is kept what their decisions add up to.
// Of more, those with the first names are added up, and the decisions are read again for those after them.
const mostAccounts = 1 << 16

// account is a line of the file of accounts: what an account has of the month, or what an erasure left of it. Its leaf is
// one of those that the digest of the month is over, in the order of the lines.
type account struct {
	Account string           `json:"account"`
	Erased  *events.Position `json:"erased,omitempty"` // of the erasure that left this
	events.Totals
	Entries []entry       `json:"entries,omitempty"`
	Digest  events.Digest `json:"digest,omitzero"` // of its last decision in the month
	Leaf    events.Digest `json:"leaf"`
}

// entry is where the chain of an account comes in from a decision that is not of the month. Any other decision follows
// from the one of its account before it, and one of an account that is not open from nothing.
type entry struct {
	Position events.Position `json:"position"`
	Previous events.Digest   `json:"previous"` // of the decision before that at the position
}

func (a *account) line() []byte {
	line, err := json.Marshal(a)
	if err != nil {
		panic(fmt.Sprintf("archive: an account that JSON cannot hold: %v", err)) // it is made of strings and numbers
	}
	return line
}

// census adds up accounts from decisions, in order: those with names after one and up to another.
type census struct {
	month     events.Month
	partition int
	after     *string // nil for all from the first on
	upTo      *string // nil for all to the last
	accounts  map[string]*tallied

	// enter returns the digest from which a decision follows that follows neither from the one before it here, nor from nothing.
	enter func(d *events.Decision) events.Digest
}

// tallied is an account as far as it is added up.
type tallied struct {
	capture.Tally
	entries []entry
	left    []left
	link    events.Digest // from which the next decision follows: zero while the account is not open
}

// left is what an erasure left of the month.
type left struct {
	at events.Position
	events.ErasedMonth
}

func newCensus(month events.Month, partition int, after *string) *census {
	return &census{month: month, partition: partition, after: after, accounts: map[string]*tallied{}}
}

func (c *census) of(name string) *tallied {
	if c.after != nil && name <= *c.after || c.upTo != nil && name > *c.upTo {
		return nil
	}
	t := c.accounts[name]
	if t == nil {
		t = &tallied{}
		c.accounts[name] = t
	}
	return t
}

// erasure takes in what is known of an erasure: all of them before the first decision.
func (c *census) erasure(e *replay.Erasure) {
	of := slices.IndexFunc(e.Months, func(m events.ErasedMonth) bool { return m.Month == c.month })
	t := c.of(e.Account)
	if of < 0 || t == nil {
		return
	}
	t.left = append(t.left, left{at: e.Position, ErasedMonth: e.Months[of]})
}

// add takes in a decision of the month. One of no account is of no chain; an erasure is of the chain that it begins, and
// of no part of an account.
func (c *census) add(d *events.Decision) {
	if d.Account == "" {
		return
	}
	t := c.of(d.Account)
	if t == nil {
		return
	}
	t.follow(d, c.enter)
	if _, erases := d.Body.(*events.AccountErased); !erases {
		t.Add(d)
	}
}

// follow takes a decision as the next of the account's chain.
func (t *tallied) follow(d *events.Decision, enter func(*events.Decision) events.Digest) {
	previous := t.link
	if _, erased := d.Body.(*events.AccountErased); erased {
		previous = events.Digest{}
	}
	open := previous != events.Digest{}
	if d.Verify(previous) != nil {
		in := entry{Position: d.Position}
		if open = d.Verify(events.Digest{}) != nil; open {
			in.Previous = enter(d)
		}
		t.entries = append(t.entries, in)
	}
	t.link = following(open, d)
}

// following returns the digest from which the decision of an account after d follows, given whether it was open before.
func following(open bool, d *events.Decision) events.Digest {
	switch d.Body.(type) {
	case *events.AccountOpened:
		open = true
	case *events.AccountErased:
		open = false
	}
	if !open {
		return events.Digest{}
	}
	return d.Digest
}

// trim forgets all but the accounts with the first names where there are too many. Sorting them is paid for by as many that
// came since.
func (c *census) trim(most int) {
	if len(c.accounts) <= 2*most {
		return
	}
	names := slices.Sorted(maps.Keys(c.accounts))
	for _, name := range names[most:] {
		delete(c.accounts, name)
	}
	c.upTo = &names[most-1]
}

// lines yields what was added up, in the order of the names; of one account what was left by its erasures first, in order.
func (c *census) lines() iter.Seq[account] {
	return func(yield func(account) bool) {
		for _, name := range slices.Sorted(maps.Keys(c.accounts)) {
			t := c.accounts[name]
			for _, l := range t.left {
				if !yield(account{Account: name, Erased: &l.at, Totals: l.Totals, Leaf: l.Leaf}) {
					return
				}
			}
			if t.Requests == 0 {
				continue
			}
			if !yield(account{Account: name, Totals: t.Totals, Entries: t.entries, Digest: t.Digest, Leaf: t.Leaf(name, c.month)}) {
				return
			}
		}
	}
}

// sum is what the month adds up to: the decisions that are here, and what was left by erasures.
type sum struct {
	here   capture.Tally
	left   events.Totals
	leaves capture.Leaves
}

// add takes in the accounts of a census, which come after all that were taken in before.
func (s *sum) add(c *census) {
	for a := range c.lines() {
		s.leaves.Add(a.Leaf)
		if a.Erased != nil {
			s.left = plus(s.left, a.Totals)
		}
	}
}

// archived is what the closing of the month says if all is as it was.
func (s *sum) archived(month events.Month) *events.MonthArchived {
	return s.leaves.Archive(month, plus(s.here.Totals, s.left))
}

func plus(a, b events.Totals) events.Totals {
	switch {
	case b.Requests == 0:
		return a
	case a.Requests == 0:
		return b
	}
	if b.First.Sequence < a.First.Sequence {
		a.First = b.First
	}
	if b.Last.Sequence > a.Last.Sequence {
		a.Last = b.Last
	}
	a.Requests += b.Requests
	a.Captured += b.Captured
	a.Duplicated += b.Duplicated
	a.Rejected += b.Rejected
	a.Repeated += b.Repeated
	return a
}
