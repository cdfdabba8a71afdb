package projections

import (
	"hash/maphash"
	"strings"
	"sync"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// cache keeps in memory what every call asks for: the token that it shows, and the count of its account. A read is
// never behind what is folded when it begins, and never behind an earlier read of the same row:
//
//   - What comes in is read from the file under the lock that a commit needs to change it. So a row that was read
//     before a commit is never put in after it.
//   - Apply calls committed after each commit and before the position moves, so whoever saw the position finds the
//     commit here. A row that came in between has the commit already: of two counts of a month, the higher is later.
//
// What is not in the file is not kept: an account is there as soon as it is opened, and made-up tokens fill nothing.
type cache struct {
	quotas *shelf[capture.Quota]   // by account: the month that was last asked for
	tokens *shelf[[]capture.Token] // by id; the slices are shared and never change
}

func newCache() *cache {
	return &cache{quotas: newShelf[capture.Quota](), tokens: newShelf[[]capture.Token]()}
}

// committed takes decisions that are in the file now. A change of a plan or a token is rare: it is read again. So is an
// erasure, and which tokens went with it is not looked for.
func (c *cache) committed(decisions []events.Decision) {
	for i := range decisions {
		switch b := decisions[i].Body.(type) {
		case *events.JobCaptured:
			c.captured(decisions[i].Account, b.Count)
		case *events.PlanChanged:
			c.quotas.forget(decisions[i].Account)
		case *events.TokenIssued:
			c.tokens.forget(b.TokenID)
		case *events.TokenRevoked:
			c.tokens.forget(b.TokenID)
		case *events.AccountErased:
			c.quotas.forget(decisions[i].Account)
			c.tokens.forgetAll()
		}
	}
}

// captured takes a count that grew. That of another month than is kept is in the file for whoever asks.
func (c *cache) captured(account string, count events.Count) {
	of := c.quotas.of(account)
	of.mu.Lock()
	defer of.mu.Unlock()
	if q, kept := of.rows[account]; kept && q.Month == count.Month && q.Used < count.Used {
		q.Used = count.Used
		of.rows[account] = q
	}
}

// A shelf has at most 65,536 rows: about 9 MB of quotas, and 20 MB of tokens.
const (
	compartments    = 64 // so that calls rarely wait for each other, or for a read of the file
	compartmentSize = 1024
)

// shelf keeps rows by name.
type shelf[row any] struct {
	seed         maphash.Seed
	compartments [compartments]compartment[row]
}

// compartment is the part of a shelf under one lock, which is held while a row is read from the file.
type compartment[row any] struct {
	mu   sync.Mutex
	rows map[string]row
}

func newShelf[row any]() *shelf[row] {
	s := &shelf[row]{seed: maphash.MakeSeed()}
	for i := range s.compartments {
		s.compartments[i].rows = map[string]row{}
	}
	return s
}

// of returns the compartment that a name belongs into.
func (s *shelf[row]) of(name string) *compartment[row] {
	return &s.compartments[maphash.String(s.seed, name)%compartments]
}

func (s *shelf[row]) forget(name string) {
	of := s.of(name)
	of.mu.Lock()
	defer of.mu.Unlock()
	delete(of.rows, name)
}

func (s *shelf[row]) forgetAll() {
	for i := range s.compartments {
		of := &s.compartments[i]
		of.mu.Lock()
		clear(of.rows)
		of.mu.Unlock()
	}
}

// keep puts a row in, for any other when there is no room. The lock is the caller's. The name is copied, for it may be
// cut from a text that nobody should keep, as the id of a token is from its secret.
func (c *compartment[row]) keep(name string, r row) {
	if _, kept := c.rows[name]; !kept && len(c.rows) == compartmentSize {
		for other := range c.rows {
			delete(c.rows, other)
			break
		}
	}
	c.rows[strings.Clone(name)] = r
}
