package http

import (
	"container/list"
	"sync"
	"time"
)

const (
	// burst is how many seconds' worth of requests a client may send at once that has sent none for as long.
	burst = 10 * time.Second
	// maxDebt is how long at most a client waits that was charged for more than it had.
	maxDebt = 10 * time.Second
	// maxIdleClients bounds what a gate remembers, to some 15 MB: a flood of addresses makes it forget those that it has
	// not heard of for longest, which are then as new.
	maxIdleClients = 1 << 16
)

// gate admits the requests of clients that are told apart by a K: so many a second, and so many at once. It remembers all
// clients with a request under way, and maxIdle others.
type gate[K comparable] struct {
	interval time.Duration // between two requests at the rate that is allowed; 0: any rate is
	atOnce   int           // 0: any number is
	maxIdle  int
	now      func() time.Time

	mu      sync.Mutex
	clients map[K]*visitor[K]
	idle    list.List // of *visitor, who was here last at the back
}

// visitor is what a gate knows of a client.
type visitor[K comparable] struct {
	key      K
	underWay int
	// paid is the time up to which the client has used what it is allowed: a token bucket written as a time. The bucket is
	// full when that is past, and empty when it is burst ahead.
	paid time.Time
	idle *list.Element // its place in idle, or nil while requests are under way
}

// newGate returns a gate that admits rate requests a second of each client, and atOnce at the same time; 0 is any number.
func newGate[K comparable](rate, atOnce uint, now func() time.Time) *gate[K] {
	g := &gate[K]{atOnce: int(atOnce), maxIdle: maxIdleClients, now: now, clients: map[K]*visitor[K]{}}
	if rate > 0 {
		g.interval = time.Second / time.Duration(rate)
	}
	return g
}

// enter admits a request, which leaves when it is answered, or returns the problem that there are too many.
func (g *gate[K]) enter(key K) (*visitor[K], error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	v := g.visitor(key)
	if g.atOnce > 0 && v.underWay >= g.atOnce {
		return nil, tooMany(codeTooManyRequestsAtOnce, time.Second)
	}
	now := g.now()
	if wait := max(0, v.paid.Sub(now)) + g.interval - burst; wait > 0 {
		g.rest(v)
		return nil, tooMany(codeRateLimited, wait)
	}
	g.charge(v, now, 1)
	v.underWay++
	if v.idle != nil {
		g.idle.Remove(v.idle)
		v.idle = nil
	}
	return v, nil
}

// leave ends a request that was admitted, and charges for as many more as it cost beyond itself.
func (g *gate[K]) leave(v *visitor[K], more int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if more > 0 {
		now := g.now()
		g.charge(v, now, more)
		if latest := now.Add(burst + maxDebt); v.paid.After(latest) {
			v.paid = latest
		}
	}
	v.underWay--
	g.rest(v)
}

// widen has a request that is under way count as some more at once, unless there are too many then; one that is alone may be as
// many as it is. narrow undoes it, before the request leaves. A request that the gate did not admit, which is nil, counts nothing.
func (g *gate[K]) widen(v *visitor[K], more int) error {
	if v == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.atOnce > 0 && v.underWay > 1 && v.underWay+more > g.atOnce {
		return tooMany(codeTooManyRequestsAtOnce, time.Second)
	}
	v.underWay += more
	return nil
}

func (g *gate[K]) narrow(v *visitor[K], more int) {
	if v == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	v.underWay -= more
}

func (g *gate[K]) charge(v *visitor[K], now time.Time, requests int) {
	if v.paid.Before(now) {
		v.paid = now
	}
	v.paid = v.paid.Add(time.Duration(requests) * g.interval)
}

func (g *gate[K]) visitor(key K) *visitor[K] {
	v, known := g.clients[key]
	if !known {
		v = &visitor[K]{key: key}
		g.clients[key] = v
	}
	return v
}

// rest puts a client behind all others that are idle, if it is so itself, and forgets the first when they are too many.
func (g *gate[K]) rest(v *visitor[K]) {
	switch {
	case v.underWay > 0:
		return
	case v.idle != nil:
		g.idle.MoveToBack(v.idle)
		return
	}
	v.idle = g.idle.PushBack(v)
	if g.idle.Len() > g.maxIdle {
		delete(g.clients, g.idle.Remove(g.idle.Front()).(*visitor[K]).key)
	}
}
