package projections

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"jobtally/internal/events"
)

// auditedHouse is a ledger of a little of everything, decided, and folded into the file a.
func auditedHouse(t *testing.T) *house {
	t.Helper()
	h := newHouse(t)
	last := h.past(t, "p")
	h.record(t, last.Sequence, events.Message{Subject: "requests.0.demo.job_capture", Data: []byte("{")},
		events.Message{Subject: "requests.0.demo", Header: map[string][]string{"ce-id": {"x"}}})
	h.append(t, "demo", "revoke", &events.TokenRevokeRequested{TokenID: "p"})
	h.append(t, "demo", "full", &events.PlanChangeRequested{Plan: "full", Limit: 50})
	h.append(t, "demo", "rejected", captureOf(november, "https://example.com/rejected"))
	h.append(t, "demo", "rejected", captureOf(november, "https://example.com/rejected"))
	last = h.append(t, "rich", "december", captureOf(december, "https://example.com/december"))
	h.decideAll(t, "a", last)
	return h
}

// decideAll lets a projector decide and fold up to a position, and stops it.
func (h *house) decideAll(t *testing.T, name string, last events.Position) {
	t.Helper()
	db := h.open(t, name)
	r := run(t, db, h.seam(), true)
	await(t, db, last)
	r.stop(t)
	ok(t, db.Close())
}

// findings runs an audit of the file a, or as change says, and returns what it found as "position account what".
func (h *house) findings(t *testing.T, change func(*Audit)) (found []string, summary Summary) {
	t.Helper()
	audit := h.auditOf(t, &found)
	if change != nil {
		change(&audit)
	}
	summary = must[Summary](t)(audit.Run(within(t)))
	if int(summary.Differences) != len(found) {
		t.Errorf("the summary counts %d differences of %d", summary.Differences, len(found))
	}
	return found, summary
}

func (h *house) auditOf(t *testing.T, found *[]string) Audit {
	t.Helper()
	scratch := t.TempDir()
	t.Cleanup(func() {
		if left := must[[]os.DirEntry](t)(os.ReadDir(scratch)); len(left) > 0 {
			t.Errorf("the audit left %v", left)
		}
	})
	return Audit{
		Ledger:     AuditLedger{ID: h.ID, Partitions: 1, Heads: h.Heads, Get: h.Get, ReadTo: h.ReadTo},
		Projection: h.path("a"), Scratch: scratch,
		Report: func(d Difference) {
			if d.Expected == d.Found || d.Found == "" {
				t.Errorf("%s: expected %q, found %q", d.What, d.Expected, d.Found)
			}
			*found = append(*found, fmt.Sprintf("%s %s %s", d.Position, d.Account, d.What))
		},
		Progress: func(Summary) {},
	}
}

