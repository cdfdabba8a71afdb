package ledger

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"jobtally/internal/events"
)

// atomicFrom is the size from which a group costs less as one atomic batch (one fsync, and some milliseconds of
// staging) than as so many publishes (an fsync each).
const atomicFrom = 16

// Headers and answer of an atomic batch, as in the NATS architecture decision record 50. nats.go has no client.
const (
	headerBatchID       = "Nats-Batch-Id"
	headerBatchSequence = "Nats-Batch-Sequence"
	headerBatchCommit   = "Nats-Batch-Commit"
)

type batchAck struct {
	Error    *jetstream.APIError `json:"error"`
	Sequence uint64              `json:"seq"` // of the last message
	Count    uint64              `json:"count"`
}

// publishBatch makes the group durable as one atomic batch: all of it or nothing, one fsync, consecutive sequences.
func (a *appender) publishBatch(group []*pendingAppend) {
	id, last := nuid.Next(), len(group)-1
	for i, p := range group {
		p.message.Header.Set(headerBatchID, id)
		p.message.Header.Set(headerBatchSequence, strconv.Itoa(i+1))
		if i == last {
			break
		}
		// A message that does not arrive makes the server refuse the whole batch at its end, so these need no answer.
		if err := a.nc.PublishMsg(p.message); err != nil {
			refuse(group, fmt.Errorf("%w: %w", events.ErrUnavailable, err)) // without its end a batch is never stored
			return
		}
	}
	group[last].message.Header.Set(headerBatchCommit, "1")
	ack, err := a.commitBatch(group[last].message)
	if err == nil && ack.Count != uint64(len(group)) {
		err = fmt.Errorf("%w: a batch of %d was acknowledged as one of %d", events.ErrUnknownOutcome, len(group), ack.Count)
	}
	if err != nil {
		refuse(group, err)
		return
	}
	for i, p := range group {
		p.answer(ack.Sequence-uint64(last-i), nil)
	}
}

// commitBatch sends the last message of a batch. This is the commit point: with the answer the batch is durable.
func (a *appender) commitBatch(last *nats.Msg) (ack batchAck, err error) {
	reply, err := a.nc.RequestMsg(last, ackTimeout)
	if err != nil {
		return ack, appendError(explain(a.nc, last.Subject, err))
	}
	if err := json.Unmarshal(reply.Data, &ack); err != nil {
		return ack, fmt.Errorf("%w: %w", events.ErrUnknownOutcome, err)
	}
	if ack.Error != nil {
		return ack, appendError(ack.Error)
	}
	return ack, nil
}
