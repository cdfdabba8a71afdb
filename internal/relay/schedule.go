package relay

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"jobtally/internal/webhook"
)

const (
	statusGone = http.StatusGone
	// openAfter is after how many failures in a row the circuit of an endpoint is open: from then on the pause before an
	// attempt is that of so many failures, whichever event they were about.
	openAfter = 5
)

// failed returns what a failed attempt makes of how far the delivery was.
func (p progressRecord) failed(event string, d *webhook.Delivery) progressRecord {
	if p.FailingSince.IsZero() || p.FailingSince.After(d.At) { // of a clock that was put back since
		p.FailingSince = d.At
	}
	p.Event, p.Attempts, p.NextAttempt, p.Waits = event, d.Attempt, time.Time{}, ""
	p.Failures++
	return p
}

// pauseAfter returns the pause after so many attempts at an event, the last of so many failures of the endpoint in a row.
func pauseAfter(schedule []time.Duration, attempts, failures int) time.Duration {
	if failures >= openAfter {
		attempts = max(attempts, failures)
	}
	return schedule[min(attempts, len(schedule)-1)]
}

// longestPause is the longest that an attempt is ever put off. One that is due later was put off by a clock that was ahead.
func longestPause(schedule []time.Duration) time.Duration {
	longest := slices.Max(schedule)
	return max(longest+longest/10, retryAfterMost+sendTimeout)
}

// jittered returns a pause that is up to a tenth longer or shorter, so that what failed together does not come back together.
func jittered(d time.Duration) time.Duration {
	return d - d/10 + time.Duration(rand.Int64N(int64(d/5)+1))
}
