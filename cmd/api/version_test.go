package main

import (
	"database/sql"
	"errors"
	"net/http"
	"os"
	"regexp"
	"syscall"
	"testing"

	"jobtally/internal/projections"
)

// A service that finds the projection of an older version answers reads from it, refuses captures, and says how far it is,
// until the ledger is folded anew. No answer goes back.
func TestAProjectionOfAnotherVersionIsReadWhileTheLedgerIsFoldedAnew(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	s := start(t, data, midNovember)
	captured := s.capture(t, jobURL(1), retryKey).wants(t, http.StatusCreated)
	job, count := s.get(t, captured.header.Get("Location")), s.get(t, "/api/jobs/quota")
	s.stop(t)
	db, err := sql.Open("sqlite3", s.projection())
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Exec("PRAGMA user_version = -1; ALTER TABLE jobs RENAME TO postings")
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	folding, err := os.OpenFile(projections.PartialPath(s.projection()), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(folding.Fd()), syscall.LOCK_EX); err != nil { // as a command does that folds it
		t.Fatal(err)
	}

	s = start(t, data, midNovember)
	s.get(t, "/api/jobs/quota").wantsSame(t, count)
	s.get(t, captured.header.Get("Location")).wantsProblem(t, http.StatusServiceUnavailable, "not_ready") // the table is not there
	refused := s.capture(t, jobURL(2)).wantsProblem(t, http.StatusServiceUnavailable, "not_ready")
	if refused.header.Get("Retry-After") == "" {
		t.Error("it does not say when to try again")
	}
	s.get(t, "/readyz").wantsProblem(t, http.StatusServiceUnavailable, "not_ready")

	if err := folding.Close(); err != nil {
		t.Fatal(err)
	}
	s.wait(t, &s.stderr, regexp.MustCompile("the projection that was folded anew serves"))
	s.get(t, "/api/jobs/quota").wantsSame(t, count)
	s.get(t, captured.header.Get("Location")).wantsSame(t, job)
	s.capture(t, jobURL(1), retryKey).wantsSame(t, captured)
	s.capture(t, jobURL(2)).wants(t, http.StatusCreated)
	s.get(t, "/readyz").wants(t, http.StatusOK)
}
