// Package ledger keeps requests and decisions in NATS JetStream: a pair of streams for each partition, in which the
// message i of DECISIONS_p is the decision on message i of REQUESTS_p.
//
// REQUESTS_p is the only thing that must survive; an Append returns when the server has it as durably as it was set
// up to. DECISIONS_p can be made again from it, and its append is fenced: two projectors cannot both decide one
// position.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
)

const (
	// ackTimeout is how long an append waits for the server's word. After it the outcome is unknown.
	ackTimeout = 5 * time.Second
	// maxInFlight is above what the partitions publish at once, since the client fails what exceeds it.
	maxInFlight = 1 << 20
	// minPayload is the least that a server must take as one message, and what it takes unless told otherwise. The
	// largest capture has 256 KiB, and twice that in the JSON of its decision.
	minPayload = 1 << 20
)

// Ledger is an open ledger. It is safe for concurrent use.
type Ledger struct {
	ID         string // made at creation: tells this ledger from any other
	Partitions int
	Replicas   int // servers that keep each stream

	nc        *nats.Conn
	js        jetstream.JetStream
	streams   map[string]jetstream.Stream // by name
	appenders []*appender                 // by partition

	embedded *Embedded // the server, where it is part of this process
}

// Open opens the ledger that Create made. It returns ErrNoLedger where there is none, and ErrDrift, with the
// remedy, where the streams are not as Create made them. The caller keeps nc, and closes it after the ledger.
//
// An append is as durable as the server makes it before it acknowledges it; Embedded has an Open of its own.
func Open(ctx context.Context, nc *nats.Conn) (*Ledger, error) { return openLedger(ctx, nc, nil) }

// openLedger opens the ledger of an embedded server, or of any other where that is nil.
func openLedger(ctx context.Context, nc *nats.Conn, embedded *Embedded) (*Ledger, error) {
	ctx, stop := heed(ctx, nc)
	defer stop()
	l, err := openStreams(ctx, nc, embedded)
	return l, because(ctx, err)
}

func openStreams(ctx context.Context, nc *nats.Conn, embedded *Embedded) (*Ledger, error) {
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncTimeout(ackTimeout),
		jetstream.WithPublishAsyncMaxPending(maxInFlight), jetstream.WithDefaultTimeout(ackTimeout))
	if err != nil {
		return nil, err
	}
	found, err := survey(ctx, js)
	if err != nil {
		return nil, err
	}
	if err := found.check(); err != nil {
		return nil, err
	}
	if room := nc.MaxPayload(); room < minPayload {
		return nil, fmt.Errorf("the NATS server takes messages of %d bytes; set its max_payload to %d or more", room, minPayload)
	}
	l := &Ledger{
		ID: found.id, Partitions: found.partitions, Replicas: found.streams[events.Requests.Name(0)].Config.Replicas,
		nc: nc, js: js, embedded: embedded, streams: map[string]jetstream.Stream{},
	}
	for name := range found.streams {
		if l.streams[name], err = lookUp(ctx, js, name); err != nil {
			return nil, err
		}
	}
	for p := range l.Partitions {
		a := &appender{nc: nc, js: js, batches: l.Replicas == 1 && embedded == nil}
		if embedded != nil && embedded.sync == 0 {
			a.syncer = newSyncer(embedded.blocks(events.Requests.Name(p)))
		}
		a.start()
		l.appenders = append(l.appenders, a)
	}
	return l, nil
}

// Close answers what is being appended and refuses anything new with ErrUnavailable.
func (l *Ledger) Close() {
	for _, a := range l.appenders {
		a.close()
	}
}

// Append records a request and returns its position once it is durable. The error is ErrUnavailable when nothing
// was recorded, and ErrUnknownOutcome when the server's word did not come.
func (l *Ledger) Append(ctx context.Context, r *events.Request) (events.Position, error) {
	p := r.Partition(l.Partitions)
	if err := l.check(); err != nil {
		return events.Position{}, err
	}
	sequence, err := l.appenders[p].append(ctx, r.Message(l.Partitions))
	return events.Position{Partition: p, Sequence: sequence}, err
}

// streamNames returns the names of all streams.
func (l *Ledger) streamNames() map[string]bool {
	names := make(map[string]bool, len(l.streams))
	for name := range l.streams {
		names[name] = true
	}
	return names
}

// check returns ErrUnavailable, with the reason, while an embedded server is stopped, or the connection is lost: the library
// would say that a buffer is full, the one that it is to keep nothing in.
func (l *Ledger) check() error {
	if l.embedded != nil {
		if err := l.embedded.Failure(); err != nil {
			return fmt.Errorf("%w: %w", events.ErrUnavailable, err)
		}
	}
	if !l.nc.IsConnected() {
		return fmt.Errorf("%w: no connection to the NATS server", events.ErrUnavailable)
	}
	return nil
}

// Heads returns the last sequences of the pair of a partition.
func (l *Ledger) Heads(ctx context.Context, partition int) (events.Heads, error) {
	// Decisions first: read the other way round, a decision made in between would seem to lack its request.
	decisions, err := l.head(ctx, events.Decisions, partition)
	if err != nil {
		return events.Heads{}, err
	}
	requests, err := l.head(ctx, events.Requests, partition)
	return events.Heads{Requests: requests, Decisions: decisions}, err
}

func (l *Ledger) head(ctx context.Context, stream events.Stream, partition int) (uint64, error) {
	state, err := l.state(ctx, stream, partition)
	return state.LastSeq, err
}

// Get returns one message of a stream. The error is ErrNotFound where there is none under that number.
func (l *Ledger) Get(ctx context.Context, stream events.Stream, p events.Position) (events.Message, error) {
	if p.Partition >= l.Partitions {
		return events.Message{}, events.ErrNotFound
	}
	ctx, cancel := asking(ctx)
	defer cancel()
	raw, err := l.streams[stream.Name(p.Partition)].GetMsg(ctx, p.Sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return events.Message{}, events.ErrNotFound
	}
	if err != nil {
		return events.Message{}, fmt.Errorf("%w: get %s of %s: %w", events.ErrUnavailable, p, stream, err)
	}
	return events.Message{Subject: raw.Subject, Header: raw.Header, Data: raw.Data, Sequence: raw.Sequence}, nil
}
