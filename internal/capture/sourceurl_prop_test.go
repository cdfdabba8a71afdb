package capture

import (
	"net/url"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// drawSource draws the parts of a plausible posting URL on a host without a rule of its own.
func drawSource(t *rapid.T) (host string, path, params []string) {
	word := rapid.StringMatching(`[A-Za-z0-9_~][A-Za-z0-9._~%+,ü-]{0,8}`)
	host = rapid.StringMatching(`[a-z][a-z0-9-]{0,8}(\.[a-z]{2,6}){1,2}`).Draw(t, "host")
	path = rapid.SliceOfN(word, 1, 4).Draw(t, "path")
	params = rapid.SliceOfN(rapid.StringMatching(`(id|job|gh_jid|Ref|a%20b|q)=[A-Za-z0-9%+/?.-]{0,8}`), 1, 4).Draw(t, "params")
	return host, path, params
}

func joinSource(host string, path, params []string) string {
	return "https://" + host + "/" + strings.Join(path, "/") + "?" + strings.Join(params, "&")
}

func TestCanonicalSourceIgnoresWhatIsNotThePosting(t *testing.T) {
	tracking := rapid.SliceOf(rapid.StringMatching(`(utm_[a-z]{1,8}|gclid|FBCLID|msclkid|mc_cid|_hsenc|gh_src|lever-origin|yclid)(=[A-Za-z0-9%.-]{0,6})?`))
	rapid.Check(t, func(t *rapid.T) {
		host, path, params := drawSource(t)
		want := mustCanonicalOf(t, joinSource(host, path, params))

		if rapid.Bool().Draw(t, "upper-case host") {
			host = strings.ToUpper(host)
		}
		if rapid.Bool().Draw(t, "trailing slash") {
			path = append(path, "")
		}
		params = rapid.Permutation(append(params, tracking.Draw(t, "tracking")...)).Draw(t, "order")
		variant := joinSource(host, path, params) + rapid.SampledFrom([]string{"", "#", "#apply", "#job-details", "#:~:text=Go"}).Draw(t, "anchor")
		if rapid.Bool().Draw(t, "http") {
			variant = strings.Replace(variant, "https:", "http:", 1)
		}
		if got := mustCanonicalOf(t, variant); got != want {
			t.Fatalf("%s\n got %s\nwant %s", variant, got, want)
		}
	})
}

func TestCanonicalSourceTellsPostingsApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		host, path, params := drawSource(t)
		one := mustCanonicalOf(t, joinSource(host, path, params))
		switch change := rapid.StringMatching(`[A-Za-z0-9]{1,4}`).Draw(t, "change"); rapid.IntRange(0, 3).Draw(t, "of") {
		case 0:
			path[rapid.IntRange(0, len(path)-1).Draw(t, "segment")] += "-" + change
		case 1:
			params[rapid.IntRange(0, len(params)-1).Draw(t, "param")] += "-" + change
		case 2:
			params = append(params, "page="+change)
		case 3:
			host = "x" + host
		}
		if other := mustCanonicalOf(t, joinSource(host, path, params)); other == one {
			t.Fatalf("two postings became one: %s", one)
		}
	})
}

func TestCanonicalSourceTellsNumbersApart(t *testing.T) {
	sites := []string{
		"https://de.linkedin.com/jobs/view/go-engineer-at-acme-{n}",
		"https://www.linkedin.com/jobs/search/?currentJobId={n}&start=25",
		"https://www.indeed.com/viewjob?jk=000000{n}&from=serp",
		"https://boards.greenhouse.io/acme/jobs/{n}?gh_src=x",
		"https://boards.greenhouse.io/embed/job_app?for=acme&token={n}",
		"https://careers.acme.com/jobs/?gh_jid={n}",
		"https://jobs.lever.co/acme/00000000-0000-0000-0000-00{n}/apply",
		"https://jobs.ashbyhq.com/acme/00000000-0000-0000-0000-00{n}/application",
		"https://acme.wd5.myworkdayjobs.com/en-US/Careers/job/Boston/Engineer_R{n}",
		"https://jobs.smartrecruiters.com/Acme/{n}-engineer",
		"https://www.glassdoor.com/partner/jobListing.htm?pos=101&jobListingId={n}",
	}
	number := rapid.StringMatching(`[1-9][0-9]{9}`)
	rapid.Check(t, func(t *rapid.T) {
		site := rapid.SampledFrom(sites).Draw(t, "site")
		a, b := number.Draw(t, "a"), number.Draw(t, "b")
		one := mustCanonicalOf(t, strings.ReplaceAll(site, "{n}", a))
		other := mustCanonicalOf(t, strings.ReplaceAll(site, "{n}", b))
		if (a == b) != (one == other) {
			t.Fatalf("%s and %s at %s:\n%s\n%s", a, b, site, one, other)
		}
	})
}

// mustCanonicalOf is mustCanonical under rapid, whose T is no testing.TB.
func mustCanonicalOf(t *rapid.T, raw string) string {
	got, err := CanonicalSource(raw)
	if err != nil {
		t.Fatalf("CanonicalSource(%q): %v", raw, err)
	}
	if again, err := CanonicalSource(got); again != got || err != nil {
		t.Fatalf("CanonicalSource(%q) = %s, but of that %s, %v", raw, got, again, err)
	}
	return got
}

// FuzzCanonicalSource checks what holds of every input: it is refused without a result, or the result is
// within bounds, its own canonical form, and a plain http or https URL to net/url too.
func FuzzCanonicalSource(f *testing.F) {
	for _, table := range [][]sourceCases{sourceTable, sourceHostTable} {
		for _, c := range table {
			for _, urls := range [][]string{{c.canonical}, c.same, c.apart} {
				for _, raw := range urls {
					f.Add(raw)
				}
			}
		}
	}
	f.Add("https://example.com/%%34%31/a//..//./%2e%2e/?%%75tm_x&%=%#%7e:~:%")
	f.Fuzz(func(t *testing.T, raw string) {
		got, err := CanonicalSource(raw)
		if err != nil {
			if got != "" {
				t.Fatalf("refused with a result: %q, %v", got, err)
			}
			return
		}
		mustCanonical(t, raw)
		u, err := url.Parse(got)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case len(got) > MaxSourceBytes:
			t.Fatalf("%d bytes", len(got))
		case u.Scheme != "https" && (u.Scheme != "http" || u.Port() == ""), u.Hostname() == "", u.User != nil, u.Path == "":
			t.Fatalf("CanonicalSource(%q) = %s", raw, got)
		case strings.ContainsFunc(strings.ReplaceAll(got, u.Host, ""), func(r rune) bool { return r <= ' ' || r >= 0x7f }):
			t.Fatalf("unescaped: %q", got)
		}
	})
}
