package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
)

// Stream metadata that says what ledger a stream belongs to.
const (
	metadataLedger     = "jobtally_ledger"
	metadataPartitions = "jobtally_partitions"
)

// duplicateWindow is the least that a server takes. Nothing here has a Nats-Msg-Id, but at a start a server looks for
// those of the whole window, by default two minutes: it reads every block of them and keeps an index of each, which
// after a load is seconds and hundreds of megabytes.
const duplicateWindow = 100 * time.Millisecond

// MaxPartitions bounds the number of partitions that a ledger can be created with.
const MaxPartitions = 1024

var (
	// ErrNoLedger is the error of Open on a server that has none of the streams.
	ErrNoLedger = errors.New("there is no ledger")
	// ErrDrift is the error of Open and Create when the streams are not the ones that this version created.
	ErrDrift = errors.New("the ledger is not as it was created")
)

// Spec says what ledger to create.
type Spec struct {
	Partitions int // fixed for ever, since every account lives in one; 0 = the number it has, or 1
	Replicas   int // of each stream: 1, or 3 on a cluster
}

// Create makes the pairs of streams that do not exist yet, and says whether there were any. It completes a creation
// that was interrupted, but does not replace a stream that a ledger in use has lost: that is ErrDrift.
func Create(ctx context.Context, nc *nats.Conn, spec Spec) (created bool, err error) {
	if spec.Partitions < 0 || spec.Partitions > MaxPartitions {
		return false, fmt.Errorf("%d partitions: a ledger has 1 to %d", spec.Partitions, MaxPartitions)
	}
	ctx, stop := heed(ctx, nc)
	defer stop()
	created, err = spec.create(ctx, nc)
	return created, because(ctx, err)
}

func (spec Spec) create(ctx context.Context, nc *nats.Conn) (created bool, err error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return false, err
	}
	found, err := survey(ctx, js)
	if err != nil {
		return false, err
	}
	if found.id == "" {
		found.id, found.partitions = uuid.NewString(), max(1, spec.Partitions)
	}
	if spec.Partitions == 0 {
		spec.Partitions = found.partitions
	}
	if found.partitions != spec.Partitions {
		return false, fmt.Errorf("%w: it was created with --partitions %d, not %d; the number never changes",
			ErrDrift, found.partitions, spec.Partitions)
	}
	missing := spec.missing(found)
	if len(missing) > 0 && found.messages > 0 {
		return false, fmt.Errorf("%w: stream %s is missing; restore it from a backup of the NATS server",
			ErrDrift, missing[0].Name)
	}
	for _, config := range missing {
		if _, err := js.CreateStream(ctx, config); err != nil {
			return false, fmt.Errorf("create stream %s: %w", config.Name, err)
		}
	}
	return len(missing) > 0, nil
}

// surveyTimeout is how long a server has to list its streams. One of a cluster waits for seconds for those that nobody leads.
const surveyTimeout = 2 * ackTimeout

// surveyed is what a server has of a ledger.
type surveyed struct {
	id         string // empty where no stream was found
	partitions int
	streams    map[string]*jetstream.StreamInfo
	messages   uint64 // in all streams
}

func survey(ctx context.Context, js jetstream.JetStream) (surveyed, error) {
	found := surveyed{streams: map[string]*jetstream.StreamInfo{}}
	listing, cancel := context.WithTimeout(ctx, surveyTimeout)
	defer cancel()
	list := js.ListStreams(listing)
	for info := range list.Info() {
		if err := found.take(info); err != nil {
			return found, err
		}
	}
	if err := list.Err(); err != nil {
		return found, fmt.Errorf("list streams: %w", err)
	}
	return found, found.complete(ctx, js)
}

// take takes in a stream, if it is of a ledger.
func (found *surveyed) take(info *jetstream.StreamInfo) error {
	id := info.Config.Metadata[metadataLedger]
	if id == "" {
		return nil
	}
	if found.id != "" && found.id != id {
		return fmt.Errorf("%w: the server has streams of two ledgers, %s and %s; remove those of one",
			ErrDrift, found.id, id)
	}
	found.id = id
	found.partitions, _ = strconv.Atoi(info.Config.Metadata[metadataPartitions])
	found.streams[info.Config.Name] = info
	found.messages += info.State.LastSeq
	return nil
}

