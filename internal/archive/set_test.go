package archive

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"jobtally/internal/events"
	"jobtally/internal/projections"
)

// readBack are the messages of a stream of a partition that are in archives.
func readBack(t testing.TB, s *Set, stream events.Stream, partition int) (messages []events.Message) {
	t.Helper()
	for batch, err := range s.ReadTo(t.Context(), stream, partition, nil, 0, 1<<62) {
		ok(t, err)
		messages = append(messages, batch...)
	}
	return messages
}

// sameMessages says whether messages are the same but for the headers of the server.
func sameMessages(a, b []events.Message) bool {
	return slices.EqualFunc(a, b, func(a, b events.Message) bool {
		header := maps.Clone(b.Header)
		maps.DeleteFunc(header, func(name string, _ []string) bool { return strings.HasPrefix(name, "Nats-") })
		return a.Sequence == b.Sequence && a.Subject == b.Subject && bytes.Equal(a.Data, b.Data) && maps.EqualFunc(a.Header, header, slices.Equal)
	})
}

// drawBooks draws what few accounts ask for in a few months, by clocks that are ahead and behind, with erasures, and months
// archived at their ends or later.
func drawBooks(t *rapid.T, tb testing.TB) (b *books, archived []events.Month) {
	b = newBooks(tb, rapid.IntRange(1, 2).Draw(t, "partitions"))
	accounts := []string{"a", "b", "c", "d"}
	months := []events.Month{october, november, december}
	b.open("a", day(october, 1), 3)
	for i, month := range months {
		for n := range rapid.IntRange(0, 25).Draw(t, "requests") {
			account := rapid.SampledFrom(accounts).Draw(t, "account")
			at := day(rapid.SampledFrom([]events.Month{month, month, month, month.Next(), october}).Draw(t, "of"), rapid.IntRange(1, 28).Draw(t, "day"))
			id := fmt.Sprint(i, "-", n)
			switch rapid.IntRange(0, 9).Draw(t, "kind") {
			case 0:
				b.open(account, at, rapid.Int64Range(-1, 4).Draw(t, "limit"))
			case 1:
				b.ask(account, id, at, &events.AccountEraseRequested{})
			case 2:
				b.ask(account, id, at, &events.PlanChangeRequested{Plan: "p", Limit: rapid.Int64Range(-1, 4).Draw(t, "limit")})
			case 3:
				p := b.partitions[events.PartitionOf(account, len(b.partitions))]
				subject := fmt.Sprintf("requests.%d.%s.job_capture", p.number, account)
				header := map[string][]string{"ce-id": {id}, "ce-time": {at.Format(time.RFC3339)}, "Nats-X": {"y"}}
				b.take(p, events.Message{Subject: subject, Header: header, Data: rapid.SliceOf(rapid.Byte()).Draw(t, "data")})
			default:
				b.capture(account, fmt.Sprint("https://example.com/", rapid.IntRange(0, 8).Draw(t, "job")), at)
			}
		}
		if i+1 == len(months) || rapid.IntRange(0, 2).Draw(t, "archive") > 0 {
			for len(archived) <= i {
				archived = append(archived, months[len(archived)])
				b.close(archived[len(archived)-1])
			}
		}
	}
	return b, archived
}

// Whatever was asked, each archived month is exported and sound, what is read back is what the ledger has, byte for byte,
// and each pair is in one month.
func TestArchivesAreWhatTheLedgerHas(t *testing.T) {
	t.Parallel()
	root := inMemory(t)
	rapid.Check(t, func(r *rapid.T) {
		b, archived := drawBooks(r, t)
		var dirs []string
		above, err := os.MkdirTemp(root, "")
		ok(t, err)
		for _, month := range archived {
			dir := filepath.Join(above, string(month))
			export := b.export(month)
			export.most = rapid.IntRange(1, 4).Draw(r, "most")
			must[Summary](t)(export.Run(t.Context(), dir))
			wantSound(t, dir)
			dirs = append(dirs, dir)
		}
		set := must[*Set](t)(Open(dirs...))
		for _, p := range b.partitions {
			inArchives := map[uint64]bool{}
			for pair, err := range b.source().Pairs(t.Context(), p.number, "", 0, p.head) {
				ok(t, err)
				inArchives[pair.Position.Sequence] = slices.Contains(archived, pair.Month)
			}
			gone := func(m events.Message) bool { return !inArchives[m.Sequence] }
			for stream, recorded := range map[events.Stream][]events.Message{events.Requests: p.requests, events.Decisions: p.decisions} {
				want := slices.DeleteFunc(slices.Clone(recorded), gone)
				if got := readBack(t, set, stream, p.number); !sameMessages(got, want) {
					t.Fatalf("%s of partition %d: %d messages, want %d", stream, p.number, len(got), len(want))
				}
			}
			wantCovered(t, set, p, inArchives)
		}
		ok(t, os.RemoveAll(above))
	})
}

