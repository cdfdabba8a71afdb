package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/ledger"
	"jobtally/internal/projections"
)

const (
	// decisionTimeout is how long an operator waits for the decision on a request.
	decisionTimeout = 10 * time.Second
	// startingTimeout is how long an operator waits for a service that has taken its data directory to come up.
	startingTimeout = 10 * time.Second
	startingPoll    = 50 * time.Millisecond
	// settleTimeout is how long an operator waits for the running service to fold a decision.
	settleTimeout = 2 * time.Second
	settlePoll    = 2 * time.Millisecond
)

// Operator is the access of an operator command to a ledger: to one on an external server, to the one of the service
// that runs on a data directory, or, when none runs, to that directory's own.
type Operator struct {
	Ledger *ledger.Ledger
	Alone  bool // no service runs on the data directory: its ledger was opened for the time of the access

	running string // the data directory of the service that was found running, or empty
	foreign bool   // whether the server is part of a running service, which alone sees to its files
	log     *slog.Logger
	close   func() error

	connectAgain func(name string) (*ledger.Connection, error) // to the ledger's server
	syncBeside   func(stream string) error                     // of a stream beside the ledger; nil where another sees to the disk
}

// Dial opens the access. With cfg.NATS it connects to that server; else it finds the service running on cfg.Dir, and
// when none runs it starts a node there for as long as the access is open. It never creates a ledger.
func Dial(ctx context.Context, cfg Config) (*Operator, error) {
	if cfg.NATS != "" {
		return dialServer(ctx, cfg, cfg.NATS)
	}
	if !hasLedger(cfg.Dir) {
		if _, err := os.Stat(ledgerDir(cfg.Dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("data directory: %w", err)
		}
		if hasProjection(cfg.Dir) {
			return nil, fmt.Errorf("%w in %s: it has the projection of one on an external NATS server; name that with --nats",
				ledger.ErrNoLedger, cfg.Dir)
		}
		return nil, fmt.Errorf("%w in %s: start `api --data %s` first, or name the server with --nats",
			ledger.ErrNoLedger, cfg.Dir, cfg.Dir)
	}
	unlock, err := takeDir(cfg.Dir)
	if errors.Is(err, ledger.ErrLocked) {
		return dialRunning(ctx, cfg)
	}
	if err != nil {
		return nil, err
	}
	cfg.Decides, cfg.operator = true, true
	n, err := start(ctx, cfg, unlock)
	if err != nil {
		return nil, err
	}
	if !n.awaitFolding(ctx)() {
		return nil, errors.Join(ctx.Err(), n.Close())
	}
	return &Operator{Ledger: n.Ledger, Alone: true, close: n.Close, log: cfg.Log, connectAgain: n.connectAgain, syncBeside: n.syncBeside}, nil
}

func dialServer(ctx context.Context, cfg Config, url string) (*Operator, error) {
	connection, err := ledger.Connect(url, "jobtally operator", cfg.Log)
	if err != nil {
		return nil, err
	}
	l, err := openExisting(ctx, connection, ledger.Open)
	if err != nil {
		connection.Close()
		return nil, err
	}
	return &Operator{
		Ledger: l, foreign: ledger.IsEmbedded(connection), close: func() error { l.Close(); connection.Close(); return nil },
		connectAgain: func(name string) (*ledger.Connection, error) { return ledger.Connect(url, name, cfg.Log) },
	}, nil
}

// dialRunning connects to the service that has the data directory. One that is just starting has not left its
// address there yet, or has left the one of its last run.
func dialRunning(ctx context.Context, cfg Config) (*Operator, error) {
	ctx, cancel := context.WithTimeout(ctx, startingTimeout)
	defer cancel()
	for {
		o, err := reachRunning(ctx, cfg)
		if err == nil {
			return o, nil
		}
		select {
		case <-time.After(startingPoll):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// reachRunning connects to the service that has the data directory, if it can be reached.
func reachRunning(ctx context.Context, cfg Config) (o *Operator, err error) {
	url, err := ledger.EmbeddedURL(cfg.Dir)
	if err == nil {
		o, err = dialServer(ctx, cfg, url)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.New("it is starting or stopping")
	}
	if err != nil {
		return nil, fmt.Errorf("%w on %s, and cannot be reached (%w): try again in a moment, or see its log", ledger.ErrLocked, cfg.Dir, err)
	}
	o.running = cfg.Dir
	return o, nil
}

// Close ends the access.
func (o *Operator) Close() error { return o.close() }

// Decide appends a request and returns the decision on it. A refusal is an error in the words of the decision.
func (o *Operator) Decide(ctx context.Context, r *events.Request) (events.Decision, error) {
	position, err := o.Ledger.Append(ctx, r)
	if err != nil {
		return events.Decision{}, err
	}
	decision, err := o.await(ctx, position)
	if err != nil {
		return decision, err
	}
	switch b := decision.Body.(type) {
	case *events.RequestRefused:
		return decision, fmt.Errorf("refused at %s: %s (%s)", position, b.Detail, b.Reason)
	case *events.Erased:
		return decision, fmt.Errorf("decided at %s, and erased with the account since", position)
	}
	o.settle(ctx, position)
	return decision, nil
}

// settle waits until the service that was found running has folded a position, so that what the operator does next
// meets it there: a token is accepted by the time that it is printed. It waits no longer than settleTimeout, for the
// decision stands either way.
func (o *Operator) settle(ctx context.Context, p events.Position) {
	if o.running == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for {
		folded, err := projections.ReadPositions(filepath.Join(o.running, ProjectionFile), o.Ledger.ID)
		if err == nil && folded[p.Partition].Sequence >= p.Sequence {
			return
		}
		select {
		case <-time.After(settlePoll):
		case <-ctx.Done():
			return
		}
	}
}

// await reads the decision from the ledger, where it stands under the number of the request.
func (o *Operator) await(ctx context.Context, p events.Position) (events.Decision, error) {
	ctx, cancel := context.WithTimeout(ctx, decisionTimeout)
	defer cancel()
	for batch, err := range o.Ledger.Read(ctx, events.Decisions, p.Partition, p.Sequence-1) {
		if errors.Is(err, context.DeadlineExceeded) {
			return events.Decision{}, fmt.Errorf("recorded at %s, but undecided for %s: is a projector running?", p, decisionTimeout)
		}
		if err != nil {
			return events.Decision{}, err
		}
		return events.DecodeDecision(batch[0], p.Partition)
	}
	return events.Decision{}, ctx.Err()
}

// ArchivedMonth returns the last month of a partition that was archived, or nothing.
func (o *Operator) ArchivedMonth(ctx context.Context, p int) (events.Month, error) {
	m, err := o.Ledger.Last(ctx, events.Decisions, p, events.ArchivesSubject(p))
	if errors.Is(err, events.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	d, err := events.DecodeDecision(m, p)
	if err != nil {
		return "", err
	}
	archived, ok := d.Body.(*events.MonthArchived)
	if !ok {
		return "", fmt.Errorf("decision %s stands under the subject of an archived month, and is none", d.Position)
	}
	return archived.Month, nil
}
