package node

import (
	"context"
	"errors"

	"jobtally/internal/ledger"
)

// Inspect opens the access as Dial does, to look only: where no service runs on cfg.Dir, it starts the server of that
// directory, and no projector. So nothing is decided or folded because somebody looked.
func Inspect(ctx context.Context, cfg Config) (*Operator, error) {
	if cfg.NATS != "" || !hasLedger(cfg.Dir) {
		return Dial(ctx, cfg) // which connects only, or says that there is no ledger
	}
	unlock, err := takeDir(cfg.Dir)
	if errors.Is(err, ledger.ErrLocked) {
		return dialRunning(ctx, cfg)
	}
	if err != nil {
		return nil, err
	}
	return openAlone(ctx, cfg, unlock)
}

// openAlone opens the ledger of a data directory that was taken, without projectors.
func openAlone(ctx context.Context, cfg Config, unlock func() error) (*Operator, error) {
	cfg.operator = true
	n := &Node{closers: []func() error{unlock}}
	if err := n.openLedger(ctx, cfg); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return &Operator{Ledger: n.Ledger, Alone: true, close: n.Close, connectAgain: n.connectAgain}, nil
}
