package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"jobtally/internal/events"
	"jobtally/internal/webhook"
)

// poisonQueue is the publisher through which the router's middleware puts aside what is given up.
type poisonQueue struct{ relay *Relay }

// Publish puts aside the events of attempts that were the last. One that is there already, from before a crash, is not
// put there again.
func (q poisonQueue) Publish(_ string, messages ...*message.Message) error {
	for _, m := range messages {
		ctx, a := m.Context(), m.Context().Value(attemptKey{}).(*attempt)
		if err := q.put(ctx, a); err != nil {
			return errors.Join(err, a.worker.giveBack(q.relay.cfg.rest, err.Error())) // it is sent once more then
		}
		p := a.after
		a.worker.persist(ctx, progressRecord{
			Done: a.event.ID, Failures: p.Failures, FailingSince: p.FailingSince, LastSuccess: p.LastSuccess,
		}, a.on)
		a.worker.relay.note(ctx, a.worker.endpoint.Load(), a.given)
		a.worker.relay.cfg.Log.Warn("an event is given up: it is in the poison queue", "webhook", a.worker.endpoint.Load().ID,
			"event", a.event.ID, "error", a.given.Error)
	}
	return nil
}

// Close does nothing.
func (poisonQueue) Close() error { return nil }

func (q poisonQueue) put(ctx context.Context, a *attempt) error {
	e, s := a.worker.endpoint.Load(), q.relay.store
	subject := poisonPrefix + keyOf(e.Account, e.ID)
	raw, err := last(ctx, s.poison, subject)
	if err != nil && !errors.Is(err, events.ErrNotFound) {
		return err
	}
	if err == nil {
		var there poisonRecord
		if err := json.Unmarshal(raw.Data, &there); err == nil && there.Event == a.event.ID {
			return nil
		}
	}
	data, err := json.Marshal(&poisonRecord{
		Position: a.event.Position.Sequence, Event: a.event.ID, Attempts: a.given.Attempt, Error: a.given.Error, At: a.given.At,
	})
	if err != nil {
		return err
	}
	_, err = s.append(ctx, subject, data)
	return err
}

// enabled reads an endpoint that may be sent events. The error is that of MayBeSent where nothing is to be sent to it: that a
// person, or its receiver, said so holds for what an operator sends too.
func (r *Relay) enabled(ctx context.Context, account, id string) (webhook.Endpoint, error) {
	e, err := r.Get(ctx, account, id)
	if err == nil {
		err = e.MayBeSent()
	}
	return e, err
}

// Redrive sends what is in the poison queue of an endpoint once more, in its order, and tells each delivery. What is accepted
// leaves the queue; left is how many events stay there. It ends early where the endpoint does not answer at all, and with
// webhook.ErrNotEnabled where it is not, or no more, enabled.
func (r *Relay) Redrive(ctx context.Context, account, id string, told func(webhook.Delivery)) (left int, err error) {
	if _, err := r.enabled(ctx, account, id); err != nil {
		return 0, err
	}
	subject := poisonPrefix + keyOf(account, id)
	for from, answered := uint64(1), true; answered; {
		raw, err := next(ctx, r.store.poison, subject, from)
		if errors.Is(err, events.ErrNotFound) {
			break
		}
		if err != nil {
			return 0, err
		}
		var record poisonRecord
		if err := json.Unmarshal(raw.Data, &record); err != nil {
			r.cfg.Log.Warn("an event stays in the poison queue, for it cannot be read", "webhook", id, "number", raw.Sequence, "error", err)
		} else if answered, err = r.redriveOne(ctx, account, id, raw.Sequence, &record, told); err != nil {
			return 0, err
		}
		from = raw.Sequence + 1
	}
	there, err := counts(ctx, r.store.poison, subject)
	return int(there[subject]), err
}

// redriveOne sends one event of the poison queue, and says whether the endpoint answered.
func (r *Relay) redriveOne(ctx context.Context, account, id string, sequence uint64, record *poisonRecord, told func(webhook.Delivery)) (answered bool, err error) {
	e, err := r.enabled(ctx, account, id) // as it is by now
	if err != nil {
		return false, err
	}
	event, err := r.event(ctx, &e, record)
	if errors.Is(err, events.ErrNotFound) {
		return true, erase(ctx, r.store.poison, sequence) // it was erased
	}
	if err != nil {
		return false, err
	}
	d, a := r.send(ctx, &e, &event, webhook.ByRedrive)
	if err := ctx.Err(); err != nil && !a.accepted() {
		return false, err
	}
	if d.Attempt = record.Attempts + 1; a.accepted() {
		err = erase(ctx, r.store.poison, sequence)
	}
	r.note(ctx, &e, &d)
	told(d)
	return a.status != 0, err
}

