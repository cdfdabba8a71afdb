package consumer

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
)

// ErrAhead is the error of asking for what comes after a message that the stream does not have: the ledger was put back to an
// older state, or the position is of another one. Right after a crash of the server it may pass: lost decisions are made again.
var ErrAhead = errors.New("the stream does not reach so far")

// PrunedError is the error of asking for decisions that are no longer in the stream, of which some were not erased with
// their account: somebody removed them to save space.
type PrunedError struct {
	Asked Position // the first one that was asked for
	First Position // the first one that is there
	Month Month    // whose archive has the one asked for; empty where the decision that archived it was pruned too, or none did

	earliest Month // that the stream tells of as archived, if any
}

func (e *PrunedError) Error() string {
	where := "no month was archived that has it"
	switch {
	case e.Month != "":
		where = "the archive of " + string(e.Month) + " has it"
	case e.earliest != "":
		where = "the archive of a month before " + string(e.earliest) + " has it"
	}
	return fmt.Sprintf("position %s was pruned, the first that is there is %s; %s. Read the archive, and then start after %d",
		e.Asked, e.First, where, e.First.Sequence-1)
}

// metadataPartitions is what a stream says the number of partitions under.
const metadataPartitions = "jobtally_partitions"

func (s *Subscriber) partitions(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	info, err := s.info(ctx, events.Decisions.Name(0))
	if err != nil {
		return 0, fmt.Errorf("how many partitions there are, unless Partitions says it: %w", err)
	}
	n, err := strconv.Atoi(info.Config.Metadata[metadataPartitions])
	if err != nil {
		return 0, fmt.Errorf("how many partitions there are: stream %s does not say; give Partitions", info.Config.Name)
	}
	return n, nil
}

func (s *Subscriber) info(ctx context.Context, stream string) (*jetstream.StreamInfo, error) {
	found, err := s.js.Stream(ctx, stream)
	if err != nil {
		err = lacksRight(s.config.Conn, "STREAM.INFO."+stream, err)
		return nil, fmt.Errorf("stream %s: %w", stream, err)
	}
	return found.CachedInfo(), nil
}

// sequenceOf returns the sequence to read after.
func (s *Subscriber) sequenceOf(ctx context.Context, stream string, start Start) (uint64, error) {
	if start.kind == fromAfter {
		return start.sequence, s.check(ctx, stream, start.sequence)
	}
	info, err := s.info(ctx, stream)
	if err != nil {
		return 0, err
	}
	if start.kind == fromNow {
		return info.State.LastSeq, nil
	}
	return max(info.State.FirstSeq, 1) - 1, nil
}

// check returns an error unless all messages after a sequence are there, or were erased with their accounts.
func (s *Subscriber) check(ctx context.Context, stream string, after uint64) error {
	info, err := s.info(ctx, stream)
	if err != nil {
		return err
	}
	state := info.State
	if state.LastSeq < after {
		return fmt.Errorf("%w: %s ends at %d, and %d is to follow", ErrAhead, stream, state.LastSeq, after+1)
	}
	if state.FirstSeq <= after+1 {
		return nil
	}
	partition, ok := partitionOf(stream)
	if !ok {
		return fmt.Errorf("stream %s begins at %d, and %d is to follow", stream, state.FirstSeq, after+1)
	}
	told, err := s.tell(ctx, stream, partition)
	if err != nil || state.LastSeq-state.Msgs <= told.erased {
		return err
	}
	e := &PrunedError{Asked: Position{Partition: partition, Sequence: after + 1}, First: Position{Partition: partition, Sequence: state.FirstSeq}}
	e.find(told.archived)
	return e
}

// find finds the month among those that are archived, in order. What is before the first of them is of a month before.
func (e *PrunedError) find(months []archived) {
	for i, m := range months {
		if i == 0 {
			e.earliest = m.Month
		}
		if e.Asked.Sequence <= m.at {
			if i > 0 || m.First.Sequence <= e.Asked.Sequence {
				e.Month = m.Month
			}
			return
		}
	}
}

// told is what the decisions of a partition tell of what is not there.
type told struct {
	erased   uint64     // messages that went with their accounts
	archived []archived // in order
}

// archived is a month, and where in the stream it was closed: its archive goes up to there.
type archived struct {
	*events.MonthArchived
	at uint64
}

func (s *Subscriber) tell(ctx context.Context, stream string, partition int) (told told, err error) {
	made, err := s.js.CreateConsumer(ctx, stream, jetstream.ConsumerConfig{
		FilterSubjects: []string{events.ErasuresSubject(partition), events.ArchivesSubject(partition)},
		AckPolicy:      jetstream.AckNonePolicy, InactiveThreshold: keptIdle, MemoryStorage: true, Replicas: 1,
	})
	if err != nil {
		return told, lacksRight(s.config.Conn, "CONSUMER.CREATE."+stream, err)
	}
	w := worker{s: s, stream: stream}
	defer w.shut()
	if w.pull, err = s.newPull(stream, made.CachedInfo().Name, keptBatch); err != nil {
		return told, err
	}
	for pending := made.CachedInfo().NumPending; pending > 0; {
		m, err := w.pull.next(ctx)
		if err != nil {
			return told, err
		}
		meta, err := m.Metadata()
		if err != nil {
			return told, err
		}
		pending = meta.NumPending
		body, err := events.DecodeBody(m.Header.Get(MetadataType), m.Data)
		if err != nil {
			return told, fmt.Errorf("decision %d of %s: %w", meta.Sequence.Stream, stream, err)
		}
		switch b := body.(type) {
		case *events.AccountErased:
			told.erased += uint64(b.Requests)
		case *events.MonthArchived:
			told.archived = append(told.archived, archived{b, meta.Sequence.Stream})
		}
	}
	return told, nil
}
