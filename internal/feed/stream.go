package feed

import (
	"context"
	"errors"
	"iter"
	"time"

	"jobtally/internal/events"
)

// Batch is what a client is told at once.
type Batch struct {
	Events []*Event
	// UpTo is the position up to which the account's events are told with this batch.
	UpTo events.Position
	// Beat says that it is time to look whether client and token are still there: so it is at the beginning, at each tick, and
	// after something was missed.
	Beat bool
}

// Follow yields the events of an account after a position, which is folded: those of history, and then each as it is folded. It
// yields a first batch as soon as it is known that it can, however empty, and one at each tick. It ends with ctx, and else with
// an error: ErrErased, ErrClosed, or what reading history failed with, PrunedError among it.
func (f *Feed) Follow(ctx context.Context, account string, after events.Position, ticks <-chan time.Time) iter.Seq2[Batch, error] {
	return func(yield func(Batch, error) bool) {
		c, err := f.join(account, after.Partition)
		if err != nil {
			yield(Batch{}, err)
			return
		}
		defer f.leave(c)
		s := stream{f: f, c: c, told: after.Sequence, beat: true, ticks: ticks, yield: yield}
		if err := s.run(ctx); !errors.Is(err, errLeft) && ctx.Err() == nil {
			yield(Batch{}, err)
		}
	}
}

// errLeft is the error of a stream whose reader wants no more.
var errLeft = errors.New("the reader left")

// stream is a Follow under way.
type stream struct {
	f     *Feed
	c     *client
	told  uint64 // up to where the client is told
	beat  bool   // the next batch is one
	ticks <-chan time.Time
	yield func(Batch, error) bool
}

func (s *stream) run(ctx context.Context) error {
	for {
		if err := s.catchUp(ctx); err != nil {
			return err
		}
		if err := s.live(ctx); err != nil {
			return err
		}
		s.beat = true // after a jump what was known of the token may be of another time
	}
}

// tell yields events, which are all that there are up to a sequence.
func (s *stream) tell(told []*Event, upTo uint64) error {
	s.told = max(s.told, upTo)
	b := Batch{Events: told, UpTo: events.Position{Partition: s.c.partition, Sequence: s.told}, Beat: s.beat}
	s.beat = false
	if !s.yield(b, nil) {
		return errLeft
	}
	return nil
}

// catchUp tells what there is in history, until the queue has all that came after it. The queue is begun first: so nothing
// lies between the two.
func (s *stream) catchUp(ctx context.Context) error {
	for first := true; ; first = false {
		to := s.f.rejoin(s.c)
		if first && s.told >= to {
			if err := s.tell(nil, to); err != nil {
				return err
			}
		}
		for s.told < to {
			if err := s.readOn(ctx, to); err != nil {
				return err
			}
		}
		if missed, err := s.c.state(); err != nil || !missed {
			return err
		}
	}
}

// readOn reads a part of history and tells it. Nobody waits for the client meanwhile: others read while it takes what it is told.
func (s *stream) readOn(ctx context.Context, to uint64) error {
	if err := s.turn(ctx); err != nil {
		return err
	}
	told, read, err := s.f.read(ctx, s.c.account, events.Position{Partition: s.c.partition, Sequence: s.told}, to)
	<-s.f.reads
	if _, ended := s.c.state(); ended != nil {
		return ended
	}
	if err != nil {
		return err
	}
	return s.tell(told, read)
}

// turn waits for the turn to read.
func (s *stream) turn(ctx context.Context) error {
	for {
		select {
		case s.f.reads <- struct{}{}:
			return nil
		case <-s.ticks:
			s.beat = true
			if err := s.tell(nil, s.told); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// live tells what is in the queue, as it comes. It returns nil when something was missed.
func (s *stream) live(ctx context.Context) error {
	for {
		passed := s.f.passedBy(s.c.partition) // before the queue is looked into: what is there then is all up to here
		told, missed, err := s.c.take()
		if err != nil {
			return err
		}
		if missed {
			return nil
		}
		if len(told) > 0 {
			passed = told[len(told)-1].Position.Sequence
		}
		if len(told) > 0 || s.beat {
			if err := s.tell(told, passed); err != nil {
				return err
			}
		}
		if err := s.wait(ctx, len(told) == 0); err != nil {
			return err
		}
	}
}

// wait waits for something to come, or does not, and takes in whether it is time for a beat.
func (s *stream) wait(ctx context.Context, patient bool) error {
	if !patient {
		select {
		case <-s.ticks:
			s.beat = true
		default:
		}
		return ctx.Err()
	}
	select {
	case <-s.c.signal:
	case <-s.ticks:
		s.beat = true
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}
