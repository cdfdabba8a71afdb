package relay

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
	"jobtally/internal/webhook"
)

const (
	// orphanAge is from when on a consumer without an endpoint is nobody's: one that is being made has none for a moment.
	orphanAge = time.Minute
	// markerAge is for how long it stays written that a key is removed: longer than anybody who follows the bucket takes to hear of
	// it. Until then each list of the account's webhooks reads it.
	markerAge  = time.Minute
	awayAtMost = markerAge / 2 // is how long who follows may be away: after that all is taken in again
	sweepEvery = time.Hour
	sweepPause = time.Second // between one that was told and the next: whoever registers and removes by the thousand starts no more
)

// Erased has a relay that runs remove what erased accounts had. It is cheap, and never blocks.
func (r *Relay) Erased() {
	select {
	case r.erased <- struct{}{}:
	default: // one is as good as two
	}
}

// sweepWhenTold sweeps at its start, when it is told to, and each hour.
func (r *Relay) sweepWhenTold(ctx context.Context) {
	ticks := time.NewTicker(sweepEvery)
	defer ticks.Stop()
	for {
		if err := r.Sweep(ctx); err != nil && ctx.Err() == nil {
			r.cfg.Log.Warn("what removed webhooks leave cannot be removed; trying until it can", "error", err)
			pause(ctx, retryPause)
			r.Erased()
		}
		pause(ctx, sweepPause)
		select {
		case <-r.erased:
		case <-ticks.C:
		case <-ctx.Done():
			return
		}
	}
}

// Sweep removes the endpoints of accounts that were erased since, and everything that removed endpoints left. What had a URL,
// a secret, or a name is written over.
func (r *Relay) Sweep(ctx context.Context) error {
	if err := r.sweepErased(ctx); err != nil {
		return err
	}
	keys, err := counts(ctx, r.store.bucket, bucketSubject+">")
	if err != nil {
		return err
	}
	there, err := r.All(ctx)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, e := range there {
		known[keyOf(e.Account, e.ID)] = true
	}
	return errors.Join(r.sweepKeys(ctx, keys, known), r.sweepLogs(ctx, known), r.sweepDurables(ctx, known))
}

// sweepErased removes the endpoints that are from before an erasure of their account.
func (r *Relay) sweepErased(ctx context.Context) error {
	all, err := r.All(ctx)
	if err != nil {
		return err
	}
	byAccount := map[string][]webhook.Endpoint{}
	for _, e := range all {
		byAccount[e.Account] = append(byAccount[e.Account], e)
	}
	for account, endpoints := range byAccount {
		erasures, err := r.cfg.Erasures(ctx, account)
		if err != nil {
			return err
		}
		for _, e := range endpoints {
			if !slices.ContainsFunc(erasures, func(d events.Decision) bool { return outlived(&e, &d) }) {
				continue
			}
			if err := r.remove(ctx, &e, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// outlived says whether an endpoint is from before an erasure. Where its position cannot be read, the time when it was written says.
func outlived(e *webhook.Endpoint, erasure *events.Decision) bool {
	if e.State == webhook.Unreadable {
		return e.CreatedAt.Before(erasure.Time)
	}
	return erasure.Position.Sequence > e.After.Sequence
}

// sweepKeys removes what is left in the bucket of endpoints that are removed, and what they were before.
func (r *Relay) sweepKeys(ctx context.Context, keys map[string]uint64, known map[string]bool) error {
	for subject, revisions := range keys {
		account, id, rest, is := cutKey(strings.TrimPrefix(subject, bucketSubject))
		if !is {
			continue // whatever a person, or a newer version, keeps there
		}
		raw, err := r.store.bucket.GetLastMsgForSubject(ctx, subject)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return unavailable("read", err)
		}
		there, upTo := known[keyOf(account, id)], raw.Sequence // what is before it
		if !there && (rest != "" || time.Since(raw.Time) > markerAge) {
			upTo++ // and itself
		}
		if there && (rest != "" || revisions == 1) {
			continue
		}
		if err := forget(ctx, r.store.bucket, subject, upTo); err != nil {
			return err
		}
	}
	return nil
}

// sweepLogs removes the deliveries and the poison queues of endpoints that are removed.
func (r *Relay) sweepLogs(ctx context.Context, known map[string]bool) error {
	for prefix, stream := range map[string]jetstream.Stream{deliveriesPrefix: r.store.deliveries, poisonPrefix: r.store.poison} {
		subjects, err := counts(ctx, stream, prefix+">")
		if err != nil {
			return err
		}
		for subject := range maps.Keys(subjects) {
			if known[strings.TrimPrefix(subject, prefix)] {
				continue
			}
			if err := forget(ctx, stream, subject, ^uint64(0)); err != nil {
				return err
			}
		}
	}
	return nil
}

// sweepDurables deletes the consumers of endpoints that are not there.
func (r *Relay) sweepDurables(ctx context.Context, known map[string]bool) error {
	ids := map[string]bool{}
	for key := range known {
		_, id, _, _ := cutKey(key)
		ids[durableOf(id)] = true
	}
	for _, stream := range r.store.decisions {
		durables := stream.ListConsumers(ctx)
		for info := range durables.Info() {
			if !strings.HasPrefix(info.Name, durableOf(idPrefix)) || ids[info.Name] || time.Since(info.Created) < orphanAge {
				continue
			}
			if err := stream.DeleteConsumer(ctx, info.Name); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
				return unavailable("delete a consumer of", err)
			}
		}
		if err := durables.Err(); err != nil {
			return unavailable("list the consumers of", err)
		}
	}
	return nil
}
