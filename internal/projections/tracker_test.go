package projections

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// tracker is a projection on which whatever is asked is decided at random moments, many requests at once, and folded at once.
// Beside it stands a plain list of the jobs as they should be.
type tracker struct {
	*testing.T
	*rand.Rand
	db      *DB
	p       *Projector
	flight  inFlight
	asked   []*events.Request // and not decided yet
	history []events.Decision
	jobs    map[string][]plainJob // by account, in the order in which they were captured
	ever    map[string][]string   // the ids of all jobs that an account ever captured
	serial  int
}

// plainJob is a job as it should be, and the words of it.
type plainJob struct {
	capture.StoredJob
	sequence, changed uint64
	month             events.Month
	url               string
	words             []string
}

func newTrackerOf(t *testing.T, seed uint64) *tracker {
	t.Helper()
	db := newDB(t)
	return &tracker{
		T: t, Rand: rand.New(rand.NewPCG(seed, 1)), db: db, p: NewProjector(db, Ledger{Partitions: 1}, 0, true, quiet()),
		jobs: map[string][]plainJob{}, ever: map[string][]string{},
	}
}

// spelled are spellings, and the words that they are.
var spelled = map[string][]string{
	"Engineer": {"engineer"}, "ENGINEERING": {"engineering"}, "Ärztin": {"arztin"}, "arzt": {"arzt"}, "Straße": {"strasse"}, "Strass": {"strass"},
	"工程师": {"工", "程", "师"}, "工": {"工"}, "Go": {"go"}, "go-karts": {"go", "karts"}, "C++": {"c"}, "(m/w/d)": {"m", "w", "d"}, "🗼": {},
	"naïve": {"naive"}, "rare": {"rare"}, "the": {"the"}, "\"quoted\"": {"quoted"}, "NOT": {"not"}, "1,000": {"1", "000"}, "back\\slash": {"back", "slash"},
}

var spellings = slices.Sorted(maps.Keys(spelled))

// text draws a text and returns its words.
func (tr *tracker) text(n int) (text string, words []string) {
	for range n {
		s := spellings[tr.IntN(len(spellings))]
		if s == "rare" && tr.IntN(20) > 0 {
			continue
		}
		text += s + []string{" ", "\n", ", "}[tr.IntN(3)]
		words = append(words, spelled[s]...)
	}
	return text, words
}

func pick[T any](tr *tracker, from ...T) T { return from[tr.IntN(len(from))] }

func (tr *tracker) ask(account string, body events.RequestBody) {
	tr.Helper()
	tr.serial++
	r := request(account, fmt.Sprint("id ", tr.serial), body)
	r.Time = r.Time.Add(time.Duration(tr.serial) * time.Second)
	tr.asked = append(tr.asked, r)
}

// askAnything asks for something of an account: mostly for captures.
func (tr *tracker) askAnything(account string) {
	tr.Helper()
	switch n := tr.IntN(100); {
	case n < 68 || len(tr.ever[account]) == 0:
		tr.askCapture(account, fmt.Sprintf("https://example.com/%d", tr.IntN(2000)))
	case n < 88:
		changes := map[string]string{"status": pick(tr, events.Statuses()...)}
		if tr.IntN(2) == 0 {
			changes["title"], _ = tr.text(2)
			changes["title"] += "x"
			changes["description"], _ = tr.text(tr.IntN(9))
		}
		if tr.IntN(4) == 0 {
			changes["company"] = pick(tr, "Example", "EXAMPLE ", "Other")
		}
		tr.ask(account, &events.JobUpdateRequested{JobID: pick(tr, tr.ever[account]...), IfVersion: pick[int64](tr, 0, 0, 0, 1), Changes: changes})
	default:
		tr.ask(account, &events.JobDeleteRequested{JobID: pick(tr, tr.ever[account]...)})
	}
}

func (tr *tracker) askCapture(account, url string) {
	tr.Helper()
	body := captureOf(pick(tr, november, december), url)
	body.Job.Title, _ = tr.text(2)
	body.Job.Description, _ = tr.text(tr.IntN(9))
	body.Job.Company, body.Job.Status, body.Job.CapturedVia = pick(tr, "Example", "example", "Other", "Ünïcode"), pick(tr, events.Statuses()...), pick(tr, events.CapturedVia()...)
	tr.ask(account, body)
}

