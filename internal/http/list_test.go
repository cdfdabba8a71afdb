package http

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// page is a page by the decisions. It searches by whole words of the title, which is enough here.
func (n *node) page(_ context.Context, account string, q capture.JobQuery) (page capture.JobPage, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	type placed struct {
		capture.StoredJob
		at uint64
	}
	var jobs []placed
	captured, changed := map[string]uint64{}, map[string]uint64{}
	months := map[string]events.Month{}
	for _, d := range n.decisions {
		switch b := d.Body.(type) {
		case *events.JobCaptured:
			captured[b.JobID], changed[b.JobID], months[b.JobID] = d.Position.Sequence, d.Position.Sequence, b.Month
		case *events.JobUpdated:
			changed[b.JobID] = d.Position.Sequence
		}
	}
	for id := range n.state.Accounts[account].Tracked {
		job, at := n.jobs[id], captured[id]
		if q.Updated {
			at = changed[id]
		}
		if (q.Status == "" || q.Status == job.Status) && (q.CapturedVia == "" || q.CapturedVia == job.CapturedVia) &&
			(q.Month == "" || q.Month == months[id]) && (q.Company == "" || strings.EqualFold(strings.TrimSpace(q.Company), job.Company)) &&
			(q.Text == "" || slices.Contains(strings.Fields(job.Title), q.Text)) && (q.Before == 0 || at < q.Before) {
			jobs = append(jobs, placed{job, at})
		}
	}
	slices.SortFunc(jobs, func(a, b placed) int { return cmp.Compare(b.at, a.at) })
	if len(jobs) > q.Limit {
		jobs = jobs[:q.Limit]
		page.Next = jobs[q.Limit-1].at
	}
	for _, job := range jobs {
		page.Jobs = append(page.Jobs, job.StoredJob)
	}
	return page, nil
}

func (n *node) lookup(_ context.Context, account string, canonicalURLs []string) (map[string]capture.StoredJob, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	found := map[string]capture.StoredJob{}
	for _, url := range canonicalURLs {
		if id, known := n.state.Accounts[account].Jobs[url]; known {
			found[url] = n.jobs[id]
		}
	}
	return found, nil
}

// newWithJobs is a node on which bob has captured jobs with the titles Job 1 to Job n.
func newWithJobs(t *testing.T, count int) (n *node, asBob string) {
	t.Helper()
	n = newNode(t)
	asBob = "Authorization: Bearer " + n.bob.Reveal()
	for i := range count {
		n.send(t, "POST", "/api/jobs", fmt.Sprintf(`{"source_url":"https://jobs.example.com/%d","title":"Job %d","company":"Example"}`, i+1, i+1), asBob)
	}
	return n, asBob
}

// titles returns the titles of the jobs in a page.
func (x exchange) titles(t *testing.T) (titles []string) {
	t.Helper()
	var form struct{ Jobs []struct{ Title string } }
	if err := json.Unmarshal([]byte(x.body), &form); err != nil || x.StatusCode != 200 {
		t.Fatalf("%d %s: %v", x.StatusCode, x.body, err)
	}
	for _, job := range form.Jobs {
		titles = append(titles, job.Title)
	}
	return titles
}

var nextPage = regexp.MustCompile(`^<(/api/jobs\?[^>]+)>; rel="next"$`)

