package projections

import (
	"context"
	"errors"
	"strings"
	"sync"

	"jobtally/internal/capture"
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
	for more := true; more && !w.stopped[w.partition]; {
		batch, err := requests.next()
		if err != nil {
			return err
		}
		more = len(batch) > 0
		for ended := false; !ended; {
			var due []events.Request
			due, batch = w.due(batch, more)
			ended = len(due) == 0
			if err := w.decideDue(ctx, due, &flight, decided); err != nil {
				return err
			}
		}
		w.Progress(w.sum)
	}
	if w.stopped[w.partition] {
		return nil
	}
	w.at[w.partition] = w.last
	return w.compareRest()
}

func (w *walk) decideDue(ctx context.Context, due []events.Request, flight *inFlight, decided chan<- []events.Decision) error {
	for _, part := range parts(due) {
		decisions, err := w.decisionsOn(ctx, part, flight)
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
	return nil
}

// decisionsOn makes the decisions on requests again, but for one that cannot be: that is taken as it was recorded.
func (w *walk) decisionsOn(ctx context.Context, part []events.Request, flight *inFlight) ([]events.Decision, error) {
	taken, err := w.taken(&part[0])
	if err != nil || taken == nil {
		decisions, failed := w.deciding.decideBatch(ctx, part, flight)
		return decisions, errors.Join(err, failed)
	}
	flight.alone = true
	flight.add([]events.Decision{*taken})
	return []events.Decision{*taken}, nil
}

// taken returns the recorded decision on an erasure, or where one account is audited on the closing of a month: both say
// what does not follow from what is left, or read. It is nil for any other request.
func (w *walk) taken(r *events.Request) (*events.Decision, error) {
	switch r.Body.(type) {
	case *events.AccountEraseRequested:
		return w.erased(r), nil
	case *events.MonthCloseRequested:
		if w.Account != "" {
			return w.archived(r)
		}
	}
	return nil, nil
}

// due takes requests off a batch, up to the first that is missing or cannot be decided: what comes after that depends on
// it. Those that were erased are voids. Between the messages of one account numbers are left out by right. When there are
// no more batches, it is those up to the last.
func (w *walk) due(batch []events.Message, more bool) (due []events.Request, rest []events.Message) {
	for len(due) < maxTaken && !w.stopped[w.partition] {
		next := w.at[w.partition] + 1
		switch {
		case len(batch) == 0 && (more || w.Account != "" || next > w.last):
			return due, nil
		case w.Account == "" && (len(batch) == 0 || batch[0].Sequence != next):
			if !w.erasures[w.partition].explains(next) {
				w.stop(next, Difference{What: "request is missing", Expected: "a request", Found: "none"})
				return due, nil
			}
			w.sum.Erased++
			w.at[w.partition] = next
			due = append(due, w.void(next))
		default:
			if r, ok := w.read(&batch[0]); ok {
				due = append(due, r)
			}
			batch = batch[1:]
		}
	}
	return due, batch
}

func (w *walk) void(sequence uint64) events.Request {
	return events.Request{Position: events.Position{Partition: w.partition, Sequence: sequence}, Body: &events.Erased{}}
}

// read reads a request. One of an account that was erased later is a void, removed yet or not.
func (w *walk) read(m *events.Message) (events.Request, bool) {
	r, err := events.DecodeRequest(*m, w.partition, w.Ledger.Partitions)
	if err != nil {
		w.stop(m.Sequence, Difference{
			Account: r.Account, What: "request that this version cannot decide: a newer jobtally wrote it", Found: err.Error(),
		})
		return r, false
	}
	w.at[w.partition] = m.Sequence
	if e := w.erasures[w.partition]; e.erases(r.Account, m) {
		e.met++
		w.sum.Erased++
		w.sum.Unremoved++
		return w.void(m.Sequence), true
	}
	return r, true
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
		d := &decisions[i]
		if _, erased := d.Body.(*events.Erased); erased {
			if err := w.skip(d.Position.Sequence); err != nil {
				return err
			}
			continue
		}
		if err := w.compare(d, capture.MonthOf(d, w.months[w.partition])); err != nil {
			return err
		}
		if b, archived := d.Body.(*events.MonthArchived); archived {
			w.months[w.partition] = b.Month
		}
		if w.Account == "" || d.Account == w.Account { // and not the closing of a month, which is of none
			w.made = *d
			w.sum.Requests++
		}
	}
	return nil
}

// recordedAt returns the message recorded under a number, or nil, after it reported those before it.
func (w *walk) recordedAt(sequence uint64) (*events.Message, error) {
	for {
		m, err := w.recorded.peek()
		switch {
		case err != nil || m == nil || m.Sequence > sequence:
			return nil, err
		case m.Sequence == sequence:
			return m, nil
		}
		w.stray()
	}
}

// skip goes past the decision on a request that was erased, which may not be removed yet.
func (w *walk) skip(sequence uint64) error {
	m, err := w.recordedAt(sequence)
	if m == nil || err != nil {
		return err
	}
	if d, err := events.DecodeDecision(*m, w.partition); err != nil || !w.erasures[w.partition].erases(d.Account, m) {
		w.stray()
		return nil
	}
	w.recorded.take()
	return nil
}

// compare compares a decision that was made again with the one that is recorded under its number.
func (w *walk) compare(d *events.Decision, month events.Month) error {
	m, err := w.recordedAt(d.Position.Sequence)
	switch {
	case err != nil:
		return err
	case m != nil:
		w.compareMessage(d, month, w.recorded.take())
	case d.Position.Sequence > w.head:
		w.sum.Undecided++
	default:
		w.report(Difference{
			Position: d.Position, Account: d.Account, Month: month, What: "decision is missing",
			Expected: events.OutcomeOf(d.Body) + " " + d.Digest.String(), Found: "none",
		})
	}
	return nil
}

func (w *walk) compareMessage(d *events.Decision, month events.Month, recorded events.Message) {
	if w.Account == "" || d.Account == w.Account {
		w.sum.Decisions++
	}
	if parts, expected, found := differing(d.Message(), recorded); len(parts) > 0 {
		w.report(Difference{
			Position: d.Position, Account: d.Account, Month: month, What: "decision: " + strings.Join(parts, ", "),
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
