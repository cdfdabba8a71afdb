package capture

import (
	"time"

	"jobtally/internal/events"
)

// Unlimited is the limit of an account that may capture without end.
const Unlimited = -1

// Quota is an account's count in one month: what a client is told, and what Decide goes by.
type Quota struct {
	Month events.Month
	Used  int64 // jobs captured in the month
	Limit int64 // captures a month, or Unlimited
}

// Remaining returns how many captures are left: never negative, also when a downgrade put the limit below the
// count, and -1 when the account is unlimited.
func (q Quota) Remaining() int64 {
	if q.Limit == Unlimited {
		return Unlimited
	}
	return max(0, q.Limit-q.Used)
}

// Reset returns the instant at which the count starts at 0 again: 00:00:00 UTC on the first of the next month.
func (q Quota) Reset() time.Time { return q.Month.Start().AddDate(0, 1, 0) }

// ResetDate returns the day of Reset, written 2024-02-01.
func (q Quota) ResetDate() string { return q.Reset().Format(time.DateOnly) }

// exhausted says whether one more capture would exceed the limit.
func (q Quota) exhausted() bool { return q.Limit != Unlimited && q.Used >= q.Limit }

// threshold returns the percentage of the limit, 80 or 100, that the last capture reached, or 0.
func (q Quota) threshold() int {
	switch {
	case q.Limit == Unlimited:
		return 0
	case q.Used == q.Limit:
		return 100
	case q.Used == q.Limit-q.Limit/5: // 80 %, rounded up
		return 80
	}
	return 0
}
