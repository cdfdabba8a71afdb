package projections

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"

	"jobtally/internal/events"
)

// Audit decides the requests of a ledger again, and compares what comes of it with what is there: every decision of the
// ledger wholly, and every row of the projection. It writes to neither.
//
// It runs the everyday code, Load, Decide and Apply, on a scratch projection. So the memory that it takes does not
// depend on the length of the ledger; on disk the scratch grows as large as the projection, and is removed at the end.
type Audit struct {
	Ledger AuditLedger
	// Projection is the path of the file whose rows are compared, each partition as far as it is folded there. Without
	// such a file no rows are.
	Projection string
	// Account narrows the audit to the messages and rows of one account. Empty audits all.
	Account string
	// Month narrows what is reported to what belongs to a month. Everything is decided again all the same, for a month
	// follows from those before it. Empty reports all.
	Month events.Month
	// Scratch is the directory in which the scratch projection is made. Empty is that for temporary files.
	Scratch string
	// Report takes each difference as it is found.
	Report func(Difference)
	// Progress takes the summary so far, after each batch of requests.
	Progress func(Summary)
}

// AuditLedger is what an audit needs of the ledger, as function values.
type AuditLedger struct {
	ID         string
	Partitions int
	// Heads returns the last sequences of the pair of a partition.
	Heads func(ctx context.Context, partition int) (events.Heads, error)
	// Get returns one message of a stream, or ErrNotFound.
	Get func(ctx context.Context, stream events.Stream, p events.Position) (events.Message, error)
	// ReadTo yields the messages there are after one sequence up to another, in order; those under the
	// subjects, or all where there are none.
	ReadTo func(ctx context.Context, stream events.Stream, partition int, subjects []string, after, last uint64) iter.Seq2[[]events.Message, error]
}

// Difference is something that does not follow from the requests. The position of a row that has none is that up to
// which its partition is folded; that of the file as a whole is 0-0.
type Difference struct {
	Position events.Position `json:"position"`
	Account  string          `json:"account,omitempty"`
	Month    events.Month    `json:"month,omitempty"` // that it belongs to, where it belongs to one
	What     string          `json:"what"`
	Expected string          `json:"expected,omitempty"`
	Found    string          `json:"found,omitempty"`
}

// Summary says what an audit compared.
type Summary struct {
	Partitions  int    `json:"partitions"`
	Requests    uint64 `json:"requests"`  // decided again
	Erased      uint64 `json:"erased"`    // positions of accounts that were erased, of which nothing is compared
	Unremoved   uint64 `json:"unremoved"` // of these whose messages are still there
	Undecided   uint64 `json:"undecided"` // of these beyond the last decision of the ledger
	Lost        uint64 `json:"lost"`      // of these folded: decisions that died with the server, to be appended again
	Decisions   uint64 `json:"decisions"` // compared
	Rows        uint64 `json:"rows"`      // compared
	Messages    uint64 `json:"messages"`  // read
	Differences uint64 `json:"differences"`
	// RowsSkipped says why no rows were compared. It is empty where they were.
	RowsSkipped string `json:"rows_skipped,omitempty"`
	// RowsLeftOut says of what no rows could be compared, where the projection has not folded the last erasure.
	RowsLeftOut string `json:"rows_left_out,omitempty"`
	// Folded are the positions at which the rows were compared.
	Folded []events.Position `json:"folded,omitempty"`
	// Unfolded is the number of positions decided in the ledger and not folded there.
	Unfolded uint64 `json:"unfolded"`
	// Stopped are the positions at which deciding again came to its end before the ledger did. The difference there
	// says why.
	Stopped []events.Position `json:"stopped,omitempty"`
}

// Run audits. An error says that the audit failed, not what it found: that goes to Report.
func (audit Audit) Run(ctx context.Context) (Summary, error) {
	a, err := audit.begin(ctx)
	if err != nil {
		return Summary{}, err
	}
	return a.sum, a.end(a.run(ctx))
}

