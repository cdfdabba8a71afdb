package main

import (
	"net/http"
	"strings"
	"testing"

	"jobtally/internal/token"
)

// unknownToken is well-formed, and was never issued.
var unknownToken = token.New().Reveal()

// badInput is a call that is refused: with what status, code and field, and what the client is told to do.
type badInput struct {
	name   string
	body   string
	header string // "" for those of a capture
	status int
	code   string
	field  string // that the problem names, if it is about one
	says   string
}

// jobWith returns the JSON of a good job with one member put in its place, or added.
func jobWith(member string) string {
	good := []string{`"source_url":"https://jobs.example.com/1"`, `"title":"Engineer"`, `"company":"Example"`}
	name, _, _ := strings.Cut(member, ":")
	for i, m := range good {
		if strings.HasPrefix(m, name+":") {
			good[i] = member
			return "{" + strings.Join(good, ",") + "}"
		}
	}
	return "{" + strings.Join(append(good, member), ",") + "}"
}

var badInputs = []badInput{
	// Fields.
	{"unknown field", jobWith(`"salary":"lots"`), "", 400, "invalid_request", "salary", "is not a field of a job"},
	{"near field", `{"sourceUrl":"https://x.com/1","title":"a","company":"b"}`, "", 400, "invalid_request", "sourceUrl", "did you mean source_url?"},
	{"wrong case", jobWith(`"Notes":"x"`), "", 400, "invalid_request", "Notes", "did you mean notes?"},
	{"number for a title", jobWith(`"title":7`), "", 400, "invalid_request", "title", "must be a string, not a number"},
	{"object for a company", jobWith(`"company":{}`), "", 400, "invalid_request", "company", "must be a string, not an object"},
	{"null for a title", jobWith(`"title":null`), "", 400, "invalid_request", "title", "must be a string, not null"},
	{"no source_url", `{"title":"a","company":"b"}`, "", 400, "invalid_request", "source_url", "is missing"},
	{"no title", `{"source_url":"https://x.com/1","company":"b"}`, "", 400, "invalid_request", "title", "is missing"},
	{"no field at all", `{}`, "", 400, "invalid_request", "source_url", "is missing"},
	{"field twice", jobWith(`"location":"a","location":"b"`), "", 400, "invalid_request", "location", "more than once"},
	{"blank title", jobWith(`"title":" \t "`), "", 400, "invalid_request", "title", "must not be blank"},
	{"empty title", jobWith(`"title":""`), "", 400, "invalid_request", "title", "must not be blank"},
	{"title of 256", jobWith(`"title":"` + strings.Repeat("é", 256) + `"`), "", 400, "invalid_request", "title", "at most 255 characters, not 256"},
	{"control character", jobWith(`"title":"a\u0000b"`), "", 400, "invalid_request", "title", "control character U+0000"},
	{"half a surrogate", jobWith(`"title":"\ud83d"`), "", 400, "invalid_request", "title", "surrogate"},
	{"unknown status", jobWith(`"status":"hired"`), "", 400, "invalid_request", "status", "must be one of saved, applied"},
	// The source URL.
	{"javascript:", jobWith(`"source_url":"javascript:alert(1)"`), "", 400, "invalid_request", "source_url", "absolute http or https URL"},
	{"ftp:", jobWith(`"source_url":"ftp://example.com/1"`), "", 400, "invalid_request", "source_url", "absolute http or https URL"},
	{"relative URL", jobWith(`"source_url":"/jobs/1"`), "", 400, "invalid_request", "source_url", "absolute http or https URL"},
	{"no host", jobWith(`"source_url":"https:///jobs/1"`), "", 400, "invalid_request", "source_url", "must name a host"},
	{"password in the URL", jobWith(`"source_url":"https://me:secret@example.com/1"`), "", 400, "invalid_request", "source_url", "user name or password"},
	{"space in the URL", jobWith(`"source_url":"https://example.com/a b"`), "", 400, "invalid_request", "source_url", "without spaces"},
	{"URL over 2048", jobWith(`"source_url":"https://example.com/` + strings.Repeat("a", 2048) + `"`), "", 400, "invalid_request", "source_url", "at most 2048 bytes"},
	// The body.
	{"empty body", "", "", 400, "invalid_request", "", "the body is empty"},
	{"white space", " \n ", "", 400, "invalid_request", "", "the body is empty"},
	{"array", "[]", "", 400, "invalid_request", "", "must be a JSON object, not an array"},
	{"cut off", `{"title":"a"`, "", 400, "invalid_request", "", "not JSON"},
	{"no JSON", `title=a`, "", 400, "invalid_request", "", "not JSON"},
	{"trailing data", jobAt(jobURL(1)) + " 1", "", 400, "invalid_request", "", "something follows the JSON object"},
	{"two jobs", jobAt(jobURL(1)) + jobAt(jobURL(2)), "", 400, "invalid_request", "", "something follows the JSON object"},
	{"invalid UTF-8", jobWith("\"title\":\"\xff\""), "", 400, "invalid_request", "", "not UTF-8"},
	{"over 256 KiB", jobWith(`"notes":"` + strings.Repeat("a", 256<<10) + `"`), "", 413, "body_too_large", "", "262144"},
	// The header.
	{"form", jobAt(jobURL(1)), "Content-Type: application/x-www-form-urlencoded", 415, "unsupported_media_type", "", "-H 'Content-Type: application/json'"},
	{"plain text", jobAt(jobURL(1)), "Content-Type: text/plain", 415, "unsupported_media_type", "", "send Content-Type: application/json"},
	{"no content type", jobAt(jobURL(1)), "Content-Type:", 415, "unsupported_media_type", "", "is missing"},
	{"compressed", jobAt(jobURL(1)), "Content-Encoding: gzip", 415, "unsupported_media_type", "", "without Content-Encoding"},
	{"bad key", jobAt(jobURL(1)), `Idempotency-Key: "open`, 400, "invalid_idempotency_key", "", "closing quote"},
	{"long key", jobAt(jobURL(1)), "Idempotency-Key: " + strings.Repeat("k", 256), 400, "invalid_idempotency_key", "", "1 to 255"},
	{"bad position", jobAt(jobURL(1)), "Ledger-Position: 7", 400, "invalid_position", "", "0-1234"},
	{"position of another partition", jobAt(jobURL(1)), "Ledger-Position: 5-1", 400, "invalid_position", "", "partition 0"},
	// The token.
	{"no token", jobAt(jobURL(1)), "Authorization:", 401, "token_missing", "", "send Authorization: Bearer <token>"},
	{"basic", jobAt(jobURL(1)), "Authorization: Basic ZGVtbzpkZW1v", 401, "token_missing", "", "Bearer"},
	{"bare bearer", jobAt(jobURL(1)), "Authorization: Bearer", 401, "token_missing", "", "Bearer"},
	{"malformed token", jobAt(jobURL(1)), "Authorization: Bearer secret", 401, "token_malformed", "", "jt_<id>_<secret>"},
	{"unknown token", jobAt(jobURL(1)), "Authorization: Bearer " + unknownToken, 401, "token_unknown", "", "no such token was issued"},
	{"unknown token and bad body", "?", "Authorization: Bearer " + unknownToken, 401, "token_unknown", "", ""},
}

