package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"jobtally/internal/cli"
	"jobtally/internal/events"
	"jobtally/internal/node"
	"jobtally/internal/relay"
	"jobtally/internal/webhook"
)

// webhookFlags name a webhook. Its account need not be named, but narrows where it is looked for.
type webhookFlags struct {
	ID      string `arg:"" help:"Id of the webhook."`
	Account string `placeholder:"NAME" help:"Account that the webhook is of (default: any)."`
	access
}

// opened is the access of a command to webhooks.
type opened struct {
	*node.Operator
	relay *relay.Relay
}

func openWebhooks(s *session, a access, allow cli.Webhooks) (*opened, error) {
	o, err := a.inspect(s)
	if err != nil {
		return nil, err
	}
	r, err := o.Relay(s.ctx, node.RelayConfig{Allow: allow.WebhookAllow, Log: s.log})
	if err != nil {
		return nil, errors.Join(err, o.Close())
	}
	return &opened{o, r}, nil
}

// on carries out something on the webhook that is named, with what may be sent to besides the public.
func (f webhookFlags) on(s *session, allow cli.Webhooks, do func(*opened, *webhook.Endpoint) error) (err error) {
	o, err := openWebhooks(s, f.access, allow)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	e, err := f.find(s.ctx, o.relay)
	if err != nil {
		return err
	}
	return do(o, e)
}

func (f webhookFlags) find(ctx context.Context, r *relay.Relay) (*webhook.Endpoint, error) {
	all, err := webhooksOf(ctx, r, f.Account)
	if err != nil {
		return nil, err
	}
	var near []string
	for i := range all {
		if all[i].ID == f.ID {
			return &all[i], nil
		}
		if strings.HasPrefix(strings.ToLower(all[i].ID), strings.ToLower(f.ID)) {
			near = append(near, all[i].ID)
		}
	}
	whose := ""
	if f.Account != "" {
		whose = " of account " + f.Account
	}
	hint := "`projector webhook list` prints those that are there"
	if len(near) == 1 {
		hint = "did you mean " + near[0] + "?"
	}
	return nil, fmt.Errorf("there is no webhook %q%s; %s", plain(f.ID), whose, hint)
}

// webhooksOf returns the webhooks of an account, or of all where none is named.
func webhooksOf(ctx context.Context, r *relay.Relay, account string) ([]webhook.Endpoint, error) {
	if account == "" {
		return r.All(ctx)
	}
	if err := events.ValidAccount(account); err != nil {
		return nil, usage("%w", err)
	}
	return r.List(ctx, account)
}

type webhookListCmd struct {
	Account string `placeholder:"NAME" help:"Account whose webhooks are listed (default: all)."`
	jsonFlag
	access
}

