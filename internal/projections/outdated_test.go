package projections

import (
	"errors"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"context"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// A projection that an older jobtally wrote is read where it can be, and nowhere else, until one of this version comes in
// its place; reads never go back on the way.
func TestOutdatedProjectionIsReadUntilItIsReplaced(t *testing.T) {
	t.Parallel()
	c, s := newTracker(t, 1, 20)
	job := must[events.Decision](t)(s.db.Decision(within(t), events.Position{Sequence: 5})).Body.(*events.JobCaptured).JobID
	heads := s.heads(t)
	s.stop(t)
	path := s.path("projection")
	editFile(t, path, "PRAGMA user_version = -1; DROP TABLE jobs; ALTER TABLE tokens RENAME TO keys")

	s = startLedger(t, c.dir)
	_, err := Open(path, s.ID, 1)
	var version *VersionError
	if !errors.As(err, &version) || version.Newer() || !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), "`projector rebuild --data "+s.dir+"`") {
		t.Fatalf("opened with %v", err)
	}
	db := must[*DB](t)(OpenOutdated(path, s.ID, 1))
	t.Cleanup(func() { db.Close() })
	if !db.Outdated() || db.Folded(0) != heads.Decisions {
		t.Fatalf("outdated %t, folded up to %d of %d", db.Outdated(), db.Folded(0), heads.Decisions)
	}
	quota := must[capture.Quota](t)(db.Quota(within(t), c.account, november))
	if quota.Used != 20 {
		t.Errorf("quota %+v", quota)
	}
	_, err = db.Job(within(t), c.account, job)
	wantErr(t, err, events.ErrUnavailable)
	_, err = db.Tokens(within(t), "t1")
	wantErr(t, err, events.ErrUnavailable)
	wantErr(t, db.apply(0, captures(t, 1)), events.ErrUnavailable)
	_, _, err = db.Load(0, nil)
	wantErr(t, err, events.ErrUnavailable)

	t.Log("one that is not as far is not put in its place")
	waiting, replaced := make(chan error, 1), db.Replaced()
	later := s.append(t, c.account, "later", captureOf(november, "https://example.com/later"))
	go func() { _, err := db.Await(within(t), later); waiting <- err }()
	r := s.rebuild(nil)
	short := r
	short.Ledger.Heads = func(context.Context, int) (events.Heads, error) {
		return events.Heads{Requests: 10, Decisions: 10}, nil
	}
	must[Made](t)(short.Make(within(t)))
	_, err = r.Adopt(within(t), db)
	wantErr(t, err, errBehind)
	if !db.Outdated() || must[capture.Quota](t)(db.Quota(within(t), c.account, november)) != quota {
		t.Error("it does not serve on")
	}

	t.Log("one that is further is, and who waits for what is folded there is answered")
	decider := s.house.open(t, "decider")
	run(t, decider, s.house.seam(), true)
	await(t, decider, later)
	made := must[Made](t)(r.Make(within(t)))
	if made.Resumed != 10 || made.Decisions != later.Sequence {
		t.Errorf("made %+v", made)
	}
	must[[]events.Position](t)(r.Adopt(within(t), db))
	<-replaced
	ok(t, <-waiting)
	if db.Outdated() || db.Folded(0) != later.Sequence {
		t.Errorf("outdated %t, folded up to %d", db.Outdated(), db.Folded(0))
	}
	must[capture.StoredJob](t)(db.Job(within(t), c.account, job))
	if q := must[capture.Quota](t)(db.Quota(within(t), c.account, november)); q.Used != 20 { // the limit
		t.Errorf("quota %+v", q)
	}
	wantSame(t, db, decider)
}

// Of what cannot be told how far it is folded nothing is taken for folded, and what a file is of must be told.
func TestOutdatedProjectionThatTellsLittle(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "projection.db")
	db := openDB(t, path)
	ok(t, db.Apply(0, history(t)))
	ok(t, db.Close())
	editFile(t, path, "DROP TABLE partitions")
	outdated := must[*DB](t)(OpenOutdated(path, "the-ledger", 1))
	if outdated.Folded(0) != 0 {
		t.Errorf("folded up to %d", outdated.Folded(0))
	}
	ok(t, outdated.Close())
	_, err := OpenOutdated(path, "another", 1)
	wantErr(t, err, errOtherLedger)
	editFile(t, path, "DROP TABLE ledger")
	if _, err := OpenOutdated(path, "the-ledger", 1); err == nil {
		t.Error("opened without knowing of which ledger it is")
	}
}

