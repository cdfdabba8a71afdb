package projections

import (
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// gathered are values by key, in the order in which they were first asked for.
type gathered[key comparable, value any] struct {
	byKey map[key]*value
	keys  []key
}

// at returns the value of a key, to be changed in place.
func (g *gathered[key, value]) at(k key) *value {
	v := g.byKey[k]
	if v == nil {
		if g.byKey == nil {
			g.byKey = map[key]*value{}
		}
		v = new(value)
		g.byKey[k] = v
		g.keys = append(g.keys, k)
	}
	return v
}

type dayKey struct {
	monthKey
	day string
}

// day is what a batch adds to a day of an account.
type day struct{ captured, duplicated, rejected int64 }

// day returns the day of a capture, in the month that it counts in.
func (b *batch) day(d *events.Decision, t *tally) *day {
	return b.days.at(dayKey{t.monthKey, d.Time.UTC().Format(time.DateOnly)})
}

func (b *batch) writeDays() error {
	args := make([]any, 0, len(b.days.keys)*b.db.bulks.days.width)
	for _, key := range b.days.keys {
		d := b.days.byKey[key]
		args = append(args, key.account, string(key.month), key.day, d.captured, d.duplicated, d.rejected)
	}
	return b.db.bulks.days.run(args, nil)
}

func (b *batch) writeTotals() error {
	var args []any
	for _, month := range b.totals.keys {
		args = append(args, totalsRow(b.partition, month, b.totals.byKey[month].Totals)...)
	}
	return b.db.bulks.totals.run(args, nil)
}

// totalsRow are the arguments of a row of totals.
func totalsRow(partition int, month events.Month, t events.Totals) []any {
	return []any{int64(partition), string(month), t.Requests, t.Captured, t.Duplicated, t.Rejected, t.Repeated,
		int64(t.First.Sequence), int64(t.Last.Sequence)}
}

// scanTally reads the columns of a month of an account, after others.
func scanTally(scan func(...any) error, partition int, t *capture.Tally, before []any, after ...any) error {
	t.First.Partition, t.Last.Partition = partition, partition
	var digest []byte
	into := append(before, &t.Requests, &t.Captured, &t.Duplicated, &t.Rejected, &t.Repeated, &t.First.Sequence, &t.Last.Sequence, &digest)
	err := scan(append(into, after...)...)
	copy(t.Digest[:], digest)
	return err
}
