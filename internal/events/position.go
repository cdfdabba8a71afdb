package events

import (
	"fmt"
	"strconv"
	"strings"
)

// Position names one request and the decision on it: a partition and the sequence in it, written 0-1234.
type Position struct {
	Partition int
	Sequence  uint64 // from 1; 0 is the place before the first request
}

// String returns the written form, <partition>-<sequence>.
func (p Position) String() string {
	return strconv.Itoa(p.Partition) + "-" + strconv.FormatUint(p.Sequence, 10)
}

// ParsePosition reads the form that String writes, and no other spelling of it: "0-07" and "+0-7" are errors.
func ParsePosition(s string) (Position, error) {
	partition, sequence, ok := strings.Cut(s, "-")
	p, err1 := strconv.ParseUint(partition, 10, 31)
	n, err2 := strconv.ParseUint(sequence, 10, 63)
	pos := Position{Partition: int(p), Sequence: n}
	if !ok || err1 != nil || err2 != nil || n == 0 || pos.String() != s {
		return Position{}, fmt.Errorf("%q is not a position: it looks like 0-1234, <partition>-<sequence>", s)
	}
	return pos, nil
}

// MarshalText writes the position as String does.
func (p Position) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads a position as ParsePosition does.
func (p *Position) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePosition(string(text))
	return err
}
