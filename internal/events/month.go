package events

import (
	"fmt"
	"time"
)

// Month is a calendar month in UTC, written 2026-11. Months in this form sort as text.
type Month string

const monthLayout = "2006-01"

// MonthOf returns the UTC month in which t lies.
func MonthOf(t time.Time) Month { return Month(t.UTC().Format(monthLayout)) }

// ParseMonth reads a month, and no other spelling of it.
func ParseMonth(s string) (Month, error) {
	t, err := time.Parse(monthLayout, s)
	if err != nil || MonthOf(t) != Month(s) {
		return "", fmt.Errorf("%q is not a month: it looks like 2026-11", s)
	}
	return Month(s), nil
}

// Start returns the first instant of the month, 00:00:00 UTC on the first. A month that ParseMonth or MonthOf
// did not make has the zero time.
func (m Month) Start() time.Time {
	t, err := time.Parse(monthLayout, string(m))
	if err != nil {
		return time.Time{}
	}
	return t
}

// Next returns the month after m. Its start is the instant at which the count of m ends.
func (m Month) Next() Month { return MonthOf(m.Start().AddDate(0, 1, 0)) }

// UnmarshalText reads a month as ParseMonth does.
func (m *Month) UnmarshalText(text []byte) (err error) {
	*m, err = ParseMonth(string(text))
	return err
}