// settle decides what was asked, and folds it.
func (tr *tracker) settle() {
	tr.Helper()
	var decoded []events.Request
	for i, r := range tr.asked {
		m := r.Message(1)
		m.Sequence = uint64(len(tr.history) + i + 1)
		decoded = append(decoded, must[events.Request](tr)(events.DecodeRequest(m, 0, 1)))
	}
	for _, part := range parts(decoded) {
		decisions := must[[]events.Decision](tr)(tr.p.decideBatch(tr.Context(), part, &tr.flight))
		ok(tr, tr.db.Apply(0, decisions))
		for i := range decisions {
			tr.note(&decisions[i])
		}
		tr.history = append(tr.history, decisions...)
	}
	tr.asked = nil
}

// note keeps the list of jobs.
func (tr *tracker) note(d *events.Decision) {
	at := func(id string) int {
		return slices.IndexFunc(tr.jobs[d.Account], func(j plainJob) bool { return j.ID == id })
	}
	switch b := d.Body.(type) {
	case *events.JobCaptured:
		tr.ever[d.Account] = append(tr.ever[d.Account], b.JobID)
		tr.jobs[d.Account] = append(tr.jobs[d.Account], plainJob{
			StoredJob: capture.StoredJob{ID: b.JobID, CapturedAt: d.Time, UpdatedAt: d.Time, Version: 1, Job: b.Job},
			sequence:  d.Position.Sequence, changed: d.Position.Sequence, month: b.Month, url: b.CanonicalURL, words: plainWords(b.Job),
		})
	case *events.JobUpdated:
		j := &tr.jobs[d.Account][at(b.JobID)]
		j.Job, j.Version, j.UpdatedAt, j.changed, j.words = b.Job, j.Version+1, d.Time, d.Position.Sequence, plainWords(b.Job)
	case *events.JobDeleted:
		i := at(b.JobID)
		tr.jobs[d.Account] = slices.Delete(tr.jobs[d.Account], i, i+1)
	case *events.AccountErased:
		delete(tr.jobs, d.Account)
		delete(tr.ever, d.Account)
	}
}

// plainWords looks the words of a job up, by its spellings.
func plainWords(job events.Job) (words []string) {
	for _, s := range strings.FieldsFunc(job.Title+" "+job.Description, func(c rune) bool { return c == ' ' || c == '\n' }) {
		s = strings.TrimSuffix(s, ",")
		if of, is := spelled[s]; is {
			words = append(words, of...)
		} else if s != "" {
			words = append(words, "x") // the end of a title that was updated
		}
	}
	return append(words, map[string]string{"Example": "example", "example": "example", "EXAMPLE ": "example", "Other": "other", "Ünïcode": "unicode"}[job.Company])
}

// want returns the jobs that a query asks for, in order: all of them, whatever its limit.
func (tr *tracker) want(account string, q capture.JobQuery, words []string) (jobs []plainJob) {
	for _, j := range tr.jobs[account] {
		company := strings.EqualFold(strings.TrimSpace(j.Company), strings.TrimSpace(q.Company))
		hasAll := !slices.ContainsFunc(words, func(word string) bool {
			return !slices.ContainsFunc(j.words, func(has string) bool { return strings.HasPrefix(has, word) })
		})
		if hasAll && (q.Status == "" || q.Status == j.Status) && (q.Company == "" || company) &&
			(q.CapturedVia == "" || q.CapturedVia == j.CapturedVia) && (q.Month == "" || q.Month == j.month) {
			jobs = append(jobs, j)
		}
	}
	slices.SortFunc(jobs, func(a, b plainJob) int {
		if q.Updated {
			return int(b.changed) - int(a.changed)
		}
		return int(b.sequence) - int(a.sequence)
	})
	return jobs
}

// query draws a query, and the words that it asks for.
func (tr *tracker) query() (q capture.JobQuery, words []string) {
	q = capture.JobQuery{Limit: pick(tr, 1, 7, 50, 100), Updated: tr.IntN(2) == 0}
	if tr.IntN(3) == 0 {
		q.Status = pick(tr, events.Statuses()...)
	}
	if tr.IntN(4) == 0 {
		q.CapturedVia = pick(tr, events.CapturedVia()...)
	}
	if tr.IntN(4) == 0 {
		q.Month = pick(tr, november, december, "2026-01")
	}
	if tr.IntN(4) == 0 {
		q.Company = pick(tr, " EXAMPLE", "other\t", "ünïcode", "none")
	}
	asked := map[string][]string{
		"": nil, "engineer": {"engineer"}, "ENGINEERI": {"engineeri"}, "E": {"e"}, "rare": {"rare"}, "ärz": {"arz"}, "ARZTI": {"arzti"}, "STRASSE": {"strasse"},
		"straß": {"strass"}, "工": {"工"}, "工程": {"工", "程"}, "go the": {"go", "the"}, "Go-karts rare": {"go", "karts", "rare"}, "nothing": {"nothing"},
		"not \"quoted\" OR": {"not", "quoted", "or"}, "x* -y": {"x", "y"}, "exa oth": {"exa", "oth"}, "unicode": {"unicode"}, "example engineer": {"example", "engineer"},
	}
	q.Text = pick(tr, slices.Sorted(maps.Keys(asked))...)
	return q, asked[q.Text]
}

