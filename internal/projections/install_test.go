package projections

import (
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"jobtally/internal/events"
)

// Where no process serves, the projection is replaced when it is the same, or when it cannot be read at all: then it is
// told why nothing was compared. Else it stays.
func TestInstall(t *testing.T) {
	t.Parallel()
	const head = 21
	for name, row := range map[string]struct {
		harm       func(t *testing.T, s *service, path string) // the service is stopped, but for the ledger
		uncompared string                                      // what is told then
		want       error                                       // or why it stays
		says       string
	}{
		"the same": {harm: func(*testing.T, *service, string) {}},
		"older, and folded as far first": {harm: func(t *testing.T, s *service, path string) {
			ok(t, discard(path))
			db := s.house.open(t, "projection")
			ok(t, s.rebuild(nil).projector(db, 0).foldTo(within(t), 7))
			ok(t, db.Close())
		}},
		"left with its log": {harm: func(t *testing.T, s *service, path string) {
			ok(t, discard(path))
			db := must[*DB](t)(Open(s.path("other"), s.ID, 1))
			ok(t, s.rebuild(nil).projector(db, 0).foldTo(within(t), head))
			copyFile(t, path, db.path)
			copyFile(t, path+"-wal", db.path+"-wal")
			ok(t, db.Close())
		}},
		"absent": {harm: func(t *testing.T, s *service, path string) { ok(t, discard(path)) }, uncompared: "there was no "},
		"damaged": {harm: func(t *testing.T, s *service, path string) {
			ok(t, os.Truncate(path, must[fs.FileInfo](t)(os.Stat(path)).Size()/2))
		}, uncompared: "is damaged"},
		"no database": {harm: func(t *testing.T, s *service, path string) {
			ok(t, os.WriteFile(path, []byte(strings.Repeat("no database ", 1000)), 0o600))
		}, uncompared: "is damaged"},
		"with a count of its own": {harm: func(t *testing.T, s *service, path string) {
			editFile(t, path, "UPDATE months SET used = 3")
			decider := s.house.open(t, "decider")
			run(t, decider, s.house.seam(), true)
			await(t, decider, s.append(t, "demo", "other", captureOf(december, "https://example.com/0")))
			await(t, decider, s.append(t, "demo", "more", captureOf(november, "https://example.com/more")))
		}, uncompared: "the decision says"},
		"of an older version": {harm: func(t *testing.T, s *service, path string) {
			editFile(t, path, "PRAGMA user_version = -1; DROP TABLE jobs")
		}, uncompared: "had schema version -1"},
		"of a newer version": {harm: func(t *testing.T, s *service, path string) {
			editFile(t, path, "PRAGMA user_version = 99")
		}, uncompared: "had schema version 99"},
		"of another ledger": {harm: func(t *testing.T, s *service, path string) {
			editFile(t, path, "UPDATE ledger SET id = 'x'")
		}, want: errOtherLedger, says: "is of ledger x"},
		"of another ledger and version": {harm: func(t *testing.T, s *service, path string) {
			editFile(t, path, "UPDATE ledger SET id = 'x'; PRAGMA user_version = 99")
		}, want: errOtherLedger, says: "is of ledger x"},
		"of another version, ahead of the decisions": {harm: func(t *testing.T, s *service, path string) {
			editFile(t, path, "PRAGMA user_version = -1")
			s.house.keep(t, events.Decisions, head-3)
		}, want: ErrAhead, says: "start jobtally once"},
		"with another digest": {harm: func(t *testing.T, s *service, path string) {
			editFile(t, path, "UPDATE partitions SET digest = zeroblob(32)")
		}, want: ErrDiffers, says: "`projector audit --data "},
		"with another decision": {harm: func(t *testing.T, s *service, path string) {
			editFile(t, path, "UPDATE decisions SET digest = zeroblob(32)")
		}, want: ErrDiffers, says: "is another one than was folded"},
		"ahead of the decisions": {harm: func(t *testing.T, s *service, path string) {
			s.house.keep(t, events.Decisions, head-3)
		}, want: ErrAhead, says: "start jobtally once"},
		"ahead of the requests": {harm: func(t *testing.T, s *service, path string) {
			s.house.keep(t, events.Decisions, head-3)
			s.house.keep(t, events.Requests, head-3)
		}, want: ErrDiffers, says: "has requests only up to"},
		"open elsewhere": {harm: func(t *testing.T, s *service, path string) {
			other := must[*sql.DB](t)(sql.Open("sqlite3", dsn(path, "mode=ro")))
			t.Cleanup(func() { other.Close() })
			var n int
			ok(t, other.QueryRow("SELECT count(*) FROM jobs").Scan(&n))
		}, want: errInUse, says: "another process"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, s := newTracker(t, 1, head-1)
			s.projector.stop(t)
			ok(t, s.db.shut())
			path := s.db.path
			row.harm(t, s, path)
			before, absent := os.Stat(path)

			r := s.rebuild(nil)
			must[Made](t)(r.Make(within(t)))
			done, err := r.Install(within(t))

			if row.want != nil {
				wantErr(t, err, row.want)
				if !strings.Contains(err.Error(), row.says) {
					t.Errorf("error %q does not say %q", err, row.says)
				}
				if exists(NextPath(path)) || !os.SameFile(before, must[fs.FileInfo](t)(os.Stat(path))) {
					t.Error("something was put in its place, or waits")
				}
				if row.want != errInUse && row.want != ErrDiffers {
					if examined := r.Examine(within(t)); !errors.Is(examined, row.want) {
						t.Errorf("known only at the end: %v", examined)
					}
				}
				return
			}
			ok(t, err)
			if (done.Uncompared == "") != (row.uncompared == "") || !strings.Contains(done.Uncompared, row.uncompared) || (len(done.Equal) == 1) != (row.uncompared == "") {
				t.Errorf("installed %+v", done)
			}
			if absent == nil && os.SameFile(before, must[fs.FileInfo](t)(os.Stat(path))) {
				t.Error("the file is the one that was there")
			}
			s.auditRebuilt(t)
			again := startServiceOn(t, s)
			c.audit(t, again, again.heads(t))
		})
	}
}

// startServiceOn opens the projection of a service whose ledger still runs.
func startServiceOn(t *testing.T, s *service) *service {
	t.Helper()
	again := *s
	again.db = s.house.open(t, "projection")
	again.closers = nil
	return &again
}

// What a process made and did not put in place is gone on with.
func TestInstallTakesBackWhatWasLeft(t *testing.T) {
	t.Parallel()
	_, s := newTracker(t, 1, 20)
	s.projector.stop(t)
	ok(t, s.db.shut())
	r := s.rebuild(nil)
	made := must[Made](t)(r.Make(within(t)))
	ok(t, r.TakeBack())
	again := must[Made](t)(r.Make(within(t)))
	if again.Resumed != made.Decisions || !os.SameFile(made.Info, again.Info) {
		t.Errorf("made %+v, and then %+v", made, again)
	}
	if done := must[Installed](t)(r.Install(within(t))); len(done.Equal) != 1 {
		t.Errorf("installed %+v", done)
	}
}
