package projections

import (
	"fmt"
	"testing"

	"jobtally/internal/events"
)

// A capture passes through the sites in this order; at each, one batch meets a fault.
const (
	requestAppend  = "request append"
	decisionAppend = "decision append"
	sqliteCommit   = "SQLite commit"
)

const (
	fails        = "fails"
	persists     = "persists but fails"
	killedBefore = "process killed before"
	killedAfter  = "process killed after"
)

// A row asks for a batch of captures, which is acknowledged, and for a second one, which meets the fault. A process that
// is killed leaves so many batches of requests, has folded so many, and has not recorded more than so many batches of
// decisions: the ends of those may die with the server.
var faultTable = []struct {
	site, kind                  string
	requests, decisions, folded uint64 // 0 where the process lives on
}{
	{requestAppend, fails, 0, 0, 0},
	{requestAppend, persists, 0, 0, 0},
	{requestAppend, killedBefore, 1, 1, 1},
	{requestAppend, killedAfter, 2, 1, 1},
	{decisionAppend, fails, 0, 0, 0},
	{decisionAppend, persists, 0, 0, 0},
	{decisionAppend, killedBefore, 2, 1, 1},
	{decisionAppend, killedAfter, 2, 2, 1},
	{sqliteCommit, fails, 0, 0, 0},
	{sqliteCommit, persists, 0, 0, 0},
	{sqliteCommit, killedBefore, 2, 2, 1},
	{sqliteCommit, killedAfter, 2, 2, 2},
}

// Whatever fails, and wherever the process dies: the next start converges to what an undisturbed run of the same requests
// gives, no acknowledged capture is lost, and none is counted twice.
func TestFaultTable(t *testing.T) {
	t.Parallel()
	for _, row := range faultTable {
		for batch, size := range map[string]int{"one": 1, "many in a batch": 20} {
			t.Run(fmt.Sprintf("%s %s, %s", row.site, row.kind, batch), func(t *testing.T) {
				t.Parallel()
				c, f := newClients(t, 3, size), newFault(row.site, row.kind, size)
				if f.kills() {
					c.workUntilKilled(t, f)
				} else {
					c.work(t, f)
				}

				t.Log("the next process finds what that one left")
				s := startService(t, c.dir, nil)
				if f.kills() {
					s.wantLeft(t, 1+row.requests*uint64(size), 1+row.decisions*uint64(size), 1+row.folded*uint64(size))
				}
				c.audit(t, s, s.found)
				s.run(t)
				await(t, s.db, events.Position{Sequence: s.found.Requests})
				c.audit(t, s, s.heads(t))

				t.Log("everyone asks again")
				c.askForAll(t, s)
				c.auditAll(t, s)
				s.stop(t)

				t.Log("and once more, later")
				s = startService(t, c.dir, nil)
				c.auditAll(t, s)
				s.run(t)
				c.askForAll(t, s)
				c.auditAll(t, s)
			})
		}
	}
}

// wantLeft checks what a process found that another one left.
func (s *service) wantLeft(t *testing.T, requests, decisions, folded uint64) {
	t.Helper()
	if s.found.Requests != requests || s.found.Decisions > decisions || s.foundFolded != folded {
		t.Errorf("left %d requests, %d decisions, and %d folded; want %d, up to %d, and %d",
			s.found.Requests, s.found.Decisions, s.foundFolded, requests, decisions, folded)
	}
}

// work is what one process does until the fault, and after it where it lives on.
func (c *clients) work(t *testing.T, f *fault) {
	t.Helper()
	s := startService(t, c.dir, f)
	s.run(t)
	await(t, s.db, s.append(t, c.account, "open", openWith(int64(len(c.postings)))))
	f.batchUp()
	c.ask(t, s, 0)
	f.arm()
	c.ask(t, s, 1)
	if !f.happened() {
		t.Error("the fault was never met")
	}
	c.audit(t, s, s.heads(t))
	c.ask(t, s, 2)
	c.auditAll(t, s)
	s.stop(t)
}