// wantCovered compares up to where the archives say they are whole with where they are.
func wantCovered(t *testing.T, s *Set, p *book, inArchives map[uint64]bool) {
	t.Helper()
	covered := must[uint64](t)(s.Covered(t.Context(), p.number))
	whole := uint64(0)
	for whole < p.head {
		there, known := inArchives[whole+1]
		if known && !there {
			break
		}
		whole++
	}
	heads, _ := s.Source().Heads(t.Context(), p.number)
	if covered > min(whole, heads.Requests) {
		t.Errorf("partition %d: covered up to %d, but whole up to %d", p.number, covered, whole)
	}
	if len(p.left) == 0 && covered != min(whole, heads.Requests) {
		t.Errorf("partition %d: covered up to %d, whole up to %d", p.number, covered, whole)
	}
}

// What is left of an erased account is what proves the months that it counted in.
func TestErasedAccountsInArchives(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 1)
	b.open("anna", day(october, 1), -1)
	b.open("bob", day(october, 1), -1)
	for i := range 5 {
		b.capture("anna", fmt.Sprint("https://example.com/", i), day(october, 2))
		b.capture("bob", fmt.Sprint("https://example.com/", i), day(october, 2))
	}
	b.ask("bob", "erase", day(october, 3), &events.AccountEraseRequested{})
	b.open("bob", day(october, 4), -1)
	b.capture("bob", "https://example.com/again", day(october, 4))
	b.ask("bob", "erase again", day(october, 5), &events.AccountEraseRequested{})
	b.capture("bob", "https://example.com/refused", day(october, 5))
	b.close(october)
	before := b.exported(october)
	b.ask("anna", "erase", day(november, 3), &events.AccountEraseRequested{})
	after := b.exported(october)
	b.close(november)
	for dir, want := range map[string][2]int64{before: {6 + 2, 0}, after: {6 + 2 + 6, 0}} {
		wantSound(t, dir)
		m, _, err := readManifest(dir)
		ok(t, err)
		if m.Parts[0].Erased != want[0] {
			t.Errorf("%d are erased, want %d", m.Parts[0].Erased, want[0])
		}
	}
	for _, name := range []string{pairsName(0), accountsName(0)} {
		if text := bytes.Join(unpacked(t, after, name), nil); bytes.Contains(text, []byte("https://example.com/0")) {
			t.Errorf("%s has what was erased", name)
		}
	}
	if lines := unpacked(t, after, erasuresName(0)); len(lines) != 6 {
		t.Errorf("%d lines of erasures", len(lines))
	}
	wantSound(t, b.exported(november))
	for dir, want := range map[string]uint64{before: 18, after: 0} {
		set := must[*Set](t)(Open(dir))
		if covered := must[uint64](t)(set.Covered(t.Context(), 0)); covered != want {
			t.Errorf("covered up to %d, want %d", covered, want)
		}
	}
}

