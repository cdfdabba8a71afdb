package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
)

// Domain is the JetStream domain as which a consumer's user reaches the ledger: it is in an account of its own.
const Domain = "LEDGER"

// Metadata of a durable that says whose it is. Durables without it are not touched.
const (
	metadataConsumer = "jobtally_consumer" // the account whose decisions it is given, or everyAccount
	metadataCreated  = "jobtally_created"  // to the nanosecond: the server takes two durables that are alike for one
	everyAccount     = "*"
)

// consumerAckWait is after how long the server gives a decision again that was not acknowledged.
const consumerAckWait = 30 * time.Second

// ErrConsumerExists is the error of adding a consumer under a name that is taken.
var ErrConsumerExists = errors.New("there is a consumer of that name")

// Consumer is somebody who reads decisions with tools of their own: a durable of that name in each partition that they
// read, where the server keeps what they have acknowledged.
type Consumer struct {
	Name     string
	Account  string // whose decisions on jobs it is given; empty: all decisions
	Created  time.Time
	Progress []ConsumerProgress // by partition
}

// ConsumerProgress is how far a consumer is in a partition.
type ConsumerProgress struct {
	Acknowledged events.Position // of this one and of all before it that it is given
	Pending      uint64          // decisions that it has not acknowledged yet, delivered or not
	Delivered    uint64          // of these: delivered, and not acknowledged so far
	LastActive   time.Time       // when one was delivered or acknowledged last; zero: never
}

// Filter returns the subjects that a consumer is given in a partition; none where that is all.
func (c *Consumer) Filter(partition int) []string {
	if c.Account == "" {
		return nil
	}
	return []string{events.JobsSubject(c.Account, partition)}
}

// reservedConsumers are the users that deploy/nats/jobtally.conf has, and the one of the embedded server.
var reservedConsumers = []string{"api", "projector", "operator", "consumer", embeddedUser}

// webhookPrefix begins the names of the durables that the relay keeps.
const webhookPrefix = "webhook_"

// ValidConsumer returns an error that says what is allowed unless name may be a consumer's.
func ValidConsumer(name string) error {
	if events.ValidAccount(name) != nil {
		return fmt.Errorf("consumer %q: a name has 1 to %d of the characters a-z, 0-9, _ and -", name, events.MaxAccountLength)
	}
	if strings.HasPrefix(name, "-") {
		return fmt.Errorf("consumer %q: a name that begins with - is an option to the nats command", name)
	}
	if slices.Contains(reservedConsumers, name) || strings.HasPrefix(name, webhookPrefix) {
		return fmt.Errorf("consumer %q: jobtally uses that name, and all that begin with %s, itself", name, webhookPrefix)
	}
	return nil
}

// AddConsumer makes the durables of a consumer, in each partition given after the decision named. The server hands out one
// decision after another, the next when the one before is acknowledged, for ever. The error is ErrConsumerExists where one
// of the partitions has a consumer of that name.
func (l *Ledger) AddConsumer(ctx context.Context, c *Consumer, after []events.Position) error {
	ctx, stop := heed(ctx, l.nc)
	defer stop()
	for made, p := range after {
		if err := l.addDurable(ctx, c, p); err != nil {
			return errors.Join(because(ctx, err), l.removeDurables(context.WithoutCancel(ctx), c.Name, after[:made]))
		}
	}
	return nil
}

func (l *Ledger) addDurable(ctx context.Context, c *Consumer, after events.Position) error {
	stream := events.Decisions.Name(after.Partition)
	switch found, err := l.streams[stream].Consumer(ctx, c.Name); {
	case err == nil && found.CachedInfo().Config.Metadata[metadataConsumer] == "":
		return fmt.Errorf("stream %s has a durable %s that a program made for itself: take another name", stream, c.Name)
	case err == nil:
		return fmt.Errorf("%w: %s on %s", ErrConsumerExists, c.Name, stream)
	case !errors.Is(err, jetstream.ErrConsumerNotFound):
		return fmt.Errorf("consumer %s on %s: %w", c.Name, stream, err)
	}
	_, err := l.js.CreateConsumer(ctx, stream, durableConfig(c, after))
	if errors.Is(err, jetstream.ErrConsumerExists) {
		return fmt.Errorf("%w: %s on %s", ErrConsumerExists, c.Name, stream)
	}
	if err != nil {
		return fmt.Errorf("consumer %s on %s: %w", c.Name, stream, err)
	}
	return nil
}

func durableConfig(c *Consumer, after events.Position) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable: c.Name, FilterSubjects: c.Filter(after.Partition),
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: after.Sequence + 1,
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: consumerAckWait, MaxDeliver: -1,
		MaxAckPending: 1, // more, and whoever takes the next while one is outstanding may get them out of order
		Metadata: map[string]string{
			metadataConsumer: cmp.Or(c.Account, everyAccount), metadataCreated: c.Created.UTC().Format(time.RFC3339Nano),
		},
	}
}

