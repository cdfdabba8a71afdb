package archive

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"jobtally/internal/events"
)

// maxBatch is how many messages are yielded at once.
const maxBatch = 512

// ReadTo yields the messages of one of the two streams of a partition after one sequence and up to another, in order, those
// under the subjects, or all where there are none. The months overlap: they are merged.
func (s *Set) ReadTo(ctx context.Context, stream events.Stream, partition int, subjects []string, after, last uint64) iter.Seq2[[]events.Message, error] {
	return func(yield func([]events.Message, error) bool) {
		var sources []*source
		for i := range s.months {
			if p := s.months[i].part(partition); p != nil && p.First.Sequence <= last && p.Last.Sequence > after {
				f := file{dir: s.months[i].dir, name: p.Pairs.Name, stream: stream, partition: partition, subjects: subjects}
				pulled := &source{}
				pulled.pull, pulled.stop = iter.Pull2(f.messages(ctx, after, last))
				defer pulled.stop()
				sources = append(sources, pulled)
			}
		}
		var batch []events.Message
		for {
			m, err := nextOf(sources)
			if err != nil {
				yield(nil, err)
				return
			}
			if m != nil {
				batch = append(batch, *m)
			}
			if len(batch) == maxBatch || m == nil && len(batch) > 0 {
				if !yield(batch, nil) {
					return
				}
				batch = nil
			}
			if m == nil {
				return
			}
		}
	}
}

// source is a file that is merged with others.
type source struct {
	pull func() (events.Message, error, bool)
	stop func()
	head *events.Message // the next, once it is known
	end  bool
}

// nextOf takes the message with the least sequence, and nothing where all are at their end.
func nextOf(sources []*source) (*events.Message, error) {
	var least *source
	for _, s := range sources {
		if s.head == nil && !s.end {
			m, err, more := s.pull()
			if err != nil {
				return nil, err
			}
			if s.end = !more; more {
				s.head = &m
			}
		}
		if s.head != nil && (least == nil || s.head.Sequence < least.head.Sequence) {
			least = s
		}
	}
	if least == nil {
		return nil, nil
	}
	m := least.head
	least.head = nil
	return m, nil
}

// file is a file of pairs, of which one of the streams is read.
type file struct {
	dir, name string
	stream    events.Stream
	partition int
	subjects  []string
}

// messages yields what of the file is asked for. Requests and decisions take turns, so that the lines of the other stream
// are not even looked at.
func (f *file) messages(ctx context.Context, after, last uint64) iter.Seq2[events.Message, error] {
	return func(yield func(events.Message, error) bool) {
		r, err := open(f.dir, f.name)
		if err != nil {
			yield(events.Message{}, err)
			return
		}
		for line, err := range r.lines(ctx) {
			if err == nil && ((r.at%2 == 1) != (f.stream == events.Requests) || !f.mayMatch(line)) {
				continue
			}
			var m events.Message
			if err == nil {
				m, err = f.parse(line, r.at)
			}
			if err != nil {
				yield(m, fmt.Errorf("%s in %s: %w", f.name, f.dir, err))
				return
			}
			if m.Sequence > last {
				return
			}
			if m.Sequence > after && f.matches(m.Subject) && !yield(m, nil) {
				return
			}
		}
	}
}

// parse reads a line. The message is the caller's: the line may be overwritten.
func (f *file) parse(line []byte, at int64) (events.Message, error) {
	m, partition, err := events.ParseStructured(line)
	if err == nil && partition != f.partition {
		err = fmt.Errorf("it is of partition %d", partition)
	}
	if err != nil {
		return m, fmt.Errorf("line %d: %w; see `projector archive verify`", at, err)
	}
	m.Data = bytes.Clone(m.Data) // it stands in the line, which the next one overwrites
	return m, nil
}

// mayMatch is the quick way to find that a line is not asked for.
func (f *file) mayMatch(line []byte) bool {
	return len(f.subjects) == 0 || slices.ContainsFunc(f.subjects, func(subject string) bool {
		literal, _, _ := strings.Cut(subject, "*")
		return bytes.Contains(line, []byte(`"`+literal))
	})
}

func (f *file) matches(subject string) bool {
	return len(f.subjects) == 0 || slices.ContainsFunc(f.subjects, func(filter string) bool { return events.Matches(subject, filter) })
}
