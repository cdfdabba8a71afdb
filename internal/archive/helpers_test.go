package archive

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/events"
	"jobtally/internal/replay"
)

const (
	october  = events.Month("2026-10")
	november = events.Month("2026-11")
	december = events.Month("2026-12")
)

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// books are the two streams of each partition, in memory, as a projector would have written them, and beside them what
// each account has of each month, added up as it came.
type books struct {
	t          testing.TB
	partitions []*book
	reads      int // messages that were read
}

type book struct {
	number              int
	requests, decisions []events.Message // that are not erased
	head                uint64
	state               *capture.State
	totals              map[events.Month]*capture.Tally // of what was ever decided
	months              map[events.Month]map[string]*capture.Tally
	left                map[events.Month][]erasedLeaf
}

type erasedLeaf struct {
	account  string
	sequence uint64
	events.ErasedMonth
}

func newBooks(t testing.TB, partitions int) *books {
	b := &books{t: t}
	for n := range partitions {
		b.partitions = append(b.partitions, &book{
			number: n, state: capture.NewState(), totals: map[events.Month]*capture.Tally{}, months: map[events.Month]map[string]*capture.Tally{}, left: map[events.Month][]erasedLeaf{},
		})
	}
	return b
}

// day is an instant in a month.
func day(month events.Month, n int) time.Time {
	return month.Start().AddDate(0, 0, n-1).Add(12*time.Hour + 345*time.Millisecond)
}

// ask asks for something, and decides it.
func (b *books) ask(account, id string, at time.Time, body events.RequestBody) events.Decision {
	b.t.Helper()
	r := events.Request{Account: account, ID: id, Time: at, Body: body}
	if len(id)%3 == 0 { // some have a trace
		r.Traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	}
	return b.take(b.partitions[r.Partition(len(b.partitions))], r.Message(len(b.partitions)))
}

// take takes any message as the next request of a partition.
func (b *books) take(p *book, m events.Message) events.Decision {
	b.t.Helper()
	p.head++
	m.Sequence = p.head
	r := must[events.Request](b.t)(events.DecodeRequest(m, p.number, len(b.partitions)))
	switch body := r.Body.(type) {
	case *events.MonthCloseRequested:
		p.state.Closing = p.closing(body.Month)
	case *events.AccountEraseRequested:
		p.state.Erasing = p.erasing(r.Account)
	}
	d := capture.Decide(p.state, &r)
	d.Traceparent = r.Traceparent
	p.state.Closing, p.state.Erasing = nil, nil
	p.fold(&d)
	p.requests, p.decisions = append(p.requests, m), append(p.decisions, d.Message())
	return d
}

func (p *book) fold(d *events.Decision) {
	if erased, ok := d.Body.(*events.AccountErased); ok {
		p.erase(d, erased)
	}
	_, archives := d.Body.(*events.MonthArchived)
	_, erases := d.Body.(*events.AccountErased)
	month := capture.MonthOf(d, p.state.Archived)
	if p.months[month] == nil {
		p.months[month], p.totals[month] = map[string]*capture.Tally{}, &capture.Tally{}
	}
	if !archives {
		p.totals[month].Add(d)
	}
	if !archives && !erases && d.Account != "" {
		if p.months[month][d.Account] == nil {
			p.months[month][d.Account] = &capture.Tally{}
		}
		p.months[month][d.Account].Add(d)
	}
	p.state.Fold(d)
}

// closing is what archiving a month says.
func (p *book) closing(month events.Month) *events.MonthArchived {
	type leaf struct {
		account  string
		sequence uint64
		digest   events.Digest
	}
	var all []leaf
	for name, t := range p.months[month] {
		all = append(all, leaf{name, 1 << 62, t.Leaf(name, month)})
	}
	for _, l := range p.left[month] {
		all = append(all, leaf{l.account, l.sequence, l.Leaf})
	}
	slices.SortFunc(all, func(a, b leaf) int {
		return cmp.Or(cmp.Compare(a.account, b.account), cmp.Compare(a.sequence, b.sequence))
	})
	var leaves capture.Leaves
	for _, l := range all {
		leaves.Add(l.digest)
	}
	if p.totals[month] == nil {
		return leaves.Archive(month, events.Totals{})
	}
	return leaves.Archive(month, p.totals[month].Totals)
}

// erasing is what erasing an account says.
func (p *book) erasing(account string) *events.AccountErased {
	e := &events.AccountErased{Months: []events.ErasedMonth{}}
	for _, month := range slices.Sorted(maps.Keys(p.months)) {
		if t := p.months[month][account]; t != nil {
			e.Requests += t.Requests
			e.Months = append(e.Months, events.ErasedMonth{Month: month, Totals: t.Totals, Leaf: t.Leaf(account, month)})
		}
	}
	return e
}

