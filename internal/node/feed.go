package node

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/feed"
)

const (
	// reachTimeout is how long a client waits for this node to fold the position after which it wants to be told.
	reachTimeout = 10 * time.Second
	// restoreTimeout is how long history waits for decisions that are folded here and that the ledger lost with its server: the
	// projector appends them again.
	restoreTimeout = 5 * time.Second
	restoreEvery   = 20 * time.Millisecond
	// maxHistoryLen is about how many bytes of events are read from history at once.
	maxHistoryLen = 128 << 10
	// maxMonths is more than an account has.
	maxMonths = 1200
)

func (n *Node) openFeed() {
	folded := make([]uint64, n.Ledger.Partitions)
	for p := range folded {
		folded[p] = n.Projection.Folded(p)
	}
	n.feed = feed.New(folded, n.readHistory)
	n.Projection.OnFold(n.feed.Folded)
}

// Events yields the events of an account after a position of its partition: those of history, and then each once it is folded
// here. The errors are those of feed.Follow, and feed.BeyondError and feed.ErrNotReached for the position.
func (n *Node) Events(ctx context.Context, account string, after events.Position, ticks <-chan time.Time) iter.Seq2[feed.Batch, error] {
	return func(yield func(feed.Batch, error) bool) {
		if err := n.reach(ctx, after); err != nil {
			yield(feed.Batch{}, err)
			return
		}
		n.feed.Follow(ctx, account, after, ticks)(yield)
	}
}

// reach waits until this node has folded a position. One that no request has is not waited for: whoever was told it was
// told it by another ledger, or before this one was put back to an older state. Of a cluster only what it says after the wait
// is believed: a server that hung may answer from its past.
func (n *Node) reach(ctx context.Context, p events.Position) error {
	if p.Sequence <= n.Projection.Folded(p.Partition) {
		return nil
	}
	if n.Ledger.Replicas == 1 {
		if err := n.checkHead(ctx, p); err != nil {
			return err
		}
	}
	waiting, cancel := context.WithTimeoutCause(ctx, reachTimeout, feed.ErrNotReached)
	defer cancel()
	if _, err := n.Projection.Await(waiting, p); err != nil && waiting.Err() != nil {
		if ctx.Err() == nil && n.Ledger.Replicas > 1 {
			if err := n.checkHead(ctx, p); err != nil {
				return err
			}
		}
		return context.Cause(waiting)
	}
	return nil // what is there may be erased
}

// checkHead returns a feed.BeyondError for a position that no request has.
func (n *Node) checkHead(ctx context.Context, p events.Position) error {
	heads, err := n.Ledger.Heads(ctx, p.Partition)
	if err == nil && p.Sequence > heads.Requests {
		return &feed.BeyondError{Position: p, Head: events.Position{Partition: p.Partition, Sequence: heads.Requests}}
	}
	return err
}

// readHistory is the feed's feed.Read. Of an account that was erased it reads what came after that.
func (n *Node) readHistory(ctx context.Context, account string, after events.Position, to uint64) (told []*feed.Event, read uint64, err error) {
	erasures, err := n.Projection.Erasures(ctx, account)
	if err != nil {
		return nil, 0, err
	}
	if len(erasures) > 0 {
		after.Sequence = max(after.Sequence, erasures[len(erasures)-1].Position.Sequence)
	}
	if err := n.checkHistory(ctx, account, after, to); err != nil {
		return nil, 0, err
	}
	var h history
	for batch, err := range n.Ledger.ReadTo(ctx, events.Decisions, after.Partition, []string{events.Decisions.SubjectOf(account, after.Partition)}, after.Sequence, to) {
		if err != nil {
			return nil, 0, err
		}
		for _, m := range batch {
			d, err := events.DecodeDecision(m, after.Partition)
			if err != nil {
				return nil, 0, err
			}
			if h.last == nil { // only now: most who come back missed nothing
				if h.last, err = n.decisionAt(ctx, account, after); err != nil {
					return nil, 0, err
				}
			}
			if !h.take(&d) {
				if len(h.told) > 0 {
					return h.told, h.last.Position.Sequence, nil // the next read begins at the gap
				}
				return nil, 0, n.pruned(ctx, account, after, d.Position)
			}
			if h.length >= maxHistoryLen {
				return h.told, m.Sequence, nil
			}
		}
	}
	return h.told, to, nil
}

