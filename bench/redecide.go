package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/capture"
	"jobtally/internal/events"
	"jobtally/internal/ledger"
)

// withLedger runs use on the ledger of a data directory that has no service, and no projector.
func withLedger(ctx context.Context, dir string, use func(*ledger.Ledger, *nats.Conn) error) (err error) {
	unlock, err := ledger.LockDir(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	server, err := ledger.StartEmbedded(dir, 0, quiet())
	if err != nil {
		return err
	}
	defer server.Close()
	nc, err := server.Connect("bench", quiet())
	if err != nil {
		return err
	}
	defer nc.Close()
	l, err := ledger.Open(ctx, nc)
	if err != nil {
		return err
	}
	defer l.Close()
	return use(l, nc)
}

// redecide reads both streams and decides every request again, in memory, from the first one on.
func (s *suite) redecide(ctx context.Context) (result sample, err error) {
	d, err := s.million(ctx)
	if err != nil {
		return result, err
	}
	err = withLedger(ctx, d.path, func(l *ledger.Ledger, _ *nats.Conn) error {
		began := time.Now()
		if err := redecide(ctx, l, s.size.decisions); err != nil {
			return err
		}
		result.value = float64(s.size.decisions) / time.Since(began).Seconds()
		return nil
	})
	return result, err
}

func redecide(ctx context.Context, l *ledger.Ledger, upTo int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	requests, decisions := follow(ctx, cancel, l, events.Requests), follow(ctx, cancel, l, events.Decisions)
	defer func() {
		cancel(nil)
		requests.drain()
		decisions.drain()
	}()
	state := capture.NewState()
	for range upTo {
		asked, more := requests.next()
		recorded, evenMore := decisions.next()
		if !more || !evenMore {
			return context.Cause(ctx)
		}
		r, err := events.DecodeRequest(asked, 0, l.Partitions)
		if err != nil {
			return err
		}
		d := capture.Decide(state, &r)
		state.Fold(&d)
		if err := same(d.Message(), recorded); err != nil {
			return fmt.Errorf("decision %s: %w", d.Position, err)
		}
	}
	return nil
}

// same compares a message that was made again with the one that was recorded, of which the server's own headers may
// be more.
func same(again, recorded events.Message) error {
	if again.Sequence != recorded.Sequence || again.Subject != recorded.Subject || !bytes.Equal(again.Data, recorded.Data) {
		return fmt.Errorf("decided again it is %s %s, recorded is %s %s", again.Subject, again.Data, recorded.Subject, recorded.Data)
	}
	for name, values := range again.Header {
		if is := recorded.Header[name]; len(is) != 1 || is[0] != values[0] {
			return fmt.Errorf("decided again its %s is %q, recorded is %q", name, values, is)
		}
	}
	return nil
}

// stream is a stream that is read ahead of its user.
type stream struct {
	batches chan []events.Message
	batch   []events.Message
}

// follow starts to read a stream. It ends with ctx, which it cancels with its error.
func follow(ctx context.Context, cancel context.CancelCauseFunc, l *ledger.Ledger, of events.Stream) *stream {
	s := &stream{batches: make(chan []events.Message, 4)}
	go func() {
		defer close(s.batches)
		for batch, err := range l.Read(ctx, of, 0, 0) {
			if err != nil {
				cancel(err)
				return
			}
			select {
			case s.batches <- batch:
			case <-ctx.Done():
				return
			}
		}
	}()
	return s
}

func (s *stream) next() (m events.Message, more bool) {
	if len(s.batch) == 0 {
		if s.batch, more = <-s.batches; !more {
			return m, false
		}
	}
	m, s.batch = s.batch[0], s.batch[1:]
	return m, true
}

// drain waits for the end of the reading.
func (s *stream) drain() {
	for range s.batches {
	}
}

// rawReads reads both streams with nothing but the client library.
func (s *suite) rawReads(ctx context.Context) (result sample, err error) {
	d, err := s.million(ctx)
	if err != nil {
		return result, err
	}
	err = withLedger(ctx, d.path, func(_ *ledger.Ledger, nc *nats.Conn) error {
		began := time.Now()
		errs, bytes := make(chan error, 2), [2]int{}
		for i, of := range []events.Stream{events.Requests, events.Decisions} {
			go func() {
				errs <- rawStream(ctx, nc, of, uint64(s.size.decisions), func(m jetstream.Msg) { bytes[i] += len(m.Data()) })
			}()
		}
		if err := errors.Join(<-errs, <-errs); err != nil {
			return err
		}
		if bytes[0] == 0 || bytes[1] == 0 {
			return errors.New("nothing was read")
		}
		result.value = float64(s.size.decisions) / time.Since(began).Seconds()
		return nil
	})
	return result, err
}
