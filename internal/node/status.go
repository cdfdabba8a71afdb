package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/ledger"
	"jobtally/internal/projections"
)

// ErrNoData is the error of a View of a node whose data directory is not there.
var ErrNoData = errors.New("there is no data directory")

// Status is what a View saw of a ledger, and of nodes on it. The JSON is for programs: names stay.
type Status struct {
	Ledger     string            `json:"ledger"` // its id
	Partitions []PartitionStatus `json:"partitions"`
	Nodes      []NodeStatus      `json:"nodes"`
}

// PartitionStatus is how far a partition is recorded and decided.
type PartitionStatus struct {
	Partition        int     `json:"partition"`
	Requests         uint64  `json:"requests"`          // the head of the requests
	Decisions        uint64  `json:"decisions"`         // the head of the decisions
	Undecided        uint64  `json:"undecided"`         // requests without a decision
	UndecidedSeconds float64 `json:"undecided_seconds"` // the age of the oldest of them, by its own time
	ArchivedMonth    string  `json:"archived_month"`    // the last one, or empty
	RequestBytes     uint64  `json:"request_bytes"`
	DecisionBytes    uint64  `json:"decision_bytes"`
	Stuck            string  `json:"stuck"` // why requests stay undecided, as far as looking tells; or empty
}

// NodeStatus is how far the projection in a data directory is.
type NodeStatus struct {
	Data            string       `json:"data"`
	Running         bool         `json:"running"`        // whether a process has the directory
	SchemaVersion   int          `json:"schema_version"` // of the projection, or 0 where there is none
	Current         bool         `json:"schema_current"` // whether this jobtally writes that version
	ProjectionBytes int64        `json:"projection_bytes"`
	WALBytes        int64        `json:"wal_bytes"`
	Erasing         bool         `json:"erasing"`    // whether its files still have what was erased
	Partitions      []FoldStatus `json:"partitions"` // empty without a projection, or with one of another version
}

// FoldStatus is how far a partition is folded.
type FoldStatus struct {
	Partition       int           `json:"partition"`
	Folded          uint64        `json:"folded"`
	Unfolded        uint64        `json:"unfolded"`         // decisions that are not folded here
	UnfoldedSeconds float64       `json:"unfolded_seconds"` // the age of the oldest of them, by the time of its request
	Digest          events.Digest `json:"digest"`           // of all that is folded
	Failure         string        `json:"failure"`          // why the node makes no progress, in its own words or, when it does not run, by looking; or empty
	FailingSince    *time.Time    `json:"failing_since"`    // null unless these are its own words
}

// View looks at a ledger and the nodes on it, any number of times. It reads, and holds nobody up.
type View struct {
	// Config says where the ledger is, as for Inspect.
	Config Config
	// Nodes are data directories. That of the Config itself is not among them unless it is named here too.
	Nodes []string
	// RunningOnly makes it an error that no node runs on the data directory that has the ledger. Otherwise the ledger is
	// opened, and until Close no service can start there.
	RunningOnly bool

	operator *Operator // nil until it is opened, and after a failure
	looks    looks
}

// Look returns what is there now. After an error the next one starts anew.
func (v *View) Look(ctx context.Context) (s Status, err error) {
	if err := v.open(ctx); err != nil {
		return s, err
	}
	defer func() {
		if err != nil {
			v.Close() // there may be nothing left to close in order
		}
	}()
	if err := v.observe(ctx); err != nil {
		return s, err
	}
	s = Status{Ledger: v.operator.Ledger.ID, Nodes: []NodeStatus{}}
	// What is folded is read before what is recorded, or a projection could seem to be ahead.
	for _, dir := range v.Nodes {
		n, err := v.lookAtNode(dir)
		if err != nil {
			return s, err
		}
		s.Nodes = append(s.Nodes, n)
	}
	for p := range v.operator.Ledger.Partitions {
		if err := v.lookAtPartition(ctx, p, &s); err != nil {
			return s, err
		}
	}
	return s, nil
}

