package http

import (
	"errors"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// watched is a gate on a clock that the test moves.
type watched struct {
	*gate[netip.Addr]
	at time.Time
}

func newWatched(rate, atOnce uint) *watched {
	w := &watched{at: time.Unix(1_700_000_000, 0)}
	w.gate = newGate[netip.Addr](rate, atOnce, func() time.Time { return w.at })
	return w
}

// passes sends n requests one after the other, and returns how many were admitted, and what the last refusal was.
func (w *watched) passes(address netip.Addr, n int) (admitted int, refusal *problem) {
	for range n {
		v, err := w.enter(address)
		if err != nil {
			errors.As(err, &refusal)
			continue
		}
		admitted++
		w.leave(v, 0)
	}
	return admitted, refusal
}

func addressNumber(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{203, byte(n >> 16), byte(n >> 8), byte(n)})
}

func TestGateAdmitsTheRateAndABurst(t *testing.T) {
	w, one, other := newWatched(5, 0), addressNumber(1), addressNumber(2)
	if admitted, refusal := w.passes(one, 60); admitted != 50 || refusal.Code != codeRateLimited || refusal.retryAfter != time.Second/5 {
		t.Errorf("%d admitted, then %+v", admitted, refusal)
	}
	if admitted, _ := w.passes(other, 60); admitted != 50 {
		t.Errorf("%d of another client are admitted", admitted)
	}
	w.at = w.at.Add(time.Second)
	if admitted, _ := w.passes(one, 60); admitted != 5 {
		t.Errorf("%d are admitted a second later", admitted)
	}
	w.at = w.at.Add(time.Hour)
	if admitted, _ := w.passes(one, 60); admitted != 50 {
		t.Errorf("%d are admitted an hour later: what was not used adds up", admitted)
	}
}

func TestGateBoundsRequestsAtOnce(t *testing.T) {
	w, one := newWatched(0, 3), addressNumber(1)
	var inside []*visitor[netip.Addr]
	for range 3 {
		v, err := w.enter(one)
		if err != nil {
			t.Fatal(err)
		}
		inside = append(inside, v)
	}
	if admitted, refusal := w.passes(one, 5); admitted != 0 || refusal.Code != codeTooManyRequestsAtOnce {
		t.Errorf("%d admitted beyond the three, %v", admitted, refusal)
	}
	if admitted, _ := w.passes(addressNumber(2), 5); admitted != 5 {
		t.Errorf("%d of another client are admitted", admitted)
	}
	w.leave(inside[0], 0)
	if admitted, _ := w.passes(one, 5); admitted != 5 {
		t.Errorf("%d are admitted after one left", admitted)
	}
}

func TestGateChargesForFailures(t *testing.T) {
	w, one := newWatched(100, 0), addressNumber(1)
	failed := 0
	for range 100 {
		v, err := w.enter(one)
		if err != nil {
			continue
		}
		failed++
		w.leave(v, failureCost-1)
	}
	if failed != 50 {
		t.Errorf("%d failures are admitted at once, of 1000 requests", failed)
	}
	var inside []*visitor[netip.Addr]
	for range 1000 { // all at once: each is admitted before the first one fails
		v, err := w.enter(addressNumber(2))
		if err != nil {
			t.Fatal(err)
		}
		inside = append(inside, v)
	}
	for _, v := range inside {
		w.leave(v, failureCost-1)
	}
	if _, refusal := w.passes(addressNumber(2), 1); refusal == nil || refusal.retryAfter > maxDebt+time.Second {
		t.Errorf("after 1000 failures at once: %+v", refusal)
	}
	w.at = w.at.Add(maxDebt + time.Second)
	if admitted, _ := w.passes(addressNumber(2), 1); admitted != 1 {
		t.Error("the debt has no end")
	}
}

// A flood of addresses, each of which is heard of once, takes a bounded number of places, and none of who is being answered.
func TestGateRemembersABoundedNumberOfClients(t *testing.T) {
	w, staying := newWatched(1, 10), addressNumber(0)
	w.maxIdle = 100
	inside, err := w.enter(staying)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 10_000 {
		w.passes(addressNumber(n+1), 1+n%12) // some are refused in the end
		if len(w.clients) > w.maxIdle+1 || w.idle.Len() > w.maxIdle {
			t.Fatalf("%d clients are remembered after %d", len(w.clients), n+1)
		}
	}
	if w.clients[staying] != inside || inside.underWay != 1 {
		t.Error("a client with a request under way was forgotten")
	}
	w.leave(inside, 0)
	if len(w.clients) != w.maxIdle || w.idle.Len() != w.maxIdle || w.clients[staying] != inside {
		t.Errorf("%d clients, %d idle, after the last left", len(w.clients), w.idle.Len())
	}
	if admitted, _ := w.passes(addressNumber(10_000), 20); admitted == 10 {
		t.Error("the last one is forgotten, and not the first")
	}
	if admitted, _ := w.passes(addressNumber(1), 20); admitted != 10 {
		t.Error("the first one is remembered")
	}
}

func TestGateIsExactForManyAtOnce(t *testing.T) {
	w := newWatched(1, 3)
	w.maxIdle = 4
	var inside [8]atomic.Int32
	var admitted atomic.Int32
	var done sync.WaitGroup
	for worker := range 64 {
		done.Go(func() {
			for i := range 200 {
				n := (worker + i) % len(inside)
				v, err := w.enter(addressNumber(n))
				if err != nil {
					continue
				}
				admitted.Add(1)
				if now := inside[n].Add(1); now > 3 {
					t.Errorf("%d requests of one client are under way", now)
				}
				runtime.Gosched()
				inside[n].Add(-1)
				w.leave(v, 0)
			}
		})
	}
	done.Wait()
	if len(w.clients) != w.maxIdle || w.idle.Len() != w.maxIdle || admitted.Load() < int32(10*len(inside)) {
		t.Errorf("%d clients, %d idle, %d admitted", len(w.clients), w.idle.Len(), admitted.Load())
	}
	for _, v := range w.clients {
		if v.underWay != 0 || v.idle == nil {
			t.Errorf("left behind: %+v", v)
		}
	}
}
