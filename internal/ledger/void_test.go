package ledger

import (
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
)

// drop deletes messages behind the ledger's back.
func drop(t *testing.T, l *Ledger, stream string, sequences ...uint64) {
	t.Helper()
	s := must[jetstream.Stream](t)(jetstreamOf(t, l.nc).Stream(within(t), stream))
	for _, sequence := range sequences {
		if err := s.DeleteMsg(within(t), sequence); err != nil {
			t.Fatal(err)
		}
	}
}

// outline reads a stream up to a number: one letter for each message, a dot for a void, and the error.
func outline(t *testing.T, l *Ledger, stream events.Stream, after, last uint64) (string, error) {
	t.Helper()
	var seen strings.Builder
	for batch, err := range l.Read(within(t), stream, 0, after) {
		if err != nil {
			return seen.String(), err
		}
		if len(batch) == 0 || len(batch) > maxRead {
			t.Fatalf("a batch of %d", len(batch))
		}
		for _, m := range batch {
			if after++; m.Sequence != after {
				t.Fatalf("read %d, want %d", m.Sequence, after)
			}
			seen.WriteString(letter(m))
			if after == last {
				return seen.String(), nil
			}
		}
	}
	return seen.String(), nil
}

func letter(m events.Message) string {
	switch {
	case m.Void():
		return "."
	case m.Remains():
		return "!"
	default:
		return strings.Split(m.Subject, ".")[2][:1]
	}
}

// What an erasure explains is read as voids, and with the first of them all of the account. Anything else is a gap.
func TestReadYieldsVoids(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		erases  int // requests, by the decision; 0 where there is none
		removed []uint64
		after   uint64
		want    string
		says    string // empty where there is no gap
	}{
		"all":                        {4, []uint64{1, 3, 5, 7}, 0, ".b.b.b.b!", ""},
		"none yet":                   {4, nil, 0, "abababab!", ""},
		"the first":                  {4, []uint64{1}, 0, ".b.b.b.b!", ""},
		"one, further on":            {4, []uint64{5}, 0, "abab.b.b!", ""},
		"behind where it begins":     {4, []uint64{1, 3}, 4, "abab!", ""},
		"from within":                {4, []uint64{1, 3, 5, 7}, 3, "b.b.b!", ""},
		"from the gap":               {4, []uint64{1, 3, 5, 7}, 2, ".b.b.b!", ""},
		"not erased":                 {0, []uint64{3}, 0, "ab", "goes from 2 to 4; 1 messages are missing beyond those erased"},
		"more than erased":           {2, []uint64{1, 3, 5}, 0, "", "goes from 0 to 2; 1 messages are missing beyond those erased"},
		"more, and not where it was": {1, []uint64{1, 2, 4}, 0, "", "goes from 0 to 3; 2 messages are missing beyond those erased"},
		"after the erasure":          {4, []uint64{10}, 8, "!", "goes from 9 to 11; what is missing there was not erased"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, stream := range []events.Stream{events.Requests, events.Decisions} {
				l := newLedger(t)
				record(t, l, 10, repeat(4, "anna", "bob")...)
				if c.erases > 0 {
					decideErasure(t, l, "anna", c.erases)
				} else {
					record(t, l, 10, "carl")
				}
				record(t, l, 10, "anna", "bob")
				drop(t, l, stream.Name(0), c.removed...)
				want := c.want
				if c.says == "" {
					want += "ab"
				}
				got, err := outline(t, l, stream, c.after, 11)
				if got != want || (err != nil) != (c.says != "") {
					t.Fatalf("%s: read %s, want %s: %v", stream, got, want, err)
				}
				if err != nil {
					wantErr(t, err, events.ErrGap)
					if !strings.Contains(err.Error(), c.says) {
						t.Fatalf("error %q, want one that says %q", err, c.says)
					}
				}
			}
		})
	}
}

// A gap is filled in batches. A reader that knows of one erasure learns of the next one when it meets its gap.
func TestReadFindsErasuresThatComeLater(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	const n = 3 * maxRead // more than a reader has in hand
	record(t, l, 10, slices.Concat(repeat(n, "anna"), repeat(n, "bob"), []string{"carl", "dora", "carl", "dora", "carl"})...)
	decideErasure(t, l, "anna", n)
	stream := must[jetstream.Stream](t)(jetstreamOf(t, l.nc).Stream(within(t), "REQUESTS_0"))
	if err := stream.Purge(within(t), jetstream.WithPurgeSubject("requests.0.anna.job_capture")); err != nil {
		t.Fatal(err)
	}
	seen, next := "", uint64(0)
	for batch, err := range l.Read(within(t), events.Requests, 0, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if len(batch) > maxRead {
			t.Fatalf("a batch of %d", len(batch))
		}
		if next == 0 {
			decideErasure(t, l, "carl", 3)
			drop(t, l, "REQUESTS_0", 2*n+3)
		}
		for _, m := range batch {
			if next++; m.Sequence != next {
				t.Fatalf("read %d, want %d", m.Sequence, next)
			}
			seen += letter(m)
		}
		if next == 2*n+7 {
			break
		}
	}
	// One of carl's came before anything was known of its erasure, none after.
	if want := strings.Repeat(".", n) + strings.Repeat("b", n) + "cd.d.!!"; seen != want {
		t.Fatalf("read %s, want %s", seen[2*n:], want[2*n:])
	}
}