func TestListOfJobs(t *testing.T) {
	n, asBob := newWithJobs(t, 5)
	var pages [][]string
	for path := "/api/jobs?limit=2"; path != ""; {
		x := n.send(t, "GET", path, "", asBob)
		pages = append(pages, x.titles(t))
		path = ""
		if match := nextPage.FindStringSubmatch(x.Header.Get("Link")); match != nil {
			path = match[1]
		}
	}
	if want := "[[Job 5 Job 4] [Job 3 Job 2] [Job 1]]"; fmt.Sprint(pages) != want {
		t.Errorf("pages %v, want %s", pages, want)
	}
	x := n.send(t, "GET", "/api/jobs", "", asBob)
	x.wantsHeader(t, "Link:", "Content-Type: application/json", "Ledger-Position: 0-10", "Cache-Control: private, no-cache")
	n.send(t, "GET", "/api/jobs", "", asBob, "If-None-Match: "+x.Header.Get("ETag")).wants(t, 304, "")
	n.send(t, "HEAD", "/api/jobs", "", asBob).wantsHeader(t, "ETag: "+x.Header.Get("ETag"))
	n.send(t, "GET", "/api/jobs", "").wants(t, 200, `{"jobs":[]}`)

	third := "/api/jobs/" + n.decisions[7].Body.(*events.JobCaptured).JobID
	n.send(t, "PATCH", third, `{"status":"applied"}`, asBob).wants(t, 200, `{"outcome":"updated"…`)
	n.send(t, "GET", "/api/jobs", "", asBob, "If-None-Match: "+x.Header.Get("ETag")).wants(t, 200, `{"jobs":[{"id":"job_…`)
	for query, want := range map[string]string{
		"sort=updated": "[Job 3 Job 5 Job 4 Job 2 Job 1]", "sort=newest&limit=1": "[Job 5]", "status=applied": "[Job 3]",
		"company=+example+&limit=2": "[Job 5 Job 4]", "company=other": "[]", "captured_via=extension": "[]", "month=2024-01&q=4": "[Job 4]",
		"month=2024-02": "[]", "q=Job&status=applied&sort=updated&captured_via=api": "[Job 3]",
	} {
		if got := fmt.Sprint(n.send(t, "GET", "/api/jobs?"+query, "", asBob).titles(t)); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
}

func TestCursorIsOfOneQuestion(t *testing.T) {
	n, asBob := newWithJobs(t, 3)
	for i := range 2 {
		n.send(t, "POST", "/api/jobs", []string{gopher, crab}[i])
	}
	link := n.send(t, "GET", "/api/jobs?limit=1&company=Example&status=saved", "", asBob).Header.Get("Link")
	path := nextPage.FindStringSubmatch(link)[1]
	if got := fmt.Sprint(n.send(t, "GET", path, "", asBob).titles(t)); got != "[Job 2]" {
		t.Errorf("%s has %s", path, got)
	}
	n.send(t, "GET", path+"&sort=newest", "", asBob).wants(t, 200, `{"jobs":…`)
	n.send(t, "GET", strings.Replace(path, "limit=1", "limit=100", 1), "", asBob).wants(t, 200, `{"jobs":…`)
	for _, other := range []string{
		path + "&sort=updated", path + "&q=Job", path + "&month=2024-01", path + "&captured_via=api",
		strings.Replace(path, "saved", "applied", 1), strings.Replace(path, "Example", "Other", 1), strings.Replace(path, "&status=saved", "", 1),
	} {
		body := n.send(t, "GET", other, "", asBob).wantsProblem(t, codeInvalidRequest)
		if !strings.Contains(body, `"errors":[{"field":"cursor","detail":"must be one that a Link header gave, for the same sort and filters"}]`) {
			t.Errorf("%s: %s", other, body)
		}
	}
	n.send(t, "GET", path, "").wantsProblem(t, codeInvalidRequest) // it is bob's
	cursor := jobCursor("bob", url.Values{}, 1<<63)
	n.send(t, "GET", "/api/jobs?cursor="+cursor, "", asBob).wantsProblem(t, codeInvalidRequest)
}

func TestQueriesThatAreNotRight(t *testing.T) {
	n := newNode(t)
	for query, want := range map[string]string{
		"limit=0": "limit must be a whole number from 1 to 100", "limit=101": "limit must be a whole number from 1 to 100",
		"limit=": "limit must be a whole number from 1 to 100", "limit=1.5": "limit must be a whole number from 1 to 100",
		"sort=oldest": "sort must be one of newest, updated", "status=hired": "status must be one of saved, applied",
		"status=": "status must be one of saved", "captured_via=fax": "captured_via must be one of api, extension",
		"month=2024-13": "month must look like 2026-11", "month=november": "month must look like 2026-11",
		"company=+": "company must not be blank", "company=%ff": "company must be UTF-8",
		"q=": "q must not be blank", "q=%fe": "q must be UTF-8",
		"q=" + strings.Repeat("%C3%A9", 201):  "q must have at most 200 characters, not 201",
		"q=" + strings.Repeat("a+", 16) + "a": "q must have at most 16 words, not 17",
		"q=a-b-c-d-e-f-g-h-i-j-k-l-m-n-o-p-q": "q must have at most 16 words, not 17",
		"cursor=":                             "cursor must be one that a Link header gave", "cursor=MjAyNC0wMQ": "cursor must be one that",
		"limit=1&limit=2": "limit is there more than once", "stauts=saved": "stauts is not a parameter of this call; did you mean status?",
		"limit=0&sort=x&q=": "3 things are wrong, the first: limit must",
		"a=%zz":             "the query of the URL cannot be read",
	} {
		body := n.send(t, "GET", "/api/jobs?"+query, "").wantsProblem(t, codeInvalidRequest)
		if !strings.Contains(body, `"detail":"`+want) {
			t.Errorf("%s: %s", query, body)
		}
	}
	for _, query := range []string{"q=" + strings.Repeat("a+", 16), "q=" + strings.Repeat("%C3%A9", 200), "q=!!!"} {
		n.send(t, "GET", "/api/jobs?"+query, "").wants(t, 200, `{"jobs":[]}`)
	}
	n.Jobs = func(context.Context, string, capture.JobQuery) (page capture.JobPage, err error) {
		return page, errors.New("disk")
	}
	n.send(t, "GET", "/api/jobs", "").wantsProblem(t, codeInternal)
	n.Jobs = func(context.Context, string, capture.JobQuery) (page capture.JobPage, err error) {
		return page, events.ErrUnavailable
	}
	n.Outdated = func() bool { return true }
	n.send(t, "GET", "/api/jobs", "").wantsProblem(t, codeNotReady)
}

func TestLookup(t *testing.T) {
	n, path := newWithJob(t)
	job := n.send(t, "GET", path, "").body
	query := url.Values{"source_url": {"https://jobs.example.com/2", "HTTP://Jobs.Example.com/1/?utm_source=y#a", " https://jobs.example.com/1", "https://jobs.example.com/1"}}
	x := n.send(t, "GET", "/api/jobs/lookup?"+query.Encode(), "")
	x.wants(t, 200, `{"results":[{"source_url":"https://jobs.example.com/2","found":false},`+
		`{"source_url":"HTTP://Jobs.Example.com/1/?utm_source=y#a","found":true,"job":`+job+`},`+
		`{"source_url":" https://jobs.example.com/1","found":true,"job":`+job+`},{"source_url":"https://jobs.example.com/1","found":true,"job":`+job+`}]}`)
	n.send(t, "GET", "/api/jobs/lookup?source_url=https://jobs.example.com/1", "", "Authorization: Bearer "+n.bob.Reveal()).wants(t, 200,
		`{"results":[{"source_url":"https://jobs.example.com/1","found":false}]}`)
	n.send(t, "GET", "/api/jobs/quota", "").wants(t, 200, `{"used":1,"limit":2…`)
	one := "source_url=https://a.example"
	n.send(t, "GET", "/api/jobs/lookup?"+one+strings.Repeat("&"+one, 99), "").wants(t, 200, `{"results":[…`)
	for query, want := range map[string]string{
		"": "source_url is missing", one + strings.Repeat("&"+one, 100): "source_url is there 101 times; 100 are looked up at once",
		one + "&source_url=ftp://a.example&" + one + "&source_url=": "2 things are wrong, the first: source_url at index 1 must be an absolute http or https URL",
		"url=https://a.example": "url is not a parameter of this call",
	} {
		body := n.send(t, "GET", "/api/jobs/lookup?"+query, "").wantsProblem(t, codeInvalidRequest)
		if !strings.Contains(body, `"detail":"`+want) {
			t.Errorf("%s: %s", query, body)
		}
	}
	n.Lookup = func(context.Context, string, []string) (map[string]capture.StoredJob, error) {
		return nil, errors.New("disk")
	}
	n.send(t, "GET", "/api/jobs/lookup?"+one, "").wantsProblem(t, codeInternal)
}