// auditor is an audit at work.
type auditor struct {
	Audit
	sum        Summary
	partitions []int
	at         map[int]uint64        // by partition: up to where its requests were decided again
	stopped    map[int]bool          // the partitions that cannot be decided again beyond that
	erasures   map[int]*erasures     // by partition
	archive    map[int]events.Digest // by partition: the last link of the chain of months; where one account is audited
	months     map[int]events.Month  // by partition: the last month that is archived
	made       events.Decision       // the last one decided again

	dir     string
	scratch *DB
}

func (audit Audit) begin(ctx context.Context) (*auditor, error) {
	dir, err := os.MkdirTemp(audit.Scratch, "jobtally-audit-")
	if err != nil {
		return nil, err
	}
	a := &auditor{Audit: audit, at: map[int]uint64{}, stopped: map[int]bool{}, erasures: map[int]*erasures{}, archive: map[int]events.Digest{}, months: map[int]events.Month{}, dir: dir}
	if a.scratch, err = Open(filepath.Join(dir, "scratch.db"), audit.Ledger.ID, audit.Ledger.Partitions); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	// Nobody opens it again: it waits for no disk, and empties its log when Apply finds it large.
	if _, err = a.scratch.writer.ExecContext(context.Background(), "PRAGMA synchronous = OFF; PRAGMA wal_autocheckpoint = 0"); err != nil {
		return nil, a.end(err)
	}
	for p := range audit.Ledger.Partitions {
		if audit.Account == "" || p == events.PartitionOf(audit.Account, audit.Ledger.Partitions) {
			a.partitions = append(a.partitions, p)
		}
	}
	a.sum.Partitions = len(a.partitions)
	if err := a.foretell(ctx); err != nil {
		return nil, a.end(err)
	}
	return a, nil
}

// end removes the scratch projection.
func (a *auditor) end(err error) error {
	return errors.Join(err, a.scratch.Close(), os.RemoveAll(a.dir))
}

// run compares the rows on the way, when the requests are decided again up to where they are folded.
func (a *auditor) run(ctx context.Context) error {
	if err := a.auditRows(ctx); err != nil {
		return err
	}
	for _, p := range a.partitions {
		heads, err := a.Ledger.Heads(ctx, p)
		if err != nil {
			return err
		}
		if err := a.walk(ctx, p, heads.Requests, heads); err != nil {
			return err
		}
		if a.Account == "" {
			a.compareHeads(p, heads)
		}
		if err := a.compareErasures(ctx, p); err != nil {
			return err
		}
		if folded := a.foldedTo(p); a.sum.RowsSkipped == "" && folded < heads.Decisions {
			a.sum.Unfolded += heads.Decisions - folded
		}
	}
	return nil
}

// auditRows compares the rows of the projection, if there is one.
func (a *auditor) auditRows(ctx context.Context) error {
	if a.Projection == "" {
		a.sum.RowsSkipped = "no projection was named"
		return nil
	}
	if _, err := os.Stat(a.Projection); errors.Is(err, fs.ErrNotExist) {
		a.sum.RowsSkipped = "there is no " + a.Projection
		return nil
	}
	if err := a.catchUp(ctx); err != nil {
		return err
	}
	return a.compareRows(ctx)
}

// foldedTo is the sequence at which the rows of a partition were compared.
func (a *auditor) foldedTo(partition int) uint64 {
	for _, p := range a.sum.Folded {
		if p.Partition == partition {
			return p.Sequence
		}
	}
	return 0
}

// compareHeads reports decisions that no request is there for.
func (a *auditor) compareHeads(p int, heads events.Heads) {
	if heads.Decisions > heads.Requests {
		a.report(Difference{
			Position: events.Position{Partition: p, Sequence: heads.Requests + 1},
			What:     "decisions beyond the requests",
			Expected: fmt.Sprintf("none after %d", heads.Requests), Found: fmt.Sprintf("decisions up to %d", heads.Decisions),
		})
	}
}

// report reports a difference, unless it is of another month than is audited.
func (a *auditor) report(d Difference) {
	if a.Month != "" && d.Month != a.Month && !a.stopped[d.Position.Partition] {
		return
	}
	a.sum.Differences++
	a.Report(d)
}