// complete asks for each stream by its name that was not listed. A cluster leaves out, without a word, those that nobody leads for
// the moment, as after a restart: they are not missing.
func (found *surveyed) complete(ctx context.Context, js jetstream.JetStream) error {
	for p := 0; p < max(1, min(found.partitions, MaxPartitions)); p++ { // the first may say how many there are
		for _, name := range []string{events.Requests.Name(p), events.Decisions.Name(p)} {
			if found.streams[name] != nil {
				continue
			}
			stream, err := lookUp(ctx, js, name)
			if errors.Is(err, jetstream.ErrStreamNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			if err := found.take(stream.CachedInfo()); err != nil {
				return err
			}
		}
	}
	return nil
}

// lookUp returns a stream. The error is jetstream.ErrStreamNotFound only where there is none.
func lookUp(ctx context.Context, js jetstream.JetStream, name string) (jetstream.Stream, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	stream, err := js.Stream(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", name, err)
	}
	return stream, nil
}

func (spec Spec) missing(found surveyed) (configs []jetstream.StreamConfig) {
	for _, config := range spec.configs(found.id) {
		if found.streams[config.Name] == nil {
			configs = append(configs, config)
		}
	}
	return configs
}

// configs returns the settings of all streams, each partition's requests before its decisions.
func (spec Spec) configs(id string) (configs []jetstream.StreamConfig) {
	for p := range spec.Partitions {
		for _, stream := range []events.Stream{events.Requests, events.Decisions} {
			configs = append(configs, jetstream.StreamConfig{
				Name: stream.Name(p), Subjects: stream.Subjects(p),
				Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy,
				MaxMsgs: -1, MaxBytes: -1, MaxMsgsPerSubject: -1, MaxMsgSize: -1,
				Replicas:           spec.Replicas,
				Duplicates:         duplicateWindow,
				AllowAtomicPublish: stream == events.Requests,
				PersistMode:        spec.persistMode(stream),
				Metadata:           map[string]string{metadataLedger: id, metadataPartitions: strconv.Itoa(spec.Partitions)},
			})
		}
	}
	return configs
}

// persistMode spares the decisions of a single server the fsync: they can be made again from the requests. Raft
// batches its own, and refuses the mode.
func (spec Spec) persistMode(stream events.Stream) jetstream.PersistModeType {
	if stream == events.Decisions && spec.Replicas == 1 {
		return jetstream.AsyncPersistMode
	}
	return jetstream.DefaultPersistMode
}

// check returns ErrDrift, with the remedy, unless the streams are those of one ledger as Create made them.
func (found surveyed) check() error {
	if found.id == "" {
		return ErrNoLedger
	}
	first := found.streams[events.Requests.Name(0)]
	if first == nil || found.partitions < 1 {
		return fmt.Errorf("%w: stream %s is missing; restore it from a backup of the NATS server",
			ErrDrift, events.Requests.Name(0))
	}
	spec := Spec{Partitions: found.partitions, Replicas: first.Config.Replicas}
	if missing := spec.missing(found); len(missing) > 0 {
		return fmt.Errorf("%w: stream %s is missing; run `projector init --partitions %d` if the ledger was never used, else restore it from a backup of the NATS server",
			ErrDrift, missing[0].Name, found.partitions)
	}
	for _, want := range spec.configs(found.id) {
		if what, is, should := difference(found.streams[want.Name].Config, want); what != "" {
			return fmt.Errorf("%w: stream %s has %s %v, should be %v; set it back with `nats stream edit %s`",
				ErrDrift, want.Name, what, is, should, want.Name)
		}
	}
	return nil
}

// difference names the first setting in which a stream differs from what a sound ledger needs. What does not
// endanger a message (placement, compression, description, republish) is the operator's.
func difference(is, want jetstream.StreamConfig) (what string, got, should any) {
	switch {
	case !slices.Equal(is.Subjects, want.Subjects):
		return "subjects", is.Subjects, want.Subjects
	case is.Storage != want.Storage:
		return "storage", is.Storage, want.Storage
	case is.Retention != want.Retention:
		return "retention", is.Retention, want.Retention
	case is.MaxAge != 0:
		return "max age", is.MaxAge, "unlimited"
	case is.MaxMsgs > 0 || is.MaxBytes > 0 || is.MaxMsgsPerSubject > 0 || is.MaxMsgSize > 0:
		return "a limit on messages or bytes", "set", "unlimited"
	case is.Replicas != want.Replicas:
		return "replicas", is.Replicas, want.Replicas
	case is.AllowAtomicPublish != want.AllowAtomicPublish:
		return "allow atomic publish", is.AllowAtomicPublish, want.AllowAtomicPublish
	case is.PersistMode != want.PersistMode:
		return "persist mode", is.PersistMode, want.PersistMode
	case is.NoAck || is.Sealed || is.Mirror != nil || len(is.Sources) > 0 || is.SubjectTransform != nil:
		return "a mirror, source, transform, seal or no-ack", "set", "none"
	case is.Metadata[metadataPartitions] != want.Metadata[metadataPartitions]:
		return "partitions", is.Metadata[metadataPartitions], want.Metadata[metadataPartitions]
	}
	return "", nil, nil
}
