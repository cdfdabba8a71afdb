package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/ledger"
	"jobtally/internal/node"
)

type consumerAddCmd struct {
	Name    string `arg:"" help:"Name of the consumer: 1 to 64 of a-z, 0-9, _ and -. Its user on the NATS server is called so, too."`
	Account string `placeholder:"NAME" help:"Account whose decisions on jobs it is given (default: all decisions, of all accounts, also those on accounts and tokens)."`
	From    start  `default:"now" placeholder:"WHERE" help:"Where it begins: after a position, as 0-1234; with the first decision of a month, as 2026-10; beginning; or now, with the next that is decided (default: ${default})."`
	access
}

// Run makes the consumer and prints what it needs. Its password is nowhere else: not in the log, and not in a file.
func (c *consumerAddCmd) Run(s *session) (err error) {
	if err := ledger.ValidConsumer(c.Name); err != nil {
		return usage("%w", err)
	}
	if c.Account != "" {
		if err := events.ValidAccount(c.Account); err != nil {
			return usage("%w", err)
		}
	}
	o, err := c.inspect(s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	if err := c.mayKeep(o); err != nil {
		return err
	}
	partitions, err := c.partitions(s.ctx, o)
	if err != nil {
		return err
	}
	after, err := c.From.after(s.ctx, o, partitions)
	if err != nil {
		return err
	}
	added := &addedConsumer{
		Consumer: ledger.Consumer{Name: c.Name, Account: c.Account, Created: time.Now().UTC()},
		after:    after, password: ledger.NewPassword(),
	}
	added.user = ledger.ConsumerUser{
		Name: c.Name, Account: c.Account, Partitions: partitions, Password: events.Hash([]byte(added.password)), Created: added.Created,
	}
	return c.add(s, o, added)
}

// add makes the user before the durables, so that what a command leaves that is killed in between can be removed.
func (c *consumerAddCmd) add(s *session, o *node.Operator, added *addedConsumer) (err error) {
	if c.NATS != "" {
		if added.server, err = ledger.Addresses(c.NATS); err != nil {
			return err
		}
		if err := o.Ledger.AddConsumer(s.ctx, &added.Consumer, added.after); err != nil {
			return c.explain(err)
		}
		return added.printExternal(s.stdout)
	}
	url, err := ledger.EmbeddedURL(c.dir())
	if err != nil {
		return err
	}
	if added.server, err = ledger.Addresses(url); err != nil {
		return err
	}
	if err := ledger.AddConsumerUser(c.dir(), &added.user); err != nil {
		return c.explain(err)
	}
	if err := o.Ledger.AddConsumer(s.ctx, &added.Consumer, added.after); err != nil {
		return errors.Join(c.explain(err), ledger.RemoveConsumerUser(c.dir(), c.Name))
	}
	return added.print(s.stdout)
}

// explain adds what to do where the name is taken.
func (c *consumerAddCmd) explain(err error) error {
	if errors.Is(err, ledger.ErrConsumerExists) {
		return fmt.Errorf("%w: remove it with `projector consumer remove %s`, or take another name", err, c.Name)
	}
	return err
}

// mayKeep refuses a service's own server that is named by its URL: its users are in its data directory.
func (a access) mayKeep(o *node.Operator) error {
	if a.NATS != "" && o.Ledger.InService() {
		return usage("that NATS server is part of a running service: name its data directory with --data")
	}
	return nil
}

// partitions returns those that the consumer reads: that of its account, or all.
func (c *consumerAddCmd) partitions(ctx context.Context, o *node.Operator) (partitions []int, err error) {
	if c.Account != "" {
		p := events.PartitionOf(c.Account, o.Ledger.Partitions)
		_, _, err := readAccount(ctx, o, c.Account, events.AccountSubject(c.Account, p))
		if err != nil {
			// Where the beginning of the ledger is missing, so is perhaps the decision that opened the account.
			if first, failed := o.Ledger.Pruned(ctx, events.Position{Partition: p}); first > 0 || failed != nil {
				err = failed
			}
		}
		return []int{p}, err
	}
	for p := range o.Ledger.Partitions {
		partitions = append(partitions, p)
	}
	return partitions, nil
}

type consumerRemoveCmd struct {
	Name string `arg:"" help:"Name of the consumer."`
	access
}

// Run removes a consumer, or what is left of one that was added or removed by half.
func (c *consumerRemoveCmd) Run(s *session) (err error) {
	if err := ledger.ValidConsumer(c.Name); err != nil {
		return usage("%w", err)
	}
	o, err := c.inspect(s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	if err := c.mayKeep(o); err != nil {
		return err
	}
	var noUser error = fs.ErrNotExist
	if c.NATS == "" {
		noUser = ledger.RemoveConsumerUser(c.dir(), c.Name)
	}
	err = o.Ledger.RemoveConsumer(s.ctx, c.Name)
	switch {
	case errors.Is(err, events.ErrNotFound) && errors.Is(noUser, fs.ErrNotExist):
		return fmt.Errorf("there is no consumer %s", c.Name)
	case err != nil && !errors.Is(err, events.ErrNotFound):
		return err
	case noUser != nil && !errors.Is(noUser, fs.ErrNotExist):
		return noUser
	}
	left := "it is let in no longer"
	if c.NATS != "" {
		left = fmt.Sprintf("take account %s out of the configuration of the NATS server", (&ledger.ConsumerUser{Name: c.Name}).NATSAccount())
	}
	_, err = fmt.Fprintf(s.stdout, "consumer %s removed, with what it had acknowledged: %s\n", c.Name, left)
	return err
}
