package client

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

const (
	firstPause = 200 * time.Millisecond
	maxPause   = 10 * time.Second // beyond this the caller knows better than to wait
)

// worthTrying says whether a call that failed is tried again, and after which pause. An answer by which nothing was done is
// no obstacle. Where that is not known, because the answer was lost, say, only a call that may be made twice is.
func (k call) worthTrying(err error, attempt int) (wait time.Duration, worth bool) {
	wait = firstPause << (attempt - 1)
	wait = wait/2 + rand.N(wait/2+1) // so that clients that failed together do not come back together
	var p *Problem
	if !errors.As(err, &p) {
		return wait, k.again
	}
	switch {
	case p.Status == http.StatusTooManyRequests:
	case p.Status == http.StatusServiceUnavailable && p.Code != "" && p.Code != OutcomeUnknown && p.Code != Interrupted:
	case p.Status >= http.StatusBadGateway && p.Status <= http.StatusGatewayTimeout:
		if !k.again {
			return 0, false
		}
	default:
		return 0, false
	}
	wait = max(wait, p.RetryAfter)
	return wait, wait <= maxPause
}

// retryAfter reads a Retry-After header, in either of its forms.
func retryAfter(header http.Header, now time.Time) time.Duration {
	text := header.Get("Retry-After")
	if seconds, err := strconv.ParseInt(text, 10, 32); err == nil {
		return time.Duration(max(0, seconds)) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}