func (p *book) erase(d *events.Decision, e *events.AccountErased) {
	for _, m := range e.Months {
		delete(p.months[m.Month], d.Account)
		p.left[m.Month] = append(p.left[m.Month], erasedLeaf{d.Account, d.Position.Sequence, m})
	}
	gone := func(m events.Message) bool {
		return strings.Contains(m.Subject, "."+d.Account+".") && !m.Remains() && m.Sequence < d.Position.Sequence
	}
	p.requests = slices.DeleteFunc(p.requests, gone)
	p.decisions = slices.DeleteFunc(p.decisions, gone)
}

// close archives a month in every partition.
func (b *books) close(month events.Month) {
	b.t.Helper()
	for _, p := range b.partitions {
		r := events.Request{ID: "month-close-" + string(month), Time: day(month.Next(), 1), Body: &events.MonthCloseRequested{Month: month}}
		r.Position.Partition = p.number
		if d := b.take(p, r.Message(len(b.partitions))); events.OutcomeOf(d.Body) != "month_archived" {
			b.t.Fatalf("%s: %+v", month, d.Body)
		}
	}
}

func (b *books) open(account string, at time.Time, limit int64) {
	b.t.Helper()
	b.ask(account, "open", at, &events.AccountOpenRequested{Plan: "plan", Limit: limit})
}

func (b *books) capture(account, url string, at time.Time) events.Decision {
	b.t.Helper()
	return b.ask(account, "of "+url, at, &events.JobCaptureRequested{
		Month: events.MonthOf(at), CanonicalURL: url, SourceRules: 1, PayloadHash: events.Hash([]byte(url)),
		Job: events.Job{SourceURL: url + "?utm_source=x", Title: "Engineer <m/w> \u2028", Company: "Łódź", Status: "saved", CapturedVia: "api"},
	})
}

// source reads the books.
func (b *books) source() replay.Source {
	return replay.Source{
		ID: "the-ledger", Partitions: len(b.partitions),
		Heads: func(_ context.Context, p int) (events.Heads, error) {
			return events.Heads{Requests: b.partitions[p].head, Decisions: b.partitions[p].head}, nil
		},
		ReadTo: func(ctx context.Context, stream events.Stream, p int, subjects []string, after, last uint64) iter.Seq2[[]events.Message, error] {
			all := b.partitions[p].requests
			if stream == events.Decisions {
				all = b.partitions[p].decisions
			}
			return b.read(ctx, all, subjects, after, last)
		},
	}
}

func (b *books) read(ctx context.Context, all []events.Message, subjects []string, after, last uint64) iter.Seq2[[]events.Message, error] {
	return func(yield func([]events.Message, error) bool) {
		for _, m := range all {
			if m.Sequence <= after || m.Sequence > last || !anyMatches(m.Subject, subjects) {
				continue
			}
			if ctx.Err() != nil {
				yield(nil, ctx.Err())
				return
			}
			if b.reads++; !yield([]events.Message{m}, nil) {
				return
			}
		}
	}
}

func anyMatches(subject string, subjects []string) bool {
	return len(subjects) == 0 || slices.ContainsFunc(subjects, func(s string) bool {
		return slices.EqualFunc(strings.Split(subject, "."), strings.Split(s, "."), func(a, b string) bool { return b == "*" || a == b })
	})
}

// threeMonths are October to December with a little of everything, archived, and the beginning of January.
func threeMonths(t testing.TB, partitions int) *books {
	b := newBooks(t, partitions)
	inEach := func(id string, at time.Time) { // each partition has something of each month
		for n := range 4 * partitions {
			b.capture(fmt.Sprint("account", n), id, at)
		}
	}
	for n := range 4 * partitions {
		b.open(fmt.Sprint("account", n), day(october, 1), 3)
	}
	inEach("october", day(october, 1))
	b.open("anna", day(october, 2), 5)
	b.open("bob", day(october, 3), -1)
	for i := range 4 {
		b.capture("anna", fmt.Sprint("https://example.com/", i), day(october, 4+i))
	}
	b.capture("bob", "https://example.com/1", day(october, 5))
	b.capture("nobody", "https://example.com/1", day(october, 6))
	junk(b)
	b.capture("anna", "https://example.com/early", day(november, 1)) // before October is archived
	b.capture("anna", "https://example.com/late", day(october, 31))  // stamped before midnight, recorded after it
	b.close(october)
	inEach("november", day(november, 1))
	b.capture("bob", "https://example.com/archived", day(october, 31)) // counts in November
	b.capture("anna", "https://example.com/1", day(november, 3))       // a duplicate
	b.capture("anna", "https://example.com/1", day(november, 3))       // a repeat
	for i := range 6 {
		b.capture("anna", fmt.Sprint("https://example.com/november/", i), day(november, 4+i)) // up to the limit, and beyond
	}
	b.open("carl", day(november, 9), 3)
	b.ask("carl", "token", day(november, 9), &events.TokenIssueRequested{TokenID: "t", SecretHash: events.Hash([]byte("t"))})
	b.capture("carl", "https://example.com/1", day(december, 24)) // by a node whose clock is ahead
	b.capture("carl", "https://example.com/2", day(november, 24))
	b.close(november)
	inEach("december", day(december, 1))
	b.capture("bob", "https://example.com/december", day(december, 2))
	b.ask("carl", "token again", day(december, 3), &events.TokenRevokeRequested{TokenID: "t"})
	b.close(december)
	b.capture("anna", "https://example.com/january", day(december.Next(), 2))
	return b
}