// Close ends the access.
func (v *View) Close() error {
	if v.operator == nil {
		return nil
	}
	o := v.operator
	v.operator = nil
	return o.Close()
}

func (v *View) open(ctx context.Context) (err error) {
	if v.operator != nil {
		return nil
	}
	if v.operator, err = v.dial(ctx); err != nil {
		return v.withWords(err)
	}
	v.looks = looks{last: make([]look, v.operator.Ledger.Partitions)}
	return nil
}

func (v *View) dial(ctx context.Context) (*Operator, error) {
	if v.Config.NATS != "" || !hasLedger(v.Config.Dir) || !v.RunningOnly {
		return Inspect(ctx, v.Config)
	}
	running, err := ledger.Locked(v.Config.Dir)
	if err != nil {
		return nil, err
	}
	if !running {
		return nil, v.notRunning()
	}
	return reachRunning(ctx, v.Config)
}

func (v *View) notRunning() error {
	return fmt.Errorf("no node runs on %s: start `api --data %s`", v.Config.Dir, v.Config.Dir)
}

// withWords adds to the error of a node that cannot be reached what it says itself: its server may be what failed.
func (v *View) withWords(err error) error {
	if !errors.Is(err, ledger.ErrLocked) {
		return err
	}
	failures, unread := readFailures(v.Config.Dir)
	if unread != nil || len(failures) == 0 {
		return err
	}
	words := make([]string, len(failures))
	for i, f := range failures {
		words[i] = fmt.Sprintf("partition %d makes no progress: %s", f.Partition, f.Reason)
	}
	return fmt.Errorf("%w; it says: %s", err, strings.Join(words, "; "))
}

// lookAtNode reads what is in a data directory.
func (v *View) lookAtNode(dir string) (n NodeStatus, err error) {
	n = NodeStatus{Data: dir, Partitions: []FoldStatus{}}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return n, fmt.Errorf("%w %s: name that of a node on this ledger", ErrNoData, dir)
	}
	if n.Running, err = v.runs(dir); err != nil {
		return n, err
	}
	path := filepath.Join(dir, ProjectionFile)
	n.ProjectionBytes, n.WALBytes = size(path), size(path+"-wal")
	n.Erasing = projections.Erasing(path)
	if n.SchemaVersion, n.Current, err = projections.ReadVersion(path); err != nil {
		return n, err
	}
	if n.SchemaVersion != 0 && !n.Current {
		return n, nil // its rows are for the version that wrote it to read
	}
	folded, err := projections.ReadPositions(path, v.operator.Ledger.ID)
	if err != nil || folded == nil {
		return n, err
	}
	for p := range v.operator.Ledger.Partitions {
		n.Partitions = append(n.Partitions, FoldStatus{Partition: p, Folded: folded[p].Sequence, Digest: folded[p].Digest})
	}
	return n, n.addFailures()
}

// runs says whether a node runs on a data directory. That which has the ledger is this process's for as long as it is
// open here, unless a service was found there.
func (v *View) runs(dir string) (bool, error) {
	if v.own() && dir == v.Config.Dir {
		return v.operator.running != "", nil
	}
	return ledger.Locked(dir)
}

// own says whether the ledger is one in a data directory.
func (v *View) own() bool { return v.Config.NATS == "" }

// addFailures adds what a running node says of itself.
func (n *NodeStatus) addFailures() error {
	if !n.Running {
		return nil
	}
	failures, err := readFailures(n.Data)
	if err != nil {
		return err
	}
	for _, f := range failures {
		if f.Partition < len(n.Partitions) {
			n.Partitions[f.Partition].Failure, n.Partitions[f.Partition].FailingSince = f.Reason, &f.Since
		}
	}
	return nil
}

// size is that of a file, or 0 where there is none.
func size(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}