func TestArchivesThatDoNotBelongTogether(t *testing.T) {
	t.Parallel()
	b := threeMonths(t, 2)
	dirs := map[events.Month]string{}
	for _, month := range allMonths {
		dirs[month] = b.exported(month)
	}
	other := threeMonths(t, 2)
	another := other.export(november)
	another.Source.ID = "another-ledger"
	dir := filepath.Join(t.TempDir(), "another")
	must[Summary](t)(another.Run(t.Context(), dir))

	fork := newBooks(t, 2)
	fork.open("account0", day(october, 1), 3)
	fork.open("account1", day(october, 1), 3)
	fork.close(october)
	forked := fork.exported(october)

	for _, c := range []struct {
		dirs []string
		says string
	}{
		{[]string{dirs[october], dir}, "are of two ledgers: replay one after the other"},
		{[]string{dirs[october], dirs[november], dirs[october]}, "are both of 2026-10: name one of them"},
		{[]string{dirs[december], dirs[october]}, "2026-10 and 2026-12 do not adjoin: name the archive of 2026-11 too"},
		{[]string{forked, dirs[november]}, "went another way"},
		{[]string{dirs[october], t.TempDir()}, "has no manifest.json"},
	} {
		if _, err := Open(c.dirs...); err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want %q", err, c.says)
		}
	}
	set := must[*Set](t)(Open(dirs[december], dirs[november]))
	if got := set.Dirs(); !slices.Equal(got, []string{dirs[november], dirs[december]}) || set.Missing() != october {
		t.Errorf("%q, missing %q", got, set.Missing())
	}
	if set = must[*Set](t)(Open(dirs[october])); set.Missing() != "" {
		t.Errorf("missing %q", set.Missing())
	}
}

