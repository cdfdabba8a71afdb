package projections

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"jobtally/internal/events"
)

// erasedHouse is an audited house of which two months are archived, and an account was erased between them. Its messages
// are still there.
func erasedHouse(t *testing.T) *house {
	t.Helper()
	h := auditedHouse(t)
	at := december.Start().Add(time.Hour)
	h.ask(t, in(november), "gone", "early", captureOf(november, "https://example.com/0")) // before it was opened
	h.ask(t, in(november), "gone", "open", openWith(3))
	for i := range 5 {
		h.captureAt(t, in(november), "gone", fmt.Sprintf("https://example.com/gone/%d", i))
	}
	h.ask(t, at, "", "close", &events.MonthCloseRequested{Month: november})
	h.ask(t, at, "gone", "token", &events.TokenIssueRequested{TokenID: "gone", SecretHash: events.Hash([]byte("gone"))})
	h.captureAt(t, at, "gone", "https://example.com/gone/december")
	h.captureAt(t, at, "gone", "https://example.com/gone/1")
	h.ask(t, at, "gone", "erase", &events.AccountEraseRequested{})
	h.captureAt(t, at, "demo", "https://example.com/demo/december")
	h.ask(t, at, "gone", "open", openWith(1)) // another life
	h.captureAt(t, at, "gone", "https://example.com/gone/1")
	last := h.ask(t, december.Next().Start(), "", "close", &events.MonthCloseRequested{Month: december})
	h.decideAll(t, "a", last)
	return h
}

// erasure is the decision that erased the account of an erased house, and the numbers of what it erased.
func (h *house) erasure(t *testing.T) (erased events.Decision, numbers []uint64) {
	t.Helper()
	decisions := h.decisions(t)
	i := slices.IndexFunc(decisions, func(d events.Decision) bool { return erases(&d) })
	for _, d := range decisions[:i] {
		if d.Account == "gone" {
			numbers = append(numbers, d.Position.Sequence)
		}
	}
	return decisions[i], numbers
}

func (h *house) remove(t *testing.T, stream events.Stream, sequence uint64) {
	t.Helper()
	h.api(t, "STREAM.MSG.DELETE."+stream.Name(0), fmt.Sprintf(`{"seq":%d}`, sequence))
}

// What was erased is told of as erased, removed or not; everything else is audited as before, the months that the account
// counted in too.
func TestAuditTellsOfErasedAccounts(t *testing.T) {
	t.Parallel()
	h := erasedHouse(t)
	head := h.heads(t).Requests
	erased, numbers := h.erasure(t)
	if body := erased.Body.(*events.AccountErased); body.Requests != int64(len(numbers)) || len(numbers) != 10 || len(body.Months) != 2 {
		t.Fatalf("%d requests were erased, by %+v", len(numbers), body)
	}
	audit := func(what string, unremoved int) {
		t.Helper()
		found, s := h.findings(t, nil)
		t.Log(what)
		wantFindings(t, found)
		if s.Erased != uint64(len(numbers)) || s.Unremoved != uint64(unremoved) || s.Requests != head-s.Erased || s.Rows == 0 {
			t.Errorf("summary %+v", s)
		}
		for _, account := range []string{"demo", "gone"} {
			found, _ = h.findings(t, func(a *Audit) { a.Account = account })
			wantFindings(t, found)
		}
	}
	audit("nothing is removed yet", len(numbers))
	for i, sequence := range numbers {
		h.remove(t, events.Decisions, sequence)
		if i < 4 {
			h.remove(t, events.Requests, sequence)
		}
	}
	audit("some requests are removed", len(numbers)-4)
	for _, sequence := range numbers[4:] {
		h.remove(t, events.Requests, sequence)
	}
	audit("all is removed", 0)
}

// An erasure hides no other message that is missing, whatever is removed with those of the erased account.
func TestErasureHidesNothingElse(t *testing.T) {
	t.Parallel()
	for _, other := range []uint64{2, 20, 60} {
		h := erasedHouse(t)
		_, numbers := h.erasure(t)
		for _, stream := range []events.Stream{events.Requests, events.Decisions} {
			for _, sequence := range append(numbers, other) {
				h.remove(t, stream, sequence)
			}
		}
		found, _ := h.findings(t, nil)
		if len(found) == 0 {
			t.Errorf("without %d, nothing was found", other)
		}
	}
	h := erasedHouse(t)
	for _, sequence := range []uint64{2, 20} { // and nothing of the erased account
		h.remove(t, events.Requests, sequence)
	}
	if found, _ := h.findings(t, nil); len(found) == 0 {
		t.Error("nothing was found")
	}
}

