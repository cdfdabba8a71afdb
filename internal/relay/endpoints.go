package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
	"jobtally/internal/webhook"
)

const (
	// ackWait is how long after its last sign of life a relay that holds a message counts as dead. It gives three in that time.
	ackWait = 5 * time.Second

	changeTries = 5 // of a change on any version
)

// Create registers an endpoint: from now on it is sent what is decided for the account, of the types given or of all. The
// error is a *webhook.URLError, or webhook.ErrTooMany.
func (r *Relay) Create(ctx context.Context, account, url, description string, types []string) (webhook.Endpoint, error) {
	if err := r.sender.guard.checkURL(url); err != nil {
		return webhook.Endpoint{}, err
	}
	if err := r.mayHaveMore(ctx, account); err != nil {
		return webhook.Endpoint{}, err
	}
	p, now := events.PartitionOf(account, r.cfg.Partitions), r.cfg.Now().UTC()
	e := webhook.Endpoint{
		ID: newID(), Account: account, URL: url, Types: types, Description: description,
		State: webhook.Enabled, StateSince: now, CreatedAt: now, Secrets: []webhook.Secret{newSecret()},
		After: events.Position{Partition: p, Sequence: r.cfg.Folded(p)},
	}
	// The consumer first: an endpoint that is there has one, and one without an endpoint is swept away.
	if err := r.makeDurable(ctx, &e); err != nil {
		return webhook.Endpoint{}, err
	}
	return e, r.take(ctx, &e)
}

// take writes an endpoint, if its account may have one more. That is counted again where another of them was written
// meanwhile.
func (r *Relay) take(ctx context.Context, e *webhook.Endpoint) error {
	for ctx.Err() == nil {
		seen, err := r.store.lastOf(ctx, e.Account)
		if err != nil {
			return err
		}
		if err := r.mayHaveMore(ctx, e.Account); err != nil {
			return errors.Join(err, r.dropDurable(ctx, e.ID, e.After.Partition))
		}
		e.Version, err = r.store.writeNew(ctx, e.Account, keyOf(e.Account, e.ID), toRecord(e), seen)
		if err == nil {
			return r.store.settle()
		}
		if !errors.Is(err, errConflict) {
			return err
		}
	}
	return ctx.Err()
}

func (r *Relay) mayHaveMore(ctx context.Context, account string) error {
	all, err := r.List(ctx, account)
	if err == nil && len(all) >= webhook.MaxPerAccount {
		return webhook.ErrTooMany
	}
	return err
}

// makeDurable makes the consumer of an endpoint: what it hands out, one at a time, is what the endpoint is sent.
func (r *Relay) makeDurable(ctx context.Context, e *webhook.Endpoint) error {
	_, err := r.store.decisions[e.After.Partition].CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
		Durable: durableOf(e.ID), FilterSubjects: filterOf(e.Account, e.After.Partition),
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: e.After.Sequence + 1,
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: r.cfg.ackWait, MaxAckPending: 1, MaxDeliver: -1,
	})
	var refusal *jetstream.APIError
	if errors.As(err, &refusal) && refusal.ErrorCode == codeTooMany {
		r.cfg.Log.Error("no webhook can be registered: the NATS server takes no more consumers; set default_max_consumers: -1 in the limits of its jetstream block", "error", err)
	}
	if err != nil {
		return unavailable("make a consumer for", err)
	}
	return nil
}

// filterOf returns the subjects of what can be told to an account: its jobs, and the months that were archived.
func filterOf(account string, partition int) []string {
	return []string{events.JobsSubject(account, partition), events.ArchivesSubject(partition)}
}

// Get returns an endpoint. The error is events.ErrNotFound where the account has none under that id.
func (r *Relay) Get(ctx context.Context, account, id string) (webhook.Endpoint, error) {
	if events.ValidAccount(account) != nil || !validID(id) {
		return webhook.Endpoint{}, events.ErrNotFound
	}
	raw, err := last(ctx, r.store.bucket, bucketSubject+keyOf(account, id))
	if err != nil {
		return webhook.Endpoint{}, err
	}
	e, _ := r.endpointOf(account, id, raw.Data, raw.Sequence, raw.Time) // its state says whether it was read
	return e, nil
}

// List returns the endpoints of an account, by the time of their registration.
func (r *Relay) List(ctx context.Context, account string) ([]webhook.Endpoint, error) {
	return r.list(ctx, account+".*")
}

// All returns the endpoints of all accounts, by account, and then as List does.
func (r *Relay) All(ctx context.Context) ([]webhook.Endpoint, error) { return r.list(ctx, "*.*") }

// list returns the endpoints of the keys that a filter means.
func (r *Relay) list(ctx context.Context, filter string) (all []webhook.Endpoint, err error) {
	keys, err := counts(ctx, r.store.bucket, bucketSubject+filter)
	if err != nil {
		return nil, err
	}
	for subject := range keys {
		account, id, rest, is := cutKey(strings.TrimPrefix(subject, bucketSubject))
		if !is || rest != "" {
			continue
		}
		e, err := r.Get(ctx, account, id)
		if errors.Is(err, events.ErrNotFound) {
			continue // removed
		}
		if err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b webhook.Endpoint) int {
		return cmp.Or(strings.Compare(a.Account, b.Account), a.CreatedAt.Compare(b.CreatedAt), strings.Compare(a.ID, b.ID))
	})
	return all, nil
}

