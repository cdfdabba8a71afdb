package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// stall is how long an answer may take before the run is given up.
	stall = 30 * time.Second
	// mostRequests bounds a load, whatever the machine.
	mostRequests = 20_000_000
)

// load is a closed loop: each connection sends its next request once it has read the answer to the last one. The
// requests are numbered from 0 over all connections.
type load struct {
	addr           string
	connections    int
	warmup, window time.Duration
	form           form
	tokens         []string        // request n has token n modulo their number
	serial         func(n int) int // of the posting of request n; nil for a form without
	status         int             // that every answer must have
	started        func()          // called once the warm-up is over; may be nil
	next           atomic.Int64    // the number of the next request
	ended          atomic.Bool     // since one connection failed
}

// loaded is what came of a load.
type loaded struct {
	sent    int // requests sent and answered, the warm-up included
	sample  sample
	latency histogram
}

// run sends for the warm-up and the window, and returns once every request is answered. Every request that was sent
// after the warm-up is in the histogram, however long it took, and in the rate, which lasts until the last answer.
func (l *load) run(ctx context.Context) (loaded, error) {
	from := time.Now().Add(l.warmup)
	until := from.Add(l.window)
	stop := context.AfterFunc(ctx, func() { l.ended.Store(true) })
	defer stop()
	if l.started != nil {
		timer := time.AfterFunc(l.warmup, l.started)
		defer timer.Stop()
	}
	latencies := make([]histogram, l.connections)
	failed := make(chan error, l.connections)
	var running sync.WaitGroup
	for i := range l.connections {
		running.Go(func() {
			aside(ctx, func() { failed <- l.loop(from, until, &latencies[i]) })
		})
	}
	var first error // the others failed for the same reason, or because of it
	for range l.connections {
		if err := <-failed; err != nil {
			l.ended.Store(true)
			first = cmp.Or(first, err)
		}
	}
	running.Wait()
	if err := errors.Join(first, ctx.Err()); err != nil {
		return loaded{}, fmt.Errorf("load of %d connections: %w", l.connections, err)
	}
	return l.result(latencies, time.Since(from))
}

func (l *load) result(latencies []histogram, elapsed time.Duration) (loaded, error) {
	r := loaded{sent: int(l.next.Load())}
	for i := range latencies {
		r.latency.add(&latencies[i])
	}
	if r.latency.total == 0 {
		return r, errors.New("nothing was answered in the window")
	}
	r.sample = sample{
		value: float64(r.latency.total) / elapsed.Seconds(),
		p50:   r.latency.quantile(0.5), p99: r.latency.quantile(0.99),
	}
	return r, nil
}

// loop is what one connection does.
func (l *load) loop(from, until time.Time, latency *histogram) (err error) {
	c, err := dial(l.addr, until.Add(stall))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	form := l.form.copy()
	for !l.ended.Load() {
		sent := time.Now()
		if sent.After(until) || l.next.Load() >= mostRequests {
			return nil
		}
		n, serial := int(l.next.Add(1)-1), 0
		if l.serial != nil {
			serial = l.serial(n)
		}
		status, body, err := c.exchange(form.fill(l.tokens[n%len(l.tokens)], serial))
		if err != nil {
			return err
		}
		if status != l.status {
			return fmt.Errorf("request %d was answered %d, not %d: %.200s", n, status, l.status, body)
		}
		if !sent.Before(from) {
			latency.record(time.Since(sent))
		}
	}
	return nil
}
