package relay

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
	"jobtally/internal/webhook"
)

// Progress says how far the delivery to an endpoint is.
func (r *Relay) Progress(ctx context.Context, e webhook.Endpoint) (webhook.Progress, error) {
	// The consumer first: what is acknowledged there is written already.
	durable, err := r.durable(ctx, &e)
	if err != nil {
		return webhook.Progress{}, err
	}
	record, _, err := r.progress(ctx, &e)
	if err != nil {
		return webhook.Progress{}, err
	}
	subject := poisonPrefix + keyOf(e.Account, e.ID)
	poisoned, err := counts(ctx, r.store.poison, subject)
	info, delivered := durable.CachedInfo(), e.After
	delivered.Sequence = max(delivered.Sequence, info.AckFloor.Stream)
	return webhook.Progress{
		Pending: info.NumPending + uint64(info.NumAckPending), Delivered: delivered, Attempts: record.Attempts,
		ConsecutiveFailures: record.Failures, FailingSince: record.FailingSince, NextAttempt: record.NextAttempt,
		LastSuccess: r.lastSuccess(ctx, &e, record.LastSuccess), Open: record.Failures >= openAfter,
		Poisoned: poisoned[subject], Waits: record.Waits,
	}, err
}

// durable returns the consumer of an endpoint. One that was lost is made again as it was made, as it is for a worker. The error
// is events.ErrNotFound where the endpoint was removed meanwhile.
func (r *Relay) durable(ctx context.Context, e *webhook.Endpoint) (jetstream.Consumer, error) {
	stream := r.store.decisions[e.After.Partition]
	durable, err := stream.Consumer(ctx, durableOf(e.ID))
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		if _, err := r.endpoint(ctx, e.Account, e.ID); err != nil { // where it began cannot be read either, if it is that
			return nil, err
		}
		if err := r.makeDurable(ctx, e); err != nil {
			return nil, err
		}
		durable, err = stream.Consumer(ctx, durableOf(e.ID))
	}
	if err != nil {
		return nil, unavailable("look up the consumer of", err)
	}
	return durable, nil
}

// Deliveries returns the deliveries to an endpoint of a sequence lower than one in the log, or the last where that is 0:
// the latest first, at most as many as the limit. The log has the last 1,000 of each endpoint, of the last 30 days.
func (r *Relay) Deliveries(ctx context.Context, account, id string, before uint64, limit int) ([]webhook.Delivery, error) {
	subject, partition := deliveriesPrefix+keyOf(account, id), events.PartitionOf(account, r.cfg.Partitions)
	if before == 0 {
		before = ^uint64(0)
	}
	var all []webhook.Delivery
	err := scan(ctx, r.store.deliveries, subject, before, func(m jetstream.Msg, sequence uint64) error {
		d, err := deliveryOf(m.Data(), sequence, partition)
		if err != nil {
			r.cfg.Log.Warn("a delivery is left out", "webhook", id, "error", err)
			return nil
		}
		all = append(all, d)
		return nil
	})
	all = all[max(0, len(all)-limit):]
	slices.Reverse(all)
	return all, err
}

// Census counts the endpoints by their states, and what waits for them.
func (r *Relay) Census(ctx context.Context) (Census, error) {
	c := Census{ByState: map[webhook.State]int{}}
	all, err := r.All(ctx)
	if err != nil {
		return c, err
	}
	for _, e := range all {
		c.ByState[e.State]++
	}
	for _, stream := range r.store.decisions {
		durables := stream.ListConsumers(ctx)
		for info := range durables.Info() {
			if strings.HasPrefix(info.Name, durableOf(idPrefix)) {
				c.Waiting += info.NumPending + uint64(info.NumAckPending)
			}
		}
		if err := durables.Err(); err != nil && !errors.Is(err, jetstream.ErrEndOfData) {
			return c, unavailable("list the consumers of", err)
		}
	}
	return c, nil
}
