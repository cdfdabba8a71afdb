package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/ledger"
	"jobtally/internal/node"
)

type consumerListCmd struct {
	jsonFlag
	access
}

// consumerReport is a consumer for scripts.
type consumerReport struct {
	Consumer   string              `json:"consumer"`
	Account    string              `json:"account,omitempty"` // absent: it is given all decisions
	Erased     bool                `json:"erased"`            // the account: it is given nothing more
	CreatedAt  string              `json:"created_at"`
	Partitions []consumerPartition `json:"partitions"`
}

// consumerPartition is how far a consumer is in a partition.
type consumerPartition struct {
	Partition    int    `json:"partition"`
	Acknowledged string `json:"acknowledged"` // position
	Pending      uint64 `json:"pending"`
	Delivered    uint64 `json:"delivered"`
	LastActive   string `json:"last_active,omitempty"`
}

// Run prints the consumers and how far each is.
func (c *consumerListCmd) Run(s *session) (err error) {
	o, err := c.inspect(s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	consumers, err := o.Ledger.Consumers(s.ctx)
	if err != nil {
		return err
	}
	if consumers, err = c.withUsers(consumers); err != nil {
		return err
	}
	reports := make([]consumerReport, len(consumers))
	for i := range consumers {
		if reports[i], err = reportOfConsumer(s.ctx, o, &consumers[i]); err != nil {
			return err
		}
	}
	if c.JSON {
		return printJSON(s.stdout, map[string]any{"consumers": reports})
	}
	rows := []string{"CONSUMER\tACCOUNT\tPARTITION\tACKNOWLEDGED\tPENDING\tLAST ACTIVE"}
	for _, r := range reports {
		rows = append(rows, r.rows()...)
	}
	return printTable(s.stdout, rows)
}

// withUsers adds the consumers that are let in and have nothing to read: their account was erased.
func (c *consumerListCmd) withUsers(consumers []ledger.Consumer) ([]ledger.Consumer, error) {
	if c.NATS != "" {
		return consumers, nil
	}
	users, err := ledger.ConsumerUsers(c.dir())
	for _, u := range users {
		if !slices.ContainsFunc(consumers, func(c ledger.Consumer) bool { return c.Name == u.Name }) {
			consumers = append(consumers, ledger.Consumer{Name: u.Name, Account: u.Account, Created: u.Created})
		}
	}
	slices.SortFunc(consumers, func(a, b ledger.Consumer) int { return strings.Compare(a.Name, b.Name) })
	return consumers, err
}

func reportOfConsumer(ctx context.Context, o *node.Operator, c *ledger.Consumer) (r consumerReport, err error) {
	r = consumerReport{Consumer: c.Name, Account: c.Account, CreatedAt: timeText(c.Created), Partitions: []consumerPartition{}}
	if c.Account != "" {
		if r.Erased, err = isErased(ctx, o, c); err != nil {
			return r, err
		}
	}
	for _, p := range c.Progress {
		part := consumerPartition{
			Partition: p.Acknowledged.Partition, Acknowledged: p.Acknowledged.String(), Pending: p.Pending, Delivered: p.Delivered,
		}
		if !p.LastActive.IsZero() {
			part.LastActive = timeText(p.LastActive.Truncate(time.Second))
		}
		r.Partitions = append(r.Partitions, part)
	}
	return r, nil
}

// isErased says whether the account that a consumer reads was erased. One that was opened again since is another.
func isErased(ctx context.Context, o *node.Operator, c *ledger.Consumer) (bool, error) {
	p := events.PartitionOf(c.Account, o.Ledger.Partitions)
	_, err := o.Ledger.Last(ctx, events.Decisions, p, events.ErasedSubject(c.Account, p))
	if errors.Is(err, events.ErrNotFound) {
		return false, nil
	}
	if err != nil || len(c.Progress) == 0 { // what it had to read with went with the account
		return err == nil, err
	}
	open, _, err := readAccounts(ctx, o, p, events.AccountSubject(c.Account, p))
	return open[c.Account] == nil, err
}

// rows are the consumer for people.
func (r *consumerReport) rows() (rows []string) {
	account := cmp.Or(r.Account, "(all)")
	if r.Erased {
		account += " (erased)"
	}
	if len(r.Partitions) == 0 {
		rows = append(rows, fmt.Sprintf("%s\t%s\t-\t-\t-\t-", r.Consumer, account))
	}
	for _, p := range r.Partitions {
		rows = append(rows, fmt.Sprintf("%s\t%s\t%d\t%s\t%d\t%s", r.Consumer, account, p.Partition, p.Acknowledged, p.Pending, cmp.Or(p.LastActive, "-")))
	}
	return rows
}
