package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
)

const (
	maxWaiting  = 4096     // appends of a partition that are not answered; one more is refused
	maxHeld     = 64 << 20 // bytes of them
	maxGroup    = 512      // messages of one group
	maxGroupLen = 4 << 20  // bytes of one group

	// maxLinger is how long the next batch waits for those that a large one just answered: they are about to come back,
	// and a batch costs some milliseconds whatever its size.
	maxLinger = time.Millisecond

	// decisionRoom is kept free of what the server takes as one message, for the decision on a request says more than
	// the request. It also holds the headers of a batch.
	decisionRoom = 4 << 10
)

// appender is the group commit of one partition: whatever comes while a group is being made durable is the next one.
// One group is made durable at a time.
type appender struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	syncer  *syncer // nil where the server syncs, as it is told to
	batches bool    // an external server has one replica, where an atomic batch is one fsync; Raft batches by itself

	grouped func(requests int) // told of each group; may be nil

	count, held atomic.Int64 // the appends that are not answered, and their bytes

	mu      sync.RWMutex // guards closed, and with it the sending on waiting
	closed  bool
	waiting chan *pendingAppend // it has room for all that are counted
	done    chan struct{}
}

type pendingAppend struct {
	others   []*pendingAppend // that were asked for with this one, and stand behind it
	message  *nats.Msg
	size     int64                  // of the message, with its headers
	future   jetstream.PubAckFuture // nil until the message is published
	answered chan struct{}          // closed once the two fields below are set
	sequence uint64
	err      error
}

func (p *pendingAppend) answer(sequence uint64, err error) {
	p.sequence, p.err = sequence, err
	close(p.answered)
}

func (a *appender) start() {
	a.waiting, a.done = make(chan *pendingAppend, maxWaiting), make(chan struct{})
	go a.run()
}

func (a *appender) close() {
	a.mu.Lock()
	if !a.closed {
		a.closed = true
		close(a.waiting)
	}
	a.mu.Unlock()
	<-a.done
	if a.syncer != nil {
		a.syncer.close()
	}
}

// append waits until the message is durable and returns its sequence.
func (a *appender) append(ctx context.Context, m events.Message) (uint64, error) {
	p, err := a.pending(m)
	if err == nil {
		err = a.enqueue(p)
	}
	if err != nil {
		return 0, err
	}
	return p.wait(ctx)
}

// pending returns the append of a message, unless that is too large.
func (a *appender) pending(m events.Message) (*pendingAppend, error) {
	p := &pendingAppend{message: natsMessage(m), answered: make(chan struct{})}
	p.size = int64(p.message.Size())
	// Checked here and not by the client library, which would fail the whole group that such a message is in.
	if limit := a.nc.MaxPayload() - decisionRoom; p.size > limit {
		return nil, fmt.Errorf("%w: %w: it has %d bytes, and may have %d", events.ErrUnavailable, nats.ErrMaxPayload, p.size, limit)
	}
	return p, nil
}

func (p *pendingAppend) wait(ctx context.Context) (uint64, error) {
	select {
	case <-p.answered:
		return p.sequence, p.err
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: %w", events.ErrUnknownOutcome, ctx.Err())
	}
}

// enqueue takes in an append, and those that were asked for with it. Only a group that may become a batch is published
// together; else a message goes out at once, and its group is those that are acknowledged, or synced, with it.
func (a *appender) enqueue(p *pendingAppend) (err error) {
	all := p.all()
	if len(all) == 1 {
		a.mu.RLock()
		defer a.mu.RUnlock()
	} else { // nothing else is to be sent between them
		a.mu.Lock()
		defer a.mu.Unlock()
	}
	switch {
	case a.closed:
		return fmt.Errorf("%w: it is closing", events.ErrUnavailable)
	case !a.nc.IsConnected():
		return fmt.Errorf("%w: no connection to the NATS server", events.ErrUnavailable)
	}
	if a.syncer != nil {
		if err := a.syncer.check(); err != nil {
			return err
		}
	}
	if err := a.admit(int64(len(all)), bytesOf(all)); err != nil {
		return err
	}
	if !a.batches {
		for _, one := range all {
			one.send(a.js)
		}
	}
	a.waiting <- p
	return nil
}

