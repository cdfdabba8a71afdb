package capture

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
)

// sourceCases says, for one posting, which URLs are the same job and which are other jobs. Those apart
// must also differ among themselves.
type sourceCases struct {
	name      string
	canonical string
	same      []string
	apart     []string
}

var sourceTable = []sourceCases{
	{
		name:      "general",
		canonical: "https://jobs.example.com/roles/backend-42?dept=eng&id=7",
		same: []string{
			"https://jobs.example.com/roles/backend-42?id=7&dept=eng",
			"  https://jobs.example.com/roles/backend-42?dept=eng&id=7\n",
			"HTTPS://Jobs.Example.COM/roles/backend-42?dept=eng&id=7",
			"http://jobs.example.com/roles/backend-42?dept=eng&id=7",
			"http://jobs.example.com:80/roles/backend-42?dept=eng&id=7",
			"https://jobs.example.com:443/roles/backend-42?dept=eng&id=7",
			"https://jobs.example.com:0443/roles/backend-42?dept=eng&id=7",
			"https://jobs.example.com:/roles/backend-42?dept=eng&id=7",
			"https://jobs.example.com./roles/backend-42?dept=eng&id=7",
			"https://jobs.example.com/roles/backend-42/?dept=eng&id=7",
			"https://jobs.example.com/roles/./backend-42/.?dept=eng&id=7",
			"https://jobs.example.com/teams/%2e%2e/roles/backend-42?dept=eng&id=7",
			"https://jobs.example.com/../roles/backend-42?dept=eng&id=7",
			"https://jobs.example.com/r%6Fles/backend%2d42?d%65pt=eng&id=%37",
			"https://jobs.example.com/roles/backend-42?dept=eng&id=7#apply",
			"https://jobs.example.com/roles/backend-42?dept=eng&id=7#",
			"https://jobs.example.com/roles/backend-42?dept=eng&id=7#!",
			"https://jobs.example.com/roles/backend-42?dept=eng&id=7#/",
			"https://jobs.example.com/roles/backend-42?dept=eng&id=7#:~:text=apply%20by%202026",
			"https://jobs.example.com/roles/backend-42?dept=eng&id=7#utm_source=mail&utm_medium=x",
			"https://jobs.example.com/roles/backend-42?&dept=eng&&id=7&",
			"https://jobs.example.com/roles/backend-42?utm_source=x&dept=eng&UTM_Medium=y&id=7&fbclid=IwAR1&gclid=&mc_eid=1",
			"https://jobs.example.com/roles/backend-42?dept=eng&id=7&utm%5Fcampaign=z&_hsenc=a&_hsmi=b&msclkid",
			"https://jobs.example.com/roles/backend-42?dept=eng&id=7&gh_src=abc&lever-source%5B%5D=LinkedIn&lever-origin=applied",
		},
		apart: []string{
			"https://jobs.example.com/roles/backend-43?dept=eng&id=7",
			"https://jobs.example.com/roles/Backend-42?dept=eng&id=7",
			"https://jobs.example.com/roles/backend-42//?dept=eng&id=7",
			"https://jobs.example.com//roles/backend-42?dept=eng&id=7",
			"https://jobs.example.com/roles%2Fbackend-42?dept=eng&id=7",
			"https://jobs.example.com/roles/backend-42?dept=eng&id=8",
			"https://jobs.example.com/roles/backend-42?dept=eng&id=7&id=7",
			"https://jobs.example.com/roles/backend-42?dept=eng&ID=7",
			"https://jobs.example.com/roles/backend-42?dept=Eng&id=7",
			"https://jobs.example.com/roles/backend-42?dept=eng",
			"https://jobs.example.com/roles/backend-42?dept=eng&id=7&ref=hn",
			"https://jobs.example.com/roles/backend-42?dept=eng&id=7&source=hn",
			"https://jobs.example.com/roles/backend-42?dept=eng&id=7&src=hn",
			"https://jobs.example.com/roles/backend-42?dept=eng&id=7&from=hn",
			"https://jobs.example.com/roles/backend-42?dept=eng&id=7&q",
			"https://jobs.example.com/roles/backend-42?dept=eng&id=7&q=",
			"https://jobs.example.com/roles/backend-42?dept=eng&id=7&q=a+b",
			"https://jobs.example.com/roles/backend-42?dept=eng&id=7&q=a%20b",
			"https://jobs.example.com/roles/backend-42?dept=eng&id=7&q=a%2Bb",
			"https://jobs.example.com/roles/backend-42?dept=eng%26id=7",
			"https://jobs.example.com/roles/backend-42?dept=eng;id=7",
			"https://jobs.example.com/roles/backend-42?dept=eng&id=7#/jobs/1",
			"https://jobs.example.com/roles/backend-42?dept=eng&id=7#/jobs/2",
			"https://jobs.example.com/roles/backend-42?dept=eng&id=7#!/jobs/1",
			"https://jobs.example.com/roles/backend-42?dept=eng&id=7#job=1",
			"https://jobs.example.com/roles/backend-42?dept=eng&id=7#op-518245-backend",
			"https://jobs.example.com:8443/roles/backend-42?dept=eng&id=7",
			"http://jobs.example.com:8443/roles/backend-42?dept=eng&id=7",
			"http://jobs.example.com:443/roles/backend-42?dept=eng&id=7",
			"https://example.com/roles/backend-42?dept=eng&id=7",
		},
	},
	{
		name:      "root",
		canonical: "https://example.com/",
		same:      []string{"https://example.com", "http://example.com:80", "https://example.com/?", "https://example.com?utm_id=1", "https://example.com/a/..", "https://EXAMPLE.com#top"},
		apart:     []string{"https://example.com//", "https://example.com/?a", "https://example.com/?a=", "https://example.com/a", "https://example.org/", "https://www.example.com/"},
	},
	{
		name:      "escapes",
		canonical: "https://example.com/stellen/m%C3%BCnchen/100%25-remote/c++?q=%E4%7C%5E",
		same: []string{
			"https://example.com/stellen/münchen/100%-remote/c++?q=%e4|^",
			"https://example.com/stellen/m%c3%bcnchen/100%25-remote/c++?q=%E4%7c%5e",
		},
		apart: []string{
			"https://example.com/stellen/münchen/100%-remote/c%2B%2B?q=%e4|^",
			"https://example.com/stellen/münchen/100%2525-remote/c++?q=%e4|^",
			"https://example.com/stellen/munchen/100%-remote/c++?q=%e4|^",
		},
	},
	{
		name:      "a page of a single-page application",
		canonical: "https://careers.example.com/#/job/R-1?lang=en",
		same:      []string{"http://careers.example.com#/job/R-1?lang=en", "https://careers.example.com/?utm_term=a#/job/R%2d1?lang=en", "https://careers.example.com/#/job/R-1?lang=en:~:text=Go"},
		apart:     []string{"https://careers.example.com/#/job/R-2?lang=en", "https://careers.example.com/#!/job/R-1?lang=en", "https://careers.example.com/job/R-1?lang=en", "https://careers.example.com/"},
	},
	{
		name:      "gh_jid on an employer's own host",
		canonical: "https://www.acme.com/careers?gh_jid=6048899",
		same: []string{
			"https://www.acme.com/careers/?gh_jid=6048899",
			"http://www.acme.com/careers?gh_jid=6048899&gh_src=8a1b2c3d1us",
			"https://www.acme.com/careers?gh_src=&gh_jid=6048899#application",
		},
		apart: []string{
			"https://www.acme.com/careers?gh_jid=6048898",
			"https://www.acme.com/careers",
			"https://careers.acme.com/careers?gh_jid=6048899",
			"https://www.acme.com/jobs?gh_jid=6048899",
		},
	},
	{
		name:      "ashby_jid on an employer's own host",
		canonical: "https://www.acme.com/careers?ashby_jid=34464bf6-1c55-4aed-8d08-ac43c7c965d1",
		same:      []string{"https://www.acme.com/careers/?utm_source=x&ashby_jid=34464bf6-1c55-4aed-8d08-ac43c7c965d1#open-positions"},
		apart:     []string{"https://www.acme.com/careers?ashby_jid=c161948f-001d-45e4-a340-776cfccc1ff2", "https://www.acme.com/careers"},
	},
}

