package relay

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/consumer"
	"jobtally/internal/events"
	"jobtally/internal/webhook"
)

// grace is for how long an attempt that is under way may go on when the relay is stopped.
const grace = 3 * time.Second

// worker delivers to one endpoint. It has one message at a time.
type worker struct {
	relay    *Relay
	handler  *message.Handler
	deliver  message.HandlerFunc // of one event; what is given up goes into the poison queue
	endpoint atomic.Pointer[webhook.Endpoint]
	rest     atomic.Int64  // for how long the message rests that was last given back,
	wake     chan struct{} // unless its time has come before; it has room for one
}

// resting is why a message is given back: its time has not come. It is no error that anybody has to be told of, which the
// router takes from its being like a cancellation.
type resting struct{ why string }

func (e *resting) Error() string        { return e.why }
func (e *resting) Is(target error) bool { return target == context.Canceled }

// giveBack returns the error with which a message is given back, to rest for a while.
func (w *worker) giveBack(d time.Duration, why string) error {
	w.rest.Store(int64(min(max(d, 0), w.relay.cfg.rest)))
	return &resting{why}
}

// rouse has the message that rests looked at again at once.
func (w *worker) rouse() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// handle delivers what a decision is to the endpoint's account, if it is anything, one event after the other.
func (w *worker) handle(m *message.Message) error {
	ctx, cancel := graceful(m.Context())
	defer cancel()
	w.rest.Store(int64(retryPause)) // also after a panic
	e := w.endpoint.Load()
	sequence, err := strconv.ParseUint(m.Metadata.Get(consumer.MetadataSequence), 10, 64)
	if err != nil {
		return err
	}
	d, err := w.relay.decision(ctx, e.Account, events.Position{Partition: e.After.Partition, Sequence: sequence})
	switch {
	case errors.Is(err, events.ErrNotFound):
		return nil // it was erased meanwhile
	case errors.Is(err, events.ErrUnavailable):
		return w.giveBack(retryPause, err.Error())
	case err != nil:
		return w.wait(ctx, e, err)
	}
	done := ""
	for _, event := range eventsOf(&d, e.Account) {
		if !wants(e.Types, event.Type) {
			continue
		}
		if err := w.tell(ctx, &event, done); err != nil {
			return err
		}
		done = event.ID
	}
	return nil
}

// wait gives back a decision that cannot be read, as that of a type that only a newer version knows: to skip it would be
// wrong for ever.
func (w *worker) wait(ctx context.Context, e *webhook.Endpoint, cause error) error {
	p, on, err := w.relay.progress(ctx, e)
	if err == nil && p.Waits != cause.Error() {
		p.Waits = cause.Error()
		w.relay.cfg.Log.Warn("a webhook waits for a version that can read a decision", "webhook", e.ID, "error", cause)
		w.persist(ctx, p, on)
	}
	return w.giveBack(w.relay.cfg.rest, cause.Error())
}

// graceful returns a context that outlives another by the grace.
func graceful(ctx context.Context) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	return longer, func() { stop(); cancel() }
}

// decision reads a decision from the ledger for an account. The error is events.ErrNotFound where it was erased with that.
func (r *Relay) decision(ctx context.Context, account string, p events.Position) (events.Decision, error) {
	raw, err := r.store.decisions[p.Partition].GetMsg(ctx, p.Sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return events.Decision{}, r.missing(ctx, account, p)
	}
	if err != nil {
		return events.Decision{}, unavailable("read the ledger for", err)
	}
	m := events.Message{Subject: raw.Subject, Header: raw.Header, Data: raw.Data, Sequence: raw.Sequence}
	return events.DecodeDecision(m, p.Partition)
}

// missing says why there is no decision under a number: it was erased, or it will be there. The server that was asked may have
// lost its last writes, or, in a cluster, be behind the one that handed the number out: what it has elsewhere says nothing of that.
func (r *Relay) missing(ctx context.Context, account string, p events.Position) error {
	erasures, err := r.cfg.Erasures(ctx, account)
	if err != nil {
		return unavailable("read the erasures for", err)
	}
	for _, erasure := range erasures {
		if erasure.Position.Sequence > p.Sequence {
			return events.ErrNotFound
		}
	}
	return fmt.Errorf("%w: decision %s is not there yet", events.ErrUnavailable, p)
}