// RemoveConsumer removes the durables of a consumer. The error is ErrNotFound where there are none.
func (l *Ledger) RemoveConsumer(ctx context.Context, name string) error {
	all, err := l.Consumers(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(c Consumer) bool { return c.Name == name })
	if i < 0 {
		return fmt.Errorf("consumer %s: %w", name, events.ErrNotFound)
	}
	var in []events.Position
	for _, p := range all[i].Progress {
		in = append(in, p.Acknowledged)
	}
	return l.removeDurables(ctx, name, in)
}

func (l *Ledger) removeDurables(ctx context.Context, name string, in []events.Position) error {
	ctx, stop := heed(ctx, l.nc)
	defer stop()
	var errs []error
	for _, p := range in {
		stream := events.Decisions.Name(p.Partition)
		if err := l.js.DeleteConsumer(ctx, stream, name); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			errs = append(errs, fmt.Errorf("consumer %s on %s: %w", name, stream, because(ctx, err)))
		}
	}
	return errors.Join(errs...)
}

// Consumers returns all consumers, by name.
func (l *Ledger) Consumers(ctx context.Context) ([]Consumer, error) {
	ctx, stop := heed(ctx, l.nc)
	defer stop()
	found := map[string]*Consumer{}
	for p := range l.Partitions {
		list := l.streams[events.Decisions.Name(p)].ListConsumers(ctx)
		for info := range list.Info() {
			if account := info.Config.Metadata[metadataConsumer]; account != "" {
				found[info.Name] = found[info.Name].with(p, info)
			}
		}
		if err := list.Err(); err != nil {
			return nil, fmt.Errorf("%w: the consumers of %s: %w", events.ErrUnavailable, events.Decisions.Name(p), because(ctx, err))
		}
	}
	all := make([]Consumer, 0, len(found))
	for _, c := range found {
		all = append(all, *c)
	}
	slices.SortFunc(all, func(a, b Consumer) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// with returns the consumer, a new one where there is none yet, with what a server says of its durable in a partition.
func (c *Consumer) with(partition int, info *jetstream.ConsumerInfo) *Consumer {
	if c == nil {
		c = &Consumer{Name: info.Name, Created: info.Created.UTC().Truncate(time.Second)}
		if account := info.Config.Metadata[metadataConsumer]; account != everyAccount {
			c.Account = account
		}
		if at, err := time.Parse(time.RFC3339, info.Config.Metadata[metadataCreated]); err == nil {
			c.Created = at.Truncate(time.Second)
		}
	}
	p := ConsumerProgress{
		Acknowledged: events.Position{Partition: partition, Sequence: info.AckFloor.Stream},
		Pending:      info.NumPending + uint64(info.NumAckPending), Delivered: uint64(info.NumAckPending),
	}
	for _, at := range []*time.Time{info.Delivered.Last, info.AckFloor.Last} {
		if at != nil && at.After(p.LastActive) {
			p.LastActive = at.UTC()
		}
	}
	c.Progress = append(c.Progress, p)
	return c
}

// forgetConsumers removes what was made to read the decisions on an account before its erasure: the account may be opened
// again, for somebody else.
func (l *Ledger) forgetConsumers(ctx context.Context, account string, erasure events.Position) error {
	stream := l.streams[events.Decisions.Name(erasure.Partition)]
	decided, err := stream.GetMsg(ctx, erasure.Sequence)
	if err != nil {
		return fmt.Errorf("%w: the erasure of account %s: %w", events.ErrUnavailable, account, err)
	}
	heeding, stop := heed(ctx, l.nc)
	defer stop()
	var names []string
	list := stream.ListConsumers(heeding)
	for info := range list.Info() {
		if info.Config.Metadata[metadataConsumer] == account && info.Created.Before(decided.Time) {
			names = append(names, info.Name)
		}
	}
	if err := list.Err(); err != nil {
		return fmt.Errorf("%w: the consumers of account %s: %w", events.ErrUnavailable, account, because(heeding, err))
	}
	for _, name := range names {
		err = errors.Join(err, l.removeDurables(ctx, name, []events.Position{erasure}))
	}
	return err
}

// Pruned returns the first number that the decisions of a partition go back to, where of those after a sequence some are
// missing before it that were not erased with their account; and 0 where none are.
func (l *Ledger) Pruned(ctx context.Context, after events.Position) (first uint64, err error) {
	state, err := l.state(ctx, events.Decisions, after.Partition)
	if err != nil || state.FirstSeq <= after.Sequence+1 {
		return 0, err
	}
	v, err := l.voids(ctx, events.Decisions, after.Partition)
	if err != nil || v.explain(after.Sequence+1, v.first-1) {
		return 0, err
	}
	return v.first, nil
}

// InService says whether the server is part of a running service.
func (l *Ledger) InService() bool { return l.embedded == nil && IsEmbedded(l.nc) }

// Addresses returns URLs of NATS servers, apart by commas, without what is secret in them.
func Addresses(servers string) (string, error) {
	urls, err := parse(servers)
	var plain []string
	for _, u := range urls {
		plain = append(plain, u.Scheme+"://"+u.Host)
	}
	return strings.Join(plain, ","), err
}
