package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"jobtally/internal/events"
)

var allMonths = []events.Month{october, november, december}

func TestArchivesOfThreeMonthsAreSound(t *testing.T) {
	t.Parallel()
	for _, partitions := range []int{1, 3} {
		b := threeMonths(t, partitions)
		for _, month := range allMonths {
			dir := b.exported(month)
			wantSound(t, dir)
			if again := b.exported(month); !sameFiles(t, dir, again) {
				t.Errorf("two exports of %s differ", month)
			}
		}
	}
}

// What is in the file of sums are the sums.
func TestSums(t *testing.T) {
	t.Parallel()
	dir := threeMonths(t, 2).exported(october)
	var want []string
	for _, e := range must[[]os.DirEntry](t)(os.ReadDir(dir)) {
		if e.Name() != sumsName {
			want = append(want, fmt.Sprintf("%x  %s", sha256.Sum256(read(t, dir, e.Name())), e.Name()))
		}
	}
	got := strings.Split(strings.TrimSuffix(string(read(t, dir, sumsName)), "\n"), "\n")
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the sums are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func sameFiles(t *testing.T, a, b string) bool {
	t.Helper()
	names := func(dir string) (names []string) {
		for _, e := range must[[]os.DirEntry](t)(os.ReadDir(dir)) {
			names = append(names, e.Name())
		}
		return names
	}
	return slices.Equal(names(a), names(b)) && !slices.ContainsFunc(names(a), func(name string) bool {
		return !bytes.Equal(read(t, a, name), read(t, b, name))
	})
}

// A partition with many accounts is added up in several readings. What comes of it is the same.
func TestMemoryIsBoundedByTheAccountsAtOnce(t *testing.T) {
	t.Parallel()
	b := threeMonths(t, 2)
	for _, month := range allMonths {
		whole := b.exported(month)
		for _, most := range []int{1, 2, 3} {
			dir := filepath.Join(inMemory(t), "few")
			export := b.export(month)
			export.most = most
			must[Summary](t)(export.Run(t.Context(), dir))
			if !sameFiles(t, whole, dir) {
				t.Errorf("%s, %d accounts at once: another archive", month, most)
			}
		}
	}
	c := newCensus(october, 0, nil)
	for i := range 100 {
		c.of(fmt.Sprintf("account%02d", (i*37)%100))
		if c.trim(3); len(c.accounts) > 6 {
			t.Fatalf("%d accounts in memory", len(c.accounts))
		}
	}
	if len(c.accounts) != 3 || c.accounts["account02"] == nil || *c.upTo != "account02" {
		t.Errorf("%d accounts up to %q", len(c.accounts), *c.upTo)
	}
}

// An export reads the month, and not what comes after it; of what is before it only where chains come from.
func TestExportReadsTheMonth(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 1)
	b.open("anna", day(october, 1), -1)
	for i := range 300 {
		b.capture("anna", fmt.Sprint("https://example.com/", i), day(october, 2))
	}
	b.close(october)
	b.open("bob", day(november, 1), -1)
	for i := range 20 {
		b.capture("bob", fmt.Sprint("https://example.com/", i), day(november, 2))
	}
	b.close(november)
	for i := range 300 {
		b.capture("bob", fmt.Sprint("https://example.com/december/", i), day(december, 2))
	}
	b.reads = 0
	b.exported(november)
	if b.reads > 60 { // 22 pairs, and the decisions that archived months
		t.Errorf("%d messages were read", b.reads)
	}
}

