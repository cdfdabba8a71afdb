package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"jobtally/internal/events"
)

const (
	// stuckAfter is for how long nothing is decided before requests count as stuck: a projector that stands by decides
	// after a second.
	stuckAfter = 1500 * time.Millisecond
	stuckPoll  = 50 * time.Millisecond
)

// observe looks until it is known of each partition with undecided requests whether anything is decided there: when the
// first decision came, or none for stuckAfter. Of whatever earlier looks told there is nothing to wait for.
func (v *View) observe(ctx context.Context) error {
	first := map[int]uint64{} // decisions, by partition
	for began := time.Now(); ; {
		waiting := false
		for p := range v.operator.Ledger.Partitions {
			heads, err := v.operator.Ledger.Heads(ctx, p)
			if err != nil {
				return err
			}
			if _, seen := first[p]; !seen {
				first[p] = heads.Decisions
			}
			since := v.looks.undecided(p, heads)
			if heads.Requests > heads.Decisions && heads.Decisions == first[p] && since < stuckAfter {
				waiting = true
			}
		}
		if !waiting || v.nobodyDecides() || time.Since(began) > stuckAfter {
			return nil
		}
		select {
		case <-time.After(stuckPoll):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// nobodyDecides says whether it is known, without waiting for it, that nothing will be decided.
func (v *View) nobodyDecides() bool { return v.own() && v.operator.running == "" }

// lookAtPartition adds a partition to the status, and what its heads mean for the nodes.
func (v *View) lookAtPartition(ctx context.Context, p int, s *Status) error {
	extent, err := v.operator.Ledger.Measure(ctx, p)
	if err != nil {
		return err
	}
	ps := PartitionStatus{
		Partition: p, Requests: extent.Requests, Decisions: extent.Decisions,
		RequestBytes: extent.RequestBytes, DecisionBytes: extent.DecisionBytes,
	}
	archived, err := v.operator.ArchivedMonth(ctx, p)
	if err != nil {
		return err
	}
	ps.ArchivedMonth = string(archived)
	if err := v.lookAtUndecided(ctx, &ps, extent.Heads); err != nil {
		return err
	}
	s.Partitions = append(s.Partitions, ps)
	for i := range s.Nodes {
		if n := &s.Nodes[i]; len(n.Partitions) > 0 {
			if err := v.lookAtUnfolded(ctx, &n.Partitions[p], extent.Heads); err != nil {
				return err
			}
		}
	}
	return nil
}

// lookAtUndecided looks at the requests beyond the decisions, and says why they stay there when they do.
func (v *View) lookAtUndecided(ctx context.Context, ps *PartitionStatus, heads events.Heads) error {
	since := v.looks.undecided(ps.Partition, heads)
	if heads.Decisions > heads.Requests {
		ps.Stuck = fmt.Sprintf("there are decisions up to %d, but requests only up to %d: requests were lost; restore %s from a backup of the NATS server",
			heads.Decisions, heads.Requests, events.Requests.Name(ps.Partition))
		return nil
	}
	if ps.Undecided = heads.Requests - heads.Decisions; ps.Undecided == 0 {
		return nil
	}
	next, err := v.operator.Ledger.Next(ctx, events.Requests, ps.Partition, heads.Decisions)
	if err != nil && !errors.Is(err, events.ErrNotFound) {
		return err
	}
	r, unknown := events.DecodeRequest(next, ps.Partition, v.operator.Ledger.Partitions)
	ps.UndecidedSeconds = age(r.Time)
	if since >= stuckAfter || v.nobodyDecides() {
		ps.Stuck = v.stuck(ps.Partition, heads.Decisions+1, next.Sequence, unknown)
	}
	return nil
}

// stuck says why the next request stays undecided, given the number that is due, that of the next request there is, and
// what is wrong with that one.
func (v *View) stuck(p int, due, next uint64, unknown error) string {
	position := events.Position{Partition: p, Sequence: due}
	switch {
	case next != due:
		return fmt.Sprintf("request %s was removed, and a gap is never skipped: restore %s from a backup of the NATS server",
			position, events.Requests.Name(p))
	case unknown != nil:
		return fmt.Sprintf("request %s: %v; a newer jobtally wrote it: run that one", position, unknown)
	case v.nobodyDecides():
		return v.notRunning().Error()
	case v.own():
		return fmt.Sprintf("nothing is decided, though a node runs on %s: see its log", v.Config.Dir)
	}
	return "nothing is decided: start a projector, `projector run --nats URL --data DIR`, or see the log of the one that runs"
}

// lookAtUnfolded looks at the decisions beyond what is folded.
func (v *View) lookAtUnfolded(ctx context.Context, fs *FoldStatus, heads events.Heads) error {
	if fs.Folded > heads.Requests && fs.Failure == "" {
		fs.Failure = fmt.Sprintf("folded up to %d, but there are requests only up to %d: requests were lost; restore %s from a backup of the NATS server",
			fs.Folded, heads.Requests, events.Requests.Name(fs.Partition))
	}
	if fs.Folded >= heads.Decisions { // it may be ahead of decisions whose tail died with the server: they are appended again
		return nil
	}
	fs.Unfolded = heads.Decisions - fs.Folded
	next, err := v.operator.Ledger.Next(ctx, events.Decisions, fs.Partition, fs.Folded)
	if err != nil && !errors.Is(err, events.ErrNotFound) {
		return err
	}
	if d, err := events.DecodeDecision(next, fs.Partition); err == nil {
		fs.UnfoldedSeconds = age(d.Time)
	}
	if next.Sequence == fs.Folded+1 || fs.Failure != "" {
		return nil
	}
	erased, err := v.operator.Ledger.Last(ctx, events.Decisions, fs.Partition, events.ErasuresSubject(fs.Partition))
	if errors.Is(err, events.ErrNotFound) || err == nil && erased.Sequence <= fs.Folded {
		fs.Failure = fmt.Sprintf("decision %s was removed, and a gap is never skipped: restore %s from a backup of the NATS server",
			events.Position{Partition: fs.Partition, Sequence: fs.Folded + 1}, events.Decisions.Name(fs.Partition))
		return nil
	}
	return err
}

// age is for how long something waits by its own time, in seconds: 0 where its clock was ahead of this one, or not read.
func age(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return max(0, time.Since(t).Seconds())
}