// event reads an event of the poison queue from the ledger.
func (r *Relay) event(ctx context.Context, e *webhook.Endpoint, record *poisonRecord) (events.Event, error) {
	d, err := r.decision(ctx, e.Account, events.Position{Partition: e.After.Partition, Sequence: record.Position})
	if err != nil {
		return events.Event{}, err
	}
	for _, event := range eventsOf(&d, e.Account) {
		if event.ID == record.Event {
			return event, nil
		}
	}
	return events.Event{}, events.ErrNotFound
}

// Redeliver sends what was decided from one position to another once more, in order, marked as such, and tells each
// delivery. It ends with an error at what is not accepted, which names the position to go on from. What the endpoint is sent
// of itself goes on meanwhile. The error is webhook.ErrNotEnabled where it is not, or no more, enabled.
func (r *Relay) Redeliver(ctx context.Context, account, id string, from, to events.Position, told func(webhook.Delivery)) error {
	e, err := r.enabled(ctx, account, id)
	if err != nil {
		return err
	}
	if from.Partition != e.After.Partition || to.Partition != e.After.Partition {
		return fmt.Errorf("account %s is in partition %d: its positions look like %d-1234", account, e.After.Partition, e.After.Partition)
	}
	for sequence := from.Sequence; sequence <= to.Sequence; sequence++ {
		if sequence, err = r.nextOf(ctx, &e, sequence); errors.Is(err, events.ErrNotFound) || err == nil && sequence > to.Sequence {
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.redeliverOne(ctx, &e, events.Position{Partition: from.Partition, Sequence: sequence}, told); err != nil {
			return err
		}
	}
	return nil
}

// nextOf returns the first position from one on of a decision that may be told to the account of an endpoint.
func (r *Relay) nextOf(ctx context.Context, e *webhook.Endpoint, from uint64) (first uint64, err error) {
	for _, subject := range filterOf(e.Account, e.After.Partition) {
		raw, err := next(ctx, r.store.decisions[e.After.Partition], subject, from)
		if errors.Is(err, events.ErrNotFound) {
			continue
		}
		if err != nil {
			return 0, err
		}
		if first == 0 || raw.Sequence < first {
			first = raw.Sequence
		}
	}
	if first == 0 {
		return 0, events.ErrNotFound
	}
	return first, nil
}

func (r *Relay) redeliverOne(ctx context.Context, e *webhook.Endpoint, p events.Position, told func(webhook.Delivery)) error {
	decision, err := r.decision(ctx, e.Account, p)
	if err != nil {
		return err
	}
	for _, event := range eventsOf(&decision, e.Account) {
		now, err := r.enabled(ctx, e.Account, e.ID)
		if err != nil {
			return err
		}
		if !wants(now.Types, event.Type) {
			continue
		}
		d, a := r.send(ctx, &now, &event, webhook.ByRedeliver)
		if err := ctx.Err(); err != nil && !a.accepted() {
			return err
		}
		r.note(ctx, &now, &d)
		told(d)
		if !a.accepted() {
			return fmt.Errorf("%s was not accepted: %s. Go on with --from %s once that is mended", event.ID, a.failure, p)
		}
	}
	return nil
}

// testType is the type of the event that Test sends.
const testType = "jobtally.webhook.test.v1"

// Test sends an endpoint an event of no decision, of the type jobtally.webhook.test.v1, and says what came of it. Where it is
// accepted by an endpoint that failed before, what waits for it is tried again at once.
func (r *Relay) Test(ctx context.Context, account, id string) (webhook.Delivery, error) {
	e, err := r.endpoint(ctx, account, id)
	if err != nil {
		return webhook.Delivery{}, err
	}
	now := r.cfg.Now().UTC()
	event := events.Event{
		ID: fmt.Sprintf("test-%s-%d", id, now.UnixMilli()), Position: e.After, Account: account, Type: testType, Time: now.Truncate(time.Millisecond),
		Data: []byte(`{"message":"This is a test: nothing happened to the account."}`),
	}
	d, a := r.send(ctx, &e, &event, webhook.ByTest)
	if err := ctx.Err(); err != nil && !a.accepted() {
		return d, err
	}
	r.note(ctx, &e, &d)
	if a.accepted() {
		err = r.startAfresh(ctx, &e)
	}
	return d, err
}
