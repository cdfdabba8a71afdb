package http

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

func TestDecodeJob(t *testing.T) {
	const url = "https://a.example/1"
	for name, tt := range map[string]struct {
		body string
		want events.Job
	}{
		"required only": {`{"source_url":"https://a.example/1","title":"T","company":"C"}`,
			events.Job{SourceURL: url, Title: "T", Company: "C", Status: "saved", CapturedVia: "api"}},
		"everything": {`{"source_url":"https://a.example/1","title":"T","company":"C","location":"L","description":"D",` +
			`"application_url":"http://b.example/","job_type":"contract","notes":"N","status":"applied","captured_via":"extension"}`,
			events.Job{SourceURL: url, Title: "T", Company: "C", Location: "L", Description: "D", ApplicationURL: "http://b.example/",
				JobType: "contract", Notes: "N", Status: "applied", CapturedVia: "extension"}},
		"null and empty are absent": {`{"source_url":"https://a.example/1","title":"T","company":"C","notes":"","status":null,"job_type":"","location":"  "}`,
			events.Job{SourceURL: url, Title: "T", Company: "C", Status: "saved", CapturedVia: "api"}},
		"white space is trimmed but in long texts": {`{"source_url":" https://a.example/1\n","title":"\u3000T\t","company":" C ","description":" D\n","notes":" N "}`,
			events.Job{SourceURL: url, Title: "T", Company: "C", Description: " D\n", Notes: " N ", Status: "saved", CapturedVia: "api"}},
		"escapes": {`{"source_url":"https:\/\/a.example\/1","company":"C","\u0074itle":"\ud83D\uDe00 \u00e9 \\ud800 \u2028\ufffd"}`,
			events.Job{SourceURL: url, Title: "😀 é \\ud800 \u2028\ufffd", Company: "C", Status: "saved", CapturedVia: "api"}},
		"as long as can be": {`{"source_url":"https://a.example/1","company":"C","title":"` + strings.Repeat("é", 255) + `","notes":"` + strings.Repeat("漢", 20_000) + `"}`,
			events.Job{SourceURL: url, Title: strings.Repeat("é", 255), Company: "C", Notes: strings.Repeat("漢", 20_000), Status: "saved", CapturedVia: "api"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, canonical, err := decodeJob([]byte(tt.body))
			if err != nil || got != tt.want || canonical != url {
				t.Errorf("decodeJob: %+v, %q, %v", got, canonical, err)
			}
		})
	}
}

