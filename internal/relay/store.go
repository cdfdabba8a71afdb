package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
)

const (
	bucketStream     = "KV_jobtally_webhooks" // a bucket as NATS lays it out, so that `nats kv` reads it
	bucketSubject    = "$KV.jobtally_webhooks."
	progressSuffix   = ".progress"
	deliveriesStream = "WEBHOOK_DELIVERIES"
	deliveriesPrefix = "webhooks.deliveries."
	poisonStream     = "WEBHOOK_POISON"
	poisonPrefix     = "webhooks.poison."

	operationHeader = "KV-Operation" // of a revision that says that the key is removed
	operationDelete = "DEL"

	// revisionsAtMost is more than anybody leaves behind: the server drops what is beyond it without writing it over.
	revisionsAtMost   = 64
	scanned           = 256  // messages that are read at once
	deliveriesAtMost  = 1000 // of an endpoint
	deliveriesMaxAge  = 30 * 24 * time.Hour
	duplicateWindow   = 100 * time.Millisecond // the least that a server takes: nothing here has a Nats-Msg-Id
	makeTimeout       = time.Second            // for a stream to be made before it is looked for again
	codeTooMany       = 10026                  // consumers of a stream
	codeWrongLast     = 10071
	codeWrongLastThen = 10164 // the same, said by a server that keeps several copies
)

// errConflict is the error of a write on a revision that is not the last any more.
var errConflict = errors.New("it was written meanwhile")

// errLost is the error of a stream that was deleted, though another may be in its place.
var errLost = errors.New("it was deleted")

// store is what lies in JetStream beside the ledger.
type store struct {
	js         jetstream.JetStream
	sync       func(stream string) error
	bucket     jetstream.Stream
	deliveries jetstream.Stream
	poison     jetstream.Stream
	decisions  []jetstream.Stream // by partition
}

func openStore(ctx context.Context, js jetstream.JetStream, cfg Config) (*store, error) {
	s := &store{js: js, sync: cfg.Sync, decisions: make([]jetstream.Stream, cfg.Partitions)}
	var err error
	for p := range s.decisions {
		if s.decisions[p], err = js.Stream(ctx, events.Decisions.Name(p)); err != nil {
			return nil, fmt.Errorf("stream %s: %w", events.Decisions.Name(p), err)
		}
	}
	for _, made := range []struct {
		stream *jetstream.Stream
		config jetstream.StreamConfig
	}{
		{&s.bucket, jetstream.StreamConfig{
			Name: bucketStream, Subjects: []string{bucketSubject + ">"}, MaxMsgsPerSubject: revisionsAtMost,
			AllowRollup: true, Discard: jetstream.DiscardNew,
		}},
		{&s.deliveries, jetstream.StreamConfig{
			Name: deliveriesStream, Subjects: []string{deliveriesPrefix + ">"}, MaxMsgsPerSubject: deliveriesAtMost, MaxAge: deliveriesMaxAge,
		}},
		{&s.poison, jetstream.StreamConfig{Name: poisonStream, Subjects: []string{poisonPrefix + ">"}, MaxMsgsPerSubject: -1}},
	} {
		if *made.stream, err = openStream(ctx, js, made.config, cfg.Replicas); err != nil {
			return nil, fmt.Errorf("stream %s: %w", made.config.Name, err)
		}
	}
	return s, nil
}

// lost returns errLost if a stream is not there any more.
func (s *store) lost(ctx context.Context) error {
	for _, known := range []jetstream.Stream{s.bucket, s.deliveries, s.poison} {
		config, created := known.CachedInfo().Config, known.CachedInfo().Created
		now, err := s.js.Stream(ctx, config.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) || err == nil && !now.CachedInfo().Created.Equal(created) {
			return fmt.Errorf("stream %s: %w", config.Name, errLost)
		}
	}
	return nil
}