// decisionAt returns the decision at a position, or nil where none is on the account.
func (n *Node) decisionAt(ctx context.Context, account string, p events.Position) (*events.Decision, error) {
	if p.Sequence == 0 {
		return nil, nil
	}
	m, err := n.Ledger.Get(ctx, events.Decisions, p)
	if errors.Is(err, events.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d, err := events.DecodeDecision(m, p.Partition)
	if err != nil || d.Account != account {
		return nil, err
	}
	return &d, nil
}

// history is what is read of the events of an account after a position.
type history struct {
	last   *events.Decision // the link before: at first that at the position itself; nil where it is not known
	told   []*feed.Event
	length int // bytes of what is told
}

// take takes the next decision on the account. It says whether nothing is missing before it. What is decided on an account that
// is not open has no link before it.
func (h *history) take(d *events.Decision) bool {
	if h.last != nil && d.Verify(h.last.Digest) != nil && d.Verify(events.Digest{}) != nil {
		return false
	}
	h.last = d
	if e, is := feed.Encode(d); is {
		h.told, h.length = append(h.told, e), h.length+len(e.JSON)
	}
	return true
}

// checkHistory waits until the ledger has the decisions after a position and up to a sequence, and returns why some of them
// will never be there.
func (n *Node) checkHistory(ctx context.Context, account string, after events.Position, to uint64) error {
	ctx, cancel := context.WithTimeoutCause(ctx, restoreTimeout, fmt.Errorf("%w: it lacks decisions that are folded", events.ErrUnavailable))
	defer cancel()
	for {
		first, last, err := n.Ledger.Span(ctx, events.Decisions, after.Partition)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return err
		case last >= to && after.Sequence+1 < first:
			return n.checkPruned(ctx, account, after, first)
		case last >= to:
			return nil
		}
		select {
		case <-time.After(restoreEvery):
		case <-ctx.Done():
		}
	}
}

// checkPruned returns a feed.PrunedError where decisions after a position and before the first that is there may have been on
// jobs of an account, and were not erased.
func (n *Node) checkPruned(ctx context.Context, account string, after events.Position, first uint64) error {
	if erased, err := n.Ledger.Erased(ctx, events.Decisions, after.Partition, after.Sequence+1, first-1); erased || err != nil {
		return err
	}
	_, err := n.Ledger.Last(ctx, events.Decisions, after.Partition, events.OpenedSubject(account, after.Partition))
	if !errors.Is(err, events.ErrNotFound) {
		return err // it was opened later
	}
	return n.pruned(ctx, account, after, events.Position{Partition: after.Partition, Sequence: first})
}

// pruned returns a feed.PrunedError: decisions on jobs of an account are missing after a position and before the first that is there.
// Where an erasure takes them away that this node has not folded yet, it returns feed.ErrErased.
func (n *Node) pruned(ctx context.Context, account string, after, first events.Position) error {
	erased, err := n.Ledger.Last(ctx, events.Decisions, after.Partition, events.ErasedSubject(account, after.Partition))
	if err == nil && erased.Sequence > after.Sequence {
		return feed.ErrErased
	}
	if err != nil && !errors.Is(err, events.ErrNotFound) {
		return err
	}
	months, err := n.Projection.Months(ctx, account, "", "9999-12", maxMonths)
	if err != nil {
		return err
	}
	pruned := &feed.PrunedError{First: first}
	for _, m := range months { // the latest first
		if m.Archive != nil && m.Last.Sequence > after.Sequence {
			pruned.Month = m.Month
		}
	}
	return pruned
}
