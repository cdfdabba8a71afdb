package projections

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"jobtally/internal/events"
)

// rebuild folds the ledger of a service anew, with a function that is called between the steps.
func (s *service) rebuild(step func(string)) Rebuild {
	r := Rebuild{Path: s.path("projection"), LedgerID: s.ID, Ledger: s.house.seam(), step: step}
	r.Ledger.Read = inTens(r.Ledger.Read)
	return r
}

// inTens yields what is read in batches of at most ten, so that there are some to stop between.
func inTens(read readMessages) readMessages {
	return func(ctx context.Context, stream events.Stream, partition int, after uint64) iter.Seq2[[]events.Message, error] {
		return func(yield func([]events.Message, error) bool) {
			for batch, err := range read(ctx, stream, partition, after) {
				for len(batch) > 10 {
					if !yield(batch[:10], nil) {
						return
					}
					batch = batch[10:]
				}
				if !yield(batch, err) {
					return
				}
			}
		}
	}
}

// auditRebuilt is the audit that an operator runs.
func (s *service) auditRebuilt(t *testing.T) {
	t.Helper()
	found, summary := s.findings(t, func(a *Audit) { a.Projection = s.path("projection") })
	wantFindings(t, found)
	if summary.RowsSkipped != "" {
		t.Error(summary.RowsSkipped)
	}
}

// rebuildOf folds decisions that are in no ledger.
func rebuildOf(path string, decisions []events.Decision) Rebuild {
	head := uint64(len(decisions))
	recorded := messages(decisions)
	for i := range recorded {
		recorded[i].Sequence = uint64(i + 1)
	}
	return Rebuild{Path: path, LedgerID: "the-ledger", Ledger: Ledger{
		Partitions: 1,
		Heads: func(context.Context, int) (events.Heads, error) {
			return events.Heads{Requests: head, Decisions: head}, nil
		},
		Get: func(_ context.Context, _ events.Stream, p events.Position) (events.Message, error) {
			return recorded[p.Sequence-1], nil
		},
		Erasures: func(context.Context, int, uint64) ([]events.Decision, error) { return nil, nil },
		Read: func(_ context.Context, _ events.Stream, _ int, after uint64) iter.Seq2[[]events.Message, error] {
			return func(yield func([]events.Message, error) bool) { yield(slices.Clone(recorded[after:]), nil) }
		},
	}}
}

// adopt makes the projection anew and has it put in the place of the one that serves.
func (s *service) adopt(t *testing.T) ([]events.Position, error) {
	t.Helper()
	r := s.rebuild(nil)
	must[Made](t)(r.Make(within(t)))
	return r.Adopt(within(t), s.db)
}

// newTracker is a service with one batch captured.
func newTracker(t *testing.T, batches, size int) (*clients, *service) {
	t.Helper()
	c := newClients(t, batches, size)
	s := startService(t, c.dir, nil)
	s.run(t)
	await(t, s.db, s.append(t, c.account, "open", openWith(int64(len(c.postings)))))
	c.ask(t, s, 0)
	return c, s
}

// While the ledger is folded anew, and at the moment of the change, captures and reads go on: none fails, and none goes
// back. What serves then is what served before.
func TestRebuildUnderLoad(t *testing.T) {
	t.Parallel()
	const rounds = 5
	c, s := newTracker(t, 40, 25)
	stop, reading := make(chan struct{}), sync.WaitGroup{}
	first := c.acknowledged[c.postings[0]].position
	failures, pauses := make(chan error, 4), make(chan time.Duration, 4)
	for range cap(failures) {
		reading.Go(func() {
			longest, err := readOn(s.db, c.account, first, stop)
			failures <- err
			pauses <- longest
		})
	}
	reading.Go(func() {
		for batch := 1; batch < 40; batch++ {
			c.ask(t, s, batch)
		}
	})
	for range rounds {
		before := must[fs.FileInfo](t)(os.Stat(s.db.path))
		if equal := must[[]events.Position](t)(s.adopt(t)); len(equal) != 1 {
			t.Errorf("digests were equal at %v", equal)
		}
		if os.SameFile(before, must[fs.FileInfo](t)(os.Stat(s.db.path))) {
			t.Error("the file is the one that was there")
		}
	}
	close(stop)
	reading.Wait()
	for range cap(failures) {
		ok(t, <-failures)
		t.Logf("longest read %s", <-pauses)
	}
	c.auditAll(t, s)
	s.auditRebuilt(t)
	if left := must[[]string](t)(filepath.Glob(filepath.Join(s.dir, "projection.*"))); len(left) != 4 {
		t.Errorf("there are %q, want the projection with its log, and the verdict", left)
	}
	s.stop(t)
	c.auditAll(t, startService(t, c.dir, nil))
}

