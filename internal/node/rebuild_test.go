package node_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
	"jobtally/internal/node"
	"jobtally/internal/projections"
)

func rebuild(t *testing.T, cfg node.Config) (node.Rebuilt, error) {
	t.Helper()
	cfg.Log = slog.New(slog.DiscardHandler)
	return node.Rebuild(within(t), cfg, func(uint64, uint64) {})
}

func mustRebuild(t *testing.T, cfg node.Config) node.Rebuilt {
	t.Helper()
	done, err := rebuild(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// The projection of a node is folded anew and put in its place while the node works, with its ledger in the same process
// or on another server, whether it decides or follows, and when it is stopped.
func TestRebuildBesideANode(t *testing.T) {
	e := serve(t, 4)
	dirs := map[string]string{"embedded": t.TempDir(), "decider": t.TempDir(), "follower": t.TempDir()}
	nodes := map[string]running{
		"embedded": start(t, node.Config{Dir: dirs["embedded"], Decides: true, Partitions: 2}),
		"decider":  start(t, node.Config{Dir: dirs["decider"], NATS: e.url, Decides: true}),
		"follower": start(t, node.Config{Dir: dirs["follower"], NATS: e.url}),
	}
	for _, name := range []string{"embedded", "follower", "decider"} {
		n := nodes[name]
		l := load{accounts: openAll(t, n, -1, name+"-anna", name+"-bob", name+"-carl"), each: 200}
		cfg := node.Config{Dir: dirs[name]}
		if name != "embedded" {
			cfg.NATS = e.url
		}
		asking := l.run(within(t), t, n)
		for range 2 {
			if done := mustRebuild(t, cfg); !done.Running || len(done.Equal) == 0 || done.Uncompared != "" {
				t.Errorf("%s: %+v", name, done)
			}
		}
		l.finish(t, asking, n)
		if l.refused.Load() > 0 {
			t.Errorf("%s: %d captures were refused", name, l.refused.Load())
		}
		stop(t, n)
		if done := mustRebuild(t, cfg); done.Running || len(done.Equal) == 0 {
			t.Errorf("%s, stopped: %+v", name, done)
		}
	}
	converge(t, start(t, node.Config{Dir: dirs["embedded"], Decides: true}))
	converge(t, start(t, node.Config{Dir: dirs["decider"], NATS: e.url, Decides: true}), start(t, node.Config{Dir: dirs["follower"], NATS: e.url}))
}

func change(t *testing.T, dir, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite3", filepath.Join(dir, node.ProjectionFile))
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Exec(statement)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// A node that holds another digest than the ledger's says so and serves on.
func TestRebuildIsRefusedByTheNode(t *testing.T) {
	dir := t.TempDir()
	n := start(t, node.Config{Dir: dir, Decides: true})
	open(t, n.Node, "anna", 10)
	stop(t, n)
	change(t, dir, "UPDATE partitions SET digest = zeroblob(32)")
	n = start(t, node.Config{Dir: dir, Decides: true})
	_, err := rebuild(t, node.Config{Dir: dir})
	if !errors.Is(err, node.ErrRefused) || !errors.Is(err, projections.ErrDiffers) || !strings.Contains(err.Error(), "projector audit") {
		t.Errorf("%v, want ErrRefused and ErrDiffers", err)
	}
	mustAsk(t, n.Node, capturing("anna", "1", "https://x.com/1"))
	if got := used(t, n.Node, "anna"); got != 1 {
		t.Errorf("used %d", got)
	}
}

// hold keeps anybody from folding anew, as a command does that is at it.
func hold(t *testing.T, dir string) (release func()) {
	t.Helper()
	f, err := os.OpenFile(projections.PartialPath(filepath.Join(dir, node.ProjectionFile)), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	release = func() { once.Do(func() { f.Close() }) }
	t.Cleanup(release)
	return release
}

// TestAnotherVersionIsFoldedAnewAtStart starts a node on what another version left. It answers reads from there, where that
// can be, and takes captures once the ledger is folded anew.
func TestAnotherVersionIsFoldedAnewAtStart(t *testing.T) {
	for name, row := range map[string]struct {
		statement string
		reads     bool // the quota can be read meanwhile
	}{
		"readable":     {"PRAGMA user_version = -1; DROP TABLE jobs", true},
		"no quota":     {"PRAGMA user_version = -1; ALTER TABLE months RENAME TO usage", false},
		"no positions": {"PRAGMA user_version = -1; DROP TABLE partitions", false},
		"no decisions": {"PRAGMA user_version = -1; DROP TABLE decisions", true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			n := start(t, node.Config{Dir: dir, Decides: true})
			open(t, n.Node, "anna", -1)
			for i := range 3 {
				mustAsk(t, n.Node, capturing("anna", fmt.Sprint(i), fmt.Sprint("https://x.com/", i)))
			}
			stop(t, n)
			change(t, dir, row.statement)

			release := hold(t, dir)
			n = start(t, node.Config{Dir: dir, Decides: true})
			if !n.Projection.Outdated() {
				t.Fatal("it is not outdated")
			}
			replaced := n.Projection.Replaced()
			if _, err := n.Append(t.Context(), capturing("anna", "new", "https://x.com/new")); !errors.Is(err, events.ErrUnavailable) {
				t.Errorf("a capture: %v, want ErrUnavailable", err)
			}
			if err := n.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "schema version -1") {
				t.Errorf("ready: %v", err)
			}
			if q, err := n.Projection.Quota(t.Context(), "anna", month); row.reads {
				if err := n.AwaitCaughtUp(within(t)); err != nil {
					t.Errorf("it has all that was told, and does not answer: %v", err)
				}
				if err != nil || q.Used != 3 {
					t.Errorf("quota %+v, %v", q, err)
				}
			} else if n.CaughtUp() && !errors.Is(err, events.ErrUnavailable) {
				t.Errorf("quota %+v, %v", q, err)
			}
			release()
			<-replaced
			if err := n.AwaitCaughtUp(within(t)); err != nil {
				t.Fatal(err)
			}
			mustAsk(t, n.Node, capturing("anna", "new", "https://x.com/new"))
			if got := used(t, n.Node, "anna"); got != 4 {
				t.Errorf("used %d", got)
			}
			if err := n.Ready(t.Context()); err != nil {
				t.Error(err)
			}
			converge(t, n)
			stop(t, n)
			n = start(t, node.Config{Dir: dir, Decides: true})
			if n.Projection.Outdated() || n.Projection.Folded(0) != 5 {
				t.Errorf("started again: outdated %t, folded up to %d", n.Projection.Outdated(), n.Projection.Folded(0))
			}
		})
	}
}

// A node that has not folded all that it may have told answers nothing from the file of another version.
func TestAnotherVersionThatIsBehindIsNotRead(t *testing.T) {
	dir := t.TempDir()
	n := start(t, node.Config{Dir: dir, Decides: true})
	open(t, n.Node, "anna", -1)
	stop(t, n)
	old := filepath.Join(dir, node.ProjectionFile)
	kept, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	n = start(t, node.Config{Dir: dir, Decides: true})
	mustAsk(t, n.Node, capturing("anna", "1", "https://x.com/1"))
	stop(t, n)
	if err := os.WriteFile(old, kept, 0o600); err != nil {
		t.Fatal(err)
	}
	change(t, dir, "PRAGMA user_version = -1")

	release := hold(t, dir)
	n = start(t, node.Config{Dir: dir, Decides: true})
	if n.CaughtUp() {
		t.Error("it answers from before what was told")
	}
	release()
	if err := n.AwaitCaughtUp(within(t)); err != nil {
		t.Fatal(err)
	}
	if got := used(t, n.Node, "anna"); got != 1 {
		t.Errorf("used %d", got)
	}
}

// The ledger lost decisions that were told. They are in the rows of another version: appended again from there where those
// can be read, and else decided again, while nothing older is answered.
func TestAnotherVersionIsAheadOfTheDecisions(t *testing.T) {
	for name, statement := range map[string]string{
		"and has them":     "PRAGMA user_version = -1",
		"and has them not": "PRAGMA user_version = -1; DROP TABLE decisions",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			n := start(t, node.Config{Dir: dir, Decides: true})
			open(t, n.Node, "anna", -1)
			told := mustAsk(t, n.Node, capturing("anna", "1", "https://x.com/1"))
			stop(t, n)
			n = start(t, node.Config{Dir: dir}) // which decides nothing
			loseDecisions(t, dir)
			stop(t, n)
			change(t, dir, statement)

			release := hold(t, dir)
			n = start(t, node.Config{Dir: dir, Decides: true})
			restored, _ := n.log.find("appended lost decisions again")
			if _, err := n.Projection.Quota(t.Context(), "anna", month); (err == nil) != (len(restored) > 0) {
				t.Errorf("it appended %q, and a read says %v", restored, err)
			}
			release()
			if err := n.AwaitCaughtUp(within(t)); err != nil {
				t.Fatal(err)
			}
			if again, err := n.Projection.Await(within(t), told.Position); err != nil || again.Digest != told.Digest {
				t.Errorf("%s was told, and now it is %s, %v", told.Digest, again.Digest, err)
			}
		})
	}
}

