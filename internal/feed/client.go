package feed

import "sync"

// maxQueueLen bounds what waits for one client, in bytes. What it is being told meanwhile may be as much again.
const maxQueueLen = 512 << 10

// client is the one end of a stream at which events are put in; the goroutine of the stream takes them out at the other.
type client struct {
	account   string
	partition int
	signal    chan struct{} // has room for one: something changed below

	mu     sync.Mutex // guards what follows; no other lock is taken while it is held
	from   uint64     // events up to here are not for the queue
	queue  []*Event
	length int   // bytes in the queue
	missed bool  // nothing goes into the queue: what there was has to be read from history
	err    error // why the stream ended
}

// push puts an event into the queue. When it is full the client is behind, and will read in history what there was.
func (c *client) push(e *Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil, c.missed, e.Position.Sequence <= c.from:
		return
	case len(c.queue) == 0 || c.length+len(e.JSON) <= maxQueueLen:
		c.queue = append(c.queue, e)
		c.length += len(e.JSON)
	default:
		c.drop()
		c.missed = true
	}
	c.notify()
}

// miss has the client read history.
func (c *client) miss() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop()
	c.missed = true
	c.notify()
}

// end ends the stream: nothing that waits is told.
func (c *client) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop()
	if c.err == nil {
		c.err = err
	}
	c.notify()
}

func (c *client) drop() { c.queue, c.length = nil, 0 }

func (c *client) notify() {
	select {
	case c.signal <- struct{}{}:
	default:
	}
}

// expect begins a queue of what comes after a sequence.
func (c *client) expect(from uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop()
	c.from, c.missed = from, false
}

// take returns what is in the queue, and leaves it empty. It says whether something was missed.
func (c *client) take() (queue []*Event, missed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	queue = c.queue
	c.drop()
	return queue, c.missed, c.err
}

// state returns whether something was missed, and why the stream ended.
func (c *client) state() (missed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.missed, c.err
}
