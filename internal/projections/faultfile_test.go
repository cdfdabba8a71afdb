package projections

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"jobtally/internal/events"
)

// The file is lost, damaged or replaced between two processes, or the ledger behind it lost its end. Where the file is of
// a prefix of the ledger, or none, the next process goes on by itself; else it refuses, writes nothing, and goes on once
// what it says is done. Either way the ledger and what is acknowledged stay as they were.
func TestFaultsOfTheFile(t *testing.T) {
	t.Parallel()
	const size = 20
	for name, row := range map[string]struct {
		harm    func(t *testing.T, w *wreck)
		refuses string // what it says then; empty where it goes on by itself
		lost    bool   // the ledger lost the last batch: its requests are as if never asked
	}{
		"deleted":                              {func(t *testing.T, w *wreck) { w.remove(t, "", "-wal", "-shm") }, "", false},
		"deleted, but not its log":             {func(t *testing.T, w *wreck) { w.put(t, "later"); w.remove(t, "") }, "", false},
		"truncated to nothing":                 {func(t *testing.T, w *wreck) { w.truncate(t, 0) }, "", false},
		"truncated to nothing, not so its log": {func(t *testing.T, w *wreck) { w.put(t, "later"); w.truncate(t, 0) }, "", false},
		"truncated to half":                    {func(t *testing.T, w *wreck) { w.truncate(t, w.size(t)/2) }, "is damaged", false},
		"truncated by a page":                  {func(t *testing.T, w *wreck) { w.truncate(t, w.size(t)-4096) }, "is damaged", false},
		"truncated to its first page":          {func(t *testing.T, w *wreck) { w.truncate(t, 4096) }, "is damaged", false},
		"without the end of its log":           {func(t *testing.T, w *wreck) { w.put(t, "later"); w.halveLog(t) }, "", false},
		"older than the ledger":                {func(t *testing.T, w *wreck) { w.put(t, "closed") }, "", false},
		"older than the ledger, with its log":  {func(t *testing.T, w *wreck) { w.put(t, "earlier") }, "", false},
		"newer than the decisions": {func(t *testing.T, w *wreck) {
			w.keep(t, events.Heads{Requests: 1 + 2*size, Decisions: 1 + size/2})
		}, "", false},
		"newer than all decisions": {func(t *testing.T, w *wreck) {
			w.keep(t, events.Heads{Requests: 1 + 2*size})
		}, "", false},
		"newer than the requests": {func(t *testing.T, w *wreck) {
			w.keep(t, events.Heads{Requests: 1 + size, Decisions: 1 + size})
		}, "is folded up to 41, but has requests only up to 21", true},
		"newer than the requests, and the decisions behind these": {func(t *testing.T, w *wreck) {
			w.keep(t, events.Heads{Requests: 1 + size, Decisions: 1 + size/2})
		}, "is folded up to 41, but has requests only up to 21", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, w := newWreck(t, size)
			row.harm(t, w)

			s := startLedger(t, c.dir)
			if row.refuses != "" {
				followRemedy(t, s.wantRefused(t, row.refuses), s.rebuild(nil))
			}
			if row.lost {
				c.forget(s.found.Requests)
			}
			s.stop(t)

			s = startService(t, c.dir, nil)
			c.audit(t, s, s.found)
			s.run(t)
			await(t, s.db, events.Position{Sequence: s.found.Requests})
			c.audit(t, s, s.heads(t))
			if _, digest := s.db.Digest(0); !row.lost && digest != w.digest {
				t.Fatalf("digest %s, was %s", digest, w.digest)
			}
			c.askForAll(t, s)
			c.auditAll(t, s)
			s.stop(t)
			c.auditAll(t, startService(t, c.dir, nil))
		})
	}
}

// wreck is a data directory that two processes worked in, each for a batch, with copies of its projection.
type wreck struct {
	dir, path string
	digest    events.Digest // at the end
}

