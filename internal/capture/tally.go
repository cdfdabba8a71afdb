package capture

import (
	"encoding/binary"

	"jobtally/internal/events"
)

// Tally is an account's part of a month, or a partition's: the counts, and the last link of the account's chain in it.
type Tally struct {
	events.Totals
	Digest events.Digest
}

// Add counts a decision, which comes after all that were added before it.
func (t *Tally) Add(d *events.Decision) {
	t.Requests++
	switch d.Body.(type) {
	case *events.JobCaptured:
		t.Captured++
	case *events.JobCaptureDuplicated:
		t.Duplicated++
	case *events.JobCaptureRejected:
		t.Rejected++
	case *events.JobCaptureRepeated:
		t.Repeated++
	}
	if t.First.Sequence == 0 {
		t.First = d.Position
	}
	t.Last, t.Digest = d.Position, d.Digest
}

// MonthOf returns the month that a decision belongs to, given the last month that was archived before it: the one that it
// names or, where it names none, the one of its time, unless that is archived.
func MonthOf(d *events.Decision, archived events.Month) events.Month {
	switch b := d.Body.(type) {
	case *events.JobCaptured:
		return b.Month
	case *events.JobCaptureDuplicated:
		return b.Month
	case *events.JobCaptureRejected:
		return b.Month
	case *events.JobCaptureRepeated:
		return b.Month
	case *events.MonthArchived:
		return b.Month
	}
	return CountsIn(events.MonthOf(d.Time), archived)
}

// Leaf returns the digest of an account's part of a month. That of the month is made of these.
func (t *Tally) Leaf(account string, month events.Month) events.Digest {
	var counts []byte
	for _, n := range []int64{
		t.Requests, t.Captured, t.Duplicated, t.Rejected, t.Repeated, int64(t.First.Sequence), int64(t.Last.Sequence),
	} {
		counts = binary.BigEndian.AppendUint64(counts, uint64(n))
	}
	return events.Hash([]byte("leaf"), []byte(account), []byte(month), counts, t.Digest[:])
}

// Leaves gathers the leaves of a month in the order of the account names, for the digest over them.
type Leaves struct {
	count int64
	last  events.Digest
}

// Add takes the next leaf in.
func (l *Leaves) Add(leaf events.Digest) {
	l.count++
	l.last = events.Hash(l.last[:], leaf[:])
}

// Archive returns what the closing of a month says, given the totals of the partition.
func (l *Leaves) Archive(month events.Month, totals events.Totals) *events.MonthArchived {
	return &events.MonthArchived{Month: month, Totals: totals, Accounts: l.count, Digest: l.last}
}
