package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/ledger"
	"jobtally/internal/projections"
)

const (
	// verdictPoll is how often a rebuild looks for the verdict of the node that serves.
	verdictPoll = 20 * time.Millisecond
	// lifePoll is how often it looks whether that still runs.
	lifePoll = 2 * time.Second
)

var (
	// errNodeGone is the error of a rebuild whose node stopped before it took what was made.
	errNodeGone = errors.New("the service stopped before it took what was folded; it does so at its next start")
	// ErrRefused is the error of a rebuild whose node refused what was made, with the reason.
	ErrRefused = errors.New("refused, and the projection that was there serves on")
)

// Rebuilt says what a rebuild did.
type Rebuilt struct {
	projections.Made
	Partitions int
	// Running says that a node was running, and took what was made.
	Running bool
	projections.Installed
}

// Rebuild folds the ledger anew beside the projection in cfg.Dir, and has it put in its place: by the node that runs there,
// or, where none does, by itself. It never creates a ledger. The errors are those of the parts: ErrDiffers among them, when
// what is there is another projection than the ledger's.
func Rebuild(ctx context.Context, cfg Config, progress func(folded, due uint64)) (done Rebuilt, err error) {
	o, err := openRebuild(ctx, cfg)
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	r := projections.Rebuild{
		Path: filepath.Join(cfg.Dir, ProjectionFile), LedgerID: o.Ledger.ID, Ledger: seam(o.Ledger, cfg.Now), Progress: progress,
	}
	done.Partitions, done.Running = o.Ledger.Partitions, o.running != ""
	if !done.Running {
		if err := errors.Join(r.TakeBack(), r.Examine(ctx)); err != nil {
			return done, err
		}
	}
	if done.Made, err = r.Make(ctx); err != nil {
		return done, err
	}
	if done.Running {
		done.Equal, err = awaitVerdict(ctx, cfg.Dir, r.Path, done.Info)
	} else {
		done.Installed, err = r.Install(ctx)
	}
	return done, err
}

// openRebuild opens the access, and takes the data directory for as long as it is open, unless a node has it.
func openRebuild(ctx context.Context, cfg Config) (*Operator, error) {
	if cfg.NATS == "" && !hasLedger(cfg.Dir) {
		return Dial(ctx, cfg) // which says that there is none
	}
	if cfg.NATS != "" && hasLedger(cfg.Dir) {
		return nil, fmt.Errorf("%s has a ledger of its own: leave --nats out", cfg.Dir)
	}
	if _, err := os.Stat(cfg.Dir); err != nil {
		return nil, fmt.Errorf("data directory: %w; name that of a node with --data", err)
	}
	if !isOfNode(cfg.Dir) {
		return nil, fmt.Errorf("no node has worked in %s: there is no projection, and nothing of one; name the data directory of a node with --data", cfg.Dir)
	}
	unlock, err := ledger.LockDir(cfg.Dir)
	if errors.Is(err, ledger.ErrLocked) {
		return dialBeside(ctx, cfg)
	}
	if err != nil {
		return nil, err
	}
	return openAlone(ctx, cfg, unlock)
}

// isOfNode says whether a data directory has what a node or a rebuild leaves there: a mistyped name must not get a projection.
func isOfNode(dir string) bool {
	path := filepath.Join(dir, ProjectionFile)
	for _, left := range []string{path, projections.PartialPath(path), projections.NextPath(path), filepath.Join(dir, ledger.LockFile)} {
		if _, err := os.Stat(left); err == nil {
			return true
		}
	}
	return hasLedger(dir)
}

// dialBeside connects to the server of the node that has the data directory.
func dialBeside(ctx context.Context, cfg Config) (*Operator, error) {
	if cfg.NATS == "" {
		return dialRunning(ctx, cfg)
	}
	o, err := dialServer(ctx, cfg, cfg.NATS)
	if err == nil {
		o.running = cfg.Dir
	}
	return o, err
}

// awaitVerdict waits until the node has taken what was made, or refused it.
func awaitVerdict(ctx context.Context, dir, path string, made os.FileInfo) (equal []events.Position, err error) {
	looking, living := time.NewTicker(verdictPoll), time.NewTicker(lifePoll)
	defer looking.Stop()
	defer living.Stop()
	for gone := false; ; {
		v, err := projections.ReadVerdict(path, made)
		switch {
		case err != nil:
			return nil, err
		case v != nil && v.Refused != "":
			return nil, fmt.Errorf("%w: %w", ErrRefused, v.Err())
		case v != nil:
			return v.Equal, nil
		case gone && isFile(path, made):
			return nil, nil // it died before it said so
		case gone:
			return nil, errNodeGone
		}
		select {
		case <-looking.C:
		case <-living.C:
			gone = isFree(dir)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// isFree says whether no process has a data directory.
func isFree(dir string) bool {
	unlock, err := ledger.LockDir(dir)
	return err == nil && unlock() == nil
}

func isFile(path string, made os.FileInfo) bool {
	info, err := os.Stat(path)
	return err == nil && os.SameFile(info, made)
}
