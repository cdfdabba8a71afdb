package projections

import (
	"context"
	"fmt"
	"sync"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

const (
	// ahead is how many batches may wait between two stages.
	ahead = 2
	// maxTaken is how many decisions a stage takes at once, give or take a batch.
	maxTaken = 1024
)

// decide decides the requests that follow the position, and goes on with those that come, in three stages: one batch is
// decided while the decisions of the one before it are being recorded, and those before that folded.
//
// Only what was recorded goes on to be folded: what is folded here is what the ledger says. A request that cannot be
// read or decided ends the first stage, and what was decided before it is still recorded and folded. A failure to
// record or to fold ends all stages. Then what is in flight is dropped, for the next round finds it in the ledger, or
// decides it again.
func (p *Projector) decide(ctx context.Context) error {
	stages, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	decided, recorded := make(chan []events.Decision, ahead), make(chan []events.Decision, ahead)
	var running sync.WaitGroup
	running.Go(func() {
		defer close(recorded)
		// Not the context of the stages: an append that has begun is waited for, so that the next round knows of it.
		if err := p.record(ctx, stages.Done(), decided, recorded); err != nil {
			cancel(err)
		}
	})
	running.Go(func() {
		if err := p.foldRecorded(recorded); err != nil {
			cancel(err)
		}
	})
	beside, stop := context.WithCancel(stages)
	running.Go(func() { p.closeMonths(beside) })
	running.Go(func() { p.removeErased(beside) })
	err := p.decideRequests(stages, decided)
	stop()
	close(decided)
	running.Wait()
	if stages.Err() != nil {
		return context.Cause(stages)
	}
	return err
}

// decideRequests is the first stage.
func (p *Projector) decideRequests(ctx context.Context, decided chan<- []events.Decision) error {
	var flight inFlight
	for batch, err := range p.ledger.Read(ctx, events.Requests, p.partition, p.db.Folded(p.partition)) {
		if err != nil {
			return err
		}
		requests, unknown := p.decodeRequests(batch)
		for _, part := range parts(requests) {
			began := time.Now()
			decisions, err := p.decideBatch(ctx, part, &flight)
			if err != nil {
				return err
			}
			p.tellDecided(part, began)
			if !send(decided, decisions, ctx.Done()) {
				return context.Cause(ctx)
			}
		}
		if unknown != nil {
			return unknown
		}
	}
	return nil
}

// parts divides requests into those that are decided together. One that depends on many accounts, or on all that an
// account ever did, stands alone.
func parts(requests []events.Request) (parts [][]events.Request) {
	for len(requests) > 0 {
		n := 1
		for n < len(requests) && !alone(&requests[0]) && !alone(&requests[n]) {
			n++
		}
		parts, requests = append(parts, requests[:n]), requests[n:]
	}
	return parts
}

func alone(r *events.Request) bool {
	switch r.Body.(type) {
	case *events.MonthCloseRequested, *events.AccountEraseRequested:
		return true
	}
	return false
}

// decideBatch decides requests in memory, in order, on what all decisions before them left: those that are in the file,
// and those that are on their way there. Before and after one that stands alone it waits until they are in the file.
func (p *Projector) decideBatch(ctx context.Context, requests []events.Request, flight *inFlight) ([]events.Decision, error) {
	if alone(&requests[0]) || flight.alone {
		if err := p.db.awaitFolded(ctx, p.partition, flight.last()); err != nil {
			return nil, err
		}
	}
	flight.alone = alone(&requests[0])
	state, position, err := p.db.Load(p.partition, requests)
	if err != nil {
		return nil, err
	}
	flight.foldInto(state, position)
	decisions := make([]events.Decision, len(requests))
	for i := range requests {
		if _, erased := requests[i].Body.(*events.Erased); erased { // in an audit: there is nothing to decide
			decisions[i] = events.Decision{Position: requests[i].Position, Body: &events.Erased{}}
			continue
		}
		decisions[i] = capture.Decide(state, &requests[i])
		decisions[i].Traceparent = requests[i].Traceparent
		state.Fold(&decisions[i])
	}
	flight.add(decisions)
	return decisions, nil
}

// record is the second stage: it appends decisions, each fenced by the one before it, and hands on what was recorded.
func (p *Projector) record(ctx context.Context, ended <-chan struct{}, decided <-chan []events.Decision, recorded chan<- []events.Decision) error {
	for {
		decisions := take(decided)
		if decisions == nil {
			return nil
		}
		if err := p.ledger.AppendDecisions(ctx, p.partition, decisions[0].Position.Sequence-1, messages(decisions)); err != nil {
			return err
		}
		p.tellRecorded(decisions)
		if !send(recorded, decisions, ended) {
			return nil
		}
	}
}

// foldRecorded is the third stage. It also folds what was recorded when another stage failed meanwhile.
func (p *Projector) foldRecorded(recorded <-chan []events.Decision) error {
	for {
		decisions := take(recorded)
		if decisions == nil {
			return nil
		}
		if err := p.apply(decisions); err != nil {
			return err
		}
	}
}

// send reports whether a batch could be handed on before the stages ended.
func send(to chan<- []events.Decision, decisions []events.Decision, ended <-chan struct{}) bool {
	select {
	case to <- decisions:
		return true
	case <-ended:
		return false
	}
}

// take waits for a batch, and takes with it those that wait behind it. It returns nil when there will be none.
func take(from <-chan []events.Decision) []events.Decision {
	batch := <-from
	for batch != nil && len(batch) < maxTaken {
		select {
		case next := <-from: // nothing when from is closed: the next take finds that too
			if next == nil {
				return batch
			}
			batch = append(batch, next...)
		default:
			return batch
		}
	}
	return batch
}

// inFlight are the batches of decisions that may not be in the file yet, in order. The first stage owns it.
type inFlight struct {
	batches [][]events.Decision
	alone   bool // whether the last of them is of a request that stands alone
}

func (f *inFlight) add(decisions []events.Decision) { f.batches = append(f.batches, decisions) }

// last returns the sequence of the last of them, or 0 when there is none.
func (f *inFlight) last() uint64 {
	if len(f.batches) == 0 {
		return 0
	}
	return last(f.batches[len(f.batches)-1])
}

// foldInto folds what is in flight into a state that was loaded when the file was at position. The state holds only
// what a batch of requests needs, and of that everything the file had; so nothing is missed where a decision in flight
// changed it, and what it changed beyond that nobody asks for.
func (f *inFlight) foldInto(state *capture.State, position uint64) {
	for len(f.batches) > 0 && last(f.batches[0]) <= position {
		f.batches = f.batches[1:]
	}
	for _, batch := range f.batches {
		for i := range batch {
			if d := &batch[i]; d.Position.Sequence > position {
				state.Fold(d)
			}
		}
	}
}

func last(batch []events.Decision) uint64 { return batch[len(batch)-1].Position.Sequence }

// decodeRequests returns the requests up to the first that cannot be decided, and the error of that one: its type is not
// known, or it was erased, which it was not before it was decided.
func (p *Projector) decodeRequests(batch []events.Message) ([]events.Request, error) {
	requests := make([]events.Request, 0, len(batch))
	for _, m := range batch {
		if m.Void() {
			return requests, fmt.Errorf("%w: request %d-%d was erased before it was decided", events.ErrGap, p.partition, m.Sequence)
		}
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
