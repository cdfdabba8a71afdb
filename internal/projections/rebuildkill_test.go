package projections

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"jobtally/internal/events"
)

// rebuildEnv tells the process that is to be killed where that happens: a rebuildKilling, in JSON.
const rebuildEnv = "JOBTALLY_TEST_REBUILD_KILLING"

// rebuildKilling is where a rebuild is killed: at the first time of a step of Make, or of what puts in place what was made.
type rebuildKilling struct {
	Dir       string
	Make      string
	Replace   string // beside the process that serves
	Install   string // where none does
	wasPlaced bool   // what was folded anew has the name of the projection
	partial   bool   // it is partial still
}

const rebuildBatch = 40 // more than one batch that is read

// A process that dies at any step of a rebuild leaves the projection that was there, or the one that was folded anew, and
// each is whole: the next process goes on with it, and with the rebuild.
func TestRebuildKilledAtAnyStep(t *testing.T) {
	t.Parallel()
	for name, k := range map[string]rebuildKilling{
		"folding":                    {Make: "folding", partial: true},
		"folded and closed":          {Make: "sealed", partial: true},
		"named as the next":          {Make: "next"},
		"replace: level and closed":  {Replace: "sealed"},
		"replace: the other closed":  {Replace: "shut"},
		"replace: renamed":           {Replace: "renamed", wasPlaced: true},
		"install: compared":          {Install: "compared"},
		"install: the other is shut": {Install: "shut"},
		"install: renamed":           {Install: "renamed", wasPlaced: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClients(t, 2, rebuildBatch)
			k.Dir = c.dir
			before := c.rebuildUntilKilled(t, k)

			t.Log("the next process finds a projection that is whole")
			s := startService(t, c.dir, nil)
			c.audit(t, s, s.found)
			s.auditRebuilt(t)
			if placed := !os.SameFile(before, must[fs.FileInfo](t)(os.Stat(s.db.path))); placed != k.wasPlaced {
				t.Errorf("what was folded anew is in place: %t", placed)
			}
			if exists(PartialPath(s.db.path)) != k.partial || exists(NextPath(s.db.path)) == (k.partial || k.wasPlaced) {
				t.Error("what was folded anew is not where it was left")
			}
			s.run(t)
			c.ask(t, s, 0)

			t.Log("and goes on with the rebuild")
			if k.partial {
				made := must[Made](t)(s.rebuild(nil).Make(within(t)))
				if made.Discarded != "" || k.Make == "sealed" && made.Resumed != 1+rebuildBatch {
					t.Errorf("made %+v", made)
				}
			}
			if !k.wasPlaced {
				must[[]events.Position](t)(s.rebuild(nil).Adopt(within(t), s.db))
			}
			c.ask(t, s, 1)
			c.auditAll(t, s)
			s.auditRebuilt(t)
			s.stop(t)
			c.auditAll(t, startService(t, c.dir, nil))
		})
	}
}

// rebuildUntilKilled rebuilds in another process, and returns the file that was the projection there.
func (c *clients) rebuildUntilKilled(t *testing.T, k rebuildKilling) fs.FileInfo {
	t.Helper()
	child := exec.CommandContext(within(t), os.Args[0], "-test.run=^TestRebuildChild$", "-test.timeout="+deadline.String())
	child.Env = append(os.Environ(), rebuildEnv+"="+string(must[[]byte](t)(json.Marshal(k))))
	var stderr bytes.Buffer
	child.Stderr = &stderr
	s := startService(t, c.dir, nil) // which makes the file
	before := must[fs.FileInfo](t)(os.Stat(s.db.path))
	s.stop(t)
	out, err := child.Output()
	if status := child.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGKILL {
		t.Fatalf("ended with %v, want it killed\n%s\n%s", err, out, stderr.String())
	}
	c.asked = 10000 // it is later than anything there
	return before
}

// TestRebuildChild is the process that TestRebuildKilledAtAnyStep kills.
func TestRebuildChild(t *testing.T) {
	env := os.Getenv(rebuildEnv)
	if env == "" {
		return
	}
	var k rebuildKilling
	ok(t, json.Unmarshal([]byte(env), &k))
	dieAt := func(site string) func(string) {
		times := 0
		return func(step string) {
			if times++; step == site && (step != "folding" || times == 2) {
				die()
			}
		}
	}
	c := clientsOf(k.Dir, 2, rebuildBatch)
	s := startService(t, c.dir, nil)
	s.run(t)
	await(t, s.db, s.append(t, c.account, "open", openWith(int64(len(c.postings)))))
	c.ask(t, s, 0)
	must[Made](t)(s.rebuild(dieAt(k.Make)).Make(within(t)))
	if k.Install == "" {
		s.db.step = dieAt(k.Replace)
		must[[]events.Position](t)(s.rebuild(nil).Adopt(within(t), s.db))
	} else {
		s.projector.stop(t)
		ok(t, s.db.shut())
		must[Installed](t)(s.rebuild(dieAt(k.Install)).Install(within(t)))
	}
	t.Fatal("lives on")
}
