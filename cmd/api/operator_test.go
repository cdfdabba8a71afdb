package main

import (
	"database/sql"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"jobtally/internal/events"
)

// operator runs the operators' tool on the data directory, and returns what it printed.
func (s *service) operator(t *testing.T, args ...string) string {
	t.Helper()
	code, stdout, stderr := finish(t, command(projectorBinary, append(args, "--data", s.data)...))
	if code != 0 {
		t.Errorf("projector %s: exit code %d\n%s", strings.Join(args, " "), code, stderr)
	}
	return strings.TrimSpace(stdout)
}

var requestsOfPartition = regexp.MustCompile(`(?m)^0 +(\d+)`)

// settle waits until the service has folded everything that is in the ledger by now. What an operator changed is
// decided when the tool returns, and folded by the service soon after.
func (s *service) settle(t *testing.T) {
	t.Helper()
	match := requestsOfPartition.FindStringSubmatch(s.operator(t, "status"))
	if match == nil {
		t.Fatal("status does not tell of partition 0")
	}
	for begun := time.Now(); ; {
		r := s.get(t, "/api/jobs/quota", "Ledger-Position: 0-"+match[1])
		if r.status != http.StatusUnauthorized || time.Since(begun) > patience {
			r.wants(t, http.StatusOK)
			return
		}
		// A service that folds everything anew has not come to the token yet.
	}
}

// accounts opens accounts of one limit, all at once, and returns a client for each.
func (s *service) accounts(t *testing.T, limit int, names ...string) []client {
	t.Helper()
	clients := together(len(names), func(i int) client {
		s.operator(t, "account", "open", names[i], "--limit", strconv.Itoa(limit))
		return client{s.url, s.operator(t, "token", "issue", "--account", names[i]), s.http}
	})
	s.settle(t)
	return clients
}

// readProjection opens the SQLite file beside the service, or after it.
func (s *service) readProjection(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+s.projection()+"?mode=ro&_query_only=1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// number returns the one number that a query asks for.
func number(t *testing.T, db *sql.DB, query string, args ...any) (n int64) {
	t.Helper()
	if err := db.QueryRow(query, args...).Scan(&n); err != nil {
		t.Errorf("%s: %v", query, err)
	}
	return n
}

// following returns the position behind another one.
func following(t *testing.T, position string) string {
	t.Helper()
	p, err := events.ParsePosition(position)
	if err != nil {
		t.Fatal(err)
	}
	p.Sequence++
	return p.String()
}
