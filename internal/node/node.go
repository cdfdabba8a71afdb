// Package node is one running jobtally: a data directory, the ledger, the projection and the projectors, wired. Every
// run mode is this wiring and nothing else; the two commands differ in what they put around it.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/feed"
	"jobtally/internal/ledger"
	"jobtally/internal/projections"
)

const (
	// readyLag is how many decisions the projection may be behind, once it has caught up, and still count as ready.
	readyLag = 1024
	// undecidedPatience is for how long requests may wait without a decision before the node counts as not ready.
	undecidedPatience = 5 * time.Second
	// readyTimeout bounds the check: a server that does not answer for so long is not there.
	readyTimeout = 2 * time.Second
	// clusterDoubt is twice as long as a server that leads a stream goes on to believe so while it reaches no other.
	clusterDoubt = 20 * time.Second
)

// ProjectionFile is the name of the projection in a data directory.
const ProjectionFile = "projection.db"

// Config says how a node is wired.
type Config struct {
	// Dir is the data directory: the projection, and in embedded mode the ledger. One process has it at a time.
	Dir string
	// NATS is the URL of an external nats-server; empty runs one in this process.
	NATS string
	// Partitions is the number that the ledger must have, and is created with in embedded mode. 0 takes what is
	// there, or 1.
	Partitions int
	// Sync is how often the embedded server syncs to disk; 0 syncs before every acknowledgement, so that nothing
	// acknowledged is lost to a power failure.
	Sync time.Duration
	// Decides makes the node decide requests. One that does not only folds what others decide.
	Decides bool
	// Now is the clock by which months end. Default: time.Now.
	Now func() time.Time
	Log *slog.Logger
	// Observer is told what the node does. Default: nobody is.
	Observer Observer

	operator bool // the node is there for one operator command: it does not create a ledger, or finish erasures
}

// Node is a running node. It is safe for concurrent use.
type Node struct {
	Ledger     *ledger.Ledger
	Projection *projections.DB

	projectors []*projections.Projector
	rebuild    projections.Rebuild
	renewal    renewal        // of a projection of another version
	backlogs   []backlog      // by partition
	start      []events.Heads // by partition: what the ledger had when the node started
	caughtUp   chan struct{}  // closed once every partition is folded as far as its start asks for

	looks looks // at what is undecided
	uses  *uses // of tokens
	feed  *feed.Feed
	relay atomic.Pointer[Relay]

	decides      bool
	connectAgain func(name string) (*ledger.Connection, error) // to the ledger's server
	syncBeside   func(stream string) error                     // of a stream beside the ledger; nil where the server syncs by itself

	closers []func() error // in the order in which they were opened
}

// Start takes the data directory, opens or in embedded mode creates the ledger, opens the projection, and starts a
// projector for each partition. ctx bounds the start only. The errors are those of the parts: ErrLocked, ErrNoLedger,
// ErrDrift and ErrMismatch among them.
func Start(ctx context.Context, cfg Config) (*Node, error) {
	unlock, err := takeDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	return start(ctx, cfg, unlock)
}

func start(ctx context.Context, cfg Config, unlock func() error) (*Node, error) {
	n := &Node{
		caughtUp: make(chan struct{}), decides: cfg.Decides,
		closers: []func() error{unlock, func() error { return removeFailures(cfg.Dir) }},
	}
	if err := n.open(ctx, cfg); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	n.backlogs = make([]backlog, n.Ledger.Partitions)
	n.looks.last = make([]look, n.Ledger.Partitions)
	n.run(cfg.Log)
	return n, nil
}

func (n *Node) open(ctx context.Context, cfg Config) (err error) {
	if cfg.NATS != "" && hasLedger(cfg.Dir) {
		return fmt.Errorf("%s has a ledger of its own: give a node on an external NATS server another data directory", cfg.Dir)
	}
	if err := n.openLedger(ctx, cfg); err != nil {
		return err
	}
	if cfg.Partitions != 0 && cfg.Partitions != n.Ledger.Partitions {
		return fmt.Errorf("%w: it was created with --partitions %d, not %d; the number never changes",
			ledger.ErrDrift, n.Ledger.Partitions, cfg.Partitions)
	}
	if err := n.openProjection(cfg); err != nil {
		return err
	}
	n.closers = append(n.closers, n.Projection.Close)
	n.uses = newUses(cfg.Dir, n.Projection.Issued, cfg.Log)
	n.Projection.OnErasure(func() { n.uses.tokensErased(); n.relay.Load().erased() })
	n.openFeed()
	return n.openProjectors(ctx, cfg)
}

