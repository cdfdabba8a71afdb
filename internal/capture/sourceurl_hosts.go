package capture

import (
	"slices"
	"strings"
)

// hostRules names the hosts of which it is known what identifies a posting there. An entry is one host,
// or with a leading dot a domain and every host under it. A rule returns the canonical URL of the posting,
// which lies under the same entry and is its own canonical form. It is not ok when the URL has any other
// shape than those that are known; the general rules then stand.
//
// The facts are taken from public postings, from links in public code and issue reports, and from the
// parameter lists of ClearURLs; each rule says which.
var hostRules = []struct {
	hosts   []string
	posting func(sourceURL) (canonical string, ok bool)
}{
	{[]string{".linkedin.com"}, linkedinPosting},
	{[]string{".indeed.com"}, indeedPosting},
	{[]string{"boards.greenhouse.io", "job-boards.greenhouse.io"}, greenhousePosting},
	{[]string{"boards.eu.greenhouse.io", "job-boards.eu.greenhouse.io"}, greenhousePosting},
	{[]string{"jobs.lever.co", "jobs.eu.lever.co"}, leverPosting},
	{[]string{"jobs.ashbyhq.com"}, ashbyPosting},
	{[]string{".myworkdayjobs.com", ".myworkdaysite.com"}, workdayPosting},
	{[]string{"jobs.smartrecruiters.com", "careers.smartrecruiters.com"}, smartrecruitersPosting},
	{[]string{
		".glassdoor.com", ".glassdoor.ca", ".glassdoor.co.uk", ".glassdoor.ie", ".glassdoor.com.au", ".glassdoor.co.nz",
		".glassdoor.co.in", ".glassdoor.sg", ".glassdoor.com.hk", ".glassdoor.de", ".glassdoor.at", ".glassdoor.ch",
		".glassdoor.fr", ".glassdoor.be", ".glassdoor.nl", ".glassdoor.es", ".glassdoor.it", ".glassdoor.com.br",
		".glassdoor.com.mx", ".glassdoor.com.ar",
	}, glassdoorPosting},
}

// posting returns the canonical URL of the posting, if the rules of u's host recognise one.
func (u sourceURL) posting() (canonical string, ok bool) {
	if u.port != "" {
		return "", false
	}
	for i := range hostRules {
		if slices.ContainsFunc(hostRules[i].hosts, u.isUnder) {
			return hostRules[i].posting(u)
		}
	}
	return "", false
}

// isUnder reports whether u's host is the entry, or for an entry with a leading dot its domain or under it.
func (u sourceURL) isUnder(entry string) bool {
	return u.host == strings.TrimPrefix(entry, ".") || entry[0] == '.' && strings.HasSuffix(u.host, entry)
}

// linkedinPosting: a posting is known by its number alone, on every country's host; the words before it,
// where there are any, follow the title. Search and collection pages show the posting of currentJobId.
// Everything else in the query is noise (ClearURLs: refId, trackingId, trk, alternateChannel, eBP, ...).
// Source: an issue report on de.linkedin.com/jobs/view/<words>-<number>, observed links.
func linkedinPosting(u sourceURL) (string, bool) {
	segments := u.segments()
	if len(segments) > 0 && segments[0] == "comm" { // links in LinkedIn's mail
		segments = segments[1:]
	}
	if len(segments) == 0 || segments[0] != "jobs" {
		return "", false
	}
	var number string
	switch page := segments[1:]; {
	case len(page) == 2 && page[0] == "view", len(page) == 3 && page[0] == "view" && page[2] == "apply":
		number = page[1][strings.LastIndexByte(page[1], '-')+1:]
	case len(page) == 0, len(page) == 1 && (page[0] == "search" || page[0] == "search-results"),
		len(page) <= 2 && page[0] == "collections":
		number, _ = u.param("currentJobId")
	}
	return "https://www.linkedin.com/jobs/view/" + number, isNumber(number, 6)
}