// loseDecisions makes the stream of decisions of a running node anew, without any.
func loseDecisions(t *testing.T, dir string) {
	t.Helper()
	js, err := jetstream.New(behind(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(within(t), "DECISIONS_0")
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(within(t), "DECISIONS_0"); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(within(t), stream.CachedInfo().Config); err != nil {
		t.Fatal(err)
	}
}

// An operator's command on a directory of another version folds it anew first; what is told to stop goes on the next time.
func TestOperatorFoldsAnotherVersionAnew(t *testing.T) {
	dir := t.TempDir()
	stop(t, start(t, node.Config{Dir: dir, Decides: true}))
	change(t, dir, "PRAGMA user_version = -1")
	release := hold(t, dir)
	ctx, cancel := context.WithCancel(within(t))
	cancel()
	if _, err := node.Dial(ctx, config(dir, "")); err == nil {
		t.Error("dialled although it was told to stop")
	}
	release()
	o, err := node.Dial(within(t), config(dir, ""))
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if _, err := o.Decide(within(t), request("anna", "open", &events.AccountOpenRequested{Plan: "test", Limit: 3})); err != nil {
		t.Error(err)
	}
}

func TestNewerVersionIsRefused(t *testing.T) {
	dir := t.TempDir()
	stop(t, start(t, node.Config{Dir: dir, Decides: true}))
	change(t, dir, "PRAGMA user_version = 99")
	cfg := node.Config{Dir: dir, Decides: true, Log: slog.New(slog.DiscardHandler)}
	_, err := node.Start(within(t), cfg)
	if !errors.Is(err, projections.ErrMismatch) || !strings.Contains(err.Error(), "run the newer jobtally") || !strings.Contains(err.Error(), "`projector rebuild --data "+dir+"`") {
		t.Errorf("started: %v", err)
	}
	if done := mustRebuild(t, node.Config{Dir: dir}); !strings.Contains(done.Uncompared, "schema version 99") {
		t.Errorf("%+v", done)
	}
	start(t, node.Config{Dir: dir, Decides: true})
}
