// Package feed tells clients the events of accounts: from history into live, in order, without a gap and each once. It is fed by
// the node's own fold, so that there is one reader of the ledger a node however many clients there are, and a client is told an
// event only after the node folded it.
//
// What is folded is handed over under a lock that is held for no longer than it takes to see whether anybody is there. One
// goroutine encodes each event once and puts it into the queues of the clients of its account. Queues are bounded and nobody
// waits for a client: one that is slower than events come loses its queue, and goes on in history, at its own pace. To cut off
// one that takes nothing at all is for whoever writes to it.
package feed

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"jobtally/internal/events"
)

// ErrErased is the error of a client whose account was erased.
var ErrErased = errors.New("the account was erased")

// ErrClosed is the error of a client of a feed that has ended.
var ErrClosed = errors.New("the node is closing")

// ErrNotReached is the error of a position that this node has not folded in time.
var ErrNotReached = errors.New("the position is not folded yet")

// BeyondError is the error of a position after the last request of its partition: no event has it.
type BeyondError struct {
	Position, Head events.Position
}

// Error says where the ledger ends.
func (e *BeyondError) Error() string {
	return fmt.Sprintf("%s is beyond the end of the ledger, which is at %s", e.Position, e.Head)
}

// PrunedError is the error of a position after which decisions are missing from the ledger that were not erased.
type PrunedError struct {
	First events.Position // of what is there
	Month events.Month    // whose archive has what comes after the position; empty where it is not known
}

// Error says from where on decisions are there.
func (e *PrunedError) Error() string {
	return fmt.Sprintf("the ledger has decisions from %s on", e.First)
}

// Event is an event as all clients of its account are told it.
type Event struct {
	Position events.Position
	Type     string
	JSON     []byte // on one line
}

// Encode returns the event that a decision is, if it is told to its account as one with a position: if it is on a job.
func Encode(d *events.Decision) (*Event, bool) {
	e, told := d.JobEvent()
	if !told {
		return nil, false
	}
	return encode(&e), true
}

// attributes is how many bytes an event is longer than its data, but for long names.
const attributes = 640

func encode(e *events.Event) *Event {
	return &Event{Position: e.Position, Type: e.Type, JSON: e.AppendJSON(make([]byte, 0, len(e.Data)+attributes))}
}

// Read reads from the ledger the events of an account after a position, in order: a bounded number of those up to a sequence.
// It returns up to where it read.
type Read func(ctx context.Context, account string, after events.Position, to uint64) (told []*Event, read uint64, err error)

const (
	// maxReads is how many clients read history at the same time; others wait.
	maxReads = 16
	// maxInboxLen is how many bytes of events wait to be encoded, and as many may be under way. When there are more the clients
	// of the partition are sent to history.
	maxInboxLen = 16 << 20
)

// Feed is what the events of a node come through. It is safe for concurrent use.
type Feed struct {
	read  Read
	reads chan struct{} // holds one for each read of history under way
	wake  chan struct{} // has room for one: there is something in the inbox

	mu      sync.Mutex           // guards what follows; no client's lock is held when it is taken
	at      []uint64             // by partition: what is folded
	passed  []uint64             // by partition: up to where everything is in the queues of the clients
	busy    bool                 // what was taken out of the inbox is not in the queues yet
	inbox   []events.Event       // of accounts that have clients, in the order in which they were folded
	length  int                  // bytes in the inbox
	clients map[string][]*client // by account; a slice never changes: another one is put in its place
	closed  bool
}

// New returns a feed of a node that has folded its partitions up to some sequences.
func New(folded []uint64, read Read) *Feed {
	return &Feed{
		read: read, reads: make(chan struct{}, maxReads), wake: make(chan struct{}, 1),
		at: slices.Clone(folded), passed: slices.Clone(folded), clients: map[string][]*client{},
	}
}

