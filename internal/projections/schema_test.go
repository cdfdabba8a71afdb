package projections

import (
	"database/sql"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"jobtally/internal/events"
)

func TestSchemaIsStrict(t *testing.T) {
	t.Parallel()
	db := newDB(t)
	tables := column(t, db, "SELECT name || ': ' || sql FROM sqlite_schema WHERE type = 'table'")
	if len(tables) != 15 {
		t.Errorf("%d tables", len(tables))
	}
	for _, definition := range tables {
		name, _, _ := strings.Cut(definition, ":")
		rowid := name == "ledger" || name == "partitions" || name == "words" // two have an integer for a key, the third wide rows
		if !strings.HasSuffix(definition, "STRICT") && !strings.HasSuffix(definition, "STRICT, WITHOUT ROWID") ||
			strings.HasSuffix(definition, "WITHOUT ROWID") == rowid {
			t.Errorf("table %s", definition)
		}
	}
	if got := column(t, db, "PRAGMA user_version"); got[0] != fmt.Sprint(schemaVersion) {
		t.Errorf("user_version %s", got[0])
	}
}

func TestEveryConnectionHasItsPragmas(t *testing.T) {
	t.Parallel()
	db := newDB(t)
	connections := map[string]*sql.Conn{"writer": db.writer, "loader": db.loader}
	for i := range db.reading.Stats().MaxOpenConnections - 1 { // all at once, so that no two are one
		c := must[*sql.Conn](t)(db.reading.Conn(within(t)))
		t.Cleanup(func() { c.Close() })
		connections[fmt.Sprint("reader ", i)] = c
	}
	if len(connections) < 6 {
		t.Fatalf("%d connections", len(connections))
	}
	for name, c := range connections {
		want := map[string]string{"journal_mode": "wal", "busy_timeout": "5000", "query_only": "1"}
		if name == "writer" {
			want["query_only"], want["synchronous"] = "0", "1" // NORMAL
		}
		for pragma, value := range want {
			var got string
			ok(t, c.QueryRowContext(within(t), "PRAGMA "+pragma).Scan(&got))
			if got != value {
				t.Errorf("%s: %s is %s, want %s", name, pragma, got, value)
			}
		}
		_, err := c.ExecContext(within(t), "DELETE FROM decisions")
		if (err == nil) != (name == "writer") {
			t.Errorf("%s: a write gives error %v", name, err)
		}
	}
}

func TestFilesAreForTheOwnerOnly(t *testing.T) {
	t.Parallel()
	db := newDB(t)
	ok(t, db.Apply(0, history(t)[:1]))
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if mode := must[fs.FileInfo](t)(os.Stat(db.path + suffix)).Mode().Perm(); mode != 0o600 {
			t.Errorf("projection.db%s has mode %o", suffix, mode)
		}
	}
}

func TestCloseLeavesNoLog(t *testing.T) {
	t.Parallel()
	db := newDB(t)
	ok(t, db.Apply(0, history(t)))
	if must[fs.FileInfo](t)(os.Stat(db.path+"-wal")).Size() == 0 {
		t.Fatal("there is no log to leave")
	}
	ok(t, db.Close())
	if info, err := os.Stat(db.path + "-wal"); err == nil && info.Size() > 0 {
		t.Fatalf("the log has %d bytes after Close", info.Size())
	}
}

// history is a small past: decisions of every kind but one, on one account.
func history(t testing.TB) []events.Decision {
	t.Helper()
	requests := []*events.Request{request("demo", "open", openWith(20))}
	for i := range 30 {
		url := fmt.Sprintf("https://example.com/%d", i)
		requests = append(requests, request("demo", url, captureOf(november, url)))
	}
	requests = append(requests,
		request("demo", "https://example.com/1", captureOf(november, "https://example.com/1")),
		request("demo", "again", captureOf(november, "https://example.com/1")),
		request("demo", "https://example.com/2", captureOf(november, "https://example.com/other")),
		request("demo", "plan", &events.PlanChangeRequested{Plan: "pro", Limit: -1}),
		request("demo", "token", &events.TokenIssueRequested{TokenID: "t1", SecretHash: events.Hash([]byte("secret"))}),
		request("demo", "revoke", &events.TokenRevokeRequested{TokenID: "t1"}),
		request("nobody", "x", captureOf(november, "https://example.com/1")),
	)
	decisions, _ := decideAll(recorded(t, requests...))
	return decisions
}

