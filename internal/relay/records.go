package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/webhook"
)

// endpointRecord is an endpoint as it is stored. Its key names account and id, its revision is its version.
type endpointRecord struct {
	URL         string         `json:"url"`
	Types       []string       `json:"types,omitempty"`
	Description string         `json:"description,omitempty"`
	State       webhook.State  `json:"state"`
	StateSince  time.Time      `json:"state_since"`
	CreatedAt   time.Time      `json:"created_at"`
	After       uint64         `json:"after"`
	Secrets     []secretRecord `json:"secrets"`
}

type secretRecord struct {
	Value     string    `json:"value"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

// progressRecord is how far the delivery to an endpoint is, as it is stored: with a failure, and with the first success after.
type progressRecord struct {
	Event        string    `json:"event,omitempty"` // the id of what is tried
	Attempts     int       `json:"attempts,omitempty"`
	Done         string    `json:"done,omitempty"` // the id of an event of the same decision that is done with
	Failures     int       `json:"failures,omitempty"`
	FailingSince time.Time `json:"failing_since,omitzero"`
	LastAttempt  time.Time `json:"last_attempt,omitzero"`
	NextAttempt  time.Time `json:"next_attempt,omitzero"`
	LastSuccess  time.Time `json:"last_success,omitzero"`
	Waits        string    `json:"waits,omitempty"` // for what, where that is not the endpoint
}

// deliveryRecord is a delivery as it is stored. Its subject names the endpoint, its sequence is its own.
type deliveryRecord struct {
	MessageID   string          `json:"message_id"`
	Position    uint64          `json:"position"`
	Type        string          `json:"type"`
	Cause       webhook.Cause   `json:"cause"`
	Attempt     int             `json:"attempt"`
	At          time.Time       `json:"at"`
	Duration    time.Duration   `json:"duration_ns"`
	Status      int             `json:"status,omitempty"`
	Error       string          `json:"error,omitempty"`
	Outcome     webhook.Outcome `json:"outcome"`
	NextAttempt time.Time       `json:"next_attempt,omitzero"`
}

// poisonRecord is an event that was given up, as it is stored: the event itself is in the ledger.
type poisonRecord struct {
	Position uint64    `json:"position"`
	Event    string    `json:"event"`
	Attempts int       `json:"attempts"`
	Error    string    `json:"error"`
	At       time.Time `json:"at"`
}

// endpoint reads an endpoint that something is to be done with. The error is events.ErrNotFound where there is none, or
// webhook.ErrUnreadable.
func (r *Relay) endpoint(ctx context.Context, account, id string) (webhook.Endpoint, error) {
	e, err := r.Get(ctx, account, id)
	if err == nil && e.State == webhook.Unreadable {
		err = webhook.ErrUnreadable
	}
	return e, err
}

// endpointOf returns what a revision of a key, written at a time, says of an endpoint. Where it cannot be read, the error says why.
func (r *Relay) endpointOf(account, id string, data []byte, revision uint64, at time.Time) (webhook.Endpoint, error) {
	partition := events.PartitionOf(account, r.cfg.Partitions)
	var record endpointRecord
	if err := record.read(data); err != nil {
		return webhook.Endpoint{
			ID: id, Account: account, State: webhook.Unreadable, StateSince: at, CreatedAt: at, Version: revision, After: events.Position{Partition: partition},
		}, err
	}
	e := webhook.Endpoint{
		ID: id, Account: account, URL: record.URL, Types: record.Types, Description: record.Description,
		State: record.State, StateSince: record.StateSince, CreatedAt: record.CreatedAt, Version: revision,
		After: events.Position{Partition: partition, Sequence: record.After},
	}
	for _, s := range record.Secrets {
		e.Secrets = append(e.Secrets, webhook.Secret(s))
	}
	return e, nil
}

// read reads a record, unless it is none that something could be sent by.
func (r *endpointRecord) read(data []byte) error {
	if err := json.Unmarshal(data, r); err != nil {
		return err
	}
	switch {
	case r.URL == "":
		return errors.New("it has no URL")
	case !slices.Contains([]webhook.State{webhook.Enabled, webhook.Disabled, webhook.Gone, webhook.Failing}, r.State):
		return fmt.Errorf("there is no state %q", r.State)
	case len(r.Secrets) == 0:
		return errors.New("it has no secret")
	}
	for _, s := range r.Secrets {
		if key, err := keyOfSecret(s.Value); err != nil || len(key) == 0 {
			return errors.New("it has a secret that is none")
		}
	}
	return nil
}

func toRecord(e *webhook.Endpoint) *endpointRecord {
	record := &endpointRecord{
		URL: e.URL, Types: e.Types, Description: e.Description, State: e.State, StateSince: e.StateSince,
		CreatedAt: e.CreatedAt, After: e.After.Sequence,
	}
	for _, s := range e.Secrets {
		record.Secrets = append(record.Secrets, secretRecord(s))
	}
	return record
}

// progress reads how far the delivery to an endpoint is, and the revision that says so. Where nothing is written of it nothing
// ever failed. What cannot be read is as good as nothing: attempts are counted anew, and an event may be sent again.
func (r *Relay) progress(ctx context.Context, e *webhook.Endpoint) (p progressRecord, revision uint64, err error) {
	raw, err := last(ctx, r.store.bucket, bucketSubject+keyOf(e.Account, e.ID)+progressSuffix)
	if errors.Is(err, events.ErrNotFound) {
		return p, 0, nil
	}
	if err != nil {
		return p, 0, err
	}
	if err := json.Unmarshal(raw.Data, &p); err != nil {
		r.cfg.Log.Warn("how far a webhook is cannot be read: its attempts are counted anew", "webhook", e.ID, "error", err)
		p = progressRecord{Waits: "the next attempt: how far it was cannot be read"} // which the next attempt writes over
	}
	return p, raw.Sequence, nil
}

func deliveryOf(data []byte, sequence uint64, partition int) (webhook.Delivery, error) {
	var record deliveryRecord
	if err := json.Unmarshal(data, &record); err != nil {
		return webhook.Delivery{}, fmt.Errorf("the log of deliveries cannot be read: %w", err)
	}
	return webhook.Delivery{
		Sequence: sequence, MessageID: record.MessageID, Position: events.Position{Partition: partition, Sequence: record.Position},
		Type: record.Type, Cause: record.Cause, Attempt: record.Attempt, At: record.At, Duration: record.Duration,
		Status: record.Status, Error: record.Error, Outcome: record.Outcome, NextAttempt: record.NextAttempt,
	}, nil
}

func recordOf(d *webhook.Delivery) *deliveryRecord {
	return &deliveryRecord{
		MessageID: d.MessageID, Position: d.Position.Sequence, Type: d.Type, Cause: d.Cause, Attempt: d.Attempt, At: d.At,
		Duration: d.Duration, Status: d.Status, Error: d.Error, Outcome: d.Outcome, NextAttempt: d.NextAttempt,
	}
}

// note appends a delivery to the log. Nothing depends on it: what cannot be written is left out.
func (r *Relay) note(ctx context.Context, e *webhook.Endpoint, d *webhook.Delivery) {
	r.cfg.Observer.tell(d)
	data, err := json.Marshal(recordOf(d))
	if err == nil {
		d.Sequence, err = r.store.append(ctx, deliveriesPrefix+keyOf(e.Account, e.ID), data)
	}
	if err != nil {
		r.cfg.Log.Warn("a delivery is not in the log of deliveries", "webhook", e.ID, "error", err)
	}
}
