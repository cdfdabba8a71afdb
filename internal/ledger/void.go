package ledger

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
)

// Erasures returns the decisions of a partition that erased an account, up to a sequence that is not beyond the head, in
// order.
func (l *Ledger) Erasures(ctx context.Context, partition int, last uint64) (erasures []events.Decision, err error) {
	subject := []string{events.ErasuresSubject(partition)}
	for batch, err := range l.ReadTo(ctx, events.Decisions, partition, subject, 0, last) {
		if err != nil {
			return nil, err
		}
		for _, m := range batch {
			d, err := events.DecodeDecision(m, partition)
			if err != nil {
				return nil, err
			}
			if _, is := d.Body.(*events.AccountErased); !is {
				return nil, fmt.Errorf("decision %s: it has the subject of an erasure, and is none", d.Position)
			}
			erasures = append(erasures, d)
		}
	}
	return erasures, nil
}

// voids is what a reader knows of the messages that were erased from its stream. It is read when a gap is met that it
// does not explain; so what one reader knows of two accounts is of one moment, or each gap of the later is one.
type voids struct {
	erased map[string]uint64 // the last erasure of each account
	last   uint64            // the last of all erasures
	first  uint64            // the first number that the stream has a message under
	gone   []uint64          // those after it that it has none under, in order
	beyond uint64            // how many messages are missing beyond those erased
}

// voids reads what was erased from a stream up to now.
func (l *Ledger) voids(ctx context.Context, stream events.Stream, partition int) (*voids, error) {
	// The stream before the erasures: what is missing from it was then decided to be erased.
	info, err := l.streams[stream.Name(partition)].Info(ctx, jetstream.WithDeletedDetails(true))
	if err != nil {
		return nil, fmt.Errorf("%w: what %s lacks: %w", events.ErrUnavailable, stream.Name(partition), err)
	}
	head, err := l.head(ctx, events.Decisions, partition)
	if err != nil {
		return nil, err
	}
	erasures, err := l.Erasures(ctx, partition, head)
	if err != nil {
		return nil, err
	}
	v := &voids{erased: map[string]uint64{}, first: info.State.FirstSeq, gone: info.State.Deleted}
	missing, explained := info.State.LastSeq-info.State.Msgs, uint64(0)
	for _, d := range erasures {
		v.last, v.erased[d.Account] = d.Position.Sequence, d.Position.Sequence
		explained += uint64(d.Body.(*events.AccountErased).Requests)
	}
	v.beyond = missing - min(missing, explained)
	return v, nil
}

// Erased says whether the stream of a partition lacks all the messages from one number to another because accounts were erased.
func (l *Ledger) Erased(ctx context.Context, stream events.Stream, partition int, from, to uint64) (bool, error) {
	v, err := l.voids(ctx, stream, partition)
	return err == nil && v.explain(from, to), err
}

// explain says whether the stream lacks all the numbers from one to another because accounts were erased. Of what was
// removed since v was read it knows nothing.
func (v *voids) explain(from, to uint64) bool {
	if v == nil || v.beyond > 0 || to < from || to >= v.last {
		return false
	}
	if from = max(from, v.first); from > to {
		return true
	}
	start, found := slices.BinarySearch(v.gone, from)
	end := start + int(to-from)
	return found && end < len(v.gone) && v.gone[end] == to
}

// hides says whether a message is one of an account that was erased later. Some of them may be gone already: what is
// left makes no sense without them.
func (v *voids) hides(m *events.Message) bool {
	_, rest, _ := strings.Cut(m.Subject, ".")
	_, rest, _ = strings.Cut(rest, ".")
	account, _, _ := strings.Cut(rest, ".")
	return m.Sequence < v.erased[account] && !m.Remains()
}

// fill appends the voids before a message to a batch, as far as there is room in it. Where the batch is full then, the
// message is held for the next one. The error is ErrGap when something else is missing than what was erased.
func (r *reader) fill(ctx context.Context, batch []events.Message, a arrival) ([]events.Message, error) {
	from, to := r.after+1, a.message.Sequence-1
	if !r.voids.explain(from, to) {
		var err error
		if r.voids, err = r.l.voids(ctx, r.stream, r.partition); err != nil {
			return batch, err
		}
		if !r.voids.explain(from, to) {
			return batch, fmt.Errorf("%w: %s goes from %d to %d; %s", events.ErrGap, r.name(), r.after, a.message.Sequence, r.voids.why())
		}
	}
	for r.after < to && len(batch) < maxRead {
		r.after++
		batch = append(batch, events.Message{Sequence: r.after})
	}
	if len(batch) == maxRead {
		r.held, r.holding = a, true
	}
	return batch, nil
}

func (v *voids) why() string {
	if v.beyond > 0 {
		return fmt.Sprintf("%d messages are missing beyond those erased", v.beyond)
	}
	return "what is missing there was not erased"
}