// Run prints one webhook a line.
func (c *webhookListCmd) Run(s *session) (err error) {
	o, err := openWebhooks(s, c.access, cli.Webhooks{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	all, err := webhooksOf(s.ctx, o.relay, c.Account)
	if err != nil {
		return err
	}
	reports, rows := make([]webhookReport, len(all)), []string{"WEBHOOK\tACCOUNT\tSTATE\tSINCE\tTYPES\tURL"}
	for i := range all {
		e := &all[i]
		reports[i] = reportOfWebhook(e)
		rows = append(rows, strings.Join([]string{e.ID, e.Account, string(e.State), timeText(e.StateSince), typesText(&reports[i]), cmp.Or(plain(e.URL), "-")}, "\t"))
	}
	if c.JSON {
		return printJSON(s.stdout, map[string]any{"webhooks": reports})
	}
	return printTable(s.stdout, rows)
}

// typesText says of which types a webhook is sent events, as far as that is known.
func typesText(r *webhookReport) string {
	if r.State == webhook.Unreadable {
		return "-"
	}
	return cmp.Or(strings.Join(r.Types, ","), "all")
}

// webhookReport is a webhook for scripts, as over HTTP. Its secret is nowhere.
type webhookReport struct {
	ID          string          `json:"id"`
	Account     string          `json:"account"`
	URL         string          `json:"url"`
	Types       []string        `json:"types"`
	Description string          `json:"description,omitempty"`
	State       webhook.State   `json:"state"`
	StateSince  string          `json:"state_since"`
	CreatedAt   string          `json:"created_at"`
	After       events.Position `json:"after"`
	Progress    *progressReport `json:"progress,omitempty"`
}

type progressReport struct {
	Pending             uint64 `json:"pending"`
	Delivered           string `json:"delivered,omitempty"`
	Attempts            int    `json:"attempts"`
	ConsecutiveFailures int    `json:"consecutive_failures"`
	FailingSince        string `json:"failing_since,omitempty"`
	NextAttempt         string `json:"next_attempt,omitempty"`
	LastSuccess         string `json:"last_success,omitempty"`
	Circuit             string `json:"circuit"`
	Poisoned            uint64 `json:"poisoned"`
	WaitsFor            string `json:"waits_for,omitempty"`
}

func reportOfWebhook(e *webhook.Endpoint) webhookReport {
	types := e.Types
	if types == nil {
		types = []string{}
	}
	return webhookReport{
		ID: e.ID, Account: e.Account, URL: e.URL, Types: types, Description: e.Description, State: e.State,
		StateSince: timeText(e.StateSince), CreatedAt: timeText(e.CreatedAt), After: e.After,
	}
}

func reportOfProgress(p *webhook.Progress) *progressReport {
	report := &progressReport{
		Pending: p.Pending, Attempts: p.Attempts, ConsecutiveFailures: p.ConsecutiveFailures, FailingSince: timeOrNothing(p.FailingSince),
		NextAttempt: timeOrNothing(p.NextAttempt), LastSuccess: timeOrNothing(p.LastSuccess), Circuit: circuit(p), Poisoned: p.Poisoned, WaitsFor: p.Waits,
	}
	if p.Delivered.Sequence > 0 {
		report.Delivered = p.Delivered.String()
	}
	return report
}

func circuit(p *webhook.Progress) string {
	if p.Open {
		return "open"
	}
	return "closed"
}

func timeOrNothing(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return timeText(at)
}

type webhookShowCmd struct {
	jsonFlag
	webhookFlags
}

// Run prints a webhook and its progress.
func (c *webhookShowCmd) Run(s *session) error {
	return c.on(s, cli.Webhooks{}, func(o *opened, e *webhook.Endpoint) error {
		p, err := o.relay.Progress(s.ctx, *e)
		if err != nil {
			return err
		}
		report := reportOfWebhook(e)
		report.Progress = reportOfProgress(&p)
		if c.JSON {
			return printJSON(s.stdout, report)
		}
		return printTable(s.stdout, rowsOfWebhook(&report))
	})
}

func registeredText(r *webhookReport) string {
	if r.State == webhook.Unreadable {
		return "registered\tit cannot be read: a newer version wrote it, or a person"
	}
	return fmt.Sprintf("registered\t%s, after %s", r.CreatedAt, r.After)
}

func rowsOfWebhook(r *webhookReport) []string {
	p := r.Progress
	rows := []string{
		"webhook\t" + r.ID, "account\t" + r.Account, "url\t" + cmp.Or(plain(r.URL), "-"), "types\t" + typesText(r),
		"description\t" + cmp.Or(plain(r.Description), "-"), fmt.Sprintf("state\t%s since %s", r.State, r.StateSince),
		registeredText(r), "delivered\t" + cmp.Or(p.Delivered, "nothing yet"),
		fmt.Sprintf("pending\t%d", p.Pending), "last success\t" + cmp.Or(p.LastSuccess, "never"), "circuit\t" + p.Circuit,
		fmt.Sprintf("poison queue\t%d", p.Poisoned),
	}
	if p.FailingSince != "" {
		rows = append(rows, fmt.Sprintf("failing\tsince %s, %d times in a row", p.FailingSince, p.ConsecutiveFailures))
	}
	if p.NextAttempt != "" {
		rows = append(rows, fmt.Sprintf("next attempt\t%s, after %d at this event", p.NextAttempt, p.Attempts))
	}
	if p.WaitsFor != "" {
		rows = append(rows, "waits for\t"+plain(p.WaitsFor))
	}
	return rows
}
