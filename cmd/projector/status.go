package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"text/tabwriter"

	"jobtally/internal/node"
	"jobtally/internal/projections"
)

type statusCmd struct {
	access
}

// Run prints a line for each partition. What is folded is told of the projection in --data, if that is given.
func (c *statusCmd) Run(s *session) (err error) {
	o, err := c.dial(s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	var folded map[int]projections.FoldedTo
	if dir := c.dir(); dir != "" {
		if folded, err = projections.ReadPositions(filepath.Join(dir, node.ProjectionFile), o.Ledger.ID); err != nil {
			return err
		}
	}
	fmt.Fprintf(s.stdout, "ledger %s, partitions: %d\n\n", o.Ledger.ID, o.Ledger.Partitions)
	table := tabwriter.NewWriter(s.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "PARTITION\tREQUESTS\tUNDECIDED\tDECISIONS\tUNFOLDED\tFOLDED\tDIGEST")
	for p := range o.Ledger.Partitions {
		heads, err := o.Ledger.Heads(s.ctx, p)
		if err != nil {
			return err
		}
		fmt.Fprintf(table, "%d\t%d\t%d\t%d\t", p, heads.Requests, int64(heads.Requests-heads.Decisions), heads.Decisions)
		if position, ok := folded[p]; ok {
			// A projection may be ahead of decisions whose tail died with the server; they are appended again.
			fmt.Fprintf(table, "%d\t%d\t%.8s\n", max(heads.Decisions, position.Sequence)-position.Sequence, position.Sequence, position.Digest)
		} else {
			fmt.Fprintf(table, "-\t-\t-\n")
		}
	}
	return table.Flush()
}