func wantFindings(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("found\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// rewrite makes a stream anew of other messages, as whoever has the server's files could.
func (h *house) rewrite(t *testing.T, stream events.Stream, messages []events.Message) {
	t.Helper()
	h.keep(t, stream, 0)
	h.record(t, 0, messages...)
}

func copyMessages(messages []events.Message) []events.Message {
	copied := slices.Clone(messages)
	for i, m := range copied {
		copied[i].Data, copied[i].Header = slices.Clone(m.Data), map[string][]string{}
		for name, values := range m.Header {
			copied[i].Header[name] = slices.Clone(values)
		}
	}
	return copied
}

// edit changes a projection behind everybody's back.
func edit(t *testing.T, path, statement string, args ...any) {
	t.Helper()
	db := must[*sql.DB](t)(sql.Open("sqlite3", path))
	result := must[sql.Result](t)(db.Exec(statement, args...))
	if n := must[int64](t)(result.RowsAffected()); n == 0 {
		t.Errorf("%s changed nothing", statement)
	}
	ok(t, db.Close())
}

func TestAuditOfWhatWasDecidedIsClean(t *testing.T) {
	t.Parallel()
	h := auditedHouse(t)
	before, heads := must[[]byte](t)(os.ReadFile(h.path("a"))), h.heads(t)
	found, s := h.findings(t, nil)
	wantFindings(t, found)
	head := heads.Requests
	if after := must[[]byte](t)(os.ReadFile(h.path("a"))); !bytes.Equal(before, after) || h.heads(t) != heads {
		t.Error("the audit wrote to what it audits")
	}
	if s.Requests != head || s.Decisions != head || s.Messages != 2*head || s.Undecided+s.Lost+s.Unfolded != 0 || s.RowsSkipped != "" {
		t.Errorf("summary %+v of %d requests", s, head)
	}
	db := h.open(t, "a")
	rows := uint64(strings.Count(dump(t, db), "\n")) - 1 // that of the table ledger follows from nothing
	if s.Rows != rows {
		t.Errorf("%d rows compared, there are %d", s.Rows, rows)
	}
}

// Each part of each kind of decision is changed in the ledger by one byte.
func TestAuditFindsAChangedByteOfAnyDecision(t *testing.T) {
	t.Parallel()
	h := auditedHouse(t)
	head := h.heads(t).Requests
	recorded := h.read(t, events.Decisions, head)
	var want []string
	altered, kinds := copyMessages(recorded), map[string]int{}
	for i, m := range altered {
		// The decisions of a kind share the parts among them: the first has its subject changed, the next its data, ...
		kind, account := m.Header["ce-type"][0], m.Header["ce-account"][0]
		part := alter(&altered[i], kinds[kind])
		kinds[kind]++
		want = append(want, fmt.Sprintf("0-%d %s decision: %s", i+1, account, part))
	}
	h.rewrite(t, events.Decisions, altered)
	found, s := h.findings(t, nil)
	wantFindings(t, found, want...)
	if s.Decisions != head {
		t.Errorf("%d of %d decisions compared", s.Decisions, head)
	}
	h.rewrite(t, events.Decisions, recorded)
	found, _ = h.findings(t, nil)
	wantFindings(t, found)
}

// alter changes the n-th part of a message and names it.
func alter(m *events.Message, n int) string {
	names := []string{}
	for name := range m.Header {
		if !strings.HasPrefix(name, "Nats-") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	switch n %= len(names) + 4; n {
	case 0:
		m.Data[len(m.Data)/2] ^= 1
		return "data"
	case 1:
		m.Subject += "x"
		return "subject"
	case 2:
		m.Header["ce-more"] = []string{"x"}
		return "ce-more"
	case 3:
		m.Header[names[0]] = append(m.Header[names[0]], m.Header[names[0]][0])
		return names[0]
	}
	name := names[n-4]
	if value := []byte(m.Header[name][0]); len(value) > 0 {
		value[len(value)-1] ^= 1
		m.Header[name] = []string{string(value)}
	} else {
		m.Header[name] = []string{"x"}
	}
	return name
}

func TestAuditFindsWhatBecameOfDecisions(t *testing.T) {
	t.Parallel()
	h := auditedHouse(t)
	head := h.heads(t).Requests
	recorded := h.read(t, events.Decisions, head)
	whole := "subject, data, ce-account, ce-digest, ce-id, ce-requestdigest, ce-sequence"
	for name, c := range map[string]struct {
		change func(m []events.Message) []events.Message
		want   []string
	}{
		"a swapped pair": {
			func(m []events.Message) []events.Message { m[0], m[1] = m[1], m[0]; return m },
			[]string{"0-1 demo decision: " + whole, "0-2 rich decision: " + whole},
		},
		"a count off by one": {
			func(m []events.Message) []events.Message {
				m[9].Data = []byte(strings.Replace(string(m[9].Data), `"used":8,`, `"used":9,`, 1))
				return m
			},
			[]string{"0-10 demo decision: data"},
		},
		// The link is right in itself, with data of its own: the chain is broken after it.
		"a forged link": {
			func(m []events.Message) []events.Message {
				d := must[events.Decision](t)(events.DecodeDecision(withSequence(m[9], 10), 0))
				previous := must[events.Decision](t)(events.DecodeDecision(withSequence(m[8], 9), 0))
				d.Body.(*events.JobCaptured).Used++
				d.Seal(previous.Digest)
				m[9] = d.Message()
				return m
			},
			[]string{"0-10 demo decision: data, ce-digest"},
		},
		"decisions without requests": {
			func(m []events.Message) []events.Message { return append(m, m[5]) },
			[]string{fmt.Sprintf("0-%d  decisions beyond the requests", head+1)},
		},
	} {
		h.rewrite(t, events.Decisions, c.change(copyMessages(recorded)))
		found, _ := h.findings(t, nil)
		t.Log(name)
		wantFindings(t, found, c.want...)
	}
}

func withSequence(m events.Message, sequence uint64) events.Message {
	m.Sequence = sequence
	return m
}

func TestAuditFindsRemovedDecisions(t *testing.T) {
	t.Parallel()
	h := auditedHouse(t)
	head := h.heads(t).Requests
	for _, sequence := range []uint64{1, 40, head - 1, head} {
		h.api(t, "STREAM.MSG.DELETE.DECISIONS_0", fmt.Sprintf(`{"seq":%d}`, sequence))
	}
	found, s := h.findings(t, nil)
	wantFindings(t, found, "0-1 demo decision is missing", "0-40 demo decision is missing",
		fmt.Sprintf("0-%d demo decision is missing", head-1), fmt.Sprintf("0-%d rich decision is missing", head))
	if s.Undecided != 0 {
		t.Errorf("%d are undecided: a removed decision was decided", s.Undecided)
	}
}

// Every column of every table is edited, a row of it removed, and one put in.
func TestAuditFindsEveryEditedRow(t *testing.T) {
	t.Parallel()
	h := erasedHouse(t)
	job := h.jobOf(t, h.append(t, "rich", "job", captureOf(december.Next(), "https://example.com/job")))
	h.append(t, "rich", "update", &events.JobUpdateRequested{JobID: job, Changes: map[string]string{"status": "applied", "company": "Example"}})
	h.append(t, "rich", "terms", &events.TokenIssueRequested{
		TokenID: "terms", SecretHash: events.Hash([]byte("terms")), TokenTerms: events.TokenTerms{Scopes: events.Scopes(), Name: "name", LastFour: "four", ExpiresAt: december.Start()},
	})
	h.decideAll(t, "a", h.capture(t, "rich", "many", chunkSize))
	db := h.open(t, "a")
	columns := column(t, db, `SELECT t.name || ' ' || c.name || ' ' || c.type FROM sqlite_schema AS t, pragma_table_info(t.name) AS c
		WHERE t.type = 'table' AND t.name != 'ledger'`)
	ok(t, db.Close())
	if len(columns) < 30 {
		t.Fatalf("columns %q", columns)
	}
	try := func(statement, says string, args ...any) {
		t.Helper()
		copyFile(t, h.path("edited"), h.path("a"))
		edit(t, h.path("edited"), statement, args...)
		found, _ := h.findings(t, func(a *Audit) { a.Projection = h.path("edited") })
		if len(found) == 0 || !strings.Contains(strings.Join(found, "\n"), says) {
			t.Errorf("%s: found %q, want %q", statement, found, says)
		}
	}
	for _, c := range columns {
		f := strings.Fields(c)
		value := map[string]string{"INTEGER": "%s + 1", "TEXT": "'2026-09'", "BLOB": "zeroblob(length(%s))"}[f[2]]
		if value = strings.ReplaceAll(value, "%s", f[1]); f[1] == "revoked" {
			value = "0"
		}
		one := fmt.Sprintf("rowid IN (SELECT max(rowid) FROM %s)", f[0])
		if f[0] != "partitions" {
			one = fmt.Sprintf("%[2]s = (SELECT max(%[2]s) FROM %[1]s)", f[0], f[1])
		}
		try(fmt.Sprintf("UPDATE OR REPLACE %s SET %s = %s WHERE %s", f[0], f[1], value, one), "row of "+f[0])
	}
	for _, table := range []string{"accounts", "chunks", "decisions", "jobs", "months", "tokens", "words"} {
		try("DELETE FROM "+table, "is missing")
	}
	try("DELETE FROM partitions", "follows from no request") // nothing is folded then
	try("INSERT INTO months VALUES ('demo', '2026-10', 0, 0, 0, 0, 0, 0, 0, 0, 0, zeroblob(32))", "demo row of months 2026-10 follows from no request")
	try("INSERT INTO jobs VALUES ('demo', 1, 0, 'job_x', zeroblob(16), '2026-11', 1, 1, 'saved', 'api', zeroblob(8))", "0-1 demo row of jobs follows from no request")
	try("UPDATE months SET used = used - 1 WHERE account = 'demo' AND used > 0", fmt.Sprintf("0-%d demo row of months 2026-11: used", h.heads(t).Requests))
}

// A schema that is not the one that jobtally makes may count otherwise with the same rows.
func TestAuditFindsAnEditedSchema(t *testing.T) {
	t.Parallel()
	h := auditedHouse(t)
	for statement, what := range map[string]string{
		"CREATE TRIGGER t AFTER INSERT ON jobs BEGIN UPDATE accounts SET quota_limit = -1; END": "trigger t",
		"DROP INDEX jobs_by_url":            "index jobs_by_url",
		"CREATE INDEX more ON jobs (month)": "index more",
		"CREATE TABLE more (a)":             "table more",
		"UPDATE ledger SET partitions = 2":  "ledger",
	} {
		copyFile(t, h.path("edited"), h.path("a"))
		db := must[*sql.DB](t)(sql.Open("sqlite3", h.path("edited")))
		must[sql.Result](t)(db.Exec(statement))
		ok(t, db.Close())
		found, _ := h.findings(t, func(a *Audit) { a.Projection = h.path("edited") })
		wantFindings(t, found, "0-0  the schema of the projection: "+what)
	}
}

// An index that lost an entry hides a row from Decide, though it is there.
func TestAuditFindsADamagedFile(t *testing.T) {
	t.Parallel()
	h := auditedHouse(t)
	edit(t, h.path("a"), `CREATE TABLE hidden AS SELECT * FROM jobs LIMIT 1; PRAGMA writable_schema = ON;
		UPDATE sqlite_schema SET sql = sql || ' WHERE id > ''job_d''' WHERE name = 'jobs_by_url'; PRAGMA writable_schema = RESET;
		REINDEX jobs_by_url; PRAGMA writable_schema = ON;
		UPDATE sqlite_schema SET sql = 'CREATE UNIQUE INDEX jobs_by_url ON jobs (account, url_key)' WHERE name = 'jobs_by_url';
		DROP TABLE hidden`)
	found, _ := h.findings(t, nil)
	if len(found) == 0 || !strings.HasSuffix(found[0], "the file of the projection") {
		t.Errorf("found %q", found)
	}
}

func TestAuditFindsWhatBecameOfRequests(t *testing.T) {
	t.Parallel()
	h := auditedHouse(t)
	head := h.heads(t).Requests
	requests := h.read(t, events.Requests, head)

	t.Log("a request is another than was decided: its decision does not follow, nor does any link of its account after it")
	changed := copyMessages(requests)
	changed[1].Data = []byte(strings.Replace(string(changed[1].Data), `-1`, `-1 `, 1))
	h.rewrite(t, events.Requests, changed)
	found, _ := h.findings(t, nil)
	if len(found) < 20 || found[0] != "0-2 rich decision: ce-digest, ce-requestdigest" || slices.ContainsFunc(found, func(f string) bool { return strings.Contains(f, " demo ") }) {
		t.Errorf("found %q", found)
	}

	t.Log("a type that is not known, and a number that is missing, end it there")
	unknown := copyMessages(requests)
	unknown[10].Header["ce-type"] = []string{"jobtally.job.sold_requested.v9"}
	h.rewrite(t, events.Requests, unknown)
	found, s := h.findings(t, nil)
	wantFindings(t, found, "0-11 demo request that this version cannot decide: a newer jobtally wrote it")
	wantStopped(t, s, 11)

	h.rewrite(t, events.Requests, copyMessages(requests))
	h.api(t, "STREAM.MSG.DELETE.REQUESTS_0", fmt.Sprintf(`{"seq":%d}`, head))
	found, s = h.findings(t, nil)
	wantFindings(t, found, fmt.Sprintf("0-%d  request is missing", head))
	wantStopped(t, s, head)
	h.api(t, "STREAM.MSG.DELETE.REQUESTS_0", `{"seq":7}`)
	found, s = h.findings(t, nil)
	wantFindings(t, found, "0-7  request is missing")
	wantStopped(t, s, 7)
}

func wantStopped(t *testing.T, s Summary, at uint64) {
	t.Helper()
	if len(s.Stopped) != 1 || s.Stopped[0].Sequence != at || s.Requests != at-1 || s.RowsSkipped == "" {
		t.Errorf("summary %+v, want it stopped at %d", s, at)
	}
}

// Requests that nobody decided, a projection behind, none at all, and decisions that died with the server are told of,
// and are no differences.
func TestAuditOfAnythingAtWorkIsClean(t *testing.T) {
	t.Parallel()
	h := auditedHouse(t)
	copyFile(t, h.path("behind"), h.path("a"))
	folded := h.heads(t).Requests
	h.decideAll(t, "a", h.capture(t, "demo", "more", 10))
	decided := h.heads(t).Requests
	h.capture(t, "rich", "undecided", 5)

	found, s := h.findings(t, func(a *Audit) { a.Projection = h.path("behind") })
	wantFindings(t, found)
	if s.Undecided != 5 || s.Unfolded != decided-folded || s.Lost != 0 || s.Decisions != decided || s.Rows == 0 {
		t.Errorf("behind: %+v", s)
	}
	found, s = h.findings(t, func(a *Audit) { a.Projection = h.path("none") })
	wantFindings(t, found)
	if s.RowsSkipped == "" || s.Rows != 0 || s.Decisions != decided || s.Unfolded != 0 {
		t.Errorf("no projection: %+v", s)
	}
	h.keep(t, events.Decisions, folded)
	found, s = h.findings(t, nil)
	wantFindings(t, found)
	if s.Undecided != 5+10 || s.Lost != 10 || s.Rows == 0 {
		t.Errorf("decisions lost: %+v", s)
	}
}

// A projector decides and folds on while it is audited. Each batch that the audit reads lets in more captures.
func TestAuditOfARunningProjector(t *testing.T) {
	t.Parallel()
	h := auditedHouse(t)
	db := h.open(t, "a")
	run(t, db, h.seam(), true)
	captured, heads := 0, h.Heads
	found, s := h.findings(t, func(a *Audit) {
		a.Ledger.Heads = func(ctx context.Context, p int) (events.Heads, error) {
			captured++ // after the positions were read, and before the requests are
			await(t, db, h.capture(t, "rich", fmt.Sprint("live", captured), 20))
			return heads(ctx, p)
		}
	})
	wantFindings(t, found)
	if captured < 3 || s.Unfolded == 0 || s.RowsSkipped != "" || s.Undecided != 0 {
		t.Errorf("%+v after %d times captures", s, captured)
	}
	if at := s.Folded[0].Sequence; at <= s.Requests-s.Unfolded-1 || at >= s.Requests {
		t.Errorf("rows compared at %d, of %d", at, s.Requests)
	}
}
