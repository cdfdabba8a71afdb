package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"jobtally/internal/events"
)

const (
	maxWaiting  = 4096     // appends waiting for a partition; one more is refused
	maxHeld     = 64 << 20 // bytes of them, and of the group in flight
	maxGroup    = 512      // messages of one group
	maxGroupLen = 4 << 20  // bytes of one group

	// atomicFrom is the size from which a group costs less as one atomic batch (one fsync, and some milliseconds of
	// staging) than as so many publishes (an fsync each).
	atomicFrom = 16

	// maxLinger is how long the next group waits for those that a large one just answered: they are about to come back,
	// and a group costs its fsync whatever its size.
	maxLinger = time.Millisecond

	// decisionRoom is kept free of what the server takes as one message, for the decision on a request says more than
	// the request. It also holds the headers of a batch.
	decisionRoom = 4 << 10
)

// appender is the group commit of one partition: whatever waits while a group is being made durable is the next one.
// One group is in flight at a time.
type appender struct {
	nc     *nats.Conn
	js     jetstream.JetStream
	atomic bool // the stream has one replica, where an atomic batch is one fsync; Raft batches by itself

	held atomic.Int64 // bytes of the messages that are not answered

	mu      sync.RWMutex // guards closed, and with it the sending on waiting
	closed  bool
	waiting chan *pendingAppend
	done    chan struct{}
}

type pendingAppend struct {
	message  *nats.Msg
	answered chan struct{} // closed once the two fields below are set
	sequence uint64
	err      error
}

func (p *pendingAppend) answer(sequence uint64, err error) {
	p.sequence, p.err = sequence, err
	close(p.answered)
}

func startAppender(nc *nats.Conn, js jetstream.JetStream, atomic bool) *appender {
	a := &appender{
		nc: nc, js: js, atomic: atomic,
		waiting: make(chan *pendingAppend, maxWaiting), done: make(chan struct{}),
	}
	go a.run()
	return a
}

func (a *appender) close() {
	a.mu.Lock()
	if !a.closed {
		a.closed = true
		close(a.waiting)
	}
	a.mu.Unlock()
	<-a.done
}

// append waits until the message is durable and returns its sequence.
func (a *appender) append(ctx context.Context, m events.Message) (uint64, error) {
	p := &pendingAppend{message: natsMessage(m), answered: make(chan struct{})}
	// Checked here and not by the client library, which would fail the whole group that such a message is in.
	if size, limit := int64(p.message.Size()), a.nc.MaxPayload()-decisionRoom; size > limit {
		return 0, fmt.Errorf("%w: %w: it has %d bytes, and may have %d", events.ErrUnavailable, nats.ErrMaxPayload, size, limit)
	}
	if err := a.enqueue(p); err != nil {
		return 0, err
	}
	select {
	case <-p.answered:
		return p.sequence, p.err
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: %w", events.ErrUnknownOutcome, ctx.Err())
	}
}

func (a *appender) enqueue(p *pendingAppend) error {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.closed {
		return fmt.Errorf("%w: it is closing", events.ErrUnavailable)
	}
	size := int64(p.message.Size())
	if held := a.held.Add(size); held > maxHeld {
		a.held.Add(-size)
		return fmt.Errorf("%w: %d bytes of requests wait already", events.ErrUnavailable, held-size)
	}
	select {
	case a.waiting <- p:
		return nil
	default:
		a.held.Add(-size)
		return fmt.Errorf("%w: %d requests wait already", events.ErrUnavailable, maxWaiting)
	}
}

func (a *appender) run() {
	defer close(a.done)
	last := 0 // size of the last group, or of one before it that was larger, less as time passes
	for first := range a.waiting {
		expected := 0
		if last >= atomicFrom {
			expected = last * 3 / 4
		}
		group := a.gather(first, expected)
		last = max(len(group), expected)
		size := bytesOf(group)
		a.publish(group)
		a.held.Add(-size)
	}
}

func bytesOf(group []*pendingAppend) (size int64) {
	for _, p := range group {
		size += int64(p.message.Size())
	}
	return size
}

// gather takes what waits, and lingers while that is less than expected.
func (a *appender) gather(first *pendingAppend, expected int) []*pendingAppend {
	linger := time.NewTimer(maxLinger)
	defer linger.Stop()
	group, size := []*pendingAppend{first}, len(first.message.Data)
	for len(group) < maxGroup && size < maxGroupLen {
		p, ok := a.next(len(group) < expected, linger.C)
		if !ok {
			return group
		}
		group, size = append(group, p), size+len(p.message.Data)
	}
	return group
}

// next returns the next append that waits. If lingering, it waits for one until patience ends.
func (a *appender) next(lingering bool, patience <-chan time.Time) (p *pendingAppend, ok bool) {
	select {
	case p, ok = <-a.waiting:
		return p, ok
	default:
	}
	if !lingering {
		return nil, false
	}
	select {
	case p, ok = <-a.waiting:
		return p, ok
	case <-patience:
		return nil, false
	}
}

// publish makes a group durable and answers everyone in it.
func (a *appender) publish(group []*pendingAppend) {
	switch {
	case !a.nc.IsConnected():
		refuse(group, fmt.Errorf("%w: no connection to nats", events.ErrUnavailable))
	case a.atomic && len(group) >= atomicFrom:
		a.publishBatch(group)
	default:
		a.publishEach(group)
	}
}

func refuse(group []*pendingAppend, err error) {
	for _, p := range group {
		p.answer(0, err)
	}
}

func (a *appender) publishEach(group []*pendingAppend) {
	futures := make([]jetstream.PubAckFuture, len(group))
	for i, p := range group {
		future, err := a.js.PublishMsgAsync(p.message)
		if err != nil {
			p.answer(0, appendError(err))
			continue
		}
		futures[i] = future
	}
	for i, future := range futures {
		if future == nil {
			continue
		}
		select {
		case ack := <-future.Ok():
			group[i].answer(ack.Sequence, nil)
		case err := <-future.Err():
			group[i].answer(0, appendError(err))
		}
	}
}

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
	ack, err := a.commit(group[last].message)
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

// commit sends the last message of a batch. This is the commit point: with the answer the batch is durable.
func (a *appender) commit(last *nats.Msg) (ack batchAck, err error) {
	reply, err := a.nc.RequestMsg(last, ackTimeout)
	if err != nil {
		return ack, appendError(err)
	}
	if err := json.Unmarshal(reply.Data, &ack); err != nil {
		return ack, fmt.Errorf("%w: %w", events.ErrUnknownOutcome, err)
	}
	if ack.Error != nil {
		return ack, appendError(ack.Error)
	}
	return ack, nil
}

// appendError says what is known after an append failed. The server's own refusal, and nobody there to hear it, mean
// that nothing was recorded. Anything else, a timeout above all, is an unknown outcome.
func appendError(err error) error {
	var refusal *jetstream.APIError
	if errors.As(err, &refusal) || errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse) ||
		errors.Is(err, nats.ErrReconnectBufExceeded) {
		return fmt.Errorf("%w: %w", events.ErrUnavailable, err)
	}
	return fmt.Errorf("%w: %w", events.ErrUnknownOutcome, err)
}

func natsMessage(m events.Message) *nats.Msg {
	return &nats.Msg{Subject: m.Subject, Header: nats.Header(m.Header), Data: m.Data}
}