// openProjectors makes the projectors, refuses a projection that does not match the ledger, and notes how far each
// partition must be folded before this node's answers are as new as any that was given before it started. Only a node
// that decides can count on all requests being decided.
func (n *Node) openProjectors(ctx context.Context, cfg Config) error {
	failing := &failures{dir: cfg.Dir, log: cfg.Log}
	given := seam(n.Ledger, cfg.Now)
	if cfg.operator {
		given.Erase = nil // the command that erases an account removes it itself, and no other stays for as long as that takes
	}
	for p := range n.Ledger.Partitions {
		projector := projections.NewProjector(n.Projection, given, p, cfg.Decides, cfg.Log)
		projector.OnFailureChange(func() { failing.update(projector, p) })
		projector.Observe(cfg.Observer.Projector)
		heads, err := n.check(ctx, projector, p, cfg)
		if err != nil {
			return err
		}
		if !cfg.Decides {
			heads.Requests = heads.Decisions
		}
		n.projectors, n.start = append(n.projectors, projector), append(n.start, heads)
	}
	return nil
}

func (n *Node) openLedger(ctx context.Context, cfg Config) error {
	connection, open, err := n.connect(ctx, cfg)
	if err != nil {
		return err
	}
	n.Ledger, err = openExisting(ctx, connection, open)
	if err != nil {
		return err
	}
	n.Ledger.Observe(cfg.Observer.Ledger)
	n.closers = append(n.closers, func() error { n.Ledger.Close(); return nil })
	if cfg.NATS == "" {
		return nil
	}
	return n.Ledger.MayAppend(ctx, cfg.appends())
}

// appends returns the stream that a node appends to: what it decides, or what it is asked.
func (cfg Config) appends() events.Stream {
	if cfg.Decides {
		return events.Decisions
	}
	return events.Requests
}

// opener is the way to open the ledger of a server: whose part it is to sync depends on it.
type opener func(context.Context, *ledger.Connection) (*ledger.Ledger, error)

// openExisting opens the ledger, or says how to create it where there is none.
func openExisting(ctx context.Context, connection *ledger.Connection, open opener) (*ledger.Ledger, error) {
	l, err := open(ctx, connection)
	if errors.Is(err, ledger.ErrNoLedger) {
		return nil, fmt.Errorf("%w on the NATS server: create it with `projector init --nats URL --partitions N`", err)
	}
	return l, err
}

// connect returns the connection to the ledger's server, which is part of this process unless the configuration
// names one, and the way to open the ledger.
func (n *Node) connect(ctx context.Context, cfg Config) (*ledger.Connection, opener, error) {
	if cfg.NATS != "" {
		connection, err := n.connectTo(cfg)
		return connection, ledger.Open, err
	}
	if !hasLedger(cfg.Dir) && hasProjection(cfg.Dir) {
		return nil, nil, fmt.Errorf("%w in %s, but a projection of one: restore %s from a backup; until then keep %s, which is the last copy of what was decided",
			ledger.ErrNoLedger, cfg.Dir, ledgerDir(cfg.Dir), ProjectionFile)
	}
	server, err := ledger.StartEmbedded(cfg.Dir, cfg.Sync, cfg.Log)
	if err != nil {
		return nil, nil, err
	}
	n.closers = append(n.closers, func() error { server.Close(); return nil })
	n.syncBeside = server.Sync
	n.connectAgain = func(name string) (*ledger.Connection, error) { return server.Connect(name, cfg.Log) }
	connection, err := n.connectAgain("jobtally")
	if err != nil {
		return nil, nil, err
	}
	n.closers = append(n.closers, func() error { connection.Close(); return nil })
	if !cfg.operator {
		_, err = ledger.Create(ctx, connection, ledger.Spec{Partitions: cfg.Partitions, Replicas: 1})
	}
	return connection, server.Open, err
}

// connectTo connects to an external server.
func (n *Node) connectTo(cfg Config) (*ledger.Connection, error) {
	n.connectAgain = func(name string) (*ledger.Connection, error) { return ledger.Connect(cfg.NATS, name, cfg.Log) }
	connection, err := n.connectAgain("jobtally")
	if err != nil {
		return nil, err
	}
	n.closers = append(n.closers, func() error { connection.Close(); return nil })
	if ledger.IsEmbedded(connection) {
		return nil, errors.New("that NATS server is part of another jobtally, and there for operator commands only: run nats-server, and both nodes on it")
	}
	return connection, nil
}