// walk returns all jobs of a query, page by page.
func (tr *tracker) walk(account string, q capture.JobQuery, between func()) (jobs []capture.StoredJob) {
	tr.Helper()
	for {
		page := must[capture.JobPage](tr)(tr.db.Jobs(context.Background(), account, q))
		jobs = append(jobs, page.Jobs...)
		if len(page.Jobs) > q.Limit || page.Next != 0 && len(page.Jobs) < q.Limit {
			tr.Fatalf("%+v: a page of %d jobs, the next is %d", q, len(page.Jobs), page.Next)
		}
		if page.Next == 0 {
			return jobs
		}
		q.Before = page.Next
		between()
	}
}

// pages returns the pages of long jobs, which end where they end.
func (tr *tracker) pages(account string, q capture.JobQuery) (pages [][]capture.StoredJob) {
	tr.Helper()
	for more := true; more; more = q.Before != 0 {
		page := must[capture.JobPage](tr)(tr.db.Jobs(context.Background(), account, q))
		pages, q.Before = append(pages, page.Jobs), page.Next
	}
	return pages
}

func (tr *tracker) check(account string, q capture.JobQuery, words []string) (found int) {
	tr.Helper()
	want := tr.want(account, q, words)
	got := tr.walk(account, q, func() {})
	var wantIDs, gotIDs []string
	for _, j := range want {
		wantIDs = append(wantIDs, j.ID)
	}
	for _, j := range got {
		gotIDs = append(gotIDs, j.ID)
	}
	if !slices.Equal(gotIDs, wantIDs) {
		tr.Fatalf("%s %+v: %d jobs %q, want %d: %q", account, q, len(got), gotIDs, len(want), wantIDs)
	}
	for i := range want {
		sameTimes := want[i].CapturedAt.Equal(got[i].CapturedAt) && want[i].UpdatedAt.Equal(got[i].UpdatedAt)
		got[i].CapturedAt, got[i].UpdatedAt = want[i].CapturedAt, want[i].UpdatedAt
		if got[i] != want[i].StoredJob || !sameTimes {
			tr.Fatalf("job %+v, want %+v", got[i], want[i].StoredJob)
		}
	}
	return len(want)
}

// fill opens two accounts, of which one has n requests, and asks for them in batches of any size.
func (tr *tracker) fill(n int) {
	tr.Helper()
	tr.ask("a", openWith(-1))
	tr.ask("b", openWith(-1))
	for range n {
		tr.askAnything(pick(tr, "a", "a", "a", "a", "a", "b"))
		if tr.IntN(40) == 0 {
			tr.settle()
		}
	}
	tr.settle()
}

// Pages are those of a plain list: every filter, both orders, and the words, also of jobs that went from one chunk of the word
// index to another, that are loose, and that are gone. Walking through them has each job once.
func TestPagesAreThoseOfAPlainList(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			tr := newTrackerOf(t, seed)
			tr.fill(500)
			filled, empty, several := 0, 0, 0
			for range 4 {
				for range 60 {
					q, words := tr.query()
					switch n := tr.check(pick(tr, "a", "a", "b", "nobody"), q, words); {
					case n == 0:
						empty++
					case n > q.Limit:
						several++
					default:
						filled++
					}
				}
				for range 300 {
					tr.askAnything("a")
				}
				tr.settle()
			}
			if chunks := len(column(t, tr.db, "SELECT chunk FROM chunks WHERE account = 'a'")); chunks < 3 || filled < 10 || empty < 10 || several < 10 {
				t.Errorf("%d chunks; %d queries with one page, %d without a job, %d with several pages", chunks, filled, empty, several)
			}
			if page := must[capture.JobPage](t)(tr.db.Jobs(within(t), "a", capture.JobQuery{Text: "?! 🗼", Limit: 10})); len(page.Jobs) > 0 {
				t.Errorf("a text without words found %d jobs", len(page.Jobs))
			}
		})
	}
}

