package projections

import (
	"context"
	"strings"
	"sync"

	"jobtally/internal/events"
)

// walk is one stretch of a partition that is decided again.
type walk struct {
	*auditor
	partition int
	last      uint64
	head      uint64 // of the decisions: a request beyond it is undecided
	deciding  *Projector
	recorded  *tape
}

// walk decides the requests of a partition again, from where the audit is up to last, compares the decisions with those
// recorded, and folds them into the scratch projection. Folding runs beside, a batch behind.
func (a *auditor) walk(ctx context.Context, p int, last uint64, heads events.Heads) error {
	if last <= a.at[p] || a.stopped[p] {
		return nil
	}
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &walk{
		auditor: a, partition: p, last: last, head: heads.Decisions,
		deciding: &Projector{db: a.scratch, ledger: Ledger{Partitions: a.Ledger.Partitions}, partition: p},
		recorded: a.play(ctx, cancel, &running, events.Decisions, p, min(last, heads.Decisions)),
	}
	requests := a.play(ctx, cancel, &running, events.Requests, p, last)
	decided, folded := make(chan []events.Decision, ahead), make(chan struct{})
	running.Go(func() {
		defer close(folded)
		if err := w.fold(decided); err != nil {
			cancel(err)
		}
	})
	err := w.decide(ctx, requests, decided)
	close(decided)
	<-folded
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// decide decides what is on the tape.
func (w *walk) decide(ctx context.Context, requests *tape, decided chan<- []events.Decision) error {
	var flight inFlight
	for batch, err := requests.next(); len(batch) > 0 || err != nil; batch, err = requests.next() {
		if err != nil {
			return err
		}
		for _, due := range parts(w.readable(batch)) {
			decisions, err := w.deciding.decideBatch(ctx, due, &flight)
			if err != nil {
				return err
			}
			if err := w.compareAll(decisions); err != nil {
				return err
			}
			if !send(decided, decisions, ctx.Done()) {
				return context.Cause(ctx)
			}
		}
		w.Progress(w.sum)
		if w.stopped[w.partition] {
			return nil
		}
	}
	if next := w.at[w.partition] + 1; w.Account == "" && next <= w.last {
		w.stop(next, Difference{What: "request is missing", Expected: "a request", Found: "none"})
		return nil
	}
	w.at[w.partition] = w.last
	return w.compareRest()
}

// readable returns the requests of a batch up to the first that is missing or cannot be decided: what comes after that
// depends on it. Between the messages of one account numbers are left out by right.
func (w *walk) readable(batch []events.Message) []events.Request {
	due := make([]events.Request, 0, len(batch))
	for _, m := range batch {
		if next := w.at[w.partition] + 1; w.Account == "" && m.Sequence != next {
			w.stop(next, Difference{What: "request is missing", Expected: "a request", Found: "none"})
			return due
		}
		r, err := events.DecodeRequest(m, w.partition, w.Ledger.Partitions)
		if err != nil {
			w.stop(m.Sequence, Difference{
				Account: r.Account, What: "request that this version cannot decide: a newer jobtally wrote it", Found: err.Error(),
			})
			return due
		}
		w.at[w.partition] = m.Sequence
		due = append(due, r)
	}
	return due
}

// stop reports why nothing of the partition can be decided again from a sequence on.
func (w *walk) stop(sequence uint64, why Difference) {
	why.Position = events.Position{Partition: w.partition, Sequence: sequence}
	w.stopped[w.partition] = true
	w.sum.Stopped = append(w.sum.Stopped, why.Position)
	w.report(why)
}

func (w *walk) compareAll(decisions []events.Decision) error {
	for i := range decisions {
		if err := w.compare(&decisions[i]); err != nil {
			return err
		}
	}
	w.made = decisions[len(decisions)-1]
	w.sum.Requests += uint64(len(decisions))
	return nil
}

// compare compares a decision that was made again with the one that is recorded under its number.
func (w *walk) compare(d *events.Decision) error {
	sequence := d.Position.Sequence
	for {
		m, err := w.recorded.peek()
		if err != nil {
			return err
		}
		switch {
		case m != nil && m.Sequence < sequence:
			w.stray()
			continue
		case m != nil && m.Sequence == sequence:
			w.compareMessage(d, w.recorded.take())
		case sequence > w.head:
			w.sum.Undecided++
		default:
			w.report(Difference{
				Position: d.Position, Account: d.Account, What: "decision is missing",
				Expected: events.OutcomeOf(d.Body) + " " + d.Digest.String(), Found: "none",
			})
		}
		return nil
	}
}

func (w *walk) compareMessage(d *events.Decision, recorded events.Message) {
	w.sum.Decisions++
	if parts, expected, found := differing(d.Message(), recorded); len(parts) > 0 {
		w.report(Difference{
			Position: d.Position, Account: d.Account, What: "decision: " + strings.Join(parts, ", "),
			Expected: expected, Found: found,
		})
	}
}

// compareRest reports what is recorded after the last request.
func (w *walk) compareRest() error {
	for {
		m, err := w.recorded.peek()
		if m == nil || err != nil {
			return err
		}
		w.stray()
	}
}

// stray reports a decision that has no request. In a whole partition every number up to the last has one.
func (w *walk) stray() {
	m := w.recorded.take()
	w.sum.Decisions++
	w.report(Difference{
		Position: events.Position{Partition: w.partition, Sequence: m.Sequence}, Account: w.Account,
		What: "decision without a request of the account", Expected: "none", Found: m.Subject,
	})
}

// fold folds what was decided again. Apply folds a whole partition; of one account there are only some of its numbers.
func (w *walk) fold(decided <-chan []events.Decision) error {
	apply := w.scratch.Apply
	if w.Account != "" {
		apply = w.scratch.apply
	}
	for {
		decisions := take(decided)
		if decisions == nil {
			return nil
		}
		if err := apply(w.partition, decisions); err != nil {
			return err
		}
	}
}