// Pairs are read from archives as from a ledger.
func TestPairsOfArchives(t *testing.T) {
	t.Parallel()
	b := threeMonths(t, 2)
	set := must[*Set](t)(Open(b.exported(december), b.exported(october), b.exported(november)))
	source := set.Source()
	for _, account := range []string{"", "anna"} {
		for p := range 2 {
			if account != "" && p != events.PartitionOf(account, 2) {
				continue
			}
			var want, got []string
			for pair, err := range b.source().Pairs(t.Context(), p, account, 0, 1<<62) {
				ok(t, err)
				if pair.Month <= december && pair.Month >= october {
					want = append(want, fmt.Sprint(pair.Position, pair.Month, events.OutcomeOf(pair.Decision.Body)))
				}
			}
			for pair, err := range source.Pairs(t.Context(), p, account, 0, 1<<62) {
				ok(t, err)
				got = append(got, fmt.Sprint(pair.Position, pair.Month, events.OutcomeOf(pair.Decision.Body)))
			}
			if !slices.Equal(got, want) || account == "" && len(got) < 10 {
				t.Errorf("partition %d, account %q: pairs\n%s\nwant\n%s", p, account, got, want)
			}
		}
	}
	for batch, err := range set.ReadTo(t.Context(), events.Requests, 0, nil, 3, 5) {
		if ok(t, err); batch[0].Sequence < 4 || batch[len(batch)-1].Sequence > 5 {
			t.Errorf("read %d to %d", batch[0].Sequence, batch[len(batch)-1].Sequence)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ok(t, os.Remove(filepath.Join(set.Dirs()[0], pairsName(0))))
	for _, err := range set.ReadTo(ctx, events.Requests, 0, nil, 0, 100) {
		if err == nil {
			t.Error("read a file that is gone")
		}
	}
}

// A ledger is decided again from its archives, as far as they have it.
func TestArchivesAreDecidedAgain(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 1)
	b.open("anna", day(october, 1), 3)
	b.open("bob", day(october, 1), 3)
	for i := range 5 {
		b.capture("anna", fmt.Sprint("https://example.com/", i), day(october, 2))
		b.capture("bob", fmt.Sprint("https://example.com/", i), day(october, 2))
	}
	b.close(october)
	b.ask("bob", "erase", day(november, 1), &events.AccountEraseRequested{})
	b.open("bob", day(november, 2), 3)
	b.capture("bob", "https://example.com/1", day(november, 2))
	b.close(november)
	erasedWithin := []string{b.exported(october), b.exported(november)}
	b.capture("anna", "https://example.com/1", day(december, 2))
	b.ask("anna", "erase", day(december, 3), &events.AccountEraseRequested{})
	b.capture("bob", "https://example.com/2", day(december, 3))
	b.close(december)
	erasedAfter := []string{b.exported(october), b.exported(november)}
	all := append(slices.Clone(erasedAfter), b.exported(december))

	audit := func(dirs ...string) (found []string, s projections.Summary) {
		set := must[*Set](t)(Open(dirs...))
		s = must[projections.Summary](t)(projections.Audit{
			Scratch: t.TempDir(), Progress: func(projections.Summary) {},
			Report: func(d projections.Difference) { found = append(found, fmt.Sprint(d.Position, " ", d.What)) },
			Ledger: projections.AuditLedger{ID: "the-ledger", Partitions: 1, ReadTo: set.ReadTo, Heads: set.Heads},
		}.Run(t.Context()))
		return found, s
	}
	for _, c := range []struct {
		dirs             []string
		requests, erased uint64
	}{
		{erasedWithin, 6 + 1 + 3 + 1, 6}, {erasedAfter, 0, 0}, {all, 1 + 1 + 3 + 1 + 2, 6 + 7},
	} {
		if found, s := audit(c.dirs...); len(found) > 0 || s.Requests != c.requests || s.Erased != c.erased {
			t.Errorf("%d archives: found %q, %+v", len(c.dirs), found, s)
		}
	}

	t.Log("what was decided wrongly, and is not in any chain: a limit that was not heeded")
	forged := newBooks(t, 1)
	forged.open("anna", day(october, 1), 1)
	forged.partitions[0].state.Accounts["anna"].Limit = 5
	forged.capture("anna", "https://example.com/1", day(october, 2))
	forged.capture("anna", "https://example.com/2", day(october, 2))
	forged.close(october)
	dir := forged.exported(october)
	wantSound(t, dir)
	if found, _ := audit(dir); len(found) == 0 {
		t.Error("the audit finds nothing")
	}
}

// Messages are kept while many more lines are read.
func TestMessagesOfLongFilesAreKept(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 1)
	b.open("anna", day(october, 1), -1)
	for i := range 2 * maxBatch {
		b.ask("anna", fmt.Sprint("job ", i), day(october, 2), &events.JobCaptureRequested{
			Month: october, CanonicalURL: fmt.Sprint("https://example.com/", i), SourceRules: 1, PayloadHash: events.Hash([]byte{byte(i)}),
			Job: events.Job{SourceURL: fmt.Sprint("https://example.com/", i), Title: "Engineer", Notes: strings.Repeat("x", i), Status: "saved", CapturedVia: "api"},
		})
	}
	b.close(october)
	set := must[*Set](t)(Open(b.exported(october)))
	want := map[events.Stream][]events.Message{events.Requests: b.partitions[0].requests, events.Decisions: b.partitions[0].decisions}
	for stream, want := range want {
		var got []events.Message
		size := 0
		for batch, err := range set.ReadTo(t.Context(), stream, 0, nil, 0, math.MaxUint64) {
			ok(t, err)
			got = append(got, batch...)
		}
		for i, m := range got {
			size += len(m.Data)
			if m.Sequence != want[i].Sequence || m.Subject != want[i].Subject || !bytes.Equal(m.Data, want[i].Data) {
				t.Fatalf("message %d is %s\nwant %s", i, m.Data, want[i].Data)
			}
		}
		if len(got) != len(want) || size < 10*(64<<10) {
			t.Errorf("%d messages of %d, %d bytes", len(got), len(want), size)
		}
	}
}

func TestMessagesOutliveTheirLine(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 1)
	b.open("anna", day(october, 1), -1)
	junk(b)
	for _, m := range b.partitions[0].requests {
		line := m.AppendStructured(nil, 0)
		got := must[events.Message](t)((&file{}).parse(line, 1))
		for i := range line {
			line[i] = '#'
		}
		if got.Subject != m.Subject || !bytes.Equal(got.Data, m.Data) || !bytes.Equal(got.AppendStructured(nil, 0), m.AppendStructured(nil, 0)) {
			t.Errorf("%s is %s, want %s", m.Subject, got.Data, m.Data)
		}
	}
}