// badFields are bodies with one wrong field; SO stands for the fields that are needed.
var badFields = []struct{ name, body, field, detail string }{
	{"unknown, near", `{SO,"sourceUrl":""}`, "sourceUrl", "is not a field of a job; did you mean source_url?"},
	{"unknown, typo", `{SO,"compnay":""}`, "compnay", "is not a field of a job; did you mean company?"},
	{"unknown, other case", `{SO,"Company":""}`, "Company", "is not a field of a job; did you mean company?"},
	{"unknown, hyphen", `{SO,"job-type":""}`, "job-type", "is not a field of a job; did you mean job_type?"},
	{"unknown, far", `{SO,"salary":1}`, "salary", "is not a field of a job; its fields are source_url, title, company, " +
		"location, description, application_url, job_type, notes, status, captured_via"},
	{"unknown, endless", `{SO,"` + strings.Repeat("é", 100) + `":1}`, strings.Repeat("é", 64) + "…", "is not a field of a job; its…"},
	{"number", `{SO,"location":-1.5}`, "location", "must be a string, not a number"},
	{"boolean", `{SO,"location":false}`, "location", "must be a string, not a boolean"},
	{"object", `{SO,"location":{"name":"x"}}`, "location", "must be a string, not an object"},
	{"array", `{SO,"location":["x"]}`, "location", "must be a string, not an array"},
	{"null where needed", `{"source_url":"https://a.example/1","title":null,"company":"C"}`, "title", "must be a string, not null"},
	{"missing title", `{"source_url":"https://a.example/1","company":"C"}`, "title", "is missing"},
	{"missing source_url", `{"title":"T","company":"C"}`, "source_url", "is missing"},
	{"missing company", `{"source_url":"https://a.example/1","title":"T"}`, "company", "is missing"},
	{"twice", `{SO,"title":"U"}`, "title", "is there more than once"},
	{"twice, once null", `{SO,"notes":null,"notes":"x"}`, "notes", "is there more than once"},
	{"blank title", `{"source_url":"https://a.example/1","company":"C","title":" \t\u3000"}`, "title", "must not be blank"},
	{"blank source_url", `{"source_url":"","title":"T","company":"C"}`, "source_url", "must not be blank"},
	{"NUL", `{SO,"notes":"a\u0000b"}`, "notes", "must not contain the control character U+0000"},
	{"escape", `{SO,"location":"a\u001bb"}`, "location", "must not contain the control character U+001B"},
	{"delete", `{SO,"location":"a` + "\x7f" + `b"}`, "location", "must not contain the control character U+007F"},
	{"high surrogate alone", `{SO,"notes":"\ud83d"}`, "notes", `must not contain half of a surrogate pair, as \ud83d is without \ude00`},
	{"high surrogate and letter", `{SO,"notes":"\uD83Dabcdef"}`, "notes", "must not contain half…"},
	{"high surrogate twice", `{SO,"notes":"\ud83d\ud83d"}`, "notes", "must not contain half…"},
	{"low surrogate alone", `{SO,"notes":"x\uDE00"}`, "notes", "must not contain half…"},
	{"pair the wrong way", `{SO,"notes":"\ude00\ud83d"}`, "notes", "must not contain half…"},
	{"long title", `{"source_url":"https://a.example/1","company":"C","title":"` + strings.Repeat("é", 256) + `"}`, "title", "must have at most 255 characters, not 256"},
	{"long company", `{"source_url":"https://a.example/1","title":"T","company":"` + strings.Repeat("x", 256) + `"}`, "company", "must have at most 255 characters, not 256"},
	{"long location", `{SO,"location":"` + strings.Repeat("x", 999) + `"}`, "location", "must have at most 255 characters, not 999"},
	{"long description", `{SO,"description":"` + strings.Repeat("x", 100_001) + `"}`, "description", "must have at most 100000 characters, not 100001"},
	{"long notes", `{SO,"notes":"` + strings.Repeat("x", 20_001) + `"}`, "notes", "must have at most 20000 characters, not 20001"},
	{"long source_url", `{"source_url":"https://a.example/` + strings.Repeat("x", 2048) + `","title":"T","company":"C"}`, "source_url", "must be at most 2048 bytes…"},
	{"long application_url", `{SO,"application_url":"https://a.example/` + strings.Repeat("x", 2048) + `"}`, "application_url", "must be at most 2048 bytes…"},
	{"source_url of another scheme", `{"source_url":"ftp://a.example/1","title":"T","company":"C"}`, "source_url", "must be an absolute http or https URL…"},
	{"source_url without scheme", `{"source_url":"a.example/1","title":"T","company":"C"}`, "source_url", "must be an absolute http or https URL…"},
	{"source_url with a password", `{"source_url":"https://u:p@a.example/1","title":"T","company":"C"}`, "source_url", "must not contain a user name…"},
	{"source_url with a space", `{"source_url":"https://a.example/1 2","title":"T","company":"C"}`, "source_url", "must be valid UTF-8 without spaces…"},
	{"application_url that runs", `{SO,"application_url":"javascript:alert(1)"}`, "application_url", "must be an absolute http or https URL…"},
	{"job_type", `{SO,"job_type":"Full_Time"}`, "job_type", "must be one of full_time, part_time, contract, internship, temporary, freelance, other"},
	{"status", `{SO,"status":"ghosted"}`, "status", "must be one of saved, applied, interviewing, offered, rejected, withdrawn"},
	{"captured_via", `{SO,"captured_via":"import"}`, "captured_via", "must be one of api, extension"},
}

func TestDecodeJobNamesTheFieldThatIsWrong(t *testing.T) {
	for _, tt := range badFields {
		t.Run(tt.name, func(t *testing.T) {
			body := strings.Replace(tt.body, "SO", `"source_url":"https://a.example/1","title":"T","company":"C"`, 1)
			p := decodeProblem(t, body)
			if len(p.Errors) != 1 || p.Errors[0].Field != tt.field {
				t.Fatalf("errors %+v, want one on %s", p.Errors, tt.field)
			}
			beginning, open := strings.CutSuffix(tt.detail, "…")
			if got := p.Errors[0].Detail; got != tt.detail && !(open && strings.HasPrefix(got, beginning)) {
				t.Errorf("detail %q, want %q", got, tt.detail)
			}
			if want := p.Errors[0].Field + " " + p.Errors[0].Detail; p.Detail != want {
				t.Errorf("detail of the problem %q, want %q", p.Detail, want)
			}
		})
	}
}

