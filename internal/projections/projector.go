package projections

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

const (
	// patience is how long a standby lets a request stay undecided before it decides itself.
	patience = time.Second
	// retryAfter is how long a projector waits after a failure that may pass: a lost connection, a full disk.
	retryAfter = 500 * time.Millisecond
	// maxAppend bounds the decisions appended again in one go.
	maxAppend = 512
)

// Ledger is what a projector needs of the ledger, as function values: the seam at which tests inject faults.
type Ledger struct {
	Partitions int
	// Heads returns the last sequences of the pair of a partition.
	Heads func(ctx context.Context, partition int) (events.Heads, error)
	// Get returns one message of a stream, or ErrNotFound.
	Get func(ctx context.Context, stream events.Stream, p events.Position) (events.Message, error)
	// Read yields the messages after a sequence, in order and without a gap, into the live stream until ctx ends.
	Read func(ctx context.Context, stream events.Stream, partition int, after uint64) iter.Seq2[[]events.Message, error]
	// AppendDecisions records decisions under the numbers after+1 and so on. The error is ErrFenced when another
	// projector has one of them; on any error some may be recorded.
	AppendDecisions func(ctx context.Context, partition int, after uint64, decisions []events.Message) error
}

// Projector keeps one partition of a projection up to date: it folds the decisions of the ledger and, if it decides,
// makes those that are missing.
type Projector struct {
	db        *DB
	ledger    Ledger
	partition int
	decides   bool
	log       *slog.Logger

	mu      sync.Mutex // guards failure
	failure error      // why it makes no progress; nil while it does
}

// NewProjector returns the projector of a partition. One that does not decide only follows.
func NewProjector(db *DB, ledger Ledger, partition int, decides bool, log *slog.Logger) *Projector {
	return &Projector{db: db, ledger: ledger, partition: partition, decides: decides, log: log.With("partition", partition)}
}

// Failure returns why the projector makes no progress, or nil.
func (p *Projector) Failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failure
}

// succeed takes the failure back once everything that is due is folded: until then nothing shows that it passed.
func (p *Projector) succeed(due uint64) {
	if p.db.Folded(p.partition) >= due {
		p.setFailure(nil)
	}
}

// setFailure says whether it is the failure that was there before.
func (p *Projector) setFailure(err error) (again bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	again = err != nil && p.failure != nil && p.failure.Error() == err.Error()
	p.failure = err
	return again
}

// Run works until ctx ends, and then returns nil. A failure that may pass is tried again. What cannot be mended by
// trying again ends it with the error: ErrMismatch, ErrGap, or ErrUnknownType.
func (p *Projector) Run(ctx context.Context) error {
	for {
		err := p.round(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, events.ErrFenced):
			p.log.Info("fenced: the position is decided already; standing by")
			err = p.standBy(ctx)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			p.log.Info("requests stay undecided; deciding")
			continue
		}
		again := p.setFailure(err)
		if final(err) {
			p.log.Error("partition stopped", "error", err)
			return err
		}
		if !again {
			p.log.Warn("projector failed; trying until it works", "error", err)
		}
		if !pause(ctx, retryAfter) {
			return nil
		}
	}
}

