package projections

import (
	"context"
	"sync"

	"jobtally/internal/events"
)

// tape is a stretch of a stream that is read ahead of its user.
type tape struct {
	ctx      context.Context // ends with the cause of a failure to read
	batches  chan []events.Message
	batch    []events.Message // of peek and take
	messages *uint64          // counts what was taken from the batches
}

// play starts to read a stream from where the audit is up to last. A failure cancels ctx.
func (a *auditor) play(ctx context.Context, cancel context.CancelCauseFunc, running *sync.WaitGroup, stream events.Stream, p int, last uint64) *tape {
	t := &tape{ctx: ctx, batches: make(chan []events.Message, ahead), messages: &a.sum.Messages}
	after := a.at[p]
	running.Go(func() {
		defer close(t.batches) // after the cancelling: whoever finds the end knows why
		for batch, err := range a.Ledger.ReadTo(ctx, stream, p, a.subjects(stream, p), after, last) {
			if err != nil {
				cancel(err)
				return
			}
			select {
			case t.batches <- batch:
			case <-ctx.Done():
				return
			}
		}
	})
	return t
}

// subjects are those of the account that is audited, and of the months that are closed, for what counts in which depends on
// them: none stands for all.
func (a *auditor) subjects(stream events.Stream, partition int) []string {
	switch {
	case a.Account == "":
		return nil
	case stream == events.Requests:
		return []string{stream.SubjectOf(a.Account, partition), events.ClosesSubject(partition)}
	}
	return []string{stream.SubjectOf(a.Account, partition), events.ArchivesSubject(partition)}
}

// next returns the next batch, and an empty one at the end.
func (t *tape) next() ([]events.Message, error) {
	batch := <-t.batches
	if batch == nil && t.ctx.Err() != nil {
		return nil, context.Cause(t.ctx)
	}
	*t.messages += uint64(len(batch))
	return batch, nil
}

// peek returns the next message without taking it, and nil at the end.
func (t *tape) peek() (m *events.Message, err error) {
	if len(t.batch) == 0 {
		if t.batch, err = t.next(); len(t.batch) == 0 {
			return nil, err
		}
	}
	return &t.batch[0], nil
}

// take takes the message that peek returned.
func (t *tape) take() events.Message {
	m := t.batch[0]
	t.batch = t.batch[1:]
	return m
}