// Change changes an endpoint, if it has the version given, or any where that is 0. One that is enabled, or leads elsewhere, goes
// on where it stopped, at once. The error is events.ErrNotFound, webhook.ErrUnreadable, webhook.ErrVersion, or a *webhook.URLError.
func (r *Relay) Change(ctx context.Context, account, id string, version uint64, c webhook.Change) (webhook.Endpoint, error) {
	if c.URL != nil {
		if err := r.sender.guard.checkURL(*c.URL); err != nil {
			return webhook.Endpoint{}, err
		}
	}
	e, err := r.change(ctx, account, id, version, func(e *webhook.Endpoint) { apply(e, c, r.cfg.Now().UTC()) })
	if err == nil && (c.URL != nil || c.Enabled != nil && *c.Enabled) {
		err = r.startAfresh(ctx, &e)
	}
	return e, err
}

func apply(e *webhook.Endpoint, c webhook.Change, now time.Time) {
	if c.URL != nil {
		e.URL = *c.URL
	}
	if c.Types != nil {
		e.Types = *c.Types
	}
	if c.Description != nil {
		e.Description = *c.Description
	}
	if c.Enabled == nil {
		return
	}
	state := webhook.Disabled
	if *c.Enabled {
		state = webhook.Enabled
	}
	setState(e, state, now)
}

func setState(e *webhook.Endpoint, state webhook.State, now time.Time) {
	if e.State != state {
		e.State, e.StateSince = state, now
	}
}

// change writes an endpoint as a function makes it of what it was.
func (r *Relay) change(ctx context.Context, account, id string, version uint64, as func(*webhook.Endpoint)) (webhook.Endpoint, error) {
	for range changeTries {
		e, err := r.endpoint(ctx, account, id)
		if err != nil {
			return e, err
		}
		if version != 0 && e.Version != version {
			return e, webhook.ErrVersion
		}
		before := e.Version
		e.Types, e.Secrets = slices.Clone(e.Types), slices.Clone(e.Secrets)
		as(&e)
		e.Version, err = r.store.write(ctx, keyOf(account, id), toRecord(&e), before)
		if errors.Is(err, errConflict) {
			continue
		}
		if err != nil {
			return e, err
		}
		if err := r.store.forgetBefore(ctx, keyOf(account, id), e.Version); err != nil {
			return e, err
		}
		return e, r.store.settle()
	}
	return webhook.Endpoint{}, webhook.ErrVersion
}

// startAfresh forgets the failures of an endpoint: what it is sent next is sent at once, for the first time. Where there is
// none it is written too: the attempt that is under way does not count then either, should it fail.
func (r *Relay) startAfresh(ctx context.Context, e *webhook.Endpoint) error {
	p, _, err := r.progress(ctx, e)
	if err != nil {
		return err
	}
	return r.store.put(ctx, keyOf(e.Account, e.ID)+progressSuffix, &progressRecord{Done: p.Done, LastSuccess: p.LastSuccess})
}

// Rotate gives an endpoint a new secret. The one before signs too for as long as it is to be kept, which is not at all with
// 0, and no longer than webhook.KeepSecretMost. Any older one signs no more.
func (r *Relay) Rotate(ctx context.Context, account, id string, keep time.Duration) (webhook.Endpoint, error) {
	if keep < 0 || keep > webhook.KeepSecretMost {
		return webhook.Endpoint{}, fmt.Errorf("a secret is kept for %s at most", webhook.KeepSecretMost)
	}
	return r.change(ctx, account, id, 0, func(e *webhook.Endpoint) {
		before := e.Secrets[0]
		e.Secrets = []webhook.Secret{newSecret()}
		if keep > 0 {
			before.ExpiresAt = r.cfg.Now().UTC().Add(keep)
			e.Secrets = append(e.Secrets, before)
		}
	})
}

// Remove removes an endpoint, if it has the version given, or any where that is 0. Its log and its poison queue are removed by
// a relay that runs. The error is events.ErrNotFound, or webhook.ErrVersion.
func (r *Relay) Remove(ctx context.Context, account, id string, version uint64) error {
	e, err := r.Get(ctx, account, id)
	if err != nil {
		return err
	}
	err = r.remove(ctx, &e, version)
	if errors.Is(err, errConflict) {
		return webhook.ErrVersion
	}
	return err
}

// remove does so in an order in which what it leaves when it is cut short is swept away.
func (r *Relay) remove(ctx context.Context, e *webhook.Endpoint, version uint64) error {
	key := keyOf(e.Account, e.ID)
	if err := r.store.remove(ctx, key, version); err != nil {
		return err
	}
	if err := r.dropDurable(ctx, e.ID, e.After.Partition); err != nil {
		return err
	}
	if err := r.store.remove(ctx, key+progressSuffix, 0); err != nil {
		return err
	}
	return r.store.settle()
}

func (r *Relay) dropDurable(ctx context.Context, id string, partition int) error {
	err := r.store.decisions[partition].DeleteConsumer(ctx, durableOf(id))
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return unavailable("delete the consumer of", err)
	}
	return nil
}
