package main

import (
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"testing"
)

// TestRealPostingsAreCapturedOnceAndRecognisedEverAfter runs on job postings as they stand on real boards, a JSON
// object of title, company, location and source_url a line. They are not part of the repository.
func TestRealPostingsAreCapturedOnceAndRecognisedEverAfter(t *testing.T) {
	t.Parallel()
	file := os.Getenv("POSTINGS")
	if file == "" {
		t.Skip("no postings: name a file with POSTINGS=postings.jsonl go test ./cmd/api -run RealPostings")
	}
	postings := readPostings(t, file)
	s := startBinary(t, t.TempDir(), "--plans", "free=-1")
	first := s.captureAll(t, postings)
	jobs, created := map[string]posting{}, int64(0)
	for i, r := range first {
		if r.status == http.StatusCreated {
			created++
		} else {
			r.wants(t, http.StatusOK)
		}
		other, known := jobs[r.Job.ID]
		if known && other.Company != postings[i].Company {
			t.Errorf("one job: %s of %s, and %s of %s", other.SourceURL, other.Company, postings[i].SourceURL, postings[i].Company)
		}
		if known && other.SourceURL != postings[i].SourceURL {
			t.Logf("one job: %s\n         %s", other.SourceURL, postings[i].SourceURL)
		}
		jobs[r.Job.ID] = postings[i]
	}
	t.Logf("%d postings are %d jobs", len(postings), len(jobs))

	seed := rand.Uint64()
	t.Logf("order of the second pass: seed %d", seed)
	order := rand.New(rand.NewPCG(seed, 0)).Perm(len(postings))
	shared := make([]posting, len(postings))
	for to, from := range order {
		shared[to] = postings[from]
		shared[to].SourceURL = tracked(postings[from].SourceURL, to)
	}
	for to, r := range s.captureAll(t, shared) {
		if r.status != http.StatusOK || r.Job.ID != first[order[to]].Job.ID {
			t.Errorf("%s is answered %d with job %s, but as %s it was job %s", shared[to].SourceURL, r.status, r.Job.ID,
				postings[order[to]].SourceURL, first[order[to]].Job.ID)
		}
	}
	s.wantsQuota(t, quota{int64(len(jobs)), -1, -1, resetDate()})
	if created != int64(len(jobs)) {
		t.Errorf("%d captures were answered 201, and there are %d jobs", created, len(jobs))
	}
}

func readPostings(t *testing.T, path string) (postings []posting) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for lines := json.NewDecoder(file); lines.More(); {
		var p posting
		if err := lines.Decode(&p); err != nil {
			t.Fatal(err)
		}
		postings = append(postings, p)
	}
	if len(postings) == 0 {
		t.Fatalf("%s has no postings", path)
	}
	return postings
}

// captureAll captures every posting, 16 at a time, and returns the answers in their order.
func (c client) captureAll(t *testing.T, postings []posting) []reply {
	t.Helper()
	const clients = 16
	replies := make([]reply, len(postings))
	together(clients, func(first int) any {
		for i := first; i < len(postings); i += clients {
			replies[i] = c.post(t, postings[i].json())
		}
		return nil
	})
	return replies
}

// tracked returns the URL as somebody shares it: with the parameters by which that board, and the sites that link to
// it, tell where a visitor came from.
func tracked(url string, n int) string {
	parameters := []string{"utm_source=linkedin", "utm_medium=social&utm_campaign=spring", "gclid=CjwKCAjw", "fbclid=IwAR0", "utm_content=a+b"}[n%5]
	switch {
	case strings.Contains(url, "greenhouse.io/"):
		parameters += "&gh_src=4c2b1d"
	case strings.Contains(url, "jobs.lever.co/"):
		parameters += "&lever-source=LinkedIn&lever-origin=applied"
	case strings.Contains(url, "jobs.ashbyhq.com/"):
		parameters += "&utm_term=ashby"
	}
	page, fragment, hasFragment := strings.Cut(url, "#")
	separator := "?"
	if strings.Contains(page, "?") {
		separator = "&"
	}
	page += separator + parameters
	if hasFragment {
		page += "#" + fragment
	}
	return page
}