// indeedPosting: jk is the job key, 16 hexadecimal digits; vjk is the key of the posting opened beside a
// list of results. The rest of the query tells how the visitor came (ClearURLs: from, alid, *tk). Whether
// a key means one posting on every country's host is not known, so only m., www. and no sub-domain at all,
// three doors to one site, are put together.
// Source: an issue report in which dropping jk made all of Indeed one job, observed links.
func indeedPosting(u sourceURL) (string, bool) {
	name := "vjk"
	switch {
	case slices.Contains([]string{"/viewjob", "/m/viewjob", "/rc/clk", "/m/rc/clk", "/pagead/clk"}, u.path):
		name = "jk"
	case slices.Contains([]string{"/", "/jobs", "/m/jobs"}, u.path):
	case strings.HasPrefix(u.path, "/q-") && strings.HasSuffix(u.path, ".html"):
	default:
		return "", false
	}
	host := u.host
	if host == "indeed.com" || host == "m.indeed.com" {
		host = "www.indeed.com"
	}
	key, ok := u.param(name)
	return "https://" + host + "/viewjob?jk=" + key, ok && len(key) == 16 && isLowerHex(key)
}

// greenhousePosting: {board}/jobs/{number}, and embed/job_app with the board in "for" and the number in
// "token", the form shown inside an employer's own page. boards. and job-boards. are the old and new
// dress of one system (observed: the same board and number on both); the EU hosts are another system,
// whose numbers may clash. An embed without "for" stays on its own, although its number says enough to
// Greenhouse, because the board it belongs to is not known. gh_jid repeats the number; gh_src is the source.
// Pages with gh_jid on an employer's own host are left to the general rules, which keep gh_jid.
func greenhousePosting(u sourceURL) (string, bool) {
	host := "https://job-boards.greenhouse.io/"
	if strings.HasSuffix(u.host, ".eu.greenhouse.io") {
		host = "https://job-boards.eu.greenhouse.io/"
	}
	if u.path == "/embed/job_app" {
		number, _ := u.param("token")
		if !isNumber(number, 1) || !u.agrees("gh_jid", number) {
			return "", false
		}
		board, named := u.param("for")
		if !named && u.agrees("for", "") {
			return host + "embed/job_app?token=" + number, true
		}
		return host + lowerASCII(board) + "/jobs/" + number, isBoard(board)
	}
	segments := u.segments()
	if len(segments) != 3 && (len(segments) != 4 || segments[3] != "confirmation") || segments[1] != "jobs" {
		return "", false
	}
	board, number := segments[0], segments[2]
	return host + lowerASCII(board) + "/jobs/" + number,
		isBoard(board) && isNumber(number, 1) && u.agrees("gh_jid", number)
}

// leverPosting: {board}/{UUID}, followed by /apply on the form and /thanks after it. The query is all
// sources (lever-origin, lever-source, lever-via, ...). The EU host is another system.
// Source: observed in public postings; issue reports on /apply.
func leverPosting(u sourceURL) (string, bool) {
	return boardAndUUID(u, "", "apply", "thanks", "apply/thanks")
}

// ashbyPosting: {board}/{UUID}, followed by /application on the form. Pages with ashby_jid on an
// employer's own host are left to the general rules, which keep it.
// Source: observed in public postings, with and without /application.
func ashbyPosting(u sourceURL) (string, bool) {
	return boardAndUUID(u, "", "application")
}

// boardAndUUID recognises /{board}/{UUID} followed by one of the tails. The case of both is dropped: a
// UUID has none, and it tells postings apart even if two boards' names should differ in case alone.
func boardAndUUID(u sourceURL, tails ...string) (string, bool) {
	segments := u.segments()
	if len(segments) < 2 || segments[0] == "" {
		return "", false
	}
	board, id := lowerSegment(segments[0]), lowerASCII(segments[1])
	tail := strings.Join(segments[2:], "/")
	return "https://" + u.host + "/" + board + "/" + id, isUUID(id) && slices.Contains(tails, tail)
}

// workdayPosting: {site}/job/{location}/{title}_{requisition} or {site}/details/{title}_{requisition}, the
// same page reached from a list; the location is left out in the second form and in some URLs of the
// first, so it does not identify. A locale may stand in front, /apply and the way of applying behind.
// The site's case varies in public links (nvidiaexternalcareersite). All of the last segment is kept:
// requisitions R1066 and R1066-3 are different postings. So are the tenant's data centre (wd1, wd5) and
// site: a requisition shown on two sites stays two. On myworkdaysite.com, recruiting/{tenant} precedes the site.
// Source: observed in public postings, all forms; nothing in the query (source, src, q, ...) identifies.
func workdayPosting(u sourceURL) (string, bool) {
	segments := u.segments()
	lead := 1
	if u.isUnder(".myworkdaysite.com") {
		lead = 3
	}
	if len(segments) > lead+1 && isLocale(segments[0]) && isWorkdayPage(segments[lead+1]) {
		segments = segments[1:]
	}
	if len(segments) < lead+2 || !isWorkdayPage(segments[lead]) || lead == 3 && segments[0] != "recruiting" {
		return "", false
	}
	posting := withoutWorkdayApply(segments[lead+1:])
	if len(posting) == 2 && segments[lead] == "job" {
		posting = posting[1:]
	}
	if len(posting) != 1 {
		return "", false
	}
	title, requisition, _ := strings.Cut(posting[0], "_")
	site := lowerSegment(strings.Join(segments[:lead], "/"))
	return "https://" + u.host + "/" + site + "/job/" + posting[0], title != "" && requisition != ""
}

