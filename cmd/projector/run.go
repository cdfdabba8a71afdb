package main

import (
	"context"
	"errors"

	"jobtally/internal/cli"
	"jobtally/internal/node"
	"jobtally/internal/telemetry"
)

type runCmd struct {
	NATS string `name:"nats" required:"" placeholder:"URL" help:"URL of the NATS server that has the ledger. The embedded one needs no projector: the service is its own."`
	Data string `required:"" placeholder:"DIR" help:"Data directory for this projector's own projection. One process has it at a time."`
	cli.Webhooks
	cli.Telemetry
}

// Run decides until it is told to stop. Any number may run: one decides each partition, the others stand by.
func (c *runCmd) Run(s *session) error {
	watching, err := telemetry.Start(s.ctx, telemetry.Config{
		Service: "jobtally-projector", MetricsAddr: c.MetricsAddr, OTLPEndpoint: c.OTLPEndpoint, Log: s.log,
	})
	if err != nil {
		return err
	}
	defer watching.Close()
	n, err := node.Start(s.ctx, node.Config{Dir: c.Data, NATS: c.NATS, Decides: true, Log: s.log, Observer: watching.Node()})
	if err != nil {
		if s.ctx.Err() != nil && errors.Is(err, context.Canceled) {
			return nil // told to stop before it was up, which is no failure
		}
		return err
	}
	watching.Watch(n)
	relay := n.StartRelay(s.ctx, node.RelayConfig{Allow: c.WebhookAllow, Log: s.log, Observer: watching.Relay()})
	watching.WatchRelay(relay.Census)
	s.log.Info("deciding", "partitions", n.Ledger.Partitions, "data", c.Data)
	<-s.ctx.Done()
	s.log.Info("stopping")
	return n.Close()
}
