package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// sizes are how much is measured.
type sizes struct {
	runs           int
	warmup, window time.Duration
	accounts       int // of the nearly empty ledger
	many, jobsEach int // accounts of the full ledger, and the jobs of each
	decisions      int // that are folded and decided again
	tracked        int // jobs of the account whose tracker is searched
}

func full(runs int) sizes {
	return sizes{runs: runs, warmup: time.Second, window: 5 * time.Second,
		accounts: 10_000, many: 100_000, jobsEach: 10, decisions: 500_000, tracked: 100_000}
}

// quick is a smoke run: it shows that every row works, and its figures are those of cold and small ledgers.
func quick(runs int) sizes {
	return sizes{runs: runs, warmup: 200 * time.Millisecond, window: time.Second,
		accounts: 2_000, many: 5_000, jobsEach: 10, decisions: 50_000, tracked: 10_000}
}

// fullBlocks is in how many blocks the accounts of the full ledger come.
const fullBlocks = 10

// suite is what the rows share. The data directories and binaries are made when a row first asks for them.
type suite struct {
	scratch   *scratch
	size      sizes
	inProcess bool
	profiles  string // where CPU profiles go, in process
	progress  io.Writer

	binary                   string     // of cmd/api
	empty, exhausted, filled *ledgerDir // see accounts, atLimit, million
	searched                 *ledgerDir // see tracker
	folded                   string     // see foldedFile
	serials                  int        // how many serial numbers are taken
}

func (s *suite) say(format string, args ...any) {
	fmt.Fprintf(s.progress, format+"\n", args...)
}

// accounts is a ledger of open accounts with a token and a high limit, and nothing else.
func (s *suite) accounts(ctx context.Context) (*ledgerDir, error) {
	return s.once(ctx, &s.empty, plan{accounts: s.size.accounts, limit: 1_000_000, blocks: 1})
}

// atLimit is a ledger of accounts with a limit of 1 that have 1 job: whatever they capture is a duplicate or rejected.
func (s *suite) atLimit(ctx context.Context) (*ledgerDir, error) {
	return s.once(ctx, &s.exhausted, plan{accounts: s.size.accounts, jobsEach: 1, limit: 1, blocks: 1})
}

// million is the full ledger. Captures that rows add to it stay.
func (s *suite) million(ctx context.Context) (*ledgerDir, error) {
	return s.once(ctx, &s.filled, plan{accounts: s.size.many, jobsEach: s.size.jobsEach, limit: 1_000_000, blocks: fullBlocks})
}

func (s *suite) once(ctx context.Context, d **ledgerDir, p plan) (*ledgerDir, error) {
	if *d != nil {
		return *d, nil
	}
	path, _ := s.scratch.fresh("ledger")
	built, err := p.build(ctx, path, func(line string) { s.say("  %s", line) })
	if err == nil {
		*d = built
	}
	return built, err
}

// newSerials returns the first of a range of serial numbers that no other load uses.
func (s *suite) newSerials() int {
	s.serials++
	return s.serials * 1_000_000_000
}

// serve starts the service on a data directory: the real binary, or the same wiring in this process.
func (s *suite) serve(ctx context.Context, dir string) (_ *service, err error) {
	if s.inProcess {
		return startInProcess(ctx, dir)
	}
	if s.binary == "" {
		if s.binary, err = buildAPI(ctx, s.scratch.path); err != nil {
			return nil, err
		}
	}
	return startProcess(ctx, s.binary, "--addr", "127.0.0.1:0", "--data", dir)
}

// withService runs use while the service runs on a data directory.
func (s *suite) withService(ctx context.Context, dir string, use func(*service) error) error {
	running, err := s.serve(ctx, dir)
	if err != nil {
		return err
	}
	return running.use(func() error { return use(running) })
}

// withCopy is withService on a copy of the directory, which is removed afterwards.
func (s *suite) withCopy(ctx context.Context, dir string, use func(*service) error) error {
	path, remove, err := s.scratch.copyOf(dir)
	if err != nil {
		return err
	}
	return errors.Join(s.withService(ctx, path, use), remove())
}