// openStream returns a stream, which it makes where there is none. What an operator changed of one stays. Where several ask a
// cluster at the same time to make one, it may answer one of them only: who is not answered looks again.
func openStream(ctx context.Context, js jetstream.JetStream, config jetstream.StreamConfig, replicas int) (jetstream.Stream, error) {
	config.Storage, config.Replicas, config.Duplicates = jetstream.FileStorage, replicas, duplicateWindow
	config.MaxMsgs, config.MaxBytes, config.MaxMsgSize = -1, -1, -1
	for {
		stream, err := js.Stream(ctx, config.Name)
		if !errors.Is(err, jetstream.ErrStreamNotFound) {
			return stream, err
		}
		attempt, cancel := context.WithTimeout(ctx, makeTimeout)
		stream, err = js.CreateStream(attempt, config)
		cancel()
		again := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) // another one was as quick
		if !again || ctx.Err() != nil {
			return stream, err
		}
	}
}

// last returns the last message under a subject. The error is events.ErrNotFound where there is none, or it says that the
// key is removed.
func last(ctx context.Context, stream jetstream.Stream, subject string) (*jetstream.RawStreamMsg, error) {
	raw, err := stream.GetLastMsgForSubject(ctx, subject)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return nil, events.ErrNotFound
	case err != nil:
		return nil, unavailable("read", err)
	case raw.Header.Get(operationHeader) != "":
		return nil, events.ErrNotFound
	}
	return raw, nil
}

// next returns the first message under a subject from a sequence on, or events.ErrNotFound.
func next(ctx context.Context, stream jetstream.Stream, subject string, from uint64) (*jetstream.RawStreamMsg, error) {
	raw, err := stream.GetMsg(ctx, from, jetstream.WithGetMsgSubject(subject))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, events.ErrNotFound
	}
	if err != nil {
		return nil, unavailable("read", err)
	}
	return raw, nil
}

// write writes the next revision of a key. The error is errConflict unless the last one is the one given, 0 for none.
func (s *store) write(ctx context.Context, key string, value any, on uint64) (revision uint64, err error) {
	data, err := json.Marshal(value)
	if err != nil {
		return 0, err
	}
	return s.publish(ctx, &nats.Msg{Subject: bucketSubject + key, Data: data}, jetstream.WithExpectLastSequencePerSubject(on))
}

// lastOf returns the last revision of any endpoint of an account, 0 where there never was one.
func (s *store) lastOf(ctx context.Context, account string) (revision uint64, err error) {
	raw, err := s.bucket.GetLastMsgForSubject(ctx, bucketSubject+account+".*")
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, unavailable("read", err)
	}
	return raw.Sequence, nil
}

// writeNew writes a key that is new. The error is errConflict unless the last revision of any endpoint of the account is the
// one given.
func (s *store) writeNew(ctx context.Context, account, key string, value any, on uint64) (revision uint64, err error) {
	data, err := json.Marshal(value)
	if err != nil {
		return 0, err
	}
	return s.publish(ctx, &nats.Msg{Subject: bucketSubject + key, Data: data},
		jetstream.WithExpectLastSequenceForSubject(on, bucketSubject+account+".*"))
}

// put writes the next revision of a key, whatever the last one is.
func (s *store) put(ctx context.Context, key string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	_, err = s.publish(ctx, &nats.Msg{Subject: bucketSubject + key, Data: data})
	return err
}

// remove writes that a key is removed, and leaves nothing of what it was. With a revision the error is errConflict unless that
// is the last; 0 means any.
func (s *store) remove(ctx context.Context, key string, on uint64) error {
	m := nats.NewMsg(bucketSubject + key)
	m.Header.Set(operationHeader, operationDelete)
	var options []jetstream.PublishOpt
	if on != 0 {
		options = append(options, jetstream.WithExpectLastSequencePerSubject(on))
	}
	revision, err := s.publish(ctx, m, options...)
	if err != nil {
		return err
	}
	return s.forgetBefore(ctx, key, revision)
}

// settle returns once what was written into the bucket is on disk: whoever is told of it may rely on it.
func (s *store) settle() error {
	if err := s.sync(bucketStream); err != nil {
		return unavailable("sync", err)
	}
	return nil
}

func (s *store) publish(ctx context.Context, m *nats.Msg, options ...jetstream.PublishOpt) (sequence uint64, err error) {
	ack, err := s.js.PublishMsg(ctx, m, options...)
	var refusal *jetstream.APIError
	if errors.As(err, &refusal) && (refusal.ErrorCode == codeWrongLast || refusal.ErrorCode == codeWrongLastThen) {
		return 0, errConflict
	}
	if err != nil {
		return 0, unavailable("write", err)
	}
	return ack.Sequence, nil
}