func TestBadInputIsExplainedAndLeavesNoTrace(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember)
	typo := s.token[:len(s.token)-1] + string('A'+(s.token[len(s.token)-1]-'A'+1)%26)
	revoked := s.operator(t, "token", "issue", "--account", "demo")
	s.operator(t, "token", "revoke", strings.Split(revoked, "_")[1], "--account", "demo")
	s.settle(t)
	before := s.get(t, "/api/jobs/quota")
	inputs := append([]badInput{
		{"typo in the token", jobAt(jobURL(1)), "Authorization: Bearer " + typo, 401, "token_malformed", "", "a character is wrong"},
		{"cut token", jobAt(jobURL(1)), "Authorization: Bearer " + s.token[:50], 401, "token_malformed", "", "part of it is missing"},
		{"revoked token", jobAt(jobURL(1)), "Authorization: Bearer " + revoked, 401, "token_revoked", "", "ask for a new one"},
	}, badInputs...)
	for _, in := range inputs {
		t.Run(in.name, func(t *testing.T) {
			var headers []string
			if in.header != "" {
				headers = append(headers, in.header)
			}
			r := s.post(t, in.body, headers...).wantsProblem(t, in.status, in.code)
			if !strings.Contains(r.Detail, in.says) {
				t.Errorf("it says %q, not %q", r.Detail, in.says)
			}
			if in.field != "" && (len(r.Errors) == 0 || r.Errors[0].Field != in.field) {
				t.Errorf("errors %+v, want %s first", r.Errors, in.field)
			}
			if challenge := r.header.Get("WWW-Authenticate"); (challenge != "") != (in.status == http.StatusUnauthorized) {
				t.Errorf("a %d with WWW-Authenticate %q", in.status, challenge)
			}
			if r.Receipt.Position != "" || strings.Contains(r.body, s.token) || strings.Contains(r.body, revoked) {
				t.Errorf("the problem tells too much: %s", r.body)
			}
		})
	}
	after := s.get(t, "/api/jobs/quota").wantsSame(t, before)
	position := after.header.Get("Ledger-Position")
	if position != before.header.Get("Ledger-Position") {
		t.Errorf("the ledger went from %s to %s", before.header.Get("Ledger-Position"), position)
	}
	next := s.capture(t, jobURL(1)).wants(t, http.StatusCreated)
	if next.Receipt.Position != following(t, position) || next.Quota != (quota{1, 50, 49, december}) {
		t.Errorf("after all that, the first capture stands at %s, behind %s, and leaves %+v", next.Receipt.Position, position, next.Quota)
	}
}