// admit counts appends, or refuses them when too many are unanswered. leave is its reverse.
func (a *appender) admit(more, size int64) error {
	count, held := a.count.Add(more), a.held.Add(size)
	if count > maxWaiting || held > maxHeld {
		a.leave(more, size)
		return fmt.Errorf("%w: %d requests of %d bytes wait already", events.ErrUnavailable, count-more, held-size)
	}
	return nil
}

func (a *appender) leave(count, size int64) {
	a.count.Add(-count)
	a.held.Add(-size)
}

func (p *pendingAppend) send(js jetstream.JetStream) {
	p.future, p.err = js.PublishMsgAsync(p.message)
}

func (a *appender) run() {
	defer close(a.done)
	last := 0 // size of the last group, or of one before it that was larger, less as time passes
	for first := range a.waiting {
		for first != nil {
			expected := 0
			if a.batches && last >= atomicFrom {
				expected = last * 3 / 4
			}
			group, next := a.gather(first, expected)
			last = max(len(group), expected)
			count, size := int64(len(group)), bytesOf(group)
			if a.grouped != nil {
				a.grouped(len(group))
			}
			a.commit(group)
			a.leave(count, size)
			first = next
		}
	}
}

func bytesOf(group []*pendingAppend) (size int64) {
	for _, p := range group {
		size += p.size
	}
	return size
}

// gather takes what waits, and lingers while that is less than expected. What was asked for together is never divided: where
// it has no room in the group any more, it begins the next.
func (a *appender) gather(first *pendingAppend, expected int) (group []*pendingAppend, next *pendingAppend) {
	var patience <-chan time.Time
	if expected > 0 {
		linger := time.NewTimer(maxLinger)
		defer linger.Stop()
		patience = linger.C
	}
	group = first.all()
	for size := bytesOf(group); len(group) < maxGroup && size < maxGroupLen; {
		p, ok := a.next(len(group) < expected, patience)
		if !ok {
			return group, nil
		}
		if len(group)+1+len(p.others) > maxGroup {
			return group, p
		}
		group, size = append(append(group, p), p.others...), size+p.size+bytesOf(p.others)
	}
	return group, nil
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

// commit makes a group durable and answers everyone in it.
func (a *appender) commit(group []*pendingAppend) {
	if a.batches && len(group) >= atomicFrom {
		a.publishBatch(group)
		return
	}
	if a.batches {
		for _, p := range group {
			p.send(a.js)
		}
	}
	a.settle(group)
}

func refuse(group []*pendingAppend, err error) {
	for _, p := range group {
		p.answer(0, err)
	}
}

// settle waits for the server's word on messages that were published one by one, makes them durable where the server
// does not, and answers.
func (a *appender) settle(group []*pendingAppend) {
	last := uint64(0)
	for _, p := range group {
		if p.err == nil {
			p.sequence, p.err = acknowledged(p.future)
		}
		last = max(last, p.sequence)
	}
	unsynced := a.sync(last)
	for _, p := range group {
		switch {
		case p.err != nil:
			p.answer(0, appendError(explain(a.nc, p.message.Subject, p.err)))
		case unsynced != nil:
			p.answer(0, fmt.Errorf("%w: %w", events.ErrUnknownOutcome, unsynced))
		default:
			p.answer(p.sequence, nil)
		}
	}
}

func acknowledged(future jetstream.PubAckFuture) (sequence uint64, err error) {
	select {
	case ack := <-future.Ok():
		return ack.Sequence, nil
	case err := <-future.Err():
		return 0, err
	}
}

// sync makes what the server acknowledged durable up to a sequence, where the server does not.
func (a *appender) sync(sequence uint64) error {
	if a.syncer == nil {
		return nil
	}
	return a.syncer.sync(sequence)
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