// readOn reads until it is told to stop, and returns how long a read took at most, or what was wrong with one.
func readOn(db *DB, account string, first events.Position, stop <-chan struct{}) (longest time.Duration, err error) {
	var used int64
	ctx := context.Background()
	for {
		began := time.Now()
		q, err := db.Quota(ctx, account, november)
		if err != nil {
			return 0, err
		}
		if q.Used < used {
			return 0, fmt.Errorf("the quota went back from %d to %d", used, q.Used)
		}
		used = q.Used
		if _, err := db.Decision(ctx, first); err != nil {
			return 0, err
		}
		longest = max(longest, time.Since(began))
		select {
		case <-stop:
			return longest, nil
		default:
		}
	}
}

func TestRebuildGoesOnFromWhereItWasStopped(t *testing.T) {
	t.Parallel()
	c, s := newTracker(t, 1, 60)
	ctx, cancel := context.WithCancel(within(t))
	batches := 0
	stopped, err := s.rebuild(func(string) {
		if batches++; batches == 2 {
			cancel()
		}
	}).Make(ctx)
	wantErr(t, err, context.Canceled)
	if _, err := os.Stat(PartialPath(s.db.path) + "-wal"); stopped.Decisions == 0 || err == nil {
		t.Fatalf("stopped with %d decisions folded, %v", stopped.Decisions, err)
	}
	r := s.rebuild(nil)
	var told []uint64
	r.Progress = func(folded, due uint64) { told = append(told, folded, due) }
	made := must[Made](t)(r.Make(within(t)))
	if made.Resumed != stopped.Decisions || made.Discarded != "" || made.Decisions != s.heads(t).Decisions {
		t.Errorf("stopped at %d, and then made %+v", stopped.Decisions, made)
	}
	if told[0] != made.Resumed || told[len(told)-2] != made.Decisions || told[len(told)-1] != made.Decisions {
		t.Errorf("told of the progress: %v", told)
	}
	must[[]events.Position](t)(r.Adopt(within(t), s.db))
	c.auditAll(t, s)
}

// What is left of a rebuild and cannot be gone on with is no reason to fail.
func TestRebuildBeginsAnewWhereItCannotGoOn(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(t *testing.T, path string){
		"garbage": func(t *testing.T, path string) {
			ok(t, os.WriteFile(path, []byte(strings.Repeat("no database ", 1000)), 0o600))
		},
		"of another ledger": func(t *testing.T, path string) { ok(t, must[*DB](t)(Open(path, "another", 1)).Close()) },
		"of another version": func(t *testing.T, path string) {
			ok(t, must[*DB](t)(Open(path, "another", 1)).Close())
			editFile(t, path, "PRAGMA user_version = 99")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, s := newTracker(t, 1, 20)
			harm(t, PartialPath(s.db.path))
			if made := must[Made](t)(s.rebuild(nil).Make(within(t))); made.Discarded == "" || made.Resumed != 0 {
				t.Errorf("made %+v", made)
			}
			must[[]events.Position](t)(s.rebuild(nil).Adopt(within(t), s.db))
			c.auditAll(t, s)
		})
	}
}

