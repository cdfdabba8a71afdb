package main

import (
	"fmt"

	"jobtally/internal/cli"
	"jobtally/internal/webhook"
)

type webhookEnableCmd struct{ webhookFlags }

// Run enables a webhook, whatever it stopped for.
func (c *webhookEnableCmd) Run(s *session) error { return c.set(s, true) }

type webhookDisableCmd struct{ webhookFlags }

// Run disables a webhook.
func (c *webhookDisableCmd) Run(s *session) error { return c.set(s, false) }

func (f webhookFlags) set(s *session, enabled bool) error {
	return f.on(s, cli.Webhooks{}, func(o *opened, e *webhook.Endpoint) error {
		before := e.State
		changed, err := o.relay.Change(s.ctx, e.Account, e.ID, 0, webhook.Change{Enabled: &enabled})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(s.stdout, "webhook %s of account %s is %s; it was %s\n", e.ID, e.Account, changed.State, before)
		return err
	})
}

type webhookRemoveCmd struct{ webhookFlags }

// Run removes a webhook.
func (c *webhookRemoveCmd) Run(s *session) error {
	return c.on(s, cli.Webhooks{}, func(o *opened, e *webhook.Endpoint) error {
		if err := o.relay.Remove(s.ctx, e.Account, e.ID, 0); err != nil {
			return err
		}
		_, err := fmt.Fprintf(s.stdout, "webhook %s of account %s is removed\n", e.ID, e.Account)
		return err
	})
}
