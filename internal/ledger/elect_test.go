package ledger

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
)

// electing is a cluster in which nobody leads some streams yet: it leaves them out when it lists all.
type electing struct {
	jetstream.JetStream
	leaderless map[string]bool
	err        error // of asking for one of them
}

func (e electing) ListStreams(ctx context.Context, _ ...jetstream.StreamListOpt) jetstream.StreamInfoLister {
	list := e.JetStream.ListStreams(ctx)
	led := make(chan *jetstream.StreamInfo)
	go func() {
		defer close(led)
		for info := range list.Info() {
			if !e.leaderless[info.Config.Name] {
				led <- info
			}
		}
	}()
	return ledStreams{list, led}
}

func (e electing) Stream(ctx context.Context, name string) (jetstream.Stream, error) {
	if e.err != nil && e.leaderless[name] {
		return nil, e.err
	}
	return e.JetStream.Stream(ctx, name)
}

type ledStreams struct {
	jetstream.StreamInfoLister
	led chan *jetstream.StreamInfo
}

func (l ledStreams) Info() <-chan *jetstream.StreamInfo { return l.led }

// A stream that is not listed is not missing before its server says so: a person would be told to restore it from a backup.
func TestStreamsThatNobodyLeadsAreNotMissing(t *testing.T) {
	t.Parallel()
	_, nc := startEmbedded(t, t.TempDir())
	open(t, nc, Spec{Partitions: 3, Replicas: 1})
	js := jetstreamOf(t, nc)
	for name, leaderless := range map[string]map[string]bool{
		"one": {"REQUESTS_2": true}, "the first": {"REQUESTS_0": true},
		"all": {"REQUESTS_0": true, "DECISIONS_0": true, "REQUESTS_1": true, "DECISIONS_1": true, "REQUESTS_2": true, "DECISIONS_2": true},
	} {
		t.Run(name, func(t *testing.T) {
			found := must[surveyed](t)(survey(within(t), electing{js, leaderless, nil}))
			if err := found.check(); err != nil {
				t.Error(err)
			}
			_, err := survey(within(t), electing{js, leaderless, jetstream.ErrJetStreamNotEnabled})
			if !errors.Is(err, jetstream.ErrJetStreamNotEnabled) {
				t.Errorf("%v of streams that nobody answers for", err)
			}
		})
	}

	t.Log("one that is deleted is")
	if err := js.DeleteStream(within(t), "REQUESTS_2"); err != nil {
		t.Fatal(err)
	}
	found := must[surveyed](t)(survey(within(t), js))
	if err := found.check(); !errors.Is(err, ErrDrift) {
		t.Errorf("%v, want ErrDrift", err)
	}
}

// A question that is lost with a server of a cluster is never answered, however long the start may take that asks it.
func TestQuestionThatIsLostIsGivenUp(t *testing.T) {
	t.Parallel()
	s := startNATS(t, server.Options{StoreDir: t.TempDir()})
	hung := newLine(t, s)
	nc := dial(t, hung.address)
	l := open(t, nc, Spec{Replicas: 1})
	first := must[events.Position](t)(l.Append(within(t), request("1")))
	hung.toClient.Lock()
	t.Cleanup(hung.toClient.Unlock)
	ctx := within(t)
	var asking sync.WaitGroup
	defer asking.Wait()
	for name, ask := range map[string]func(context.Context) error{
		"open":  func(ctx context.Context) error { _, err := Open(ctx, nc); return err },
		"heads": func(ctx context.Context) error { _, err := l.Heads(ctx, 0); return err },
		"get":   func(ctx context.Context) error { _, err := l.Get(ctx, events.Requests, first); return err },
		"next":  func(ctx context.Context) error { _, err := l.Next(ctx, events.Requests, 0, 0); return err },
		"last":  func(ctx context.Context) error { _, err := l.Last(ctx, events.Requests, 0, ">"); return err },
		"read": func(ctx context.Context) error {
			for _, err := range l.ReadTo(ctx, events.Requests, 0, nil, 0, 1) {
				return err
			}
			return nil
		},
	} {
		asking.Go(func() { // all before the connection is given up, too: then they fail at once
			if err := ask(ctx); err == nil || ctx.Err() != nil {
				t.Errorf("%s ended with %v, and its time with %v", name, err, ctx.Err())
			}
		})
	}
}
