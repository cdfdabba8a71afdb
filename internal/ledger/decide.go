package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
)

// AppendDecisions records decisions under the numbers after, after+1 and so on of a partition, pipelined, each on the
// condition that the one before it is the last: so of two projectors one wins each number. It returns nil once all
// are recorded, and otherwise whichever error the first of them met: ErrFenced when another projector has that
// number, and any other when the outcome is unknown. Either way some may be recorded: read them.
//
// A decision must not survive what its request did not: the requests are durable before the first is sent.
func (l *Ledger) AppendDecisions(ctx context.Context, partition int, after uint64, decisions []events.Message) error {
	if err := l.appenders[partition].sync(after + uint64(len(decisions))); err != nil {
		return err
	}
	futures := make([]jetstream.PubAckFuture, 0, len(decisions))
	var failed error
	for i, m := range decisions {
		future, err := l.js.PublishMsgAsync(natsMessage(m), jetstream.WithExpectLastSequence(after+uint64(i)))
		if err != nil {
			failed = err
			break
		}
		futures = append(futures, future)
	}
	for i, future := range futures {
		if err := l.settle(ctx, future, after+uint64(i)+1); err != nil {
			if l.embedded != nil && errors.Is(err, events.ErrFenced) {
				l.embedded.doubt(errRefusesNext)
			}
			return fmt.Errorf("append decision %d of partition %d: %w", after+uint64(i)+1, partition, err)
		}
	}
	return failed
}

// errRefusesNext says that an embedded server, on which nobody else decides, counts decisions that it has not: their
// asynchronous writing failed.
var errRefusesNext = errors.New("the server refuses the next decision")

func (l *Ledger) settle(ctx context.Context, future jetstream.PubAckFuture, want uint64) error {
	select {
	case ack := <-future.Ok():
		if ack.Sequence != want {
			return fmt.Errorf("%w: recorded under %d", events.ErrUnknownOutcome, ack.Sequence)
		}
		return nil
	case err := <-future.Err():
		if fenced(err) {
			return fmt.Errorf("%w: %w", events.ErrFenced, err)
		}
		return fmt.Errorf("%w: %w", events.ErrUnknownOutcome, explain(l.nc, future.Msg().Subject, err))
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// fenced recognises both codes of a wrong last sequence: 10071 of a stream with one replica, 10164 of a replicated one.
func fenced(err error) bool {
	var refusal *jetstream.APIError
	return errors.As(err, &refusal) && (refusal.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
		refusal.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}
