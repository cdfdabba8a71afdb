package http

import (
	nethttp "net/http"
	"strconv"
	"time"

	"jobtally/internal/capture"
)

// setRateLimit sets the fields of draft-ietf-httpapi-ratelimit-headers-11 for a quota. They cannot say unlimited:
// such a quota has none. The draft may still change: nothing but this file knows its form.
func setRateLimit(header nethttp.Header, q capture.Quota, now time.Time) {
	if q.Limit == capture.Unlimited {
		return
	}
	reset := q.Reset()
	header["Ratelimit-Policy"] = []string{rateLimitPolicy(q, reset)}
	header["Ratelimit"] = []string{rateLimit(q, reset, now)}
}

// rateLimitPolicy says how many captures (q) the window allows, and how many seconds (w) it has: those of the month.
func rateLimitPolicy(q capture.Quota, reset time.Time) string {
	return twoParameters(";q=", q.Limit, ";w=", seconds(reset.Sub(q.Month.Start())))
}

// rateLimit says how many captures remain (r), and in how many seconds (t) the count starts at 0 again.
func rateLimit(q capture.Quota, reset, now time.Time) string {
	return twoParameters(";r=", q.Remaining(), ";t=", seconds(reset.Sub(now)))
}

func twoParameters(first string, n int64, second string, m int64) string {
	field := append(make([]byte, 0, 48), `"captures"`...)
	field = strconv.AppendInt(append(field, first...), n, 10)
	field = strconv.AppendInt(append(field, second...), m, 10)
	return string(field)
}