// Each file is refused with a command that mends it: done as it says, the same is folded anew.
func TestRefusedFileIsMendedAsItSays(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		harm func(t *testing.T, db *DB) // closes db
		says string
	}{
		"another version": {func(t *testing.T, db *DB) {
			_, err := db.writer.ExecContext(within(t), "PRAGMA user_version = 99")
			ok(t, err)
			ok(t, db.Close())
		}, "has schema version 99, this jobtally writes 3"},
		"another program's": {func(t *testing.T, db *DB) {
			_, err := db.writer.ExecContext(within(t), "PRAGMA user_version = 0")
			ok(t, err)
			ok(t, db.Close())
		}, "has schema version 0"},
		"another ledger": {func(t *testing.T, db *DB) {
			_, err := db.writer.ExecContext(within(t), "UPDATE ledger SET id = 'another'")
			ok(t, err)
			ok(t, db.Close())
		}, "is of ledger another "},
		"another partition count": {func(t *testing.T, db *DB) {
			_, err := db.writer.ExecContext(within(t), "UPDATE ledger SET partitions = 3")
			ok(t, err)
			ok(t, db.Close())
		}, "partitions: 3"},
		"garbage": {func(t *testing.T, db *DB) {
			ok(t, db.Close())
			ok(t, os.WriteFile(db.path, []byte(strings.Repeat("no database ", 1000)), 0o600))
		}, "is damaged"},
		"truncated": {func(t *testing.T, db *DB) {
			ok(t, db.Close())
			ok(t, os.Truncate(db.path, must[fs.FileInfo](t)(os.Stat(db.path)).Size()/2))
		}, "is damaged"},
		"rows lost": {func(t *testing.T, db *DB) {
			_, err := db.writer.ExecContext(within(t), "DELETE FROM ledger; DROP TABLE partitions")
			ok(t, err)
			ok(t, db.Close())
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDB(t)
			ok(t, db.Apply(0, history(t)))
			_, want := db.Digest(0)
			path := db.path
			c.harm(t, db)

			_, err := Open(path, "the-ledger", 1)

			if c.says == "" { // not a file that jobtally or an accident makes: any error will do
				if err == nil {
					t.Fatal("no error")
				}
				return
			}
			wantErr(t, err, ErrMismatch)
			if !strings.Contains(err.Error(), c.says) {
				t.Fatalf("error %q does not say %q", err, c.says)
			}
			followRemedy(t, err, rebuildOf(path, history(t)))
			again := openDB(t, path)
			if at := again.Folded(0); at == 0 {
				ok(t, again.Apply(0, history(t)))
			}
			if _, got := again.Digest(0); got != want {
				t.Fatalf("digest %s, want %s", got, want)
			}
		})
	}
}

func TestOpenAgainGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	db, decisions := newDB(t), history(t)
	ok(t, db.Apply(0, decisions[:10]))
	at, digest := db.Digest(0)
	ok(t, db.Close())

	db = openDB(t, db.path)
	if at2, digest2 := db.Digest(0); at2 != at || digest2 != digest || at != 10 {
		t.Fatalf("opened at %d with %s, closed at %d with %s", at2, digest2, at, digest)
	}
	ok(t, db.Apply(0, decisions[10:]))
}

func TestOpenWhereThereIsNoDirectory(t *testing.T) {
	t.Parallel()
	if _, err := Open(filepath.Join(t.TempDir(), "missing", "x.db"), "the-ledger", 1); err == nil {
		t.Fatal("no error")
	}
}

// noTable is a scan of a list that was handed in, of a single row, or of the months of a page, which were searched before.
var noTable = regexp.MustCompile("VIRTUAL TABLE|VALUES CLAUSE|CONSTANT ROW|^SCAN wanted$")