// eventsOf returns the events that a decision is to an account, in the order in which they are told.
func eventsOf(d *events.Decision, account string) (all []events.Event) {
	if event, is := d.JobEvent(); is {
		all = append(all, event)
	}
	if event, follows := d.QuotaEvent(account); follows {
		all = append(all, event)
	}
	return all
}

func wants(types []string, ceType string) bool {
	for _, wanted := range types {
		if events.IsOfType(ceType, wanted) {
			return true
		}
	}
	return len(types) == 0
}

// attempt is one attempt at an event, on its way through the poison queue's middleware.
type attempt struct {
	worker *worker
	event  *events.Event
	before progressRecord // as it was,
	on     uint64         // at this revision
	done   string         // the id of the event before it, of the same decision

	given *webhook.Delivery // the last attempt at what is given up
	after progressRecord    // and how far the delivery is then
}

type attemptKey struct{}

// tell makes the next attempt at an event if that is due. It returns nil once the event is done with.
func (w *worker) tell(ctx context.Context, event *events.Event, done string) error {
	p, on, err := w.relay.progress(ctx, w.endpoint.Load())
	if err != nil {
		return w.giveBack(retryPause, err.Error())
	}
	if p.Done == event.ID {
		return nil
	}
	if w.endpoint.Load().State != webhook.Enabled {
		return w.giveBack(retryPause, "the webhook is not enabled")
	}
	if left := p.rest(w.relay.cfg.Now()); left > 0 {
		return w.giveBack(left, "its next attempt is not due")
	}
	m := message.NewMessageWithContext(context.WithValue(ctx, attemptKey{}, &attempt{worker: w, event: event, before: p, on: on, done: done}), event.ID, nil)
	_, err = w.deliver(m)
	return err
}

// attempt sends an event once, and sees to what follows from the answer.
func (w *worker) attempt(m *message.Message) ([]*message.Message, error) {
	a, ctx, e := m.Context().Value(attemptKey{}).(*attempt), m.Context(), w.endpoint.Load()
	d, answer := w.relay.send(ctx, e, a.event, webhook.ByEvent)
	if ctx.Err() != nil && !answer.accepted() {
		return nil, ctx.Err() // the relay stops: that says nothing of the endpoint
	}
	d.Attempt = 1
	if a.before.Event == a.event.ID {
		d.Attempt = a.before.Attempts + 1
	}
	if answer.accepted() {
		if a.before.Failures > 0 || a.before.Waits != "" {
			w.persist(ctx, progressRecord{Done: a.event.ID, LastSuccess: d.At}, a.on)
		}
		w.relay.note(ctx, e, &d)
		return nil, nil
	}
	return nil, w.failed(ctx, a, &d, &answer)
}

// send sends an event once.
func (r *Relay) send(ctx context.Context, e *webhook.Endpoint, event *events.Event, cause webhook.Cause) (webhook.Delivery, answer) {
	m := &outgoing{id: messagePrefix + event.ID, body: event.AppendJSON(nil), redelivering: cause == webhook.ByRedeliver}
	a := r.sender.send(ctx, e, m)
	d := webhook.Delivery{
		MessageID: m.id, Position: event.Position, Type: event.Type, Cause: cause, Attempt: 1, At: a.at.UTC(), Duration: a.took,
		Status: a.status, Error: a.failure, Outcome: webhook.Failed,
	}
	if a.accepted() {
		d.Outcome = webhook.Accepted
	}
	return d, a
}

