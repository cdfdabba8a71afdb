package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"text/tabwriter"

	"jobtally/internal/cli"
	"jobtally/internal/node"
	"jobtally/internal/projections"
)

type backupCmd struct {
	To   string `required:"" placeholder:"FILE" help:"File to write, which is not there yet. It is as secret as the projection: it has what people applied for."`
	NATS string `name:"nats" placeholder:"URL" help:"URL of the NATS server that has the ledger: the copy is made only if the projection is of that one (default: it is not looked at)."`
	Data string `placeholder:"DIR" help:"Data directory whose projection is copied (default: data, unless --nats is given). The service may run there, or not."`
}

// Run copies the projection and prints where the copy is.
func (c *backupCmd) Run(s *session) error {
	dir := access{NATS: c.NATS, Data: c.Data}.dir()
	if dir == "" {
		return fmt.Errorf("%w: name with --data the directory whose projection is copied", cli.ErrUsage)
	}
	ledgerID, err := c.ledger(s)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, node.ProjectionFile)
	folded, err := projections.Backup(s.ctx, path, ledgerID, c.To)
	switch {
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%w: name a file that is not there", err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: name the data directory of a service with --data, and a file in a directory that is there with --to", err)
	case err != nil:
		return err
	}
	fmt.Fprintf(s.stdout, "%s is a copy of %s: of the projection, not of the ledger\n\n", c.To, path)
	table := tabwriter.NewWriter(s.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "PARTITION\tFOLDED\tDIGEST")
	for p, to := range folded {
		fmt.Fprintf(table, "%d\t%d\t%s\n", p, to.Sequence, to.Digest)
	}
	return table.Flush()
}

// ledger returns the id of the ledger that the projection is to be of, if one is named.
func (c *backupCmd) ledger(s *session) (id string, err error) {
	if c.NATS == "" {
		return "", nil
	}
	o, err := access{NATS: c.NATS}.dial(s)
	if err != nil {
		return "", err
	}
	return o.Ledger.ID, o.Close()
}