// TestBadCallsAboutJobsAreExplainedAndLeaveNoTrace: each is "method path body", about a job that is there.
func TestBadCallsAboutJobsAreExplainedAndLeaveNoTrace(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember)
	first := s.capture(t, jobURL(1)).wants(t, http.StatusCreated)
	job := "/api/jobs/" + first.Job.ID
	many := "/api/jobs/lookup?source_url=https://a.example" + strings.Repeat("&source_url=https://a.example", 100)
	for _, in := range []struct {
		call, body, header string
		status             int
		code, says         string
	}{
		{"PATCH " + job, `{}`, "", 400, "invalid_request", "send at least one field"},
		{"PATCH " + job, `{"source_url":"https://a.example"}`, "", 400, "invalid_request", "source_url cannot be changed"},
		{"PATCH " + job, `{"version":2}`, "", 400, "invalid_request", "version cannot be changed"},
		{"PATCH " + job, `{"title":null}`, "", 400, "invalid_request", "must be a string, not null"},
		{"PATCH " + job, `{"notes":"a","notes":"b"}`, "", 400, "invalid_request", "more than once"},
		{"PATCH " + job, `{"status":"hired","salary":"lots"}`, "", 400, "invalid_request", "2 things are wrong"},
		{"PATCH " + job, `[]`, "", 400, "invalid_request", "must be a JSON object"},
		{"PATCH " + job, `{"notes":"a"}`, "Content-Type: application/json-patch+json", 415, "unsupported_media_type", "send Content-Type: application/merge-patch+json"},
		{"PATCH " + job, `{"notes":"a"}`, "If-Match: 1", 400, "invalid_etag", "list of entity tags"},
		{"PATCH " + job, `{"notes":"a"}`, `If-Match: W/"1"`, 412, "version_conflict", "version 1"},
		{"PATCH " + job, `{"notes":"a"}`, `Idempotency-Key: "a`, 400, "invalid_idempotency_key", "closing quote"},
		{"PATCH " + job + "?notes=a", `{"notes":"a"}`, "", 400, "invalid_request", "no query parameters"},
		{"PATCH /api/jobs/1", `{"notes":"a"}`, "", 404, "job_not_found", "no job with this id"},
		{"DELETE " + job, "", "If-Match: ,", 400, "invalid_etag", "list of entity tags"},
		{"DELETE " + job, "", `If-Match: "2", "3"`, 412, "version_conflict", "version 1"},
		{"DELETE /api/jobs/quota", "", "", 404, "job_not_found", ""},
		{"GET /api/jobs?limit=1000", "", "", 400, "invalid_request", "from 1 to 100"},
		{"GET /api/jobs?cursor=abc", "", "", 400, "invalid_request", "cursor must be one that a Link header gave"},
		{"GET /api/jobs?month=11-2026", "", "", 400, "invalid_request", "must look like 2026-11"},
		{"GET /api/jobs?sortby=updated", "", "", 400, "invalid_request", "is not a parameter"},
		{"GET /api/jobs/lookup", "", "", 400, "invalid_request", "source_url is missing"},
		{"GET " + many, "", "", 400, "invalid_request", "there 101 times"},
		{"GET /api/jobs/lookup?source_url=https://a.example&source_url=a", "", "", 400, "invalid_request", "source_url at index 1 must"},
		{"POST /api/jobs/batch", jobAt(jobURL(2)), "", 400, "invalid_request", "is not a field of a batch"},
		{"POST /api/jobs/batch", `{"jobs":[]}`, "", 400, "invalid_request", "1 to 100 jobs"},
		{"POST /api/jobs/batch", strings.Repeat(jobAt(jobURL(2))+"\n", 101), "Content-Type: application/x-ndjson", 400, "invalid_request", "1 to 100 jobs"},
		{"POST /api/jobs/batch", strings.Repeat(" ", 4<<20+1), "", 413, "body_too_large", "4194304"},
		{"POST /api/jobs/batch", jobAt(jobURL(2)), "Content-Type: text/csv", 415, "unsupported_media_type", "text/csv"},
		{"POST /api/jobs/batch?dry_run=yes", `{"jobs":[]}`, "", 400, "invalid_request", "must be true or false"},
		{"POST /api/jobs?dry_run=yes", jobAt(jobURL(2)), "", 400, "invalid_request", "must be true or false"},
		{"POST /api/jobs?dry_run=true", `{}`, "", 400, "invalid_request", "is missing"},
	} {
		var headers []string
		if in.header != "" {
			headers = append(headers, in.header)
		}
		r := s.client.send(t, in.call, example{body: in.body}, nil, headers...).wantsProblem(t, in.status, in.code)
		if !strings.Contains(r.Detail, in.says) || r.Receipt.Position != "" {
			t.Errorf("%s %.60s: %s", in.call, in.body, r.body)
		}
	}
	next := s.capture(t, jobURL(2)).wants(t, http.StatusCreated)
	if next.Receipt.Position != following(t, first.Receipt.Position) || next.Quota != (quota{2, 50, 48, december}) {
		t.Errorf("after all that, the next capture stands at %s, behind %s, and leaves %+v", next.Receipt.Position, first.Receipt.Position, next.Quota)
	}
	if now := s.get(t, job); now.header.Get("ETag") != `"1"` {
		t.Errorf("the job is %s", now.body)
	}
}

func TestTheLargestInputIsAccepted(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember)
	longest := "https://example.com/" + strings.Repeat("a", 2048-len("https://example.com/"))
	s.post(t, jobWith(`"title":"`+strings.Repeat("é", 255)+`"`)).wants(t, http.StatusCreated)
	s.capture(t, longest).wants(t, http.StatusCreated)
	body := jobWith(`"source_url":"https://jobs.example.com/2","description":"` + strings.Repeat("é", 100_000) + `"`)
	s.post(t, body+strings.Repeat(" ", 256<<10-len(body))).wants(t, http.StatusCreated)
	s.wantsQuota(t, quota{3, 50, 47, december})
}
