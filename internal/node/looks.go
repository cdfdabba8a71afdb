package node

import (
	"sync"
	"time"

	"jobtally/internal/events"
)

// looks are what somebody who looks again and again has seen.
type looks struct {
	mu   sync.Mutex // guards last
	last []look     // by partition
}

// look is when requests were first seen to wait behind so many decisions.
type look struct {
	decisions uint64
	at        time.Time // zero while none waits
}

// undecided returns for how long, as far as somebody has looked, requests of a partition wait and none is decided.
func (l *looks) undecided(p int, heads events.Heads) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := &l.last[p]
	if heads.Requests <= heads.Decisions || heads.Decisions != last.decisions || last.at.IsZero() {
		*last = look{decisions: heads.Decisions}
		if heads.Requests > heads.Decisions {
			last.at = time.Now()
		}
		return 0
	}
	return time.Since(last.at)
}