func TestCanonicalSource(t *testing.T) {
	for _, table := range [][]sourceCases{sourceTable, sourceHostTable} {
		for _, c := range table {
			t.Run(c.name, func(t *testing.T) {
				for _, raw := range append(c.same, c.canonical) {
					if got := mustCanonical(t, raw); got != c.canonical {
						t.Errorf("CanonicalSource(%q)\n got %s\nwant %s", raw, got, c.canonical)
					}
				}
				seen := map[string]string{c.canonical: c.canonical}
				for _, raw := range c.apart {
					got := mustCanonical(t, raw)
					if other, merged := seen[got]; merged {
						t.Errorf("two postings became one, %s\n%s\n%s", got, other, raw)
					}
					seen[got] = raw
				}
			})
		}
	}
}

// mustCanonical returns the canonical form of raw, and fails the test if it is not its own canonical form.
func mustCanonical(t testing.TB, raw string) string {
	t.Helper()
	got, err := CanonicalSource(raw)
	if err != nil {
		t.Fatalf("CanonicalSource(%q): %v", raw, err)
	}
	if again, err := CanonicalSource(got); again != got || err != nil {
		t.Fatalf("CanonicalSource(%q) = %s, but of that %s, %v", raw, got, again, err)
	}
	return got
}

func TestCanonicalSourceRefuses(t *testing.T) {
	const prefix = "https://example.com/"
	for _, c := range []struct {
		raw  string
		want error
	}{
		{"", ErrSourceScheme},
		{" \t", ErrSourceScheme},
		{"/jobs/1", ErrSourceScheme},
		{"example.com/jobs/1", ErrSourceScheme},
		{"//example.com/jobs/1", ErrSourceScheme},
		{"https:/example.com", ErrSourceScheme},
		{"https:example.com", ErrSourceScheme},
		{"javascript:alert(1)", ErrSourceScheme},
		{"javascript://example.com/%0aalert(1)", ErrSourceScheme},
		{"data:text/html,hi", ErrSourceScheme},
		{"ftp://example.com/jobs", ErrSourceScheme},
		{"file:///etc/hosts", ErrSourceScheme},
		{"view-source:https://example.com/", ErrSourceScheme},
		{"https", ErrSourceScheme},
		{"http://", ErrSourceHost},
		{"https:///jobs/1", ErrSourceHost},
		{"https://?q=1", ErrSourceHost},
		{"https://#a", ErrSourceHost},
		{"https://:443/", ErrSourceHost},
		{"https://./", ErrSourceHost},
		{"https://example..com/", ErrSourceHost},
		{"https://.example.com/", ErrSourceHost},
		{"https://example.com../", ErrSourceHost},
		{"https://exa%6Dple.com/", ErrSourceHost},
		{"https://exa%zzple.com/", ErrSourceHost},
		{`https://example.com\jobs`, ErrSourceHost},
		{"https://example.com|jobs", ErrSourceHost},
		{"https://exam\u200bple.com", ErrSourceHost},
		{"https://[::1]/jobs", ErrSourceHost},
		{"https://example.com:port/", ErrSourcePort},
		{"https://example.com:0/", ErrSourcePort},
		{"https://example.com:65536/", ErrSourcePort},
		{"https://example.com:-1/", ErrSourcePort},
		{"https://example.com:80:80/", ErrSourcePort},
		{"https://user@example.com/", ErrSourceUserInfo},
		{"https://user:secret@example.com/", ErrSourceUserInfo},
		{"https://@example.com/", ErrSourceUserInfo},
		{"https://www.linkedin.com@example.com/jobs/view/4457345623", ErrSourceUserInfo},
		{"https://example.com/a b", ErrSourceText},
		{"https://example.com/a\nb", ErrSourceText},
		{"https://exam ple.com/", ErrSourceText},
		{"https://example.com/\x00", ErrSourceText},
		{"https://example.com/\x7f", ErrSourceText},
		{"https://example.com/\xff", ErrSourceText},
		{prefix + strings.Repeat("a", MaxSourceBytes+1-len(prefix)), ErrSourceLength},
		{prefix + strings.Repeat("ü", (MaxSourceBytes-len(prefix))/2), ErrSourceLength}, // longer when escaped
	} {
		if got, err := CanonicalSource(c.raw); !errors.Is(err, c.want) || got != "" {
			t.Errorf("CanonicalSource(%.60q) = %q, %v; want %v", c.raw, got, err, c.want)
		}
	}
	longest := prefix + strings.Repeat("a", MaxSourceBytes-len(prefix))
	if got := mustCanonical(t, " "+longest+" "); got != longest {
		t.Error("a URL of the greatest length was changed")
	}
}