// run starts the projectors. They end when the node is closed, or by themselves at what trying again cannot mend.
func (n *Node) run(log *slog.Logger) {
	ctx, cancel := context.WithCancel(context.Background())
	var running, catchingUp sync.WaitGroup
	var behind atomic.Bool
	folding := n.awaitFolding(ctx)
	for p, projector := range n.projectors {
		working, stopped := context.WithCancel(ctx)
		running.Go(func() {
			defer stopped()
			if folding() {
				projector.Run(ctx) // its error is logged, and stays as its Failure
			}
		})
		catchingUp.Go(func() {
			if !n.catchUp(working, p) {
				behind.Store(true)
			}
		})
	}
	running.Go(func() {
		if catchingUp.Wait(); !behind.Load() {
			close(n.caughtUp)
			n.uses.tokensErased() // some were perhaps, while nothing ran here
		}
	})
	running.Go(func() { n.tend(ctx, log) })
	running.Go(func() { n.uses.run(ctx) })
	running.Go(func() { n.feed.Run(ctx) })
	n.closers = append(n.closers, func() error { cancel(); running.Wait(); n.uses.close(); return nil })
}

// catchUp waits until a partition is folded up to where it was when the node started, and says whether it got there. A
// projector that stopped at a request that it cannot decide got there too, if it folded all that was decided: nobody was
// told of more. One that stopped before that never does.
func (n *Node) catchUp(working context.Context, p int) bool {
	for n.Projection.Folded(p) < n.start[p].Requests && working.Err() == nil {
		n.Projection.Await(working, events.Position{Partition: p, Sequence: n.start[p].Requests}) // what is there is of no interest
	}
	return n.Projection.Folded(p) >= n.start[p].Decisions
}

// AwaitCaughtUp returns nil once this node has folded what the ledger had when it started, and ctx's error when that
// ends first.
func (n *Node) AwaitCaughtUp(ctx context.Context) error {
	select {
	case <-n.caughtUp:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// CaughtUp says whether this node has folded what the ledger had when it started. Before, an answer could be older
// than one that was given already.
func (n *Node) CaughtUp() bool {
	select {
	case <-n.caughtUp:
		return true
	default:
		return false
	}
}

// seam gives the projectors the ledger as function values.
func seam(l *ledger.Ledger, now func() time.Time) projections.Ledger {
	if now == nil {
		now = time.Now
	}
	doubt := time.Duration(0)
	if l.Replicas > 1 {
		doubt = clusterDoubt
	}
	return projections.Ledger{
		Doubt: doubt, Partitions: l.Partitions, Heads: l.Heads, Get: l.Get, Read: l.Read, AppendDecisions: l.AppendDecisions,
		ReadTo: l.ReadTo, Append: l.Append, AppendUnopened: l.AppendUnopened, Erasures: l.Erasures, Erase: l.Erase, Now: now,
	}
}

// Close stops everything in the reverse order of the start. What was acknowledged is safe; what is undecided is
// decided at the next start.
func (n *Node) Close() error {
	var errs []error
	for i := len(n.closers) - 1; i >= 0; i-- {
		errs = append(errs, n.closers[i]())
	}
	n.closers = nil
	return errors.Join(errs...)
}

// NoteUse keeps the day on which a token was used. Tell it of each call.
func (n *Node) NoteUse(tokenID string, at time.Time) { n.uses.note(tokenID, at) }

// LastUsed returns the day, UTC, on which this node last saw a token, such as 2026-11-22; nothing where it never did.
func (n *Node) LastUsed(tokenID string) string { return n.uses.last(tokenID) }

// Requester returns whose request stands at a position, decided or not. The error is ErrNotFound when none does.
func (n *Node) Requester(ctx context.Context, p events.Position) (account string, err error) {
	m, err := n.Ledger.Get(ctx, events.Requests, p)
	if err != nil {
		return "", err
	}
	r, err := events.DecodeRequest(m, p.Partition, n.Ledger.Partitions)
	return r.Account, err
}

// Ready returns nil when the ledger answers, requests are being decided, and the projection has caught up; and
// otherwise why not.
func (n *Node) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if n.Projection.Outdated() {
		return n.renewal.progress()
	}
	for p, projector := range n.projectors {
		if err := projector.Failure(); err != nil {
			return fmt.Errorf("partition %d makes no progress: %w", p, err)
		}
		heads, err := n.Ledger.Heads(ctx, p)
		if err != nil {
			return err
		}
		if since := n.looks.undecided(p, heads); since > undecidedPatience {
			return fmt.Errorf("partition %d has %d undecided requests, and none was decided for %s: is a projector running?",
				p, heads.Requests-heads.Decisions, since.Round(time.Second))
		}
		due := max(n.start[p].Requests, heads.Decisions-min(heads.Decisions, readyLag))
		if folded := n.Projection.Folded(p); folded < due {
			return fmt.Errorf("partition %d is catching up: folded up to %d of %d", p, folded, max(due, heads.Decisions))
		}
	}
	return nil
}

func hasProjection(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, ProjectionFile))
	return err == nil
}

func ledgerDir(dir string) string { return filepath.Join(dir, "jetstream") }

// hasLedger says whether a data directory holds an embedded ledger.
func hasLedger(dir string) bool {
	info, err := os.Stat(ledgerDir(dir))
	return err == nil && info.IsDir()
}