// However large the file grows, no statement reads a table from end to end.
func TestEveryStatementSearchesAnIndex(t *testing.T) {
	t.Parallel()
	db := newDB(t)
	want := map[string]string{ // what is searched, by statement; one that is not here may only insert
		"position":     "SEARCH partitions USING INTEGER PRIMARY KEY (rowid=?)",
		"accounts":     "SEARCH accounts USING PRIMARY KEY (name=?)",
		"openAccounts": "SEARCH accounts USING PRIMARY KEY (name=?)",
		"months":       "SEARCH months USING PRIMARY KEY (account=? AND month=?)",
		"jobs":         "SEARCH jobs USING INDEX jobs_by_url (account=? AND url_key=?)",
		"firstAnswers": "SEARCH decisions USING INDEX first_answers (account=? AND request_id=?)",
		"tokensOf":     "SEARCH tokens USING PRIMARY KEY (id=? AND account=?)",
		"decision":     "SEARCH decisions USING PRIMARY KEY (partition=? AND sequence=?)",
		"decisions":    "SEARCH decisions USING PRIMARY KEY (partition=? AND sequence>?)",
		"quota":        "SEARCH months USING PRIMARY KEY (account=? AND month=?)",
		"job":          "SEARCH jobs USING INDEX jobs_by_id (account=? AND id=?)",
		"tokens":       "SEARCH tokens USING PRIMARY KEY (id=?)",
		"revoke":       "SEARCH tokens USING PRIMARY KEY (id=? AND account=?)",
		"totals":       "SEARCH totals USING PRIMARY KEY (partition=? AND month=?)",
		"leaves":       "SEARCH months USING INDEX accounts_of_month (partition=? AND month=?)",
		"monthsOf":     "SEARCH months USING PRIMARY KEY (account=?)",
		"seenMonths":   "SEARCH months USING PRIMARY KEY (account=?)",
		"laterLimits":  "SEARCH limits USING PRIMARY KEY (account=? AND month>?)",
		"firstDigests": "SEARCH decisions USING INDEX first_answers (account=?)",
		"otherDigests": "SEARCH decisions USING INDEX other_answers (account=?)",
		"firstMonth":   "SEARCH totals USING PRIMARY KEY (partition=? AND month>?)",
		"erased":       "SEARCH erasures USING PRIMARY KEY (account=?)",
		"erasures":     "SEARCH erasures USING PRIMARY KEY (account=?)",
		"lastErasures": "SEARCH erasures USING COVERING INDEX erasures_of_partition (partition=?)",
		"lastDecision": "SEARCH decisions USING PRIMARY KEY (partition=? AND sequence<?)",
		"history":      "SEARCH months USING PRIMARY KEY (account=? AND month>? AND month<?)",
		"tracked":      "SEARCH jobs USING INDEX jobs_by_id (account=? AND id=?)",
		"stored":       "SEARCH jobs USING INDEX jobs_by_id (account=? AND id=?)",
		"update":       "SEARCH jobs USING PRIMARY KEY (account=? AND sequence=?)",
		"remove":       "SEARCH jobs USING PRIMARY KEY (account=? AND sequence=?)",
		"lookup":       "SEARCH jobs USING INDEX jobs_by_url (account=? AND url_key=?)",
		"page":         "SEARCH jobs USING PRIMARY KEY (account=? AND sequence=?)",
		"newest":       "SEARCH jobs USING PRIMARY KEY (account=? AND sequence<?)",
		"updated":      "SEARCH jobs USING INDEX updated_jobs (account=? AND changed<?)",
		"passing":      "SEARCH jobs USING PRIMARY KEY (account=? AND sequence=?)",
		"allPassing":   "SEARCH jobs USING PRIMARY KEY (account=?)",
		"loose":        "SEARCH jobs USING INDEX updated_jobs (account=? AND changed>?)",
		"unindexed":    "SEARCH jobs USING INDEX updated_jobs (account=? AND changed>?)",
		"chunks":       "SEARCH chunks USING PRIMARY KEY (account=? AND chunk<?)",
		"words":        "SEARCH w USING INDEX sqlite_autoindex_words_1 (account=? AND chunk=? AND first>? AND first<?)",
		"account":      "SEARCH accounts USING PRIMARY KEY (name=?)",
		"list":         "SEARCH accounts USING PRIMARY KEY (name>?)",
		"issued":       "SEARCH tokens USING INDEX tokens_of_account (account=? AND id>?)",
		"issuedOf":     "SEARCH tokens USING PRIMARY KEY (id=?)",
		"month":        "SEARCH days USING PRIMARY KEY (account=? AND month=?)",
	}
	found := 0
	for name, query := range statements(db.reads, db.loads, db.writes, db.bulks) {
		plan := planOf(t, db, query)
		for _, step := range plan {
			if strings.HasPrefix(step, "SCAN") && !noTable.MatchString(step) || strings.Contains(step, "TEMP B-TREE") && !strings.Contains(step, "LAST TERM") {
				t.Errorf("%s: %s", name, step)
			}
		}
		_, name, _ = strings.Cut(name, ".")
		if want[name] == "" {
			if !strings.HasPrefix(query, "INSERT") {
				t.Errorf("%s is not tested: %s", name, query)
			}
			continue
		}
		if strings.HasPrefix(query, "INSERT") {
			continue
		}
		found++
		if !strings.Contains(strings.Join(plan, "\n"), want[name]) {
			t.Errorf("%s: plan %q, want %q", name, plan, want[name])
		}
	}
	if found != len(want) {
		t.Errorf("%d statements, want %d", found, len(want))
	}
}

// statements are the texts of all prepared statements by group and field.
func statements(groups ...any) map[string]string {
	texts := map[string]string{}
	for _, group := range groups {
		v := reflect.ValueOf(group)
		for i := range v.NumField() {
			stmt := v.Field(i)
			if stmts := stmt; stmts.Kind() == reflect.Struct { // a bulk: the one for the most rows
				stmt = stmts.FieldByName("stmts").Index(0)
			}
			texts[v.Type().Name()+"."+v.Type().Field(i).Name] = stmt.Elem().FieldByName("query").String()
		}
	}
	return texts
}

func planOf(t *testing.T, db *DB, query string) (steps []string) {
	t.Helper()
	arguments := make([]any, strings.Count(query, "?"))
	rows := must[*sql.Rows](t)(db.writer.QueryContext(within(t), "EXPLAIN QUERY PLAN "+query, arguments...))
	defer rows.Close()
	for rows.Next() {
		var id, parent, unused int
		var step string
		ok(t, rows.Scan(&id, &parent, &unused, &step))
		steps = append(steps, step)
	}
	ok(t, rows.Err())
	return steps
}
