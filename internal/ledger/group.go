package ledger

import (
	"context"
	"slices"

	"jobtally/internal/events"
)

// AppendAll records requests of one account, at most 512, as one group: their positions follow each other, unless another node
// appends to the same server meanwhile. It returns the position of each, or its error as of Append. Where the ledger takes no
// requests, or too many wait already, nothing is recorded of any of them.
func (l *Ledger) AppendAll(ctx context.Context, requests []*events.Request) ([]events.Position, []error) {
	p := requests[0].Partition(l.Partitions)
	positions, messages := make([]events.Position, len(requests)), make([]events.Message, len(requests))
	if err := l.check(); err != nil {
		return positions, slices.Repeat([]error{err}, len(requests))
	}
	for i, r := range requests {
		messages[i] = r.Message(l.Partitions)
	}
	sequences, errs := l.appenders[p].appendAll(ctx, messages)
	for i, sequence := range sequences {
		positions[i] = events.Position{Partition: p, Sequence: sequence}
	}
	return positions, errs
}

// appendAll waits until the messages are durable and returns the sequence of each, or why it has none. They are admitted
// together, or none is; only a message that is too large is refused alone.
func (a *appender) appendAll(ctx context.Context, messages []events.Message) (sequences []uint64, errs []error) {
	sequences, errs = make([]uint64, len(messages)), make([]error, len(messages))
	appends, group := make([]*pendingAppend, len(messages)), []*pendingAppend(nil)
	for i, m := range messages {
		if appends[i], errs[i] = a.pending(m); errs[i] == nil {
			group = append(group, appends[i])
		}
	}
	if len(group) == 0 {
		return sequences, errs
	}
	group[0].others = group[1:]
	refused := a.enqueue(group[0])
	for i, p := range appends {
		switch {
		case errs[i] != nil:
		case refused != nil:
			errs[i] = refused
		default:
			sequences[i], errs[i] = p.wait(ctx)
		}
	}
	return sequences, errs
}

// all returns the append with those that were asked for with it, in order.
func (p *pendingAppend) all() []*pendingAppend { return append([]*pendingAppend{p}, p.others...) }