func TestDecodeJobRefusesWhatIsNoJob(t *testing.T) {
	for name, tt := range map[string]struct{ body, detail string }{
		"empty":                {"", "the body is empty; send a JSON object"},
		"white space":          {" \n", "the body is empty; send a JSON object"},
		"array":                {"[]", "the body must be a JSON object, not an array"},
		"string":               {`"title"`, "the body must be a JSON object, not a string"},
		"number":               {"1", "the body must be a JSON object, not a number"},
		"boolean":              {"true", "the body must be a JSON object, not a boolean"},
		"null":                 {"null", "the body must be a JSON object, not null"},
		"two objects":          {`{"source_url":"https://a.example","title":"T","company":"C"} {}`, "something follows the JSON object; send one object and nothing else"},
		"text behind":          {`{} x`, "something follows the JSON object; send one object and nothing else"},
		"half an object":       {`{"title":`, "the body is not JSON: it ends too early"},
		"half a string":        {`{"title":"T`, "the body is not JSON: it ends too early"},
		"no closing brace":     {`{"title":"T","company":"C"`, "the body is not JSON: it ends too early"},
		"comma before the end": {`{"title":"T","company":"C",}`, "the body is not JSON: invalid character '}' …"},
		"no comma":             {`{"title":"T" "notes":"N"}`, "the body is not JSON: invalid character '\"' after object key:value pair (byte 13)"},
		"no colon":             {`{"title" "T"}`, "the body is not JSON: expected colon after object key (byte 9)"},
		"number as a name":     {`{1:2}`, "the body is not JSON: invalid character '1' …"},
		"wrong bracket":        {`{"title":"T","company":"C"]`, "the body is not JSON: invalid character ']' …"},
		"raw line feed":        {"{\"title\":\"a\nb\"}", "the body is not JSON: invalid character '\\n' in string literal…"},
		"single quotes":        {"{'title':'T'}", "the body is not JSON: invalid character '\\'' …"},
		"a form":               {"title=T", "the body is not JSON: invalid character 'i' in literal true (expecting 'r')…"},
		"byte order mark":      {"\ufeff{}", "the body is not JSON: invalid character 'ï' looking for beginning of value (byte 1)"},
		"Latin-1":              {"{\"title\":\"caf\xe9\"}", "the body is not UTF-8"},
		"half a UTF-8 letter":  {"{\"title\":\"caf\xc3\"}", "the body is not UTF-8"},
		"a surrogate in UTF-8": {"{\"title\":\"\xed\xa0\x80\"}", "the body is not UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			p := decodeProblem(t, tt.body)
			beginning, open := strings.CutSuffix(tt.detail, "…")
			if p.Detail != tt.detail && !(open && strings.HasPrefix(p.Detail, beginning)) || len(p.Errors) > 0 {
				t.Errorf("detail %q with %v, want %q", p.Detail, p.Errors, tt.detail)
			}
		})
	}
}

func TestDecodeJobReportsAllErrorsTogether(t *testing.T) {
	p := decodeProblem(t, `{"titel":"T","company":1,"status":"x","source_url":"nope"}`)
	want := []string{"titel", "company", "status", "title", "source_url"}
	var got []string
	for _, e := range p.Errors {
		got = append(got, e.Field)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("errors on %v, want %v", got, want)
	}
	if want := "5 things are wrong, the first: titel is not a field of a job; did you mean title?"; p.Detail != want {
		t.Errorf("detail %q, want %q", p.Detail, want)
	}
}

func TestDecodeJobListsNoEndOfErrors(t *testing.T) {
	p := decodeProblem(t, "{"+strings.Repeat(`"x":1,`, 30_000)+`"x":1}`)
	if len(p.Errors) != maxFieldErrors {
		t.Errorf("%d errors", len(p.Errors))
	}
}

// decodeProblem returns the problem that a body is refused with.
func decodeProblem(t *testing.T, body string) *problem {
	t.Helper()
	job, _, err := decodeJob([]byte(body))
	var p *problem
	if !errors.As(err, &p) || p.Code != codeInvalidRequest || p.Status != 400 {
		t.Fatalf("decodeJob: %+v, %v", job, err)
	}
	return p
}

func TestEveryFieldOfAJobIsDecoded(t *testing.T) {
	jobType := reflect.TypeFor[events.Job]()
	if jobType.NumField() != len(jobFields) {
		t.Fatalf("a job has %d fields, and %d are decoded", jobType.NumField(), len(jobFields))
	}
	for i, f := range jobFields {
		if name, _, _ := strings.Cut(jobType.Field(i).Tag.Get("json"), ","); name != f.name {
			t.Errorf("field %d of a job is %s, and %s is decoded", i, name, f.name)
		}
	}
}

// TestPayloadHashNeverChanges: a retry after an update of the service must find its first answer.
func TestPayloadHashNeverChanges(t *testing.T) {
	job := events.Job{SourceURL: "https://a.example/1", Title: "T", Notes: "N", Status: "saved", CapturedVia: "api"}
	want := events.Hash([]byte("source_url"), []byte("https://a.example/1"), []byte("title"), []byte("T"), []byte("notes"), []byte("N"),
		[]byte("status"), []byte("saved"), []byte("captured_via"), []byte("api"))
	if got := payloadHash(&job); got != want {
		t.Errorf("payloadHash: %s, want %s", got, want)
	}
	moved := job
	moved.Notes, moved.Description = "", "N"
	if payloadHash(&moved) == want {
		t.Error("two jobs have one hash")
	}
}