func TestOnlyOneRebuildAtATime(t *testing.T) {
	t.Parallel()
	_, s := newTracker(t, 1, 20)
	var second error
	must[Made](t)(s.rebuild(func(step string) {
		if step == "folding" {
			_, second = s.rebuild(nil).Make(within(t))
		}
	}).Make(within(t)))
	wantErr(t, second, ErrUnderWay)
	_, err := s.rebuild(nil).Make(within(t))
	wantErr(t, err, ErrUnderWay) // for what the first made waits
	must[[]events.Position](t)(s.rebuild(nil).Adopt(within(t), s.db))
	must[Made](t)(s.rebuild(nil).Make(within(t)))
}

// A rebuild that begins between the renaming of an earlier file and its verdict does not take that for its own, nor from whom
// it is for.
func TestAVerdictIsOfOneFile(t *testing.T) {
	t.Parallel()
	_, s := newTracker(t, 1, 20)
	a, b := s.rebuild(nil), s.rebuild(nil)
	first := must[Made](t)(a.Make(within(t)))
	begun, renamed, adopted := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	s.db.step = func(step string) {
		if step == "renamed" {
			close(renamed)
			<-begun
		}
	}
	var concluded sync.Once
	b.Progress = func(uint64, uint64) {
		concluded.Do(func() {
			close(begun)
			ok(t, <-adopted)
		})
	}
	go func() {
		_, err := a.Adopt(within(t), s.db)
		adopted <- err
	}()
	<-renamed
	second := must[Made](t)(b.Make(within(t)))
	if v := must[*Verdict](t)(ReadVerdict(s.db.path, second.Info)); v != nil {
		t.Errorf("the verdict on the first is taken for that on the second: %+v", *v)
	}
	if v := must[*Verdict](t)(ReadVerdict(s.db.path, first.Info)); v == nil || len(v.Equal) != 1 {
		t.Errorf("the verdict on the first is %+v", v)
	}
	s.db.step = func(string) {}
	must[[]events.Position](t)(b.Adopt(within(t), s.db))
	if v := must[*Verdict](t)(ReadVerdict(s.db.path, second.Info)); v == nil || len(v.Equal) != 1 {
		t.Errorf("the verdict on the second is %+v", v)
	}
	must[Made](t)(s.rebuild(nil).Make(within(t)))
	if v := must[*Verdict](t)(ReadVerdict(s.db.path, second.Info)); v == nil {
		t.Error("a third took the verdict from whom it is for")
	}
}

// What was refused and is gone on with has no verdict until it is adopted again.
func TestAVerdictIsForgottenWhenItsFileIsGoneOnWith(t *testing.T) {
	t.Parallel()
	_, s := newTracker(t, 1, 20)
	r := s.rebuild(nil)
	made := must[Made](t)(r.Make(within(t)))
	ok(t, r.conclude(Verdict{File: inode(made.Info)}, nil))
	ok(t, r.putBack())
	again := must[Made](t)(r.Make(within(t)))
	if v := must[*Verdict](t)(ReadVerdict(s.db.path, again.Info)); !os.SameFile(made.Info, again.Info) || v != nil {
		t.Errorf("made %+v again, with the verdict %+v", again, v)
	}
	ok(t, os.WriteFile(verdictPath(s.db.path), nil, 0o600)) // as a power failure may leave it
	ok(t, r.putBack())
	must[Made](t)(r.Make(within(t)))
}

// edit changes a closed file.
func editFile(t *testing.T, path, statement string) {
	t.Helper()
	db := must[*sql.DB](t)(sql.Open("sqlite3", path))
	_, err := db.Exec(statement)
	ok(t, errors.Join(err, db.Close()))
}

