package main

import (
	"fmt"

	"jobtally/internal/cli"
	"jobtally/internal/ledger"
)

type initCmd struct {
	NATS       string `name:"nats" required:"" placeholder:"URL" help:"URL of the NATS server. Set sync_interval: always in its jetstream block: without it a power failure loses what was acknowledged."`
	Partitions int    `default:"16" placeholder:"N" help:"Number of partitions, 1 to 1024 (default: ${default}). Fixed for ever: each account lives in one, and each is decided by one projector at a time."`
	Replicas   int    `default:"1" enum:"1,3,5" placeholder:"N" help:"Servers that keep each stream: 1, 3 or 5 (default: ${default}). 3 survives the loss of one server of a cluster."`
}

// Run creates the ledger, or says that it is there.
func (c *initCmd) Run(s *session) error {
	if c.Partitions < 1 || c.Partitions > ledger.MaxPartitions {
		return fmt.Errorf("%w: --partitions is 1 to %d", cli.ErrUsage, ledger.MaxPartitions)
	}
	connection, err := ledger.Connect(c.NATS, "jobtally operator", s.log)
	if err != nil {
		return err
	}
	defer connection.Close()
	created, err := ledger.Create(s.ctx, connection, ledger.Spec{Partitions: c.Partitions, Replicas: c.Replicas})
	if err != nil {
		return err
	}
	l, err := ledger.Open(s.ctx, connection)
	if err != nil {
		return err
	}
	defer l.Close()
	what := "is there already"
	if created {
		what = "created"
	}
	_, err = fmt.Fprintf(s.stdout, "ledger %s %s: partitions %d, replicas %d\n", l.ID, what, l.Partitions, l.Replicas)
	return err
}