func FuzzDecodeJob(f *testing.F) {
	f.Add([]byte(`{"source_url":"https://a.example/1","title":"T","company":"C","status":"applied","notes":"\ud83d\ude00"}`))
	for _, tt := range badFields {
		if len(tt.body) < 1000 {
			f.Add([]byte(strings.Replace(tt.body, "SO", `"source_url":"https://a.example/1","title":"T","company":"C"`, 1)))
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		job, canonical, err := decodeJob(body)
		if err != nil {
			var p *problem
			if !errors.As(err, &p) || !utf8.Valid(encode(p)) {
				t.Fatalf("%q: %v is no problem", body, err)
			}
			return
		}
		if !json.Valid(body) {
			t.Fatalf("%q is not JSON", body)
		}
		checkBounds(t, job)
		if want, err := capture.CanonicalSource(job.SourceURL); err != nil || canonical != want {
			t.Fatalf("%q: canonical URL %q, want %q, %v", body, canonical, want, err)
		}
		if again, _, err := decodeJob(encode(job)); err != nil || again != job {
			t.Fatalf("%q: %+v became %+v, %v", body, job, again, err)
		}
	})
}

// A body that is read the short way has nothing wrong, and is the same job read the long way.
func FuzzUsualBodyIsReadAlike(f *testing.F) {
	const so = `"source_url":"https://a.example/1","title":"T","company":"C"`
	for _, body := range []string{
		"{" + so + "}", " {\r\n\t" + so + " } ", `{}`, `{` + so + `,}`, `{` + so + `} x`, `{` + so + `,"notes"}`, `{` + so + `,"notes":}`,
		`{` + so + `,"notes":nullx}`, `{` + so + `,"notes":null,"status":null}`, `{` + so + `,"notes":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\ufffd"}`,
		`{` + so + `,"\u006eotes":"N"}`, `{` + so + `,"notes":"\x"}`, `{` + so + `,"notes":"\u12"}`, `{` + so + `,"notes":"\u+123"}`, `{` + so + `,"notes":"\`,
		`{` + so + ` "notes":"N"}`, `{` + so + `,"notes" "N"}`, `{` + so, "{" + so + ",\"notes\":\"a\nb\"}", "{" + so + ",\"notes\":\"a\tb\"}",
	} {
		f.Add([]byte(body))
	}
	for _, tt := range badFields {
		f.Add([]byte(strings.Replace(tt.body, "SO", so, 1)))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		short, long := newJobDecoder(jobFields), newJobDecoder(jobFields)
		if !utf8.Valid(body) || !short.usual(body) {
			return
		}
		err := long.read(body, long.field)
		if err != nil || len(long.errors) > 0 || short.job != long.job || !slices.Equal(short.sent, long.sent) {
			t.Fatalf("%q is %+v in short and %+v at length, %v %v", body, short.job, long.job, long.errors, err)
		}
	})
}

// Every text that encoding/json reads is read as it reads it, but for halves of surrogate pairs.
func FuzzUnquoteJSON(f *testing.F) {
	for _, text := range []string{`""`, `"a"`, `"\n\"\\\/\b\f\r\t"`, `"\u00e9x"`, `"\ud83d\ude00\ud83d\uDE00"`, `"\ud83d"`, `"\ude00"`, `"\ufffd"`, `"\u+00a"`, `"\u0_0a"`, `"\x"`, "null", `"`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var want string
		got, ok := unquoteJSON(raw)
		if len(raw) == 0 || raw[0] != '"' {
			if ok {
				t.Fatalf("%s is no string, but read as %q", raw, got)
			}
			return
		}
		if !utf8.Valid(raw) || quotedLength(raw) != len(raw) {
			return
		}
		halves := json.Unmarshal(raw, &want) == nil && strings.ContainsRune(want, utf8.RuneError)
		if ok && got != want || !ok && json.Valid(raw) && !halves {
			t.Fatalf("%s is %q, %t, want %q", raw, got, ok, want)
		}
	})
}

func checkBounds(t *testing.T, job events.Job) {
	t.Helper()
	for _, f := range jobFields {
		bound := map[string]int{"description": 100_000, "notes": 20_000, "source_url": 2048, "application_url": 2048}[f.name]
		if bound == 0 {
			bound = 255
		}
		text := *f.at(&job)
		if utf8.RuneCountInString(text) > bound || !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
			t.Fatalf("%s is %q", f.name, text)
		}
	}
	if job.Title == "" || job.SourceURL == "" || job.Status == "" || job.CapturedVia == "" {
		t.Fatalf("%+v has no title, source URL, status or captured_via", job)
	}
}