// Nothing is put in place on a doubt, and what is refused is told: the one that was there serves on.
func TestRefusedRebuildLeavesTheProjection(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		harm func(t *testing.T, s *service) // of what was made
		want error
		says string
		kept bool // what was made, to go on with it
	}{
		"truncated": {func(t *testing.T, s *service) { ok(t, os.Truncate(NextPath(s.db.path), 3*4096)) }, ErrMismatch, "is damaged", false},
		"a page of zeros": {func(t *testing.T, s *service) {
			f := must[*os.File](t)(os.OpenFile(NextPath(s.db.path), os.O_WRONLY, 0))
			_, err := f.WriteAt(make([]byte, 4096), 5*4096)
			ok(t, errors.Join(err, f.Close()))
		}, ErrMismatch, "is damaged", false},
		"of another ledger":  {func(t *testing.T, s *service) { editFile(t, NextPath(s.db.path), "UPDATE ledger SET id = 'x'") }, errOtherLedger, "of ledger x", false},
		"of another version": {func(t *testing.T, s *service) { editFile(t, NextPath(s.db.path), "PRAGMA user_version = 99") }, ErrMismatch, "99", false},
		"another digest": {func(t *testing.T, s *service) {
			editFile(t, NextPath(s.db.path), "UPDATE partitions SET digest = zeroblob(32)")
		}, ErrDiffers, "digest", false},
		"the projection is open elsewhere": {func(t *testing.T, s *service) {
			other := must[*sql.DB](t)(sql.Open("sqlite3", dsn(s.db.path, "mode=ro")))
			other.SetMaxIdleConns(1)
			ok(t, other.Ping())
			var n int
			ok(t, other.QueryRow("SELECT count(*) FROM jobs").Scan(&n))
			t.Cleanup(func() { other.Close() })
		}, errInUse, "another process", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, s := newTracker(t, 2, 20)
			before := must[fs.FileInfo](t)(os.Stat(s.db.path))
			made := must[Made](t)(s.rebuild(nil).Make(within(t)))
			row.harm(t, s)

			_, err := s.rebuild(nil).Adopt(within(t), s.db)
			wantErr(t, err, row.want)
			v := must[*Verdict](t)(ReadVerdict(s.db.path, made.Info))
			if v == nil || !strings.Contains(v.Refused, row.says) || v.Differs != errors.Is(v.Err(), ErrDiffers) || v.Differs != errors.Is(err, ErrDiffers) {
				t.Errorf("the verdict is %+v", v)
			}
			if exists(NextPath(s.db.path)) || exists(PartialPath(s.db.path)) != row.kept {
				t.Error("what was made is still there, or what was to be kept is not")
			}
			if !os.SameFile(before, must[fs.FileInfo](t)(os.Stat(s.db.path))) {
				t.Error("the file is another one")
			}
			c.ask(t, s, 1)
			c.auditAll(t, s)
		})
	}
}

// A partition that stopped never gets to where what was made is: nothing can be compared.
func TestRebuildIsRefusedWhereFoldingHasStopped(t *testing.T) {
	t.Parallel()
	c, s := newTracker(t, 1, 20)
	s.projector.stop(t)
	decider := s.house.open(t, "decider")
	run(t, decider, s.house.seam(), true)
	await(t, decider, s.append(t, c.account, "later", captureOf(november, "https://example.com/later")))
	must[Made](t)(s.rebuild(nil).Make(within(t)))
	_, err := s.rebuild(nil).Adopt(within(t), s.db)
	wantErr(t, err, errBehind)
}

// Every read holds off a change of the file. A new one is to do the same.
func TestEveryReadHoldsOffAReplace(t *testing.T) {
	t.Parallel()
	reads := 0
	for _, file := range must[[]string](t)(filepath.Glob("*.go")) {
		if strings.HasSuffix(file, "_test.go") || file == "statements.go" || file == "swap.go" {
			continue
		}
		parsed := must[*ast.File](t)(parser.ParseFile(token.NewFileSet(), file, nil, 0))
		for _, declared := range parsed.Decls {
			f, is := declared.(*ast.FuncDecl)
			if !is || f.Body == nil {
				continue
			}
			var text strings.Builder
			ok(t, format.Node(&text, token.NewFileSet(), f))
			if !strings.Contains(text.String(), "db.reads.") || f.Name.Name == "readTokens" { // whose caller holds
				continue
			}
			if reads++; !strings.Contains(text.String(), "db.hold(&db.reads.") || !strings.Contains(text.String(), "defer db.pass()") {
				t.Errorf("%s: %s reads without holding off a Replace", file, f.Name.Name)
			}
		}
	}
	if reads < 5 {
		t.Errorf("only %d functions read", reads)
	}
}
