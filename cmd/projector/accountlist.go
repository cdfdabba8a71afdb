package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/cli"
	"jobtally/internal/events"
	"jobtally/internal/node"
)

// jsonFlag chooses between people and scripts. Times are in UTC, and the names of the JSON stay.
type jsonFlag struct {
	JSON bool `name:"json" help:"Print a JSON object."`
}

func printJSON(w io.Writer, form any) error {
	text, err := json.Marshal(form)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", text)
	return err
}

// printTable aligns rows whose cells are apart by tabs.
func printTable(w io.Writer, rows []string) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(table, row)
	}
	return table.Flush()
}

func timeText(at time.Time) string { return at.UTC().Format(time.RFC3339) }

type accountListCmd struct {
	jsonFlag
	access
}

// accountReport is an account for scripts.
type accountReport struct {
	Account  string `json:"account"`
	Plan     string `json:"plan"`
	Limit    int64  `json:"limit"`
	OpenedAt string `json:"opened_at"`
}

func (a *openAccount) report() accountReport {
	return accountReport{a.Name, a.Plan, a.Limit, timeText(a.OpenedAt)}
}

// Run prints the accounts of all partitions.
func (c *accountListCmd) Run(s *session) (err error) {
	o, err := c.inspect(s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	all, positions := accounts{}, []events.Position{}
	for p := range o.Ledger.Partitions {
		found, at, err := readAccounts(s.ctx, o, p, events.AccountSubject("*", p))
		if err != nil {
			return err
		}
		maps.Copy(all, found)
		if at.Sequence > 0 {
			positions = append(positions, at)
		}
	}
	reports := []accountReport{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		reports = append(reports, all[name].report())
	}
	if c.JSON {
		return printJSON(s.stdout, map[string]any{"accounts": reports, "positions": positions})
	}
	rows := []string{"ACCOUNT\tPLAN\tLIMIT\tOPENED"}
	for _, r := range reports {
		rows = append(rows, strings.Join([]string{r.Account, plain(r.Plan), limitText(r.Limit), r.OpenedAt}, "\t"))
	}
	return printTable(s.stdout, rows)
}

func limitText(limit int64) string {
	if limit == capture.Unlimited {
		return "unlimited"
	}
	return strconv.FormatInt(limit, 10)
}

type accountShowCmd struct {
	Name string `arg:"" help:"Name of the account."`
	jsonFlag
	access
}

// accountDetails is an account with all that is known of it, for scripts.
type accountDetails struct {
	accountReport
	PlanChanged planReport     `json:"plan_changed"` // by the decision that set the plan
	Quota       quotaReport    `json:"quota"`
	Tokens      map[string]int `json:"tokens"`   // how many there are of each status
	Position    string         `json:"position"` // as of which all of this is
}

type planReport struct {
	At       string `json:"at"`
	By       string `json:"by,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Position string `json:"position"`
}

// quotaReport is the count of the month in which the next capture counts.
type quotaReport struct {
	Used      int64  `json:"used"`
	Limit     int64  `json:"limit"`
	Remaining int64  `json:"remaining"`
	ResetDate string `json:"reset_date"`
}

// Run prints the account.
func (c *accountShowCmd) Run(s *session) (err error) {
	if err := events.ValidAccount(c.Name); err != nil {
		return fmt.Errorf("%w: %w", cli.ErrUsage, err)
	}
	o, err := c.inspect(s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	details, err := c.details(s, o, time.Now().UTC())
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(s.stdout, details)
	}
	return printTable(s.stdout, details.rows())
}

func (c *accountShowCmd) details(s *session, o *node.Operator, now time.Time) (*accountDetails, error) {
	partition := events.PartitionOf(c.Name, o.Ledger.Partitions)
	archived, err := o.ArchivedMonth(s.ctx, partition)
	if err != nil {
		return nil, err
	}
	a, at, err := readAccount(s.ctx, o, c.Name, events.Decisions.SubjectOf(c.Name, partition))
	if err != nil {
		return nil, err
	}
	month := capture.CountsIn(events.MonthOf(now), archived)
	q := capture.Quota{Month: month, Used: a.captured[month], Limit: a.Limit}
	tokens := map[string]int{capture.TokenActive: 0, capture.TokenExpired: 0, capture.TokenRevoked: 0}
	for _, t := range a.tokens {
		tokens[t.Status(now)]++
	}
	return &accountDetails{
		accountReport: a.report(), Tokens: tokens, Position: at.String(),
		PlanChanged: planReport{timeText(a.PlanAt), a.PlanSetBy.By, a.PlanSetBy.Reason, a.PlanPosition.String()},
		Quota:       quotaReport{q.Used, q.Limit, q.Remaining(), q.ResetDate()},
	}, nil
}

// rows are the lines for people.
func (d *accountDetails) rows() []string {
	quota := fmt.Sprintf("%d used, unlimited; it starts at 0 again on %s", d.Quota.Used, d.Quota.ResetDate)
	if d.Limit != capture.Unlimited {
		quota = fmt.Sprintf("%d used of %d, %d remaining; it starts at 0 again on %s", d.Quota.Used, d.Limit, d.Quota.Remaining, d.Quota.ResetDate)
	}
	set := fmt.Sprintf("%s at %s%s", d.PlanChanged.At, d.PlanChanged.Position, plain(askedBy(events.Who{By: d.PlanChanged.By, Reason: d.PlanChanged.Reason})))
	return []string{
		"account\t" + d.Account,
		fmt.Sprintf("plan\t%s: %s", plain(d.Plan), captures(d.Limit)),
		"set\t" + set,
		"opened\t" + d.OpenedAt,
		"quota\t" + quota,
		fmt.Sprintf("tokens\t%d active, %d expired, %d revoked", d.Tokens[capture.TokenActive], d.Tokens[capture.TokenExpired], d.Tokens[capture.TokenRevoked]),
		"as of\t" + d.Position,
	}
}
