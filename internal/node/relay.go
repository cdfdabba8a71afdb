package node

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/ledger"
	"jobtally/internal/relay"
)

const (
	// relayOpenTimeout is how long a start waits for the relay, without which it goes on.
	relayOpenTimeout = 5 * time.Second
	// relayRetry is how long after a failure the relay is opened, or run, again.
	relayRetry = 30 * time.Second
)

// RelayConfig says how a node sends to webhooks.
type RelayConfig struct {
	// Allow are networks that are not public and that webhooks may be sent to. Default: none.
	Allow []netip.Prefix
	// RootCAs certify what is sent to. Default: those of the system.
	RootCAs *x509.CertPool
	// Log and Observer are told what becomes of it.
	Log      *slog.Logger
	Observer relay.Observer

	sync func(stream string) error // as relay.Config has it
}

// Relay is the relay of a node. It may not be there yet: where it cannot be opened, as by a NATS user that lacks the rights,
// the node works without it, and it is opened as soon as that can be.
type Relay struct {
	node    *Node
	cfg     RelayConfig
	sending context.Context // for how long it sends; what is registered can be changed until the node is closed
	stop    context.CancelFunc
	opened  atomic.Pointer[relay.Relay]
	failure atomic.Pointer[error] // why it is not open
}

// StartRelay opens the relay, and runs it where the node decides, until the node is closed. It waits for the first try only.
func (n *Node) StartRelay(ctx context.Context, cfg RelayConfig) *Relay {
	cfg.sync = n.syncBeside
	running, cancel := context.WithCancel(context.Background())
	r := &Relay{node: n, cfg: cfg}
	r.sending, r.stop = context.WithCancel(running)
	n.relay.Store(r)
	var ended sync.WaitGroup
	tried := make(chan struct{})
	ended.Go(func() { r.keep(running, sync.OnceFunc(func() { close(tried) })) })
	n.closers = append(n.closers, func() error { cancel(); ended.Wait(); return nil })
	select {
	case <-tried:
	case <-ctx.Done():
	}
	return r
}

// StopSending has nothing more be sent by itself. An attempt that is under way gets a moment to end, for which closing the node
// waits, and this does not.
func (r *Relay) StopSending() { r.stop() }

// Now returns the relay. The error, where there is none now, is events.ErrUnavailable.
func (r *Relay) Now() (*relay.Relay, error) {
	if opened := r.opened.Load(); opened != nil {
		return opened, nil
	}
	why := errors.New("the relay is not open yet")
	if failure := r.failure.Load(); failure != nil {
		why = *failure
	}
	return nil, fmt.Errorf("%w: %w", events.ErrUnavailable, why)
}

// Census counts the webhooks of all accounts.
func (r *Relay) Census(ctx context.Context) (relay.Census, error) {
	now, err := r.Now()
	if err != nil {
		return relay.Census{}, err
	}
	return now.Census(ctx)
}

// keep opens the relay and works it, again and again, until ctx ends.
func (r *Relay) keep(ctx context.Context, tried func()) {
	for ctx.Err() == nil {
		err := r.work(ctx, tried)
		tried()
		if ctx.Err() != nil {
			return
		}
		r.failure.Store(&err)
		r.cfg.Log.Error("webhooks are sent nothing, and cannot be changed; it is tried again", "in", relayRetry, "error", err)
		select {
		case <-time.After(relayRetry):
		case <-ctx.Done():
		}
	}
}

// work opens the relay, and returns when ctx ends or it fails.
func (r *Relay) work(ctx context.Context, tried func()) (err error) {
	connection, err := r.node.connectAgain("jobtally relay")
	if err != nil {
		return err
	}
	defer connection.Close()
	opened, err := openRelay(ctx, r.node.Ledger, connection, r.node.Projection.Folded, r.node.Projection.Erasures, r.cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	r.opened.Store(opened)
	defer r.opened.Store(nil)
	if r.failure.Swap(nil) != nil {
		r.cfg.Log.Info("webhooks can be changed again, and are sent what is due")
	}
	tried()
	if r.node.decides {
		if err := opened.Run(r.sending); r.sending.Err() == nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

// erased tells the relay of a node, where it has one, that an account was erased.
func (r *Relay) erased() {
	if r == nil {
		return
	}
	if opened := r.opened.Load(); opened != nil {
		opened.Erased()
	}
}

// openRelay opens the relay on a connection of its own.
func openRelay(ctx context.Context, l *ledger.Ledger, connection *ledger.Connection, folded func(int) uint64,
	erasures func(context.Context, string) ([]events.Decision, error), cfg RelayConfig) (opened *relay.Relay, err error) {
	ctx, cancel := context.WithTimeout(ctx, relayOpenTimeout)
	defer cancel()
	err = ledger.Heeding(ctx, connection, func(ctx context.Context) (err error) {
		opened, err = relay.Open(ctx, relay.Config{
			Conn: connection, Partitions: l.Partitions, Replicas: l.Replicas, Folded: folded, Erasures: erasures, Sync: cfg.sync,
			Allow: cfg.Allow, RootCAs: cfg.RootCAs, Log: cfg.Log, Observer: cfg.Observer,
		})
		return err
	})
	return opened, err
}

// Relay opens the relay of the ledger for an operator, who manages what is there, and has things sent at once. It is closed
// with the access.
func (o *Operator) Relay(ctx context.Context, cfg RelayConfig) (*relay.Relay, error) {
	connection, err := o.connectAgain("jobtally operator")
	if err != nil {
		return nil, err
	}
	cfg.sync = o.syncBeside
	registersNone := func(int) uint64 { return 0 }
	opened, err := openRelay(ctx, o.Ledger, connection, registersNone, o.erasures, cfg)
	if err != nil {
		connection.Close()
		return nil, err
	}
	closeLedger := o.close
	o.close = func() error {
		err := opened.Close()
		connection.Close()
		return errors.Join(err, closeLedger())
	}
	return opened, nil
}

// sweepWebhooks removes the webhooks of accounts that are erased.
func (o *Operator) sweepWebhooks(ctx context.Context) error {
	r, err := o.Relay(ctx, RelayConfig{Log: o.log})
	if err != nil {
		return err
	}
	return r.Sweep(ctx)
}

// erasures returns the decisions that erased an account, in order, from the ledger.
func (o *Operator) erasures(ctx context.Context, account string) (of []events.Decision, err error) {
	p := events.PartitionOf(account, o.Ledger.Partitions)
	heads, err := o.Ledger.Heads(ctx, p)
	if err != nil {
		return nil, err
	}
	all, err := o.Ledger.Erasures(ctx, p, heads.Decisions)
	return slices.DeleteFunc(all, func(d events.Decision) bool { return d.Account != account }), err
}
