package capture

import (
	"errors"

	"jobtally/internal/events"
)

// MonthCount is what the requests of an account in a month came to.
type MonthCount struct {
	Tally
	Extension int64      // captured jobs that came through the browser extension
	Days      []DayCount // with captures, in order
}

// DayCount is what the captures of a day, UTC, came to.
type DayCount struct {
	Day                            string // 2026-11-22
	Captured, Duplicated, Rejected int64
}

// AccountMonth is a month of an account as a projection has it.
type AccountMonth struct {
	Month events.Month
	MonthCount
	Limit   int64         // at the end of the month, or now while it lasts
	Archive *MonthArchive // nil while the month is not archived

	Begun events.Month    // the first month of the account
	At    events.Position // up to which the projection had folded the account's partition
}

// MonthArchive is where a month of a partition was archived.
type MonthArchive struct {
	Position events.Position // of the decision
	Digest   events.Digest   // of the decision: the link of the chain of months
	Month    events.Digest   // over the accounts of the month
}

// Quota returns the count of the month with its limit.
func (m *AccountMonth) Quota() Quota {
	return Quota{Month: m.Month, Used: m.Captured, Limit: m.Limit}
}

// ErrMonthTooLarge is the error of replaying a month for which more of the ledger would have to be read than is read while
// somebody waits.
var ErrMonthTooLarge = errors.New("the month is too large to be replayed while somebody waits")

// ReplayedMonth is a month of an account as the ledger has it, up to a position.
type ReplayedMonth struct {
	MonthCount
	First, Last events.Position // of the stretch that was read, both included
	Messages    int64           // of the account that were read there
	// Broken tells of the first decision that does not follow from the one before it, or what is missing, and is nil where
	// all is there and follows.
	Broken error
}