// persist writes how far the delivery is, on the revision that was read before the attempt, and says whether that was the last.
// If it was not, somebody had the delivery start afresh meanwhile, or another relay has taken it on: theirs stays. It tries
// until it works, or ctx ends: without it the next attempt would come too early. Nobody else waits for this endpoint.
func (w *worker) persist(ctx context.Context, p progressRecord, on uint64) bool {
	e := w.endpoint.Load()
	for {
		_, err := w.relay.store.write(ctx, keyOf(e.Account, e.ID)+progressSuffix, &p, on)
		if err == nil || ctx.Err() != nil {
			return true
		}
		if errors.Is(err, errConflict) {
			return false
		}
		w.relay.cfg.Log.Warn("what became of a delivery cannot be written; trying until it can", "webhook", e.ID, "error", err)
		pause(ctx, retryPause)
	}
}

// errExhausted is the error of an event that is given up.
var errExhausted = errors.New("it was the last attempt")

func isExhausted(err error) bool { return errors.Is(err, errExhausted) }

// failed notes a failure, and returns why the message is given back, or that the event is given up.
func (w *worker) failed(ctx context.Context, a *attempt, d *webhook.Delivery, answer *answer) error {
	r, e := w.relay, w.endpoint.Load()
	p := a.before.failed(a.event.ID, d)
	p.Done = a.done
	if p.Failures == 1 {
		p.LastSuccess = r.lastSuccess(ctx, e, p.LastSuccess)
	}
	if d.Status == statusGone || r.cfg.isFailing(&p, d.At) {
		return w.stop(ctx, e, a, p, d)
	}
	if d.Attempt >= len(r.cfg.Schedule) {
		d.Outcome = webhook.Poisoned
		a.given, a.after = d, p
		return errExhausted
	}
	rest := max(jittered(pauseAfter(r.cfg.Schedule, d.Attempt, p.Failures)), answer.retryAfter)
	p.NextAttempt = d.At.Add(rest)
	d.NextAttempt = p.NextAttempt
	if !w.persist(ctx, p, a.on) {
		return w.overtaken(ctx, e, d)
	}
	r.note(ctx, e, d)
	return w.giveBack(rest, d.Error)
}

// overtaken gives back what was tried while the endpoint got another URL, was enabled again, or accepted a test: the failure
// is in the log, and counts for nothing.
func (w *worker) overtaken(ctx context.Context, e *webhook.Endpoint, d *webhook.Delivery) error {
	d.NextAttempt = d.At.Add(d.Duration + retryPause)
	w.relay.note(ctx, e, d)
	return w.giveBack(retryPause, "it starts afresh: "+d.Error)
}

// stop has the endpoint sent nothing more until it is enabled again, and then goes on with this event.
func (w *worker) stop(ctx context.Context, e *webhook.Endpoint, a *attempt, p progressRecord, d *webhook.Delivery) error {
	state := webhook.Failing
	if d.Status == statusGone {
		state = webhook.Gone
	}
	if !w.persist(ctx, p, a.on) {
		return w.overtaken(ctx, e, d)
	}
	w.relay.note(ctx, e, d)
	changed, err := w.relay.change(ctx, e.Account, e.ID, 0, func(now *webhook.Endpoint) {
		if now.URL == e.URL {
			setState(now, state, d.At)
		}
	})
	if err != nil {
		return w.giveBack(retryPause, fmt.Sprint("the webhook cannot be stopped: ", err))
	}
	w.endpoint.Store(&changed)
	if changed.State != state {
		return w.giveBack(retryPause, d.Error)
	}
	w.relay.cfg.Log.Warn("a webhook is sent nothing more until it is enabled again", "webhook", e.ID, "state", state, "error", d.Error)
	return w.giveBack(retryPause, d.Error)
}

// lastSuccess returns when something was last delivered to an endpoint: the log knows, as long as nothing failed since.
func (r *Relay) lastSuccess(ctx context.Context, e *webhook.Endpoint, known time.Time) time.Time {
	raw, err := last(ctx, r.store.deliveries, deliveriesPrefix+keyOf(e.Account, e.ID))
	if err != nil {
		return known
	}
	d, err := deliveryOf(raw.Data, raw.Sequence, e.After.Partition)
	if err == nil && d.Outcome == webhook.Accepted && d.At.After(known) {
		return d.At
	}
	return known
}
