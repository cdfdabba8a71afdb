package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"jobtally/internal/cli"
	"jobtally/internal/ledger"
	"jobtally/internal/node"
	"jobtally/internal/projections"
)

// leastEvery bounds how often --watch looks.
const leastEvery = 100 * time.Millisecond

type statusCmd struct {
	NATS  string        `name:"nats" placeholder:"URL" help:"URL of the NATS server that has the ledger (default: none; the ledger is found through --data)."`
	Data  []string      `sep:"none" placeholder:"DIR" help:"Data directory of a node (default: data, unless --nats is given). Give it again for another node: they are shown side by side, and their digests compared. Without --nats each has its own ledger, which is opened for the time of the command where no service runs."`
	JSON  bool          `name:"json" help:"Print a JSON object; with --watch, one a line."`
	Watch bool          `help:"Look again and again until stopped. A ledger that no service runs is not opened for that, so that one can start."`
	Every time.Duration `default:"1s" placeholder:"INTERVAL" help:"How often --watch looks (default: ${default})."`
}

// Run prints how far each partition is recorded, decided and folded. It returns ErrDifferences where nodes that ought to
// hold the same do not.
func (c *statusCmd) Run(s *session) (err error) {
	if c.Every < leastEvery {
		return fmt.Errorf("%w: --every is %s or more", cli.ErrUsage, leastEvery)
	}
	if c.Watch {
		return c.watch(s)
	}
	views := c.views(s.log)
	defer func() { err = errors.Join(err, closeAll(views)) }()
	report := look(s.ctx, views)
	if err := report.err(); err != nil {
		return err
	}
	text, err := c.render(report)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprint(s.stdout, text); err != nil {
		return err
	}
	return report.verdict()
}

// watch prints what each look sees until it is told to stop. What a look needs may go away and come back; only a first
// look for what is not there ends it.
func (c *statusCmd) watch(s *session) error {
	views := c.views(slog.New(slog.DiscardHandler)) // what the log would say of lost connections is in the report
	defer closeAll(views)
	out := screen{w: s.stdout, redraw: watched(s.stdout) && !c.JSON}
	ticker := time.NewTicker(c.Every)
	defer ticker.Stop()
	for first := true; ; first = false {
		report := look(s.ctx, views)
		if s.ctx.Err() != nil {
			return nil
		}
		if err := report.err(); first && hopeless(err) {
			return err
		}
		text, err := c.render(report)
		if err != nil {
			return err
		}
		if !c.JSON {
			text = report.Time.Format(time.RFC3339) + "\n" + text + "\n"
		}
		if err := out.show(text); err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-s.ctx.Done():
			return nil
		}
	}
}

// views returns what is looked at: the ledger on the server with all nodes, or each node with its own.
func (c *statusCmd) views(log *slog.Logger) (views []*node.View) {
	if c.NATS != "" {
		return []*node.View{{Config: node.Config{NATS: c.NATS, Log: log}, Nodes: c.Data}}
	}
	if len(c.Data) == 0 {
		c.Data = []string{access{}.dir()}
	}
	for _, dir := range c.Data {
		views = append(views, &node.View{Config: node.Config{Dir: dir, Log: log}, Nodes: []string{dir}, RunningOnly: c.Watch})
	}
	return views
}

func closeAll(views []*node.View) error {
	var errs []error
	for _, v := range views {
		errs = append(errs, v.Close())
	}
	return errors.Join(errs...)
}

func (c *statusCmd) render(r *statusReport) (string, error) {
	if !c.JSON {
		return r.text(), nil
	}
	text, err := json.Marshal(r)
	return string(text) + "\n", err
}

// hopeless says whether looking again cannot help: a name is wrong.
func hopeless(err error) bool {
	return errors.Is(err, ledger.ErrNoLedger) || errors.Is(err, ledger.ErrDrift) || errors.Is(err, projections.ErrMismatch) ||
		errors.Is(err, node.ErrNoData)
}

// statusReport is what one look saw. The JSON is for programs: names stay.
type statusReport struct {
	Time    time.Time      `json:"time"`
	Ledgers []ledgerReport `json:"ledgers"`
	// Comparisons has an element for each ledger of which there are two nodes or more.
	Comparisons []comparison `json:"comparisons"`

	nodes []string // the data directories, in the order of the command line
}

// ledgerReport is a ledger, or why it could not be looked at.
type ledgerReport struct {
	*node.Status
	Error string `json:"error"`
	err   error
}

// comparison says where nodes of a ledger hold the same, by the digests of their partitions.
type comparison struct {
	Ledger string   `json:"ledger"`
	Nodes  []string `json:"nodes"`  // the data directories
	Agree  []int    `json:"agree"`  // partitions that all have folded up to one position, with one digest
	Apart  []int    `json:"apart"`  // that they have folded up to different positions: these cannot be compared
	Differ []int    `json:"differ"` // in which two have different digests at one position
}

func look(ctx context.Context, views []*node.View) *statusReport {
	r := &statusReport{Time: time.Now().UTC(), Comparisons: []comparison{}}
	for _, v := range views {
		r.nodes = append(r.nodes, v.Nodes...)
		status, err := v.Look(ctx)
		if err != nil {
			r.Ledgers = append(r.Ledgers, ledgerReport{Error: err.Error(), err: err})
			continue
		}
		r.Ledgers = append(r.Ledgers, ledgerReport{Status: &status})
	}
	r.compare()
	return r
}

// err returns the first reason why something could not be looked at.
func (r *statusReport) err() error {
	for _, l := range r.Ledgers {
		if l.err != nil {
			return l.err
		}
	}
	return nil
}

// compare compares the nodes of each ledger. A directory and a copy of it have one ledger, too.
func (r *statusReport) compare() {
	var ids []string
	nodes := map[string][]node.NodeStatus{}
	for _, l := range r.Ledgers {
		if l.Status == nil {
			continue
		}
		if nodes[l.Ledger] == nil {
			ids = append(ids, l.Ledger)
		}
		for _, n := range l.Nodes {
			if len(n.Partitions) > 0 {
				nodes[l.Ledger] = append(nodes[l.Ledger], n)
			}
		}
	}
	for _, id := range ids {
		if len(nodes[id]) > 1 {
			r.Comparisons = append(r.Comparisons, compareNodes(id, nodes[id]))
		}
	}
}

func compareNodes(id string, nodes []node.NodeStatus) comparison {
	c := comparison{Ledger: id, Agree: []int{}, Apart: []int{}, Differ: []int{}}
	for _, n := range nodes {
		c.Nodes = append(c.Nodes, n.Data)
	}
	for p := range nodes[0].Partitions {
		at := map[uint64]node.FoldStatus{}
		differ := false
		for _, n := range nodes {
			fold := n.Partitions[p]
			other, seen := at[fold.Folded]
			differ = differ || seen && other.Digest != fold.Digest
			at[fold.Folded] = fold
		}
		switch {
		case differ:
			c.Differ = append(c.Differ, p)
		case len(at) > 1:
			c.Apart = append(c.Apart, p)
		default:
			c.Agree = append(c.Agree, p)
		}
	}
	return c
}

func (r *statusReport) verdict() error {
	differ := 0
	for _, c := range r.Comparisons {
		differ += len(c.Differ)
	}
	if differ > 0 {
		return fmt.Errorf("%w: partitions whose digests differ: %d", cli.ErrDifferences, differ)
	}
	return nil
}
