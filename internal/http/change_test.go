package http

import (
	"context"
	"errors"
	nethttp "net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// newWithJob is a node on which anna has captured gopher, with what it takes to ask for that job.
func newWithJob(t *testing.T) (n *node, path string) {
	t.Helper()
	n = newNode(t)
	x := n.send(t, "POST", "/api/jobs", gopher, "Idempotency-Key: k1")
	x.wants(t, 201, `{"outcome":"captured"…`)
	return n, x.Header.Get("Location")
}

func TestPatch(t *testing.T) {
	n, path := newWithJob(t)
	captured := n.send(t, "GET", path, "").body
	n.now = n.now.AddDate(0, 0, 1)
	x := n.send(t, "PATCH", path, `{"status":"applied","location":" Basel ","notes":"x"}`, "Content-Type: application/merge-patch+json", "Idempotency-Key: p1")
	job := strings.NewReplacer(`"Example","status":"saved"`, `"Example","location":"Basel","notes":"x","status":"applied"`,
		`"updated_at":"2024-01-15`, `"updated_at":"2024-01-16`, `"version":1`, `"version":2`).Replace(captured)
	x.wants(t, 200, `{"outcome":"updated","job":`+job+`,"receipt":{"position":"0-7","digest":"`+n.digest(7)+`"}}`)
	x.wantsHeader(t, `ETag: "2"`, `Idempotency-Key: "p1"`, "Ledger-Position: 0-7", "Vary: Prefer", "RateLimit:", "Location:",
		"Accept-Patch: application/merge-patch+json, application/json")
	n.send(t, "GET", path, "").wants(t, 200, job)
	n.send(t, "GET", "/api/jobs/captures/0-7", "").wants(t, 200, x.body)

	t.Log("null removes, nothing changed is a version too, and a key that was used changes nothing")
	n.send(t, "PATCH", path, `{"status":null,"location":null,"notes":""}`, "Idempotency-Key: p1").wants(t, 200, `{"outcome":"updated"…`)
	n.send(t, "GET", path, "").wants(t, 200, strings.NewReplacer(`"updated_at":"2024-01-15`, `"updated_at":"2024-01-16`, `"version":1`, `"version":3`).Replace(captured))
	n.send(t, "PATCH", path, `{"title":"Gopher"}`).wantsHeader(t, `ETag: "4"`)
	n.send(t, "GET", "/api/jobs/quota", "").wants(t, 200, `{"used":1,"limit":2…`)

	t.Log("the capture is told as it was")
	n.send(t, "GET", "/api/jobs/captures/0-6", "").wants(t, 200, n.capturedAnswer())
	again := n.send(t, "POST", "/api/jobs", gopher, "Idempotency-Key: k1")
	again.wants(t, 201, n.capturedAnswer())
	again.wantsHeader(t, `ETag: "1"`)
}

func TestDelete(t *testing.T) {
	n, path := newWithJob(t)
	duplicate := n.send(t, "POST", "/api/jobs", gopher, "Idempotency-Key: k2")
	duplicate.wants(t, 200, `{"outcome":"duplicate","job":…`)
	n.send(t, "PATCH", path, `{"notes":"x"}`).wants(t, 200, `{"outcome":"updated","job":…`)
	x := n.send(t, "DELETE", path, "")
	id := strings.TrimPrefix(path, "/api/jobs/")
	x.wants(t, 200, `{"outcome":"deleted","id":"`+id+`","receipt":{"position":"0-9","digest":"`+n.digest(9)+`"}}`)
	x.wantsHeader(t, "ETag:", "Ledger-Position: 0-9")
	n.send(t, "GET", "/api/jobs/captures/0-9", "").wants(t, 200, x.body)
	n.send(t, "GET", path, "").wantsProblem(t, codeJobNotFound)
	n.send(t, "GET", "/api/jobs/quota", "").wants(t, 200, `{"used":1,"limit":2…`)

	t.Log("there is nothing to change any more")
	for _, body := range []string{"", `{"notes":"y"}`} {
		method := map[bool]string{true: "DELETE", false: "PATCH"}[body == ""]
		refused := n.send(t, method, path, body).wantsProblem(t, codeJobNotFound)
		if !strings.Contains(refused, `"receipt":{"position":"0-1`) {
			t.Errorf("no receipt: %s", refused)
		}
	}
	n.send(t, "GET", "/api/jobs/captures/0-11", "").wants(t, 200, `{"outcome":"refused","reason":"not_found","detail":"…`)

	t.Log("what named the job is told without it")
	n.send(t, "GET", "/api/jobs/captures/0-6", "").wants(t, 200, n.capturedAnswer())
	n.send(t, "GET", "/api/jobs/captures/0-7", "").wants(t, 200, `{"outcome":"duplicate","quota":{"used":1…`)
	n.send(t, "GET", "/api/jobs/captures/0-8", "").wants(t, 200, `{"outcome":"updated","receipt":{"position":"0-8"…`)
	again := n.send(t, "POST", "/api/jobs", gopher, "Idempotency-Key: k2")
	again.wants(t, 200, `{"outcome":"duplicate","quota":{"used":1…`)
	again.wantsHeader(t, "Location:", "Idempotent-Replayed: true")
	n.send(t, "POST", "/api/jobs", gopher, "Idempotency-Key: k1").wants(t, 201, n.capturedAnswer())

	t.Log("its posting is a new one, and counts")
	anew := n.send(t, "POST", "/api/jobs", gopher)
	anew.wants(t, 201, `{"outcome":"captured"…`)
	if anew.Header.Get("Location") == path {
		t.Errorf("the job came back as %s", path)
	}
	n.send(t, "GET", "/api/jobs/quota", "").wants(t, 200, `{"used":2,"limit":2…`)
}

// TestIfMatch goes through conditions on a job that has version 3.
func TestIfMatch(t *testing.T) {
	n, path := newWithJob(t)
	n.send(t, "PATCH", path, `{"notes":"a"}`)
	n.send(t, "PATCH", path, `{"notes":"b"}`)
	for _, tt := range []struct {
		ifMatch string
		want    code // empty when it is met
		decided bool // and not found out before
	}{
		{"", "", true},
		{"*", "", true},
		{`"3"`, "", true},
		{` "3" `, "", true},
		{`"3", "9"`, "", true},
		{`"1" , "3"`, "", true},
		{`W/"1", "3",`, "", true},
		{`"2"`, codeVersionConflict, true},
		{`"4"`, codeVersionConflict, true},
		{`"1", "2"`, codeVersionConflict, false},
		{`W/"3"`, codeVersionConflict, false},
		{`"03"`, codeVersionConflict, false},
		{`"0"`, codeVersionConflict, false},
		{`"abc,def"`, codeVersionConflict, false},
		{`"99999999999999999999"`, codeVersionConflict, false},
		{`3`, codeInvalidETag, false},
		{`"3`, codeInvalidETag, false},
		{`""3"`, codeInvalidETag, false},
		{`w/"3"`, codeInvalidETag, false},
		{`"3" "4"`, codeInvalidETag, false},
		{`"3", *`, codeInvalidETag, false},
		{`,`, codeInvalidETag, false},
		{` `, codeInvalidETag, false},
	} {
		t.Run(tt.ifMatch, func(t *testing.T) {
			appended := len(n.requests)
			whole := n.jobs[strings.TrimPrefix(path, "/api/jobs/")].Job
			n.state.Accounts["anna"].Tracked[strings.TrimPrefix(path, "/api/jobs/")] = capture.TrackedJob{
				Version: 3, CanonicalURL: "https://jobs.example.com/1", Content: &whole,
			}
			job := n.jobs[strings.TrimPrefix(path, "/api/jobs/")]
			job.Version = 3
			n.jobs[job.ID] = job
			var headers []string
			if tt.ifMatch != "" {
				headers = append(headers, "If-Match: "+tt.ifMatch)
			}
			x := n.send(t, "PATCH", path, `{"notes":"c"}`, headers...)
			if tt.want == "" {
				x.wants(t, 200, `{"outcome":"updated"…`)
			} else if body := x.wantsProblem(t, tt.want); (tt.want == codeVersionConflict) != strings.Contains(body, `"version":3`) ||
				tt.decided != strings.Contains(body, `"receipt"`) {
				t.Error(body)
			}
			if (len(n.requests) > appended) != tt.decided {
				t.Errorf("%d requests were appended", len(n.requests)-appended)
			}
		})
	}
	n.send(t, "DELETE", path, "", `If-Match: "1"`).wantsProblem(t, codeVersionConflict)
	n.send(t, "GET", "/api/jobs/captures/"+events.Position{Sequence: uint64(len(n.requests))}.String(), "").wants(t, 200,
		`{"outcome":"refused","reason":"version_conflict","detail":"the job has version 3, not 1"…`)
	n.send(t, "DELETE", path, "", `If-Match: "3"`).wants(t, 200, `{"outcome":"deleted"…`)
	for _, ifMatch := range []string{`"3"`, `"3", "4"`, "*"} {
		n.send(t, "DELETE", path, "", "If-Match: "+ifMatch).wantsProblem(t, codeJobNotFound)
	}
}

// TestVersionConflictWithAJobThatIsDeleted: it may go between the decision and the answer.
func TestVersionConflictWithAJobThatIsDeleted(t *testing.T) {
	n, path := newWithJob(t)
	n.Job = func(context.Context, string, string) (job capture.StoredJob, err error) {
		return job, events.ErrNotFound
	}
	body := n.send(t, "PATCH", path, `{"notes":"x"}`, `If-Match: "2"`).wantsProblem(t, codeVersionConflict)
	if strings.Contains(body, `"version":`) {
		t.Error(body)
	}
	n.send(t, "PATCH", path, `{"notes":"x"}`).wants(t, 200, `{"outcome":"updated","receipt":…`)
	n.Job = func(context.Context, string, string) (job capture.StoredJob, err error) {
		return job, errors.New("disk")
	}
	for _, ifMatch := range []string{`"2"`, `"1", "2"`, "*"} {
		n.send(t, "PATCH", path, `{"notes":"x"}`, "If-Match: "+ifMatch).wantsProblem(t, codeInternal)
	}
}

func TestChangesThatArePending(t *testing.T) {
	n, path := newWithJob(t)
	n.hold = true
	for i, c := range []struct{ method, body, told string }{
		{"PATCH", `{"notes":"x"}`, `{"outcome":"updated","job":{…`}, {"DELETE", "", `{"outcome":"deleted","id":…`},
	} {
		x := n.send(t, c.method, path, c.body, "Prefer: respond-async")
		position := events.Position{Sequence: uint64(7 + i)}.String()
		x.wants(t, 202, `{"outcome":"pending","receipt":{"position":"`+position+`"}}`)
		x.wantsHeader(t, "Location: /api/jobs/captures/"+position, "Preference-Applied: respond-async", "Retry-After: 1")
		n.send(t, "GET", x.Header.Get("Location"), "").wants(t, 200, x.body)
		n.release()
		n.send(t, "GET", x.Header.Get("Location"), "").wants(t, 200, c.told)
		n.hold = true
	}
}

func TestChangesThatFail(t *testing.T) {
	n, path := newWithJob(t)
	stranger := "Authorization: Bearer " + n.bob.Reveal()
	other := "/api/jobs/job_aaaaaaaaaaaaaaaaaaaaaaaa"
	n.send(t, "PATCH", path, `{"notes":"x"}`, stranger).wantsProblem(t, codeJobNotFound)
	n.send(t, "PATCH", other, `{"notes":"x"}`).wantsProblem(t, codeJobNotFound)
	appended := len(n.requests)
	n.send(t, "DELETE", "/api/jobs/job_short", "").wantsProblem(t, codeJobNotFound)
	n.send(t, "DELETE", "/api/jobs/JOB_AAAAAAAAAAAAAAAAAAAAAAAA", "").wantsProblem(t, codeJobNotFound)
	n.send(t, "DELETE", path+"?force=true", "").wantsProblem(t, codeInvalidRequest)
	n.send(t, "DELETE", path, "", `Idempotency-Key: "open`).wantsProblem(t, codeInvalidIdempotencyKey)
	n.send(t, "PATCH", path, `{"notes":"x"}`, "Content-Type: text/plain").wantsProblem(t, codeUnsupportedMediaType)
	n.send(t, "PATCH", path, `{"notes":"`+strings.Repeat("x", maxBodyBytes)+`"}`).wantsProblem(t, codeBodyTooLarge)
	n.Append = func(context.Context, *events.Request) (p events.Position, err error) { return p, events.ErrUnavailable }
	n.send(t, "DELETE", path, "").wantsProblem(t, codeLedgerUnavailable)
	n.Append = func(context.Context, *events.Request) (p events.Position, err error) {
		return p, events.ErrUnknownOutcome
	}
	n.send(t, "DELETE", path, "").wantsProblem(t, codeOutcomeUnknown)
	n.Append = func(context.Context, *events.Request) (events.Position, error) {
		return events.Position{Sequence: 6}, nil
	}
	n.send(t, "DELETE", path, "").wantsProblem(t, codeOutcomeUnknown)
	if len(n.requests) != appended {
		t.Errorf("%d requests were appended", len(n.requests)-appended)
	}
	n.send(t, "GET", path, "").wants(t, 200, `{"id":…`)
}

func TestDecodePatch(t *testing.T) {
	for body, want := range map[string]map[string]string{
		`{"title":" T "}`: {"title": "T"},
		`{"location":null,"description":"","status":null,"job_type":"contract"}`: {"location": "", "description": "", "status": "saved", "job_type": "contract"},
		`{"notes":" a\nb ","application_url":"https://a.example/apply"}`:         {"notes": " a\nb ", "application_url": "https://a.example/apply"},
	} {
		if changes, err := decodePatch([]byte(body)); err != nil || !reflect.DeepEqual(changes, want) {
			t.Errorf("%s: %v, %v", body, changes, err)
		}
	}
	for body, want := range map[string][]string{
		`{"source_url":"https://a.example"}`: {"source_url cannot be changed"}, `{"captured_via":"api"}`: {"captured_via cannot be changed"},
		`{"id":"x","version":3,"captured_at":"","updated_at":""}`: {
			"id cannot be changed", "version cannot be changed", "captured_at cannot be changed", "updated_at cannot be changed",
		},
		`{"title":null,"company":"","status":"hired","notes":7}`: {
			"title must be a string, not null", "company must not be blank", "status must be one of saved, applied, interviewing, offered, rejected, withdrawn",
			"notes must be a string, not a number",
		},
		`{"title":"a","title":"b"}`: {"title is there more than once"},
		`{"titel":"a"}`:             {"titel is not a field of a job; did you mean title?"},
		`{"salary":"a"}`:            {"salary is not a field of a job; its fields are title, company, location, description, application_url, job_type, notes, status"},
		`{"notes":"\u0007"}`:        {"notes must not contain the control character U+0007"},
		`{"notes":"\ud83d"}`:        {`notes must not contain half of a surrogate pair, as \ud83d is without \ude00`},
	} {
		_, err := decodePatch([]byte(body))
		var p *problem
		if !errors.As(err, &p) || p.Status != nethttp.StatusBadRequest {
			t.Fatalf("%s: %v", body, err)
		}
		var got []string
		for _, e := range p.Errors {
			got = append(got, e.Field+" "+e.Detail)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q", body, got)
		}
	}
	for body, detail := range map[string]string{
		`{}`: "the patch changes nothing; send at least one field", ``: "the body is empty; send a JSON object",
		`[{"op":"remove","path":"/notes"}]`: "the body must be a JSON object, not an array", `{"notes":"x"} {}`: "something follows the JSON object; send one object and nothing else",
		`{"notes":`: "the body is not JSON: it ends too early", "{\"notes\":\"\xff\"}": "the body is not UTF-8",
	} {
		if _, err := decodePatch([]byte(body)); err == nil || err.Error() != "invalid_request: "+detail {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// FuzzDecodePatch: a patch of any bytes has a problem, or changes that leave a job within its bounds.
func FuzzDecodePatch(f *testing.F) {
	for _, body := range []string{`{"title":"T","notes":null}`, `{"status":"applied","job_type":""}`, `{"id":"x"}`, `{}`, `[]`, `{"title":null}`, `{"notes":"\ud83d"}`} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		changes, err := decodePatch(body)
		if err != nil {
			var p *problem
			if !errors.As(err, &p) || !utf8.Valid(encode(p)) {
				t.Fatalf("%q: %v is no problem", body, err)
			}
			return
		}
		job := events.Job{SourceURL: "https://a.example/1", Title: "T", Company: "C", Status: "saved", CapturedVia: "api"}
		for name, text := range changes {
			*job.Editable(name) = text
		}
		if len(changes) == 0 {
			t.Fatalf("%q changes nothing", body)
		}
		checkBounds(t, job)
	})
}