func isWorkdayPage(segment string) bool { return segment == "job" || segment == "details" }

// withoutWorkdayApply drops "apply" and the way of applying from the end of a posting's segments.
func withoutWorkdayApply(segments []string) []string {
	ways := []string{"applyManually", "autofillWithResume", "useMyLastApplication"}
	n := len(segments)
	if n > 1 && segments[n-2] == "apply" && slices.Contains(ways, segments[n-1]) {
		return segments[:n-2]
	}
	if segments[n-1] == "apply" {
		return segments[:n-1]
	}
	return segments
}

// smartrecruitersPosting: {company}/{number} or {company}/{number}-{title}. careers. leads to jobs. The
// query is all sources (trid, dcr_ci, oga, ...). The case of the company is dropped: the number, counted
// over all companies, is the identity. The form at oneclick-ui/company/{company}/publication/{UUID} names
// a publication, which cannot be related to the number; the general rules keep it apart.
// Source: observed in public postings.
func smartrecruitersPosting(u sourceURL) (string, bool) {
	segments := u.segments()
	if len(segments) != 2 || segments[0] == "" {
		return "", false
	}
	number, _, _ := strings.Cut(segments[1], "-")
	return "https://jobs.smartrecruiters.com/" + lowerSegment(segments[0]) + "/" + number, isNumber(number, 6)
}

// glassdoorPosting: jl, or jobListingId in links from mail and partners, is the number of the posting; the
// words and offsets of the path (-JV_IC..._KO0,17_KE18,24.htm) follow the title. Countries are kept
// apart: that they count as one is likely, not known. The canonical form is the short link Glassdoor uses.
// Source: observed links of the three forms.
func glassdoorPosting(u sourceURL) (string, bool) {
	segments := u.segments()
	if len(segments) == 0 || segments[0] != "job-listing" && u.path != "/partner/jobListing.htm" {
		return "", false
	}
	number, ok := u.param("jl")
	if !ok {
		number, _ = u.param("jobListingId")
	}
	host := u.host
	if strings.HasPrefix(host, "glassdoor.") {
		host = "www." + host
	}
	return "https://" + host + "/job-listing/j?jl=" + number,
		isNumber(number, 1) && u.agrees("jl", number) && u.agrees("jobListingId", number)
}

// lowerSegment returns a clean part of a path in lower case. Escapes keep their case, which is upper.
func lowerSegment(segment string) string { return cleanEscapes(lowerASCII(segment)) }

// isNumber reports whether s consists of decimal digits, at least this many.
func isNumber(s string, digits int) bool {
	return len(s) >= digits && strings.Trim(s, "0123456789") == ""
}

// isLowerHex reports whether s consists of lower-case hexadecimal digits.
func isLowerHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

// isUUID reports whether s is a UUID in lower case.
func isUUID(s string) bool {
	return len(s) == 36 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-' &&
		isLowerHex(s[:8]+s[9:13]+s[14:18]+s[19:23]+s[24:])
}

// isBoard reports whether s can be the name of a Greenhouse board: letters, digits, "-" and "_".
func isBoard(s string) bool {
	isOther := func(r rune) bool { return r >= 0x80 || !isAlphanumeric(byte(r)) && r != '-' && r != '_' }
	return s != "" && !strings.ContainsFunc(s, isOther)
}

// isLocale reports whether s is a language, or a language and a country: "de", "en-US".
func isLocale(s string) bool {
	isOther := func(r rune) bool { return r < 'A' || r > 'Z' && r < 'a' || r > 'z' }
	language, country, hasCountry := strings.Cut(s, "-")
	return len(language) == 2 && !strings.ContainsFunc(language+country, isOther) && len(country) == 2 == hasCountry
}
