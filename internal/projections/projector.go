package projections

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"sync"
	"time"

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
	// ReadTo yields the messages of a stream under some subjects, or all, after one sequence and up to another that is not
	// beyond the head, and ends.
	ReadTo func(ctx context.Context, stream events.Stream, partition int, subjects []string, after, last uint64) iter.Seq2[[]events.Message, error]
	// AppendUnopened does as Append, unless a request to open the account is in the ledger: then the error is ErrFenced.
	AppendUnopened func(ctx context.Context, r *events.Request) (events.Position, error)
	// Append records a request durably and returns its position: the closing of a month is the projector's own, and the
	// erasure of what came of an account after it was erased.
	Append func(ctx context.Context, r *events.Request) (events.Position, error)
	// Erasures returns the erasures of a partition, up to a sequence that is not beyond the head of the decisions, in order.
	Erasures func(ctx context.Context, partition int, last uint64) ([]events.Decision, error)
	// Erase removes what an account has before its erasure from both streams, telling its progress. It may be cut short at
	// any message, and called again. Nil leaves removing to others.
	Erase func(ctx context.Context, account string, before uint64, progress func(removed, total int)) (removed int, err error)
	// Doubt is for how long a server may answer from its past: one of a cluster that hung, and was replaced as a leader, does not
	// know yet when it goes on. What cannot be mended by trying again has to be found for that long. 0 for a single server.
	Doubt time.Duration
	// Now is the clock by which months end.
	Now func() time.Time
}

// Projector keeps one partition of a projection up to date: it folds the decisions of the ledger and, if it decides,
// makes those that are missing.
type Projector struct {
	db        *DB
	ledger    Ledger
	partition int
	decides   bool
	log       *slog.Logger

	toRemove chan struct{} // has room for one: something was folded by which there may be messages to remove

	mu      sync.Mutex // guards failure
	failure error      // why it makes no progress; nil while it does

	// failureChanged is called when failure has changed, without mu. OnFailureChange sets it.
	failureChanged func()

	observer Observer
}

// NewProjector returns the projector of a partition. One that does not decide only follows.
func NewProjector(db *DB, ledger Ledger, partition int, decides bool, log *slog.Logger) *Projector {
	return &Projector{
		db: db, ledger: ledger, partition: partition, decides: decides, log: log.With("partition", partition),
		toRemove: make(chan struct{}, 1),
	}
}

// OnFailureChange has changed called whenever there is a failure, another one, or none any more. Calls may come at the
// same time and in any order: what holds is what Failure then returns. It is for before Run.
func (p *Projector) OnFailureChange(changed func()) { p.failureChanged = changed }

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
	before := p.failure
	p.failure = err
	p.mu.Unlock()
	if err == nil && before == nil {
		return false
	}
	if err == nil {
		p.log.Info("projector works again", "folded", p.db.Folded(p.partition))
	}
	again = err != nil && before != nil && before.Error() == err.Error()
	if !again && p.failureChanged != nil {
		p.failureChanged()
	}
	return again
}

// Run works until ctx ends, and then returns nil. A failure that may pass is tried again. What cannot be mended by
// trying again ends it with the error: ErrMismatch, ErrGap, or ErrUnknownType.
func (p *Projector) Run(ctx context.Context) error {
	var since time.Time // nothing else was found; zero while trying again may help
	for {
		err := p.round(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, events.ErrFenced):
			p.tellFenced()
			p.log.Info("fenced: the position is decided already; standing by", "folded", p.db.Folded(p.partition))
			err = p.standBy(ctx)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			p.log.Info("requests stay undecided; deciding", "folded", p.db.Folded(p.partition))
			continue
		}
		again := p.setFailure(err)
		switch {
		case !final(err):
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		}
		if final(err) && time.Since(since) >= p.ledger.Doubt {
			p.log.Error("partition stopped", "folded", p.db.Folded(p.partition), "error", err)
			return err
		}
		if !again {
			p.log.Warn("projector failed; trying until it works", "folded", p.db.Folded(p.partition), "error", err)
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
	heads, err := p.check(ctx)
	if err != nil {
		return err
	}
	if !p.decides {
		p.succeed(heads.Decisions)
		return p.follow(ctx, heads.Decisions, 0)
	}
	if err := discard(p.remakePath()); err != nil { // of one that was killed
		return err
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