// junk is what no jobtally asks, in the first partition.
func junk(b *books) {
	p := b.partitions[0]
	for _, m := range []events.Message{
		{Subject: "requests.0.someone.job_capture", Data: []byte("{\n")},
		{Subject: "requests.0", Header: map[string][]string{"ce-id": {"%zz", "2"}, "Nats-Msg-Id": {"x"}, "more": {"x y"}}, Data: []byte{0, 0xff, '\n'}},
		{Subject: "requests.0.anna.job_capture", Header: map[string][]string{"ce-id": {"a%20b"}, "ce-time": {"2026-10-09T12:00:00Z"}}},
	} {
		b.take(p, m)
	}
}

// inMemory is a temporary directory that is in memory where there is such a place: an export waits for the disk a dozen
// times, and some tests make hundreds.
func inMemory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "jobtally-archive-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// exported is the archive of a month.
func (b *books) exported(month events.Month) string {
	b.t.Helper()
	dir := filepath.Join(inMemory(b.t), string(month))
	must[Summary](b.t)(b.export(month).Run(b.t.Context(), dir))
	return dir
}

func (b *books) export(month events.Month) Export {
	return Export{Source: b.source(), Month: month, Now: day("2027-01", 20), Progress: func(done, all int64) {
		if done > all || done < 0 {
			b.t.Errorf("progress: %d of %d", done, all)
		}
	}}
}

// findings verifies an archive, and returns what differs.
func findings(t testing.TB, dir string) []string {
	t.Helper()
	found, err := verified(t, dir)
	ok(t, err)
	return found
}

func verified(t testing.TB, dir string) (found []string, err error) {
	t.Helper()
	summary, err := Verification{
		Report: func(d Difference) { found = append(found, d.String()) }, Progress: func(int64, int64) {},
	}.Run(t.Context(), dir)
	if int(summary.Differences) != len(found) {
		t.Errorf("the summary counts %d differences of %d", summary.Differences, len(found))
	}
	return found, err
}

// wantSound verifies an archive in which nothing differs.
func wantSound(t testing.TB, dir string) {
	t.Helper()
	if found := findings(t, dir); len(found) > 0 {
		t.Errorf("found\n  %s", strings.Join(found, "\n  "))
	}
}

func read(t testing.TB, dir, name string) []byte {
	t.Helper()
	return must[[]byte](t)(os.ReadFile(filepath.Join(dir, name)))
}

// unpacked are the lines of a file of an archive.
func unpacked(t testing.TB, dir, name string) [][]byte {
	t.Helper()
	r := must[*gzip.Reader](t)(gzip.NewReader(bytes.NewReader(read(t, dir, name))))
	text := must[[]byte](t)(io.ReadAll(r))
	return bytes.SplitAfter(text, []byte("\n"))[:bytes.Count(text, []byte("\n"))]
}

// copyOf is a copy of an archive, in which a test changes something.
func copyOf(t testing.TB, dir string) string {
	t.Helper()
	to := filepath.Join(inMemory(t), "copy")
	ok(t, os.CopyFS(to, os.DirFS(dir)))
	return to
}

// rewrite writes a file of an archive anew, and the manifest and the sums to it, as whoever forges them would.
func rewrite(t testing.TB, dir, name string, lines [][]byte) {
	t.Helper()
	var packed bytes.Buffer
	w, text := gzip.NewWriter(&packed), bytes.Join(lines, nil)
	must[int](t)(w.Write(text))
	ok(t, errors.Join(w.Close(), os.WriteFile(filepath.Join(dir, name), packed.Bytes(), 0o600)))
	file := File{
		Name: name, Size: int64(packed.Len()), SHA256: sha256Of(packed.Bytes()),
		Lines: int64(len(lines)), UncompressedSize: int64(len(text)), UncompressedSHA256: sha256Of(text),
	}
	m, _, err := readManifest(dir)
	ok(t, err)
	for i := range m.Parts {
		for _, f := range []*File{&m.Parts[i].Pairs, &m.Parts[i].Accounts, &m.Parts[i].Erasures} {
			if f.Name == name {
				*f = file
			}
		}
	}
	forge(t, dir, &m)
}

// forge writes the manifest anew.
func forge(t testing.TB, dir string, m *Manifest) {
	t.Helper()
	ok(t, errors.Join(os.WriteFile(filepath.Join(dir, manifestName), m.text(), 0o600),
		os.WriteFile(filepath.Join(dir, sumsName), m.sums(m.text()), 0o600)))
}