// final says whether trying again cannot help.
func final(err error) bool {
	return errors.Is(err, ErrMismatch) || errors.Is(err, events.ErrGap) || errors.Is(err, events.ErrUnknownType)
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// round takes stock, as after a start, and then works until something fails. Whatever happened before, a process
// killed in the middle or an append whose outcome nobody knows, is mended by this and nothing else.
func (p *Projector) round(ctx context.Context) error {
	heads, err := p.Check(ctx)
	if err != nil {
		return err
	}
	if !p.decides {
		p.succeed(heads.Decisions)
		return p.follow(ctx, heads.Decisions, 0)
	}
	if err := p.restore(ctx, heads.Decisions); err != nil {
		return err
	}
	if err := p.foldTo(ctx, heads.Decisions); err != nil {
		return err
	}
	p.succeed(heads.Requests)
	return p.decide(ctx)
}

// foldTo folds the decisions that are in the ledger up to head.
func (p *Projector) foldTo(ctx context.Context, head uint64) error {
	folded := p.db.Folded(p.partition)
	if folded >= head {
		return nil
	}
	for batch, err := range p.ledger.Read(ctx, events.Decisions, p.partition, folded) {
		if err != nil {
			return err
		}
		if err := p.foldMessages(ctx, batch); err != nil {
			return err
		}
		if p.db.Folded(p.partition) >= head {
			return nil
		}
	}
	return nil
}

// foldMessages folds decisions as the ledger has them. Those that are folded already must be the ones it has.
func (p *Projector) foldMessages(ctx context.Context, batch []events.Message) error {
	folded := p.db.Folded(p.partition)
	decisions := make([]events.Decision, 0, len(batch))
	for _, m := range batch {
		d, err := p.decodeDecision(m)
		if err != nil {
			return err
		}
		if d.Position.Sequence > folded {
			decisions = append(decisions, d)
		} else if err := p.compare(ctx, &d); err != nil {
			return err
		}
	}
	return p.apply(decisions)
}

// decodeDecision reads a decision of the ledger. One that cannot be read stops the partition.
func (p *Projector) decodeDecision(m events.Message) (events.Decision, error) {
	d, err := events.DecodeDecision(m, p.partition)
	if errors.Is(err, events.ErrUnknownType) {
		return d, fmt.Errorf("%w; a newer jobtally wrote it: run that one", err)
	}
	if err != nil {
		return d, fmt.Errorf("%w: %w; restore %s from a backup of the NATS server", ErrMismatch, err, events.Decisions.Name(p.partition))
	}
	return d, nil
}

func (p *Projector) apply(decisions []events.Decision) error {
	if err := p.db.Apply(p.partition, decisions); err != nil {
		return err
	}
	p.setFailure(nil)
	return nil
}

// decide decides the requests that follow the position, and goes on with those that come.
func (p *Projector) decide(ctx context.Context) error {
	for batch, err := range p.ledger.Read(ctx, events.Requests, p.partition, p.db.Folded(p.partition)) {
		if err != nil {
			return err
		}
		if err := p.decideBatch(ctx, batch); err != nil {
			return err
		}
	}
	return nil
}

// decideBatch decides requests in memory, in order, records the decisions, and folds them. In this order: what is
// folded here is what the ledger says, whoever decided it.
func (p *Projector) decideBatch(ctx context.Context, batch []events.Message) error {
	requests, unknown := p.decodeRequests(batch)
	state, err := p.db.Load(requests)
	if err != nil {
		return err
	}
	decisions := make([]events.Decision, len(requests))
	for i := range requests {
		decisions[i] = capture.Decide(state, &requests[i])
		state.Fold(&decisions[i])
	}
	if len(decisions) > 0 {
		if err := p.ledger.AppendDecisions(ctx, p.partition, p.db.Folded(p.partition), messages(decisions)); err != nil {
			return err
		}
		if err := p.apply(decisions); err != nil {
			return err
		}
	}
	return unknown
}

// decodeRequests returns the requests up to the first whose type is not known, and the error of that one.
func (p *Projector) decodeRequests(batch []events.Message) ([]events.Request, error) {
	requests := make([]events.Request, 0, len(batch))
	for _, m := range batch {
		r, err := events.DecodeRequest(m, p.partition, p.ledger.Partitions)
		if err != nil {
			return requests, fmt.Errorf("request %s: %w; a newer jobtally wrote it: run that one", r.Position, err)
		}
		requests = append(requests, r)
	}
	return requests, nil
}

func messages(decisions []events.Decision) []events.Message {
	m := make([]events.Message, len(decisions))
	for i := range decisions {
		m[i] = decisions[i].Message()
	}
	return m
}

var errImpatient = errors.New("requests stay undecided")

// standBy folds what another projector decides. It returns nil once requests stayed undecided for longer than patience.
func (p *Projector) standBy(ctx context.Context) error {
	heads, err := p.Check(ctx)
	if err != nil {
		return err
	}
	return p.follow(ctx, heads.Decisions, patience)
}

// follow folds what others decide, given the head of their decisions. With a patience it returns nil once requests
// stayed undecided for that long. Where the projection is ahead of the head, it sees to it that the decisions which are
// made again there are the same.
func (p *Projector) follow(ctx context.Context, head uint64, patience time.Duration) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if patience > 0 {
		var watching sync.WaitGroup
		defer watching.Wait()
		defer cancel(nil)
		watching.Go(func() { p.watch(ctx, patience, cancel) })
	}
	for batch, err := range p.ledger.Read(ctx, events.Decisions, p.partition, min(head, p.db.Folded(p.partition))) {
		if errors.Is(context.Cause(ctx), errImpatient) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := p.foldMessages(ctx, batch); err != nil {
			return err
		}
	}
	return nil
}

// watch ends the following when nothing was decided for the length of patience although there is something to decide.
func (p *Projector) watch(ctx context.Context, patience time.Duration, cancel context.CancelCauseFunc) {
	for last := p.db.Folded(p.partition); pause(ctx, patience); {
		heads, err := p.ledger.Heads(ctx, p.partition)
		folded := p.db.Folded(p.partition)
		if err == nil && folded == last && heads.Decisions <= folded && heads.Requests > folded {
			cancel(errImpatient)
			return
		}
		last = folded
	}
}
