package main

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"jobtally/internal/cli"
	"jobtally/internal/events"
	"jobtally/internal/webhook"
)

type webhookRedriveCmd struct {
	Redeliver bool   `help:"Send decided events again though they were delivered, each with the header Webhook-Redelivery: true."`
	From      string `placeholder:"POSITION" help:"With --redeliver: the first position."`
	To        string `placeholder:"POSITION" help:"With --redeliver: the last position."`
	Yes       bool   `env:"-" help:"With --redeliver: do not ask for the id of the webhook to be typed. Needed where there is no terminal."`
	jsonFlag
	cli.Webhooks
	webhookFlags
}

// Run sends what is in the poison queue, or with --redeliver a stretch of what was decided, up to the first event that is not
// accepted.
func (c *webhookRedriveCmd) Run(s *session) error {
	if c.Redeliver {
		return c.redeliver(s)
	}
	if c.From != "" || c.To != "" {
		return usage("--from and --to are for --redeliver: without it, what is in the poison queue is sent")
	}
	return c.on(s, c.Webhooks, func(o *opened, e *webhook.Endpoint) error {
		var report sendReport
		left, err := o.relay.Redrive(s.ctx, e.Account, e.ID, func(d webhook.Delivery) { report.tell(s, c.JSON, &d) })
		switch {
		case err != nil:
			return report.refused(e, err)
		case left > 0:
			return fmt.Errorf("events that are left in the poison queue: %d", left)
		case report.sent == 0 && !c.JSON:
			_, err = fmt.Fprintln(s.stdout, "the poison queue is empty")
		}
		return cmp.Or(report.err, err)
	})
}

func (c *webhookRedriveCmd) redeliver(s *session) error {
	from, to, err := c.stretch()
	if err != nil {
		return err
	}
	if !c.Yes && !asks(s.stdin) {
		return usage("there is no terminal to ask on: give --yes")
	}
	return c.on(s, c.Webhooks, func(o *opened, e *webhook.Endpoint) error {
		var report sendReport
		if err := e.MayBeSent(); err != nil { // before anybody is asked
			return report.refused(e, err)
		}
		if err := isDecided(s, o, e, from, to); err != nil {
			return err
		}
		if !c.Yes {
			question := fmt.Sprintf("Every event of account %s from %s to %s that webhook %s wants will be sent to it once more. Type its id to go on: ", e.Account, from, to, e.ID)
			if err := s.confirm(question, e.ID, "that is not its id: nothing was sent"); err != nil {
				return err
			}
		}
		err := o.relay.Redeliver(s.ctx, e.Account, e.ID, from, to, func(d webhook.Delivery) { report.tell(s, c.JSON, &d) })
		switch {
		case err != nil:
			return report.refused(e, err)
		case report.sent == 0 && !c.JSON:
			_, err = fmt.Fprintf(s.stdout, "from %s to %s there is no event that the webhook wants\n", from, to)
		}
		return cmp.Or(report.err, err)
	})
}

// stretch reads --from and --to.
func (c *webhookRedriveCmd) stretch() (from, to events.Position, err error) {
	if c.From == "" || c.To == "" {
		return from, to, usage("--redeliver needs --from and --to: the first and the last position to send")
	}
	if from, err = events.ParsePosition(c.From); err != nil {
		return from, to, usage("--from: %w", err)
	}
	if to, err = events.ParsePosition(c.To); err != nil {
		return from, to, usage("--to: %w", err)
	}
	if from.Partition != to.Partition || from.Sequence > to.Sequence {
		return from, to, usage("--from comes before --to, in one partition: %s and %s do not", from, to)
	}
	return from, to, nil
}

// isDecided returns an error unless there are decisions from one position to another, where the webhook's account has its: what
// was pruned would be passed over without a word.
func isDecided(s *session, o *opened, e *webhook.Endpoint, from, to events.Position) error {
	p := events.PartitionOf(e.Account, o.Ledger.Partitions)
	if from.Partition != p {
		return usage("account %s is in partition %d: its positions begin with %d-", e.Account, p, p)
	}
	heads, err := o.Ledger.Heads(s.ctx, p)
	if err != nil {
		return err
	}
	if to.Sequence > heads.Decisions {
		return fmt.Errorf("there is no decision %s: the last is %s", to, events.Position{Partition: p, Sequence: heads.Decisions})
	}
	first, err := o.Ledger.Pruned(s.ctx, events.Position{Partition: p, Sequence: max(from.Sequence, 1) - 1})
	if err == nil && first > 0 {
		err = fmt.Errorf("decision %s is no longer in the ledger: nothing was sent. What is there begins with --from %s", from, events.Position{Partition: p, Sequence: first})
	}
	return err
}