// What an erasure says of the erased account is what its months were archived with: another count is found there.
func TestAuditFindsAChangedErasure(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*events.AccountErased){
		"more requests":   func(b *events.AccountErased) { b.Requests++ },
		"fewer captured":  func(b *events.AccountErased) { b.Months[0].Captured-- },
		"another leaf":    func(b *events.AccountErased) { b.Months[1].Leaf[0] ^= 1 },
		"a month is lost": func(b *events.AccountErased) { b.Months = b.Months[1:] },
	} {
		h := erasedHouse(t)
		messages := copyMessages(h.read(t, events.Decisions, h.heads(t).Decisions))
		erased, _ := h.erasure(t)
		change(erased.Body.(*events.AccountErased))
		erased.Seal(events.Digest{})
		messages[erased.Position.Sequence-1] = erased.Message()
		h.rewrite(t, events.Decisions, messages)
		if found, _ := h.findings(t, func(a *Audit) { a.Projection = "" }); len(found) == 0 {
			t.Errorf("%s: nothing was found", name)
		}
	}
}

// A change to the archive of a month is found, wherever in it, and told of as of that month.
func TestAuditFindsAChangedArchive(t *testing.T) {
	t.Parallel()
	h := erasedHouse(t)
	recorded := h.read(t, events.Decisions, h.heads(t).Decisions)
	archive := h.archives(t)[0]
	at := int(archive.Position.Sequence) - 1
	for i := range recorded[at].Data {
		if c := recorded[at].Data[i]; c < '0' || c > '9' {
			continue
		}
		changed := copyMessages(recorded)
		changed[at].Data[i] ^= 1
		if bytes.Equal(changed[at].Data, recorded[at].Data) {
			t.Fatal("nothing was changed")
		}
		h.rewrite(t, events.Decisions, changed)
		found, _ := h.findings(t, func(a *Audit) { a.Projection, a.Month = "", november })
		wantFindings(t, found, fmt.Sprintf("%s  decision: data", archive.Position))
		if i%8 != 0 {
			continue
		}
		if found, _ = h.findings(t, func(a *Audit) { a.Projection, a.Month = "", december }); len(found) != 0 {
			t.Errorf("of december %q", found)
		}
	}
}

// Of a month only what belongs to it is reported: its decisions, and its rows.
func TestAuditOfOneMonth(t *testing.T) {
	t.Parallel()
	h := erasedHouse(t)
	edit(t, h.path("a"), "UPDATE months SET rejected = rejected + 1 WHERE account = 'demo'")
	edit(t, h.path("a"), "UPDATE totals SET captured = captured + 1")
	edit(t, h.path("a"), "UPDATE decisions SET data = CAST(data || ' ' AS BLOB) WHERE account = 'demo' AND type LIKE '%captured.v1'")
	edit(t, h.path("a"), "UPDATE accounts SET plan = 'another'")
	all, _ := h.findings(t, nil)
	counted := 0
	for _, month := range []events.Month{"2026-10", november, december} {
		found, s := h.findings(t, func(a *Audit) { a.Month = month })
		counted += len(found)
		for _, f := range found {
			if strings.Contains(f, "row of months") && !strings.Contains(f, string(month)) || strings.Contains(f, "accounts") {
				t.Errorf("of %s: %s", month, f)
			}
		}
		if (len(found) == 0) != (month == "2026-10") || s.Requests == 0 {
			t.Errorf("of %s: %d found, %+v", month, len(found), s)
		}
	}
	// Of no month are the rows of accounts. Of none of these three are the rows that requests without a time left.
	if accounts, timeless := 3, 2; counted != len(all)-accounts-timeless {
		t.Errorf("%d of the months, %d of all, %q", counted, len(all), all)
	}
}

// A projection that has not folded an erasure yet has rows that nothing follows from any more: that is no
// difference. Its other rows are compared.
func TestAuditOfAProjectionBehindAnErasure(t *testing.T) {
	t.Parallel()
	h := auditedHouse(t)
	copyFile(t, h.path("behind"), h.path("a"))
	erased := h.ask(t, in(november), "rich", "erase", &events.AccountEraseRequested{})
	h.decideAll(t, "a", erased)
	found, s := h.findings(t, func(a *Audit) { a.Projection = h.path("behind") })
	wantFindings(t, found)
	edit(t, h.path("behind"), "UPDATE months SET used = used + 1")
	found, _ = h.findings(t, func(a *Audit) { a.Projection = h.path("behind") })
	if len(found) == 0 || strings.Contains(strings.Join(found, "\n"), "rich") {
		t.Errorf("found %q", found)
	}
	if !strings.Contains(s.RowsLeftOut, "rich") || s.Erased == 0 || s.Rows == 0 {
		t.Errorf("summary %+v", s)
	}
}