func TestCanonicalSourceKeepsUnicodeHost(t *testing.T) {
	for raw, want := range map[string]string{
		"HTTPS://Bücher.Example/a":                   "https://bücher.example/a",
		"https://BÜCHER.example/a":                   "https://bÜcher.example/a",
		"https://xn--bcher-kva.example/a":            "https://xn--bcher-kva.example/a",
		"https://ｌinkedin.com/jobs/view/4457345623/": "https://ｌinkedin.com/jobs/view/4457345623",
		"http://192.0.2.7:8080/jobs/1":               "http://192.0.2.7:8080/jobs/1",
	} {
		if got := mustCanonical(t, raw); got != want {
			t.Errorf("CanonicalSource(%q) = %s, want %s", raw, got, want)
		}
	}
}

// TestCanonicalSourceOfPostings holds the rules against a file of real postings, one JSON object a line
// with company and source_url: each URL is accepted, and no two companies share a canonical form.
func TestCanonicalSourceOfPostings(t *testing.T) {
	name := os.Getenv("POSTINGS")
	if name == "" {
		t.Skip("POSTINGS names no file of postings")
	}
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	type posting struct {
		Company   string `json:"company"`
		SourceURL string `json:"source_url"`
	}
	seen := map[string]posting{}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		var p posting
		if err := json.Unmarshal(lines.Bytes(), &p); err != nil {
			t.Fatal(err)
		}
		canonical := mustCanonical(t, p.SourceURL)
		first, merged := seen[canonical]
		switch {
		case !merged:
			seen[canonical] = p
		case first.Company != p.Company:
			t.Errorf("%s\n%s %s\n%s %s", canonical, first.Company, first.SourceURL, p.Company, p.SourceURL)
		default:
			t.Logf("one job:\n%s\n%s", first.SourceURL, p.SourceURL)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d jobs", len(seen))
}

func BenchmarkCanonicalSource(b *testing.B) {
	for name, raw := range map[string]string{
		"plain":      "https://careers.example.com/jobs/senior-backend-engineer-4711",
		"tracking":   "https://careers.example.com/jobs/?utm_source=hn&gh_jid=6048899&utm_medium=social&gh_src=abc",
		"greenhouse": "https://boards.greenhouse.io/acme/jobs/4858822004?gh_src=abc",
		"workday":    "https://acme.wd5.myworkdayjobs.com/en-US/Careers/job/Boston/Software-Engineer_R1077/apply?source=LinkedIn",
		"linkedin":   "https://de.linkedin.com/jobs/view/software-engineer-at-acme-4457345623?refId=a&trackingId=b&trk=c",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := CanonicalSource(raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
