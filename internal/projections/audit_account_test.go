package projections

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

func TestAuditOfOneAccount(t *testing.T) {
	t.Parallel()
	h := auditedHouse(t)
	head := h.heads(t).Requests
	of := func(account string) func(*Audit) { return func(a *Audit) { a.Account = account } }
	total := uint64(0)
	for _, account := range []string{"demo", "rich", "nobody", "stranger"} {
		found, s := h.findings(t, of(account))
		wantFindings(t, found)
		total += s.Requests
		if s.Decisions != s.Requests || s.Messages != 2*s.Requests || (s.Rows == 0) != (account == "stranger") {
			t.Errorf("%s: %+v", account, s)
		}
	}
	if total != head-1 { // one request names no account
		t.Errorf("%d requests of %d", total, head)
	}

	edit(t, h.path("a"), "UPDATE months SET used = used + 1 WHERE used > 0")
	edit(t, h.path("a"), "UPDATE decisions SET data = CAST(data || ' ' AS BLOB) WHERE sequence = 5")
	edit(t, h.path("a"), "INSERT INTO tokens VALUES ('x', 'rich', zeroblob(32), '', '', '', '', '', 0)")
	h.api(t, "STREAM.MSG.DELETE.DECISIONS_0", `{"seq":9}`)
	for _, sequence := range []uint64{54, head} { // of rich
		h.api(t, "STREAM.MSG.DELETE.REQUESTS_0", fmt.Sprintf(`{"seq":%d}`, sequence))
	}
	found, _ := h.findings(t, of("demo"))
	wantFindings(t, found, "0-9 demo decision is missing",
		"0-5 demo row of decisions: data", fmt.Sprintf("0-%d demo row of months 2026-11: used", head))
	found, _ = h.findings(t, of("rich"))
	for _, want := range []string{
		"0-54 rich decision without a request of the account", fmt.Sprintf("0-%d rich decision without a request of the account", head),
		fmt.Sprintf("0-%d rich row of tokens x follows from no request", head),
	} {
		if !slices.Contains(found, want) {
			t.Errorf("found %q, want %q", found, want)
		}
	}
}

func TestReceiptProvesOneAnswer(t *testing.T) {
	t.Parallel()
	h := auditedHouse(t)
	head := h.heads(t).Requests
	recorded := h.read(t, events.Decisions, head)
	prove := func(sequence uint64, digest events.Digest) ([]string, events.Decision) {
		var found []string
		d, s, err := h.auditOf(t, &found).Receipt(within(t), events.Position{Sequence: sequence}, digest)
		ok(t, err)
		if int(s.Differences) != len(found) {
			t.Errorf("the summary counts %d differences of %d", s.Differences, len(found))
		}
		return found, d
	}
	digests := map[uint64]events.Digest{}
	for i, m := range recorded {
		sequence := uint64(i + 1)
		digests[sequence] = must[events.Digest](t)(events.ParseDigest(m.Header["ce-digest"][0]))
		if found, d := prove(sequence, digests[sequence]); len(found) > 0 || d.Position.Sequence != sequence {
			t.Errorf("%d: found %q", sequence, found)
		}
	}

	t.Log("the digest of another answer")
	found, _ := prove(9, digests[10])
	wantFindings(t, found, "0-9 demo receipt: digest")
	found, _ = prove(head+1, digests[10])
	wantFindings(t, found, fmt.Sprintf("0-%d  request is missing", head+1))

	t.Log("a decision that was changed, and another that was not: it follows from requests, not from that decision")
	altered := copyMessages(recorded)
	altered[8].Data = []byte(strings.Replace(string(altered[8].Data), "Engineer", "Director", 1))
	h.rewrite(t, events.Decisions, altered)
	found, _ = prove(9, digests[9])
	wantFindings(t, found, "0-9 demo decision: data")
	found, _ = prove(10, digests[10])
	wantFindings(t, found)

	t.Log("a decision that is gone, and a request before it that is")
	h.api(t, "STREAM.MSG.DELETE.DECISIONS_0", `{"seq":9}`)
	found, _ = prove(9, digests[9])
	wantFindings(t, found, "0-9  decision is missing")
	h.api(t, "STREAM.MSG.DELETE.REQUESTS_0", `{"seq":8}`)
	found, _ = prove(10, digests[10])
	wantFindings(t, found, "0-10 demo decision: data, ce-digest", "0-10 demo receipt: digest")
}

// An audit that cannot read says so, and claims nothing.
func TestAuditFails(t *testing.T) {
	t.Parallel()
	h := auditedHouse(t)
	for _, stream := range []events.Stream{events.Requests, events.Decisions} {
		var found []string
		audit := h.auditOf(t, &found)
		audit.Ledger.ReadTo = func(ctx context.Context, s events.Stream, p int, subjects []string, after, last uint64) iter.Seq2[[]events.Message, error] {
			if s != stream {
				return h.ReadTo(ctx, s, p, subjects, after, last)
			}
			return func(yield func([]events.Message, error) bool) { yield(nil, errInjected) }
		}
		_, err := audit.Run(within(t))
		wantErr(t, err, errInjected)
		wantFindings(t, found)
	}
	var found []string
	audit := h.auditOf(t, &found)
	audit.Ledger.ID = "another"
	_, err := audit.Run(within(t))
	wantErr(t, err, ErrMismatch)

	audit = h.auditOf(t, &found)
	edit(t, h.path("a"), "CREATE TABLE t (a); PRAGMA user_version = 9; INSERT INTO t VALUES (1)")
	_, err = audit.Run(within(t))
	wantErr(t, err, ErrMismatch)
}

// The scratch projection is what the everyday code makes: of some numbers as of all.
func TestFoldingSomeNumbersIsFoldingThemAll(t *testing.T) {
	t.Parallel()
	one, other := newDB(t), newDB(t)
	decisions, _ := decideAll(recorded(t, request("demo", "1", openWith(5)), request("demo", "2", captureOf(november, "u")),
		request("demo", "3", captureOf(november, "u")), request("demo", "4", captureOf(december, "v"))))
	ok(t, one.Apply(0, decisions))
	ok(t, other.apply(0, decisions[:2]))
	ok(t, other.apply(0, decisions[2:]))
	rows := func(db *DB) string { // but for the digest of the partition
		edit(t, db.path, "UPDATE partitions SET digest = zeroblob(32)")
		return dump(t, db)
	}
	if a, b := rows(one), rows(other); a != b {
		t.Errorf("Apply gives\n%ssome numbers give\n%s", a, b)
	}
	if state, position, err := other.Load(0, nil); err != nil || position != 4 || len(state.Accounts) > 0 {
		t.Errorf("Load: %+v at %d, %v", state, position, err)
	}
	broken := capture.Decide(capture.NewState(), &recorded(t, request("demo", "5", openWith(5)))[0])
	wantErr(t, other.apply(0, []events.Decision{broken}), ErrMismatch)
}