// Where a filter lets few of many jobs through that have a word, those that it lets through are read at once.
func TestAWordOfManyJobsAndAFilterOfFew(t *testing.T) {
	t.Parallel()
	tr := newTrackerOf(t, 9)
	tr.ask("a", openWith(-1))
	for i := range manyProbes + 3*chunkSize {
		body := captureOf(november, fmt.Sprintf("https://example.com/%d", i))
		body.Job.Title, body.Job.Company = "Engineer", "Example"
		if i%500 == 7 {
			body.Job.Company, body.Job.Status = "Other", "applied"
		}
		tr.ask("a", body)
	}
	tr.settle()
	for range 100 {
		tr.askAnything("a")
	}
	tr.settle()
	for _, q := range []capture.JobQuery{{Company: "other"}, {Status: "applied"}, {Company: "none"}, {CapturedVia: "extension"}, {Company: "example"}} {
		for _, q.Updated = range []bool{false, true} {
			q.Text, q.Limit = "engineer", 50
			tr.check("a", q, []string{"engineer"})
		}
	}
}

// Whatever is captured, updated and deleted between the pages, a walk in the order of capture has each job that was there all
// the time once, and none twice.
func TestAWalkHasEachJobOnceWhateverComesBetween(t *testing.T) {
	t.Parallel()
	tr := newTrackerOf(t, 7)
	tr.fill(900)
	for _, text := range []string{"", "example"} {
		before := slices.Clone(tr.jobs["a"])
		q := capture.JobQuery{Limit: 50, Text: text}
		var words []string
		if text != "" {
			words = []string{text}
		}
		seen := map[string]int{}
		for _, j := range tr.walk("a", q, func() {
			for range 60 {
				tr.askAnything("a")
			}
			tr.settle()
		}) {
			seen[j.ID]++
		}
		matches := func(j plainJob) bool { return text == "" || slices.Contains(j.words, text) }
		after := tr.want("a", q, words)
		for _, j := range before {
			stayed := matches(j) && slices.ContainsFunc(after, func(k plainJob) bool { return k.ID == j.ID })
			if n := seen[j.ID]; n > 1 || stayed && n == 0 && !tr.lostBetween(j.ID, matches) {
				t.Errorf("%q: job %s was there all the time, and on %d pages", text, j.ID, n)
			}
		}
		for id, n := range seen {
			if n > 1 {
				t.Errorf("%q: job %s is on %d pages", text, id, n)
			}
		}
	}
}

// lostBetween says whether a job did not match at some version of it.
func (tr *tracker) lostBetween(id string, matches func(plainJob) bool) bool {
	return slices.ContainsFunc(tr.history, func(d events.Decision) bool {
		b, is := d.Body.(*events.JobUpdated)
		return is && b.JobID == id && !matches(plainJob{words: plainWords(b.Job)})
	})
}

// However decisions are cut into batches, and wherever the file is closed and opened in between, the tables are the same to the
// byte, those of the word index too; and so they are for who folds what erasures leave.
func TestFoldingManyJobsInAnyBatchesGivesOneFile(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			tr := newTrackerOf(t, seed)
			tr.fill(600)
			tr.ask("a", &events.AccountEraseRequested{})
			tr.settle()
			tr.fill(700) // opened again
			tr.ask("b", &events.AccountEraseRequested{})
			for range 100 {
				tr.askAnything("a")
			}
			tr.settle()
			want := dump(t, tr.db)
			for _, table := range []string{"\nchunks ", "\nwords ", "\njobs ", "\nerasures "} {
				if !strings.Contains(want, table) {
					t.Fatalf("there are no rows of%q", table)
				}
			}
			for name, history := range map[string][]events.Decision{"as it was": tr.history, "with voids": shownBy(tr.history, len(tr.history))} {
				path := filepath.Join(t.TempDir(), "projection.db")
				db := openDB(t, path)
				for at := 0; at < len(history); {
					end := min(len(history), at+pick(tr, 1, 2, 30, 257, 700))
					ok(t, db.Apply(0, history[at:end]))
					if at = end; tr.IntN(8) == 0 {
						ok(t, db.Close())
						db = openDB(t, path)
					}
				}
				if got := dump(t, db); got != want {
					t.Fatalf("%s: other rows:\n%s", name, firstDifference(got, want))
				}
			}
		})
	}
}

