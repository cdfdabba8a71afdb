package projections

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// audit decides every request of the ledger again, from the first and in memory, and compares: the decisions in the
// ledger byte for byte, and all that the projections say.
func (h *house) audit(t *testing.T, dbs ...*DB) {
	t.Helper()
	head := h.heads(t)
	if head.Decisions != head.Requests {
		t.Fatalf("%d decisions on %d requests", head.Decisions, head.Requests)
	}
	h.auditTo(t, head.Requests, dbs...)
}

func (h *house) auditTo(t *testing.T, last uint64, dbs ...*DB) {
	t.Helper()
	for _, db := range dbs {
		if at := db.Folded(0); at != last {
			t.Fatalf("folded up to %d, want %d", at, last)
		}
	}
	h.auditHeads(t, events.Heads{Requests: last, Decisions: last}, dbs...)
}

// auditHeads audits the requests and decisions up to heads, and each projection up to where it is folded. It returns
// the decisions on all of these requests.
func (h *house) auditHeads(t *testing.T, heads events.Heads, dbs ...*DB) []events.Decision {
	t.Helper()
	requests := make([]events.Request, heads.Requests)
	for i, m := range h.read(t, events.Requests, heads.Requests) {
		requests[i] = must[events.Request](t)(events.DecodeRequest(m, 0, 1))
	}
	want, _ := decideAll(requests)
	if heads.Decisions > heads.Requests {
		t.Fatalf("%d decisions on %d requests", heads.Decisions, heads.Requests)
	}
	for i, got := range h.read(t, events.Decisions, heads.Decisions) {
		if difference := differ(want[i].Message(), got); difference != "" {
			t.Fatalf("decision %d: %s", i+1, difference)
		}
	}
	for _, db := range dbs {
		at := db.Folded(0)
		if at > heads.Requests {
			t.Fatalf("folded up to %d of %d requests", at, heads.Requests)
		}
		_, state := decideAll(requests[:at])
		auditDB(t, db, want[:at], state)
	}
	return want
}

// differ says how two messages of one number differ, but for what the server or the client library added.
func differ(want, got events.Message) string {
	maps.DeleteFunc(got.Header, func(key string, _ []string) bool { return strings.HasPrefix(key, "Nats-") })
	switch {
	case want.Subject != got.Subject:
		return fmt.Sprintf("subject %s, want %s", got.Subject, want.Subject)
	case want.Sequence != got.Sequence:
		return fmt.Sprintf("sequence %d, want %d", got.Sequence, want.Sequence)
	case string(want.Data) != string(got.Data):
		return fmt.Sprintf("data %s, want %s", got.Data, want.Data)
	case !reflect.DeepEqual(want.Header, got.Header):
		return fmt.Sprintf("header %v, want %v", got.Header, want.Header)
	}
	return ""
}

// auditDB compares a projection with the decisions that it must have folded and with the state they amount to.
func auditDB(t testing.TB, db *DB, want []events.Decision, state *capture.State) {
	t.Helper()
	var digest events.Digest
	got := must[[]events.Decision](t)(db.Decisions(context.Background(), 0, 0, len(want)+1))
	if len(got) != len(want) {
		t.Fatalf("%d decisions are folded, want %d", len(got), len(want))
	}
	for i := range want {
		digest = digest.Plus(want[i].Digest)
		if difference := differ(want[i].Message(), got[i].Message()); difference != "" {
			t.Fatalf("folded decision %d: %s", i+1, difference)
		}
	}
	if at, d := db.Digest(0); at != uint64(len(want)) || d != digest {
		t.Fatalf("digest %s at %d, want %s at %d", d, at, digest, len(want))
	}
	wantRows(t, db, "SELECT name || ' ' || plan || ' ' || quota_limit || ' ' || lower(hex(digest)) FROM accounts", state,
		func(name string, a *capture.Account) []string {
			return []string{fmt.Sprintf("%s %s %d %s", name, a.Plan, a.Limit, a.Digest)}
		})
	wantRows(t, db, "SELECT account || ' ' || month || ' ' || used FROM months WHERE used > 0", state,
		func(name string, a *capture.Account) (rows []string) {
			for month, used := range a.Used {
				rows = append(rows, fmt.Sprintf("%s %s %d", name, month, used))
			}
			return rows
		})
	wantRows(t, db, "SELECT account || ' ' || id || ' ' || version || ' ' || status || ' ' || lower(hex(company)) FROM jobs", state,
		func(name string, a *capture.Account) (rows []string) {
			for id, job := range a.Tracked {
				rows = append(rows, fmt.Sprintf("%s %s %d %s %x", name, id, job.Version, job.Content.Status, companyKey(job.Content.Company)))
			}
			return rows
		})
	wantRows(t, db, "SELECT account || ' ' || id || ' ' || lower(hex(url_key)) FROM jobs", state,
		func(name string, a *capture.Account) (rows []string) {
			for url, id := range a.Jobs {
				rows = append(rows, fmt.Sprintf("%s %s %x", name, id, urlKey(url)))
			}
			return rows
		})
	wantRows(t, db, "SELECT account || ' ' || id || ' ' || revoked FROM tokens", state,
		func(name string, a *capture.Account) (rows []string) {
			for id, accepted := range a.Tokens {
				rows = append(rows, fmt.Sprintf("%s %s %d", name, id, map[bool]int{true: 0, false: 1}[accepted]))
			}
			return rows
		})
}

// wantRows compares the rows of a query with what each account of the state should have there.
func wantRows(t testing.TB, db *DB, query string, state *capture.State, rows func(string, *capture.Account) []string) {
	t.Helper()
	got, want := column(t, db, query), []string{}
	for name, account := range state.Accounts {
		want = append(want, rows(name, account)...)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("%s\n got %q\nwant %q", query, got, want)
	}
}