// forgetBefore has the server write over the revisions of a key before one: they have URLs and secrets.
func (s *store) forgetBefore(ctx context.Context, key string, revision uint64) error {
	return forget(ctx, s.bucket, bucketSubject+key, revision)
}

// forget has the server write over the messages under a subject before a sequence. Who leads the stream says which there are: a
// consumer may be with a server of a cluster that is behind, and what it does not have would stay.
func forget(ctx context.Context, stream jetstream.Stream, subject string, before uint64) error {
	for from := uint64(1); ; {
		raw, err := next(ctx, stream, subject, from)
		if errors.Is(err, events.ErrNotFound) || err == nil && raw.Sequence >= before {
			return nil
		}
		if err != nil {
			return err
		}
		if err := erase(ctx, stream, raw.Sequence); err != nil {
			return err
		}
		from = raw.Sequence + 1
	}
}

// erase has the server write over a message. One that is gone is as good: of that the server has one code where the whole
// block is gone, and where its disk failed it.
func erase(ctx context.Context, stream jetstream.Stream, sequence uint64) error {
	err := stream.SecureDeleteMsg(ctx, sequence)
	if err == nil || errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil
	}
	if _, gone := stream.GetMsg(ctx, sequence); errors.Is(gone, jetstream.ErrMsgNotFound) {
		return nil
	}
	return unavailable("delete", err)
}

// scan hands over the messages that are there under a subject before a sequence, in order. It waits for none: another may
// remove them meanwhile, and a server of a cluster that is behind lacks the last. It is for who only shows them.
func scan(ctx context.Context, stream jetstream.Stream, subject string, before uint64, each func(jetstream.Msg, uint64) error) error {
	reader, err := stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
		FilterSubject: subject, AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1,
	})
	if err != nil {
		return unavailable("read", err)
	}
	defer letGo(stream, reader)
	for {
		batch, err := reader.FetchNoWait(scanned)
		if err != nil {
			return unavailable("read", err)
		}
		read := 0
		for m := range batch.Messages() {
			meta, err := m.Metadata()
			if err != nil {
				return err
			}
			if meta.Sequence.Stream >= before {
				return nil
			}
			if err := each(m, meta.Sequence.Stream); err != nil {
				return err
			}
			read++
		}
		if err := batch.Error(); err != nil || read == 0 {
			return errors.Join(err, ctx.Err())
		}
	}
}

// letGo deletes the consumer of a reader that ended. Left to itself the server would keep it for five minutes.
func letGo(stream jetstream.Stream, reader jetstream.Consumer) {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	stream.DeleteConsumer(ctx, reader.CachedInfo().Name) // one that is not reached goes by itself
}

// counts returns how many messages there are under each subject that a filter means.
func counts(ctx context.Context, stream jetstream.Stream, filter string) (map[string]uint64, error) {
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(filter))
	if err != nil {
		return nil, unavailable("read", err)
	}
	return info.State.Subjects, nil
}

// unavailable is the error of a server that does not answer, or does not do what it is asked.
func unavailable(what string, err error) error {
	return fmt.Errorf("%w: %s webhooks: %w", events.ErrUnavailable, what, err)
}

// keyOf is the key of an endpoint, and the end of its subjects.
func keyOf(account, id string) string { return account + "." + id }

// cutKey reads the account and id of an endpoint out of a key that begins as keyOf returned it, and what follows: nothing for
// the endpoint itself. Not so is the key of nothing that is known here.
func cutKey(key string) (account, id, rest string, is bool) {
	account, id, is = strings.Cut(key, ".")
	id, rest, _ = strings.Cut(id, ".")
	return account, id, rest, is && events.ValidAccount(account) == nil && validID(id)
}

// durableOf is the name of the consumer of an endpoint.
func durableOf(id string) string { return "webhook_" + id }

// append appends to the log of deliveries or to the poison queue.
func (s *store) append(ctx context.Context, subject string, data []byte) (sequence uint64, err error) {
	return s.publish(ctx, &nats.Msg{Subject: subject, Data: data})
}