// Folded hands over decisions of a partition that were just folded, up to a sequence; none where the position jumped there.
// It waits for no client.
func (f *Feed) Folded(partition int, decisions []events.Decision, to uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at[partition] = to
	if len(f.clients) > 0 {
		f.take(partition, decisions)
	}
	if len(f.inbox) == 0 && !f.busy {
		f.passed[partition] = to
		return
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// take puts into the inbox what is for somebody. Clients of an account that is erased are told nothing any more.
func (f *Feed) take(partition int, decisions []events.Decision) {
	fits := len(decisions) > 0
	for i := range decisions {
		d := &decisions[i]
		clients := f.clients[d.Account]
		if len(clients) == 0 {
			continue
		}
		if _, erased := d.Body.(*events.AccountErased); erased {
			endAll(clients, ErrErased)
		}
		if e, told := d.JobEvent(); told && fits {
			f.inbox, f.length = append(f.inbox, e), f.length+lengthOf(&e)
			fits = f.length <= maxInboxLen
		}
	}
	if !fits {
		f.miss(partition)
	}
}

func lengthOf(e *events.Event) int { return len(e.Data) + attributes }

// miss sends all clients of a partition to history.
func (f *Feed) miss(partition int) {
	f.inbox = slices.DeleteFunc(f.inbox, func(e events.Event) bool { return e.Position.Partition == partition })
	f.length = 0
	for i := range f.inbox {
		f.length += lengthOf(&f.inbox[i])
	}
	for _, clients := range f.clients {
		for _, c := range clients {
			if c.partition == partition {
				c.miss()
			}
		}
	}
}

// Run encodes what is handed over and puts it into the queues of the clients, until ctx ends. Then their streams end.
func (f *Feed) Run(ctx context.Context) {
	defer f.close()
	var taken []events.Event
	upTo := make([]uint64, len(f.at))
	for {
		if taken = f.unload(taken, upTo); len(taken) == 0 {
			select {
			case <-f.wake:
			case <-ctx.Done():
				return
			}
		}
		for i := range taken {
			f.tell(&taken[i])
		}
	}
}

// unload returns what is in the inbox, and leaves another in its place, which was told before. upTo is how far everything will
// have been told then.
func (f *Feed) unload(told []events.Event, upTo []uint64) []events.Event {
	clear(told)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.busy {
		copy(f.passed, upTo)
	}
	taken := f.inbox
	f.inbox, f.length, f.busy = told[:0], 0, len(taken) > 0
	copy(upTo, f.at)
	if !f.busy {
		copy(f.passed, f.at)
	}
	return taken
}

// tell puts an event into the queues of its account's clients.
func (f *Feed) tell(event *events.Event) {
	f.mu.Lock()
	clients := f.clients[event.Account]
	f.mu.Unlock()
	if len(clients) == 0 {
		return
	}
	e := encode(event)
	for _, c := range clients {
		c.push(e)
	}
}

func (f *Feed) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for _, clients := range f.clients {
		endAll(clients, ErrClosed)
	}
}

func endAll(clients []*client, err error) {
	for _, c := range clients {
		c.end(err)
	}
}

// join adds a client, which is not told anything until it has caught up.
func (f *Feed) join(account string, partition int) (*client, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, ErrClosed
	}
	c := &client{account: account, partition: partition, missed: true, signal: make(chan struct{}, 1)}
	f.clients[account] = append(slices.Clip(f.clients[account]), c)
	return c, nil
}

// leave removes a client.
func (f *Feed) leave(c *client) {
	f.mu.Lock()
	defer f.mu.Unlock()
	rest := slices.DeleteFunc(slices.Clone(f.clients[c.account]), func(other *client) bool { return other == c })
	if len(rest) == 0 {
		delete(f.clients, c.account)
		return
	}
	f.clients[c.account] = rest
}

// rejoin has everything be put into a client's queue that is folded from now on, and returns what is folded.
func (f *Feed) rejoin(c *client) (at uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at = f.at[c.partition]
	c.expect(at)
	return at
}

// passedBy returns up to where everything of a partition is in the queues.
func (f *Feed) passedBy(partition int) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.passed[partition]
}

// Clients returns how many clients there are.
func (f *Feed) Clients() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, clients := range f.clients {
		n += len(clients)
	}
	return n
}