// sendReport tells of deliveries as they are made.
type sendReport struct {
	sent int
	err  error // of printing
}

// refused returns an error, with what to do where it is that the webhook is not enabled.
func (r *sendReport) refused(e *webhook.Endpoint, err error) error {
	if !errors.Is(err, webhook.ErrNotEnabled) {
		return err
	}
	nothing := "nothing"
	if r.sent > 0 {
		nothing = "nothing more"
	}
	return fmt.Errorf("%w: %s was sent. `projector webhook enable %s` first: it is sent what it missed then, too", err, nothing, e.ID)
}

func (r *sendReport) tell(s *session, asJSON bool, d *webhook.Delivery) {
	r.sent++
	if asJSON {
		r.err = cmp.Or(r.err, printJSON(s.stdout, reportOfDelivery(d)))
		return
	}
	said := fmt.Sprintf("%s in %s", d.Outcome, d.Duration.Round(time.Millisecond))
	if d.Error != "" {
		said += ": " + plain(d.Error)
	}
	_, err := fmt.Fprintf(s.stdout, "%s %s %s\n", d.MessageID, d.Type, said)
	r.err = cmp.Or(r.err, err)
}

type webhookDeliveriesCmd struct {
	Limit int `default:"20" placeholder:"N" help:"How many are printed at most (default: ${default})."`
	jsonFlag
	webhookFlags
}

// Run prints the latest deliveries.
func (c *webhookDeliveriesCmd) Run(s *session) error {
	if c.Limit < 1 {
		return usage("--limit is at least 1")
	}
	return c.on(s, cli.Webhooks{}, func(o *opened, e *webhook.Endpoint) error {
		deliveries, err := o.relay.Deliveries(s.ctx, e.Account, e.ID, 0, c.Limit)
		if err != nil {
			return err
		}
		reports, rows := make([]deliveryReport, len(deliveries)), []string{"AT\tMESSAGE\tTYPE\tCAUSE\tATTEMPT\tSTATUS\tMS\tOUTCOME\tERROR"}
		for i := range deliveries {
			reports[i] = reportOfDelivery(&deliveries[i])
			rows = append(rows, rowOfDelivery(&deliveries[i]))
		}
		if c.JSON {
			return printJSON(s.stdout, map[string]any{"webhook": e.ID, "account": e.Account, "deliveries": reports})
		}
		return printTable(s.stdout, rows)
	})
}

func rowOfDelivery(d *webhook.Delivery) string {
	status := "-"
	if d.Status != 0 {
		status = strconv.Itoa(d.Status)
	}
	return strings.Join([]string{
		timeText(d.At), d.MessageID, d.Type, string(d.Cause), strconv.Itoa(d.Attempt), status,
		strconv.FormatInt(d.Duration.Milliseconds(), 10), string(d.Outcome), cmp.Or(plain(d.Error), "-"),
	}, "\t")
}

// deliveryReport is a delivery for scripts, as over HTTP.
type deliveryReport struct {
	MessageID   string          `json:"message_id"`
	Position    string          `json:"position,omitempty"`
	Type        string          `json:"type"`
	Cause       webhook.Cause   `json:"cause"`
	Attempt     int             `json:"attempt"`
	At          string          `json:"at"`
	DurationMS  int64           `json:"duration_ms"`
	Status      int             `json:"status,omitempty"`
	Outcome     webhook.Outcome `json:"outcome"`
	Error       string          `json:"error,omitempty"`
	NextAttempt string          `json:"next_attempt,omitempty"`
}

func reportOfDelivery(d *webhook.Delivery) deliveryReport {
	report := deliveryReport{
		MessageID: d.MessageID, Type: d.Type, Cause: d.Cause, Attempt: d.Attempt, At: timeText(d.At), DurationMS: d.Duration.Milliseconds(),
		Status: d.Status, Outcome: d.Outcome, Error: d.Error, NextAttempt: timeOrNothing(d.NextAttempt),
	}
	if d.Cause != webhook.ByTest {
		report.Position = d.Position.String()
	}
	return report
}