func firstDifference(got, want string) string {
	a, b := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("%.300s\nwant\n%.300s", a[i], b[i])
		}
	}
	return fmt.Sprintf("%d rows, want %d", len(a), len(b))
}

// What is told before is what is decided next: Try gives the decisions that the same requests get then, and changes nothing.
func TestTryIsDecidingWithoutAnythingChanged(t *testing.T) {
	t.Parallel()
	tr := newTrackerOf(t, 3)
	tr.ask("a", openWith(40))
	for range 120 {
		tr.askAnything("a")
		tr.settle()
	}
	outcomes := map[string]int{}
	for range 60 {
		for range 1 + tr.IntN(5) {
			tr.askAnything("a")
			tr.asked = append(tr.asked, tr.asked[len(tr.asked)-1]) // and again
		}
		before, folded := dump(t, tr.db), tr.db.Folded(0)
		tried := must[[]events.Decision](t)(tr.db.Try(t.Context(), tr.asked))
		if again := must[[]events.Decision](t)(tr.db.Try(t.Context(), tr.asked)); dump(t, tr.db) != before || tr.db.Folded(0) != folded || len(again) != len(tried) {
			t.Fatal("something changed")
		}
		tr.settle()
		for i, d := range tr.history[folded:] {
			if difference := differ(d.Message(), tried[i].Message()); difference != "" {
				t.Fatalf("tried: %s", difference)
			}
			outcomes[events.OutcomeOf(d.Body)]++
		}
	}
	for _, outcome := range []string{"duplicated", "repeated", "rejected", "updated", "deleted", "refused"} {
		if outcomes[outcome] == 0 {
			t.Errorf("nothing was %s: %v", outcome, outcomes)
		}
	}
	refused := must[[]events.Decision](t)(tr.db.Try(t.Context(), []*events.Request{request("nobody", "x", captureOf(november, "https://example.com/1"))}))
	if b, is := refused[0].Body.(*events.RequestRefused); !is || b.Reason != events.ReasonAccountUnknown {
		t.Errorf("of an account that is not open: %+v", refused[0].Body)
	}
}

// Lookup finds the jobs of an account by their URLs, as they are now.
// A page of long jobs ends early, and the walk goes on from there.
func TestPagesAreBoundedInBytes(t *testing.T) {
	t.Parallel()
	tr := newTrackerOf(t, 3)
	tr.ask("a", openWith(-1))
	for i := range 10 {
		body := captureOf(november, fmt.Sprintf("https://example.com/%d", i))
		body.Job.Description, body.Job.Notes = strings.Repeat("word ", 60_000), strings.Repeat("n", 100_000)
		tr.ask("a", body)
	}
	tr.settle()
	for _, q := range []capture.JobQuery{{}, {Updated: true}, {Text: "word"}} {
		q.Limit = 100
		pages, ids := tr.pages("a", q), map[string]bool{}
		for _, page := range pages {
			if len(page) > 3 {
				t.Errorf("%+v: a page of %d jobs of 400,000 bytes", q, len(page))
			}
			for _, j := range page {
				ids[j.ID] = true
			}
		}
		if len(ids) != 10 || len(pages) != 4 {
			t.Errorf("%+v: %d jobs on %d pages", q, len(ids), len(pages))
		}
	}
}

func TestLookup(t *testing.T) {
	t.Parallel()
	tr := newTrackerOf(t, 5)
	tr.fill(400)
	for account := range map[string]int{"a": 0, "b": 0, "nobody": 0} {
		var urls []string
		want := map[string]plainJob{}
		for range 100 {
			urls = append(urls, fmt.Sprintf("https://example.com/%d", tr.IntN(2000)))
		}
		for _, j := range tr.jobs[account] {
			if urls = append(urls, j.url); len(urls) > 140 {
				break
			}
		}
		for _, j := range tr.jobs[account] {
			if slices.Contains(urls, j.url) {
				want[j.url] = j
			}
		}
		got := must[map[string]capture.StoredJob](t)(tr.db.Lookup(within(t), account, urls))
		if len(got) != len(want) || account != "nobody" && len(got) < 20 {
			t.Errorf("%s: %d jobs, want %d", account, len(got), len(want))
		}
		for url, j := range want {
			if got[url].ID != j.ID || got[url].Version != j.Version || got[url].Job != j.Job {
				t.Errorf("%s: %+v, want %+v", url, got[url], j.StoredJob)
			}
		}
	}
}