func TestBackupIsAPrefixToStartFrom(t *testing.T) {
	t.Parallel()
	c, s := newTracker(t, 2, 20)
	to := filepath.Join(t.TempDir(), "copy.db")
	at, digest := s.db.Digest(0)
	folded := must[[]FoldedTo](t)(Backup(within(t), s.db.path, s.ID, to))
	if len(folded) != 1 || folded[0].Sequence != at || folded[0].Digest != digest {
		t.Errorf("the copy is at %+v, want %d with %s", folded, at, digest)
	}
	if info, err := os.Stat(to); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	c.ask(t, s, 1)
	heads := s.heads(t)

	copyFile(t, s.path("replica"), to)
	replica, seam := s.house.open(t, "replica"), s.house.seam()
	var read uint64
	seam.Read = func(ctx context.Context, stream events.Stream, partition int, after uint64) iter.Seq2[[]events.Message, error] {
		return func(yield func([]events.Message, error) bool) {
			for batch, err := range s.Read(ctx, stream, partition, after) {
				if read += uint64(len(batch)); !yield(batch, err) {
					return
				}
			}
		}
	}
	ok(t, NewProjector(replica, seam, 0, false, quiet()).foldTo(within(t), heads.Decisions))
	if read != heads.Decisions-at {
		t.Errorf("%d decisions were read, want the rest, %d", read, heads.Decisions-at)
	}
	wantSame(t, s.db, replica)

	t.Log("what is there is never overwritten")
	_, err := Backup(within(t), s.db.path, "", to)
	wantErr(t, err, os.ErrExist)
	_, err = Backup(within(t), s.db.path, "another", to+".other")
	wantErr(t, err, ErrMismatch)
	_, err = Backup(within(t), s.path("nothing"), "", to+".other")
	wantErr(t, err, os.ErrNotExist)
	if left := must[[]string](t)(filepath.Glob(to + "*")); len(left) != 1 {
		t.Errorf("there are %q", left)
	}
}

// A file of version 2, whose jobs had no versions and which had no word index, tells quotas, and is ready for no question that
// it has no answer to.
func TestAFileOfVersion2TellsWhatItCan(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "projection.db")
	db := openDB(t, path)
	ok(t, db.Apply(0, history(t)))
	ok(t, db.Close())
	editFile(t, path, `PRAGMA user_version = 2; DROP TABLE chunks; DROP TABLE words; DROP TABLE jobs;
		CREATE TABLE jobs (account TEXT NOT NULL, id TEXT NOT NULL, url_key BLOB NOT NULL, month TEXT NOT NULL, partition INTEGER NOT NULL,
			sequence INTEGER NOT NULL, PRIMARY KEY (account, id)) STRICT, WITHOUT ROWID;
		DROP TABLE tokens;
		CREATE TABLE tokens (id TEXT NOT NULL, account TEXT NOT NULL, secret_hash BLOB NOT NULL, admin INTEGER NOT NULL, revoked INTEGER NOT NULL,
			PRIMARY KEY (id, account)) STRICT, WITHOUT ROWID;
		ALTER TABLE accounts DROP COLUMN opened; ALTER TABLE accounts DROP COLUMN planned; ALTER TABLE accounts DROP COLUMN indexed;
		ALTER TABLE accounts DROP COLUMN loose`)
	_, err := Open(path, "the-ledger", 1)
	var version *VersionError
	if !errors.As(err, &version) || version.Newer() || version.Version != 2 {
		t.Fatalf("opened with %v", err)
	}
	outdated := must[*DB](t)(OpenOutdated(path, "the-ledger", 1))
	defer outdated.Close()
	if q := must[capture.Quota](t)(outdated.Quota(within(t), "demo", november)); q.Used != 20 {
		t.Errorf("quota %+v", q)
	}
	ctx := within(t)
	for name, read := range map[string]func() error{
		"Job":  func() error { _, err := outdated.Job(ctx, "demo", "x"); return err },
		"Jobs": func() error { _, err := outdated.Jobs(ctx, "demo", capture.JobQuery{Limit: 1}); return err },
		"search": func() error {
			_, err := outdated.Jobs(ctx, "demo", capture.JobQuery{Limit: 1, Text: "x", Updated: true})
			return err
		},
		"Lookup":   func() error { _, err := outdated.Lookup(ctx, "demo", []string{"x"}); return err },
		"Account":  func() error { _, err := outdated.Account(ctx, "demo"); return err },
		"Accounts": func() error { _, err := outdated.Accounts(ctx, "", 1); return err },
		"Tokens":   func() error { _, err := outdated.Tokens(ctx, "t1"); return err },
		"TokensOf": func() error { _, err := outdated.TokensOf(ctx, "demo", "", 1); return err },
		"Try": func() error {
			_, err := outdated.Try(ctx, []*events.Request{request("demo", "x", captureOf(november, "https://example.com/x"))})
			return err
		},
	} {
		if err := read(); !errors.Is(err, events.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
