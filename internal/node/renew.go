package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/projections"
)

const (
	// nextPoll is how often a node looks for a projection that was folded anew beside its own.
	nextPoll = 200 * time.Millisecond
	// renewPause is how long a node with a projection of another version waits after a failure before it tries again.
	renewPause = time.Second
	// renewalEvery is how often it logs how far it is.
	renewalEvery = 5 * time.Second
)

// renewal is how far a projection is that comes in the place of one of another version.
type renewal struct {
	version     int // of the one that is there
	folded, due atomic.Uint64
	failure     atomic.Pointer[error] // of the last try
}

// progress says it, as why the node is not ready.
func (r *renewal) progress() error {
	if failure := r.failure.Load(); failure != nil {
		return fmt.Errorf("the projection, of schema version %d, cannot be folded anew: %w", r.version, *failure)
	}
	return fmt.Errorf("the projection, of schema version %d, is being folded anew: %d of %d decisions", r.version, r.folded.Load(), r.due.Load())
}

// openProjection opens the projection. One that an older jobtally wrote serves for reading until another is folded.
func (n *Node) openProjection(cfg Config) (err error) {
	path := filepath.Join(cfg.Dir, ProjectionFile)
	n.rebuild = projections.Rebuild{Path: path, LedgerID: n.Ledger.ID, Ledger: seam(n.Ledger, cfg.Now)}
	n.Projection, err = projections.Open(path, n.Ledger.ID, n.Ledger.Partitions)
	var version *projections.VersionError
	if !errors.As(err, &version) || version.Newer() {
		return err
	}
	n.renewal.version = version.Version
	n.rebuild.Progress = func(folded, due uint64) {
		n.renewal.folded.Store(folded)
		n.renewal.due.Store(due)
	}
	n.Projection, err = projections.OpenOutdated(path, n.Ledger.ID, n.Ledger.Partitions)
	return err
}

// check refuses a projection that does not match the ledger, and returns the heads. Decisions that the ledger lost and that
// stand in the rows of another version are appended again from there; where those cannot be read, they are decided again.
func (n *Node) check(ctx context.Context, projector *projections.Projector, p int, cfg Config) (events.Heads, error) {
	heads, err := projector.Check(ctx)
	if !n.Projection.Outdated() {
		return heads, err
	}
	if err == nil && cfg.Decides && heads.Decisions < n.Projection.Folded(p) {
		err = projector.Restore(ctx)
	}
	if err != nil && !errors.Is(err, events.ErrUnavailable) {
		return heads, err
	}
	if heads, err = n.Ledger.Heads(ctx, p); err == nil && heads.Decisions < n.Projection.Folded(p) {
		n.Projection.Blind()
	}
	return heads, err
}

// awaitFolding returns a function that waits until this node folds, which is at once unless its projection is of another
// version, and says whether it does.
func (n *Node) awaitFolding(ctx context.Context) func() bool {
	replaced := n.Projection.Replaced()
	return func() bool {
		if !n.Projection.Outdated() {
			return true
		}
		select {
		case <-replaced:
			return true
		case <-ctx.Done():
			return false
		}
	}
}

// tend puts a projection that was folded anew, by this node or by a command beside it, in the place of the one that serves.
func (n *Node) tend(ctx context.Context, log *slog.Logger) {
	next := projections.NextPath(n.rebuild.Path)
	for every := nextPoll; pause(ctx, every); every = nextPoll {
		var err error
		if _, missing := os.Stat(next); missing == nil {
			err = n.adopt(ctx, log)
		} else if n.Projection.Outdated() {
			err = n.renew(ctx, log)
		}
		if n.Projection.Outdated() && err != nil && ctx.Err() == nil {
			n.renewal.failure.Store(&err)
			every = renewPause
		}
	}
}

func (n *Node) adopt(ctx context.Context, log *slog.Logger) error {
	equal, err := n.rebuild.Adopt(ctx, n.Projection)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		log.Error("the projection that was folded anew is refused; the one before serves on", "error", err)
	default:
		log.Info("the projection that was folded anew serves", "equal", equal)
		n.uses.tokensErased() // the one before may not have heard of it
	}
	return err
}

// renew folds the ledger anew, unless a command does so already. Where the disk is full what is folded stays: no capture is
// taken before it is whole, and each try would fill the disk again.
func (n *Node) renew(ctx context.Context, log *slog.Logger) error {
	log.Info("folding the ledger anew; until that is done captures are refused", "schema_version", n.renewal.version)
	ticker := time.NewTicker(renewalEvery)
	defer ticker.Stop()
	r := n.rebuild
	r.KeepWhenFull = true
	r.Progress = func(folded, due uint64) {
		n.renewal.failure.Store(nil)
		n.rebuild.Progress(folded, due)
		select {
		case <-ticker.C:
			log.Info("folding the ledger anew", "folded", folded, "due", due)
		default:
		}
	}
	made, err := r.Make(ctx)
	switch {
	case ctx.Err() != nil, errors.Is(err, projections.ErrUnderWay):
		return nil
	case err != nil:
		log.Error("the ledger cannot be folded anew; trying until it works", "error", err)
	default:
		log.Info("folded the ledger anew", "decisions", made.Decisions, "resumed", made.Resumed, "seconds", made.Seconds)
	}
	return err
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
