// Package relay tells accounts of their events by webhook, signed as Standard Webhooks say: to each endpoint at least once, one
// after the other in the order of positions.
//
// An endpoint has a durable consumer of its own on the decisions of its account's partition, which hands out one message at
// a time. The commit point of a delivery is the acknowledgement of that message, after the endpoint answered 2xx, or after
// the event went into the poison queue: whoever dies before it has the event sent once more, under the same webhook-id.
//
// Beside the ledger lie, in JetStream:
//
//	KV_jobtally_webhooks  <account>.<id>           the endpoint. Written by whoever changes it, each change on the revision
//	                                               that it has seen
//	                      <account>.<id>.progress  attempts and when the next is due. Written by who holds the message, and
//	                                               by who has the next attempt brought forward
//	WEBHOOK_DELIVERIES    a record of each attempt. Nothing depends on it
//	WEBHOOK_POISON        what was given up. Written before the acknowledgement, removed by a redrive
//
// Nothing of it is in the ledger, nothing in the ledger depends on it, and nothing here is started by folding: neither a
// replay nor a rebuild sends anything.
package relay

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
)

const (
	askTimeout = 5 * time.Second // for the server to answer
	// restAtMost is for how long a message rests at the server before somebody looks again whether its time has come: clocks are
	// put, and who would tell that an attempt is brought forward may be gone.
	restAtMost = 15 * time.Second
	// failingAtMost is for how long nothing may reach an endpoint that fails before it is sent nothing more.
	failingAtMost = 5 * 24 * time.Hour
)

// DefaultSchedule is that of Standard Webhooks: the pause before each attempt at an event.
func DefaultSchedule() []time.Duration {
	return []time.Duration{
		0, 5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
	}
}

// Config says what a Relay works on, and how.
type Config struct {
	// Conn leads to the server that has the ledger. It stays the caller's.
	Conn *nats.Conn
	// Partitions and Replicas are those of the ledger.
	Partitions, Replicas int
	// Folded returns the position behind which a new endpoint is sent what is decided.
	Folded func(partition int) uint64
	// Erasures returns the decisions that erased an account, in order.
	Erasures func(ctx context.Context, account string) ([]events.Decision, error)
	// Sync returns once what the server wrote of a stream is on disk. Default: the server syncs by itself.
	Sync func(stream string) error
	// Allow are networks that are not public and may be reached all the same, over plain HTTP too. Default: none.
	Allow []netip.Prefix
	// RootCAs are who may certify endpoints. Default: those of the system.
	RootCAs *x509.CertPool
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// Schedule is the pause before each attempt at an event; there are as many attempts. Default: DefaultSchedule.
	Schedule []time.Duration
	// Log is told what goes wrong, and of no URL and no secret.
	Log *slog.Logger
	// Observer is told what is delivered. Default: nobody is.
	Observer Observer

	timeout  time.Duration // of an attempt in all
	look     time.Duration // how often it is looked whether the streams are there
	rest     time.Duration // at most
	failing  time.Duration // at most
	ackWait  time.Duration
	resolver *net.Resolver
}

func (cfg *Config) setDefaults() error {
	if cfg.Conn == nil || cfg.Partitions < 1 || cfg.Replicas < 1 || cfg.Folded == nil || cfg.Erasures == nil || cfg.Log == nil {
		return errors.New("relay: Conn, Partitions, Replicas, Folded, Erasures and Log are needed")
	}
	if cfg.Sync == nil {
		cfg.Sync = func(string) error { return nil }
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if len(cfg.Schedule) == 0 {
		cfg.Schedule = DefaultSchedule()
	}
	for _, d := range []struct {
		of    *time.Duration
		value time.Duration
	}{{&cfg.timeout, sendTimeout}, {&cfg.look, lookEvery}, {&cfg.rest, restAtMost}, {&cfg.failing, failingAtMost}, {&cfg.ackWait, ackWait}} {
		if *d.of == 0 {
			*d.of = d.value
		}
	}
	return nil
}

// Relay keeps the endpoints of all accounts, and with Run sends them their events. It is safe for concurrent use. Any number
// of them work on one server: those that run share the work.
type Relay struct {
	cfg    Config
	store  *store
	sender *sender
	erased chan struct{} // that an account was erased; it has room for one
}

// Open opens what lies beside the ledger, and makes what is missing.
func Open(ctx context.Context, cfg Config) (*Relay, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	js, err := jetstream.New(cfg.Conn, jetstream.WithDefaultTimeout(askTimeout))
	if err != nil {
		return nil, err
	}
	s, err := openStore(ctx, js, cfg)
	if err != nil {
		return nil, fmt.Errorf("webhooks: %w", err)
	}
	return &Relay{cfg: cfg, store: s, sender: newSender(cfg), erased: make(chan struct{}, 1)}, nil
}

// Close closes the connections to endpoints. It is for after Run.
func (r *Relay) Close() error {
	r.sender.close()
	return nil
}