// newWreck has copies of the projection: earlier, with its log, as a process would leave it that was killed after the
// first batch; closed, as the first process left it; and later, with its log, from the end of the second.
func newWreck(t *testing.T, size int) (*clients, *wreck) {
	t.Helper()
	c := newClients(t, 2, size)
	s := startService(t, c.dir, nil)
	w := &wreck{dir: c.dir, path: s.path("projection")}
	s.run(t)
	await(t, s.db, s.append(t, c.account, "open", openWith(int64(len(c.postings)))))
	c.ask(t, s, 0)
	w.copy(t, "earlier", "", "-wal")
	s.stop(t)
	w.copy(t, "closed", "")

	s = startService(t, c.dir, nil)
	s.run(t)
	c.ask(t, s, 1)
	w.copy(t, "later", "", "-wal")
	c.auditAll(t, s)
	_, w.digest = s.db.Digest(0)
	s.stop(t)
	return c, w
}

func (w *wreck) copy(t *testing.T, name string, suffixes ...string) {
	t.Helper()
	for _, suffix := range suffixes {
		copyFile(t, w.path+"."+name+suffix, w.path+suffix)
	}
}

// put puts a copy in the place of the projection.
func (w *wreck) put(t *testing.T, name string) {
	t.Helper()
	w.remove(t, "", "-wal", "-shm")
	for _, suffix := range []string{"", "-wal"} {
		if _, err := os.Stat(w.path + "." + name + suffix); err == nil {
			copyFile(t, w.path+suffix, w.path+"."+name+suffix)
		}
	}
}

func (w *wreck) remove(t *testing.T, suffixes ...string) {
	t.Helper()
	for _, suffix := range suffixes {
		if err := os.Remove(w.path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

func (w *wreck) size(t *testing.T) int64 {
	t.Helper()
	return must[fs.FileInfo](t)(os.Stat(w.path)).Size()
}

func (w *wreck) truncate(t *testing.T, size int64) {
	t.Helper()
	ok(t, os.Truncate(w.path, size))
}

func (w *wreck) halveLog(t *testing.T) {
	t.Helper()
	ok(t, os.Truncate(w.path+"-wal", must[fs.FileInfo](t)(os.Stat(w.path+"-wal")).Size()/2))
}

// keep leaves the ledger no more than its first messages.
func (w *wreck) keep(t *testing.T, heads events.Heads) {
	t.Helper()
	s := startLedger(t, w.dir)
	defer s.stop(t)
	s.house.keep(t, events.Decisions, heads.Decisions)
	if heads.Requests < s.found.Requests {
		s.house.keep(t, events.Requests, heads.Requests)
	}
}

// wantRefused returns the error with which the projection is refused, at the latest by the projector, and sees to it that
// nothing was written.
func (s *service) wantRefused(t *testing.T, says string) error {
	t.Helper()
	path := s.path("projection")
	before := string(must[[]byte](t)(os.ReadFile(path)))
	db, err := Open(path, s.ID, 1)
	if err == nil {
		err = errors.Join(NewProjector(db, s.house.seam(), 0, true, quiet()).Run(within(t)), db.Close())
	}
	wantErr(t, err, ErrMismatch)
	if !strings.Contains(err.Error(), says) {
		t.Fatalf("error %q does not say %q", err, says)
	}
	if heads := s.heads(t); heads != s.found {
		t.Fatalf("heads %+v, were %+v", heads, s.found)
	}
	if after := string(must[[]byte](t)(os.ReadFile(path))); after != before {
		t.Fatal("the file was written to")
	}
	return err
}

// followRemedy does as an error says: it removes the file, or folds it anew.
func followRemedy(t *testing.T, err error, r Rebuild) {
	t.Helper()
	if strings.Contains(err.Error(), "`projector rebuild --data "+filepath.Dir(r.Path)+"`") {
		must[Made](t)(r.Make(within(t)))
		if done := must[Installed](t)(r.Install(within(t))); done.Uncompared == "" {
			t.Fatalf("digests were equal at %v with a file that was refused with %q", done.Equal, err)
		}
		return
	}
	command := regexp.MustCompile("`(rm .*)`").FindStringSubmatch(err.Error())
	if command == nil {
		t.Fatalf("error %q has no remedy", err)
	}
	if out, err := exec.Command("sh", "-c", command[1]).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", command[1], err, out)
	}
}

// forget drops what was acknowledged beyond the end of the ledger, which lost it.
func (c *clients) forget(last uint64) {
	for posting, a := range c.acknowledged {
		if a.position.Sequence > last {
			delete(c.acknowledged, posting)
		}
	}
}