func TestMonthsThatCannotBeExported(t *testing.T) {
	t.Parallel()
	b := threeMonths(t, 2)
	empty, begun := newBooks(t, 2), newBooks(t, 2) // nothing is archived
	begun.open("anna", day(december, 30), 3)
	begun.open("account0", day("2027-01", 2), 3)
	begun.open("account1", day("2027-01", 2), 3)
	half := threeMonths(t, 2) // January is archived in one partition only
	half.ask("account0", "january", day("2027-01", 3), &events.PlanChangeRequested{Plan: "p", Limit: 1})
	half.ask("account1", "january", day("2027-01", 3), &events.PlanChangeRequested{Plan: "p", Limit: 1})
	one := *half
	one.partitions = half.partitions[:1]
	r := events.Request{ID: "close", Time: day("2027-02", 1), Body: &events.MonthCloseRequested{Month: "2027-01"}}
	half.take(half.partitions[0], r.Message(2))

	for _, c := range []struct {
		b     *books
		month events.Month
		now   time.Time
		never bool // not for months to come
		says  string
	}{
		{b, "2027-01", day("2027-01", 20), false, "2027-01 lasts until 2027-02-01T00:00:00Z: it can be exported when it is archived"},
		{half, "2027-01", day("2027-01", 31), false, "2027-01 lasts until 2027-02-01T00:00:00Z"},
		{b, "2027-02", day("2027-01", 20), true, "2027-02 begins on 2027-02-01, and ends on 2027-03-01"},
		{b, "2027-01", day("2027-02", 1), false, "2027-01 is over, and not archived yet in partition "},
		{half, "2027-01", day("2027-02", 1), false, "2027-01 is over, and not archived yet in partition 1"},
		{b, "2026-09", day("2027-01", 20), true, "2026-09 is before the first month that was archived, 2026-10"},
		{b, "2026-9", day("2027-01", 20), true, `"2026-9" is not a month`},
		{begun, november, day("2027-01", 20), true, "2026-11 is before the first month of the ledger, which is 2026-12"},
		{begun, december, day("2027-01", 20), false, "2026-12 is over, and not archived yet in partition "},
		{begun, "2027-03", day("2027-01", 20), true, "2027-03 begins on 2027-03-01"},
		{empty, october, day("2027-01", 20), false, "2026-10 is not archived in any partition"},
		{b, "2027-02", day("2027-05", 20), false, "2027-02 is not archived in any partition"},
	} {
		dir := filepath.Join(t.TempDir(), "to")
		export := c.b.export(c.month)
		export.Now = c.now
		_, err := export.Run(t.Context(), dir)
		if err == nil || !strings.Contains(err.Error(), c.says) || errors.Is(err, ErrNoMonth) != c.never || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s at %s: %v, want %q", c.month, c.now, err, c.says)
		}
		if left := must[[]os.DirEntry](t)(os.ReadDir(filepath.Dir(dir))); len(left) > 0 {
			t.Errorf("%s: left %v", c.month, left)
		}
	}
}

// A partition that has nothing of a month has no part of it.
func TestPartitionsWithoutTheMonth(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 4)
	b.open("anna", day(october, 1), 3)
	p := b.partitions[events.PartitionOf("anna", 4)]
	r := events.Request{ID: "close", Time: day(november, 1), Body: &events.MonthCloseRequested{Month: october}}
	r.Position.Partition = p.number
	b.take(p, r.Message(4))
	m, _, err := readManifest(b.exported(october))
	ok(t, err)
	if len(m.Parts) != 1 || m.Parts[0].Partition != p.number || m.Partitions != 4 {
		t.Errorf("parts %+v", m.Parts)
	}
}

// A month in which nothing was asked is archived all the same.
func TestMonthWithoutRequests(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 1)
	b.open("anna", day(october, 1), 3)
	b.close(october)
	b.close(november)
	dir := b.exported(november)
	wantSound(t, dir)
	if lines := unpacked(t, dir, pairsName(0)); len(lines) != 2 {
		t.Errorf("%d lines", len(lines))
	}
}

func TestArchiveAppearsWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	b := threeMonths(t, 2)
	above := t.TempDir()
	dir := filepath.Join(above, "october")
	entries := func() string {
		var names []string
		for _, e := range must[[]os.DirEntry](t)(os.ReadDir(above)) {
			names = append(names, e.Name())
		}
		return strings.Join(names, " ")
	}

	t.Log("an export that is cancelled at any moment leaves nothing")
	for steps := 0; ; steps += 5 {
		ctx, cancel := context.WithCancel(t.Context())
		left := steps
		export := b.export(october)
		export.Progress = func(int64, int64) {
			if left--; left < 0 {
				cancel()
			}
		}
		_, err := export.Run(ctx, dir)
		cancel()
		if err == nil {
			if steps < 10 {
				t.Fatalf("not cancelled after %d steps", steps)
			}
			ok(t, os.RemoveAll(dir))
			break
		}
		if got := entries(); !errors.Is(err, context.Canceled) || got != "" {
			t.Fatalf("cancelled after %d steps: %v, and left %q", steps, err, got)
		}
	}

	t.Log("one that was killed left something, which the next replaces")
	ok(t, os.MkdirAll(filepath.Join(above, ".october.unfinished", "more"), 0o700))
	ok(t, os.WriteFile(filepath.Join(above, ".october.unfinished", pairsName(0)), []byte("a half"), 0o600))
	must[Summary](t)(b.export(october).Run(t.Context(), dir))
	if got := entries(); got != "october" {
		t.Errorf("left %q", got)
	}
	wantSound(t, dir)

	t.Log("an archive is never written over, nor is anything else")
	before := read(t, dir, manifestName)
	file := filepath.Join(above, "file")
	ok(t, os.WriteFile(file, nil, 0o600))
	ok(t, os.Mkdir(filepath.Join(above, "empty"), 0o700))
	ok(t, os.Symlink("nowhere", filepath.Join(above, "link")))
	for _, there := range []string{dir, file, filepath.Join(above, "empty"), filepath.Join(above, "link")} {
		if _, err := b.export(october).Run(t.Context(), there); !errors.Is(err, ErrExists) {
			t.Errorf("%s: %v", there, err)
		}
	}
	if !bytes.Equal(before, read(t, dir, manifestName)) {
		t.Error("the manifest changed")
	}

	t.Log("the directory above has to be there")
	if _, err := b.export(october).Run(t.Context(), filepath.Join(above, "missing", "october")); err == nil || !strings.Contains(err.Error(), "make the directory above it first") {
		t.Error(err)
	}

	t.Log("two exports to one place are one too many")
	second := b.export(november)
	export := b.export(november)
	to := filepath.Join(above, "november")
	var once bool
	export.Progress = func(int64, int64) {
		if once {
			return
		}
		once = true
		if _, err := second.Run(t.Context(), to); err == nil || !strings.Contains(err.Error(), "another export is writing") {
			t.Error(err)
		}
	}
	must[Summary](t)(export.Run(t.Context(), to))
	wantSound(t, to)
}

// A ledger that does not say what was archived is not exported.
func TestLedgerThatDiffersIsNotExported(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(p *book){
		"a request that is another": func(p *book) { p.requests[5].Data = []byte("{}") },
		"a decision that is another": func(p *book) {
			at := slices.IndexFunc(p.decisions, func(m events.Message) bool { return strings.HasSuffix(m.Subject, ".anna.captured") })
			p.decisions[at].Data = bytes.Replace(p.decisions[at].Data, []byte("Engineer"), []byte("Director"), 1)
		},
		"a pair that is gone": func(p *book) {
			p.requests, p.decisions = slices.Delete(p.requests, 6, 7), slices.Delete(p.decisions, 6, 7)
		},
		"a decision that is gone": func(p *book) { p.decisions = slices.Delete(p.decisions, 6, 7) },
	} {
		b := threeMonths(t, 1)
		change(b.partitions[0])
		dir := filepath.Join(t.TempDir(), "october")
		_, err := b.export(october).Run(t.Context(), dir)
		if err == nil || !strings.Contains(err.Error(), "see `projector audit`") {
			t.Errorf("%s: %v", name, err)
		}
		if left := must[[]os.DirEntry](t)(os.ReadDir(filepath.Dir(dir))); len(left) > 0 {
			t.Errorf("%s: left %v", name, left)
		}
	}
}
