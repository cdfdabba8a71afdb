package relay

import (
	"math/rand/v2"
	"net/http"
	"time"

	"jobtally/internal/webhook"
)

const (
	statusGone = http.StatusGone
	// openAfter is after how many failures in a row the circuit of an endpoint is open: from then on the pause before an
	// attempt is that of so many failures, whichever event they were about.
	openAfter = 5
	// skewAtMost is how far apart the clocks of relays may be. Receivers take none for more: they refuse such a timestamp.
	skewAtMost = 5 * time.Minute
)

// failed returns what a failed attempt makes of how far the delivery was.
func (p progressRecord) failed(event string, d *webhook.Delivery) progressRecord {
	if p.FailingSince.IsZero() || p.FailingSince.After(d.At) { // of a clock that was put back since
		p.FailingSince = d.At
	}
	p.Event, p.Attempts, p.LastAttempt, p.NextAttempt, p.Waits = event, d.Attempt, d.At, time.Time{}, ""
	p.Failures++
	return p
}

// isFailing says whether nothing reached an endpoint for long enough, and not only because nobody tried: as many attempts in a
// row failed as are made at an event.
func (cfg *Config) isFailing(p *progressRecord, now time.Time) bool {
	return now.Sub(p.FailingSince) >= cfg.failing && p.Failures >= len(cfg.Schedule)
}

// rest returns for how long the next attempt is to wait. It is due where the last is yet to be made: the clock was put back
// since. A clock that was put back by less puts the attempt off by no more than had passed of its pause, and the skew.
func (p *progressRecord) rest(now time.Time) time.Duration {
	if p.LastAttempt.Sub(now) > skewAtMost {
		return 0
	}
	return p.NextAttempt.Sub(now)
}

// pauseAfter returns the pause after so many attempts at an event, the last of so many failures of the endpoint in a row.
func pauseAfter(schedule []time.Duration, attempts, failures int) time.Duration {
	if failures >= openAfter {
		attempts = max(attempts, failures)
	}
	return schedule[min(attempts, len(schedule)-1)]
}

// jittered returns a pause that is up to a tenth longer or shorter, so that what failed together does not come back together.
func jittered(d time.Duration) time.Duration {
	return d - d/10 + time.Duration(rand.Int64N(int64(d/5)+1))
}
