package http

import (
	"errors"
	nethttp "net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestParsePrefer(t *testing.T) {
	const s = time.Second
	for _, tt := range []struct {
		lines string // separated by a bar
		want  preferences
	}{
		{"", preferences{}},
		{"respond-async", preferences{async: true}},
		{"Respond-Async", preferences{async: true}},
		{"respond-async, wait=5", preferences{async: true, waits: true, wait: 5 * s}},
		{"wait=5|respond-async", preferences{async: true, waits: true, wait: 5 * s}},
		{"wait = 5", preferences{waits: true, wait: 5 * s}},
		{`wait="5"`, preferences{waits: true, wait: 5 * s}},
		{"WAIT=5; unit=s", preferences{waits: true, wait: 5 * s}},
		{"wait=0", preferences{waits: true}},
		{"wait=30", preferences{waits: true, wait: 30 * s}},
		{"wait=31", preferences{waits: true, wait: 30 * s}},
		{"wait=99999999999999999999999", preferences{waits: true, wait: 30 * s}},
		{"wait=1, wait=2", preferences{waits: true, wait: s}},
		{"wait=x, wait=2", preferences{}},
		{"wait", preferences{}},
		{"wait=", preferences{}},
		{"wait=-1", preferences{}},
		{"wait=+1", preferences{}},
		{"wait=1.5", preferences{}},
		{"wait=5s", preferences{}},
		{"respond-async=no", preferences{}},
		{`respond-async=""`, preferences{async: true}},
		{`foo="a, wait=9; \" , respond-async", wait=2`, preferences{waits: true, wait: 2 * s}},
		{`foo; bar="x,y", return=minimal, respond-async`, preferences{async: true}},
		{`foo="unclosed, wait=2`, preferences{}},
		{",,;,=,wait=1", preferences{waits: true, wait: s}},
	} {
		if got := parsePrefer(strings.Split(tt.lines, "|")); got != tt.want {
			t.Errorf("parsePrefer(%q): %+v, want %+v", tt.lines, got, tt.want)
		}
	}
}

func TestIdempotencyKey(t *testing.T) {
	for _, tt := range []struct {
		name, line, want string // want is empty for what is not valid
	}{
		{"quoted", `"8e03978e-40d5-43e8-bc93-6894a57f9324"`, "8e03978e-40d5-43e8-bc93-6894a57f9324"},
		{"bare", "8e03978e-40d5-43e8-bc93-6894a57f9324", "8e03978e-40d5-43e8-bc93-6894a57f9324"},
		{"bare, with all that may be", "aZ09!#$%&'()*+-./:<=>?@[]^_`{|}~", "aZ09!#$%&'()*+-./:<=>?@[]^_`{|}~"},
		{"white space around", " \tk1 ", "k1"},
		{"escapes", `"a\"b\\c"`, `a"b\c`},
		{"quoted space, comma and semicolon", `"a b, c; d"`, "a b, c; d"},
		{"quoted space", `" "`, " "},
		{"255 characters", strings.Repeat("x", 255), strings.Repeat("x", 255)},
		{"255 characters quoted", `"` + strings.Repeat("x", 255) + `"`, strings.Repeat("x", 255)},
		{"256 characters", strings.Repeat("x", 256), ""},
		{"256 characters quoted", `"` + strings.Repeat("x", 256) + `"`, ""},
		{"empty", "", ""},
		{"empty quoted", `""`, ""},
		{"no closing quote", `"abc`, ""},
		{"only a quote", `"`, ""},
		{"no opening quote", `abc"`, ""},
		{"parameter", `"abc";v=1`, ""},
		{"two in a line", `"abc", "def"`, ""},
		{"two bare ones in a line", "abc,def", ""},
		{"space inside", "abc def", ""},
		{"single quotes with a space", "'abc def'", ""},
		{"other escape", `"a\nb"`, ""},
		{"escape at the end", `"abc\`, ""},
		{"escaped closing quote", `"abc\"`, ""},
		{"tab", "\"a\tb\"", ""},
		{"not ASCII", `"é"`, ""},
		{"bare, not ASCII", "é", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := idempotencyKey(nethttp.Header{"Idempotency-Key": {tt.line}})
			var p *problem
			if tt.want == "" && (!errors.As(err, &p) || p.Code != codeInvalidIdempotencyKey || p.Detail == "") {
				t.Errorf("%q, %v, want a problem", got, err)
			}
			if tt.want != "" && (err != nil || got != tt.want) {
				t.Errorf("%q, %v, want %q", got, err, tt.want)
			}
			if tt.want == "" {
				return
			}
			if again, err := parseIdempotencyKey(quoteKey(got)); err != nil || again != got {
				t.Errorf("quoteKey writes %s, read as %q, %v", quoteKey(got), again, err)
			}
		})
	}
	if _, err := idempotencyKey(nethttp.Header{"Idempotency-Key": {"a", "a"}}); err == nil {
		t.Error("two header lines are taken")
	}
	made, err := idempotencyKey(nethttp.Header{})
	if id, err2 := uuid.Parse(made); err != nil || err2 != nil || id.Version() != 7 {
		t.Errorf("the key that is made is %q, %v, %v", made, err, err2)
	}
}

func TestMatchesETag(t *testing.T) {
	const etag = `"15.50.2024-02-01"`
	for _, tt := range []struct {
		lines string
		want  bool
	}{
		{etag, true},
		{"W/" + etag, true},
		{`"a", ` + etag, true},
		{`"a"|` + etag, true},
		{`"a,b" , W/` + etag + ` , "c"`, true},
		{"*", true},
		{"", false},
		{`"16.50.2024-02-01"`, false},
		{`15.50.2024-02-01`, false},
		{`"a, ` + etag + `"`, false},
		{"w/" + etag, false},
	} {
		if got := matchesETag(strings.Split(tt.lines, "|"), etag); got != tt.want {
			t.Errorf("matchesETag(%q): %v", tt.lines, got)
		}
	}
	if matchesETag(nil, etag) {
		t.Error("no If-None-Match matches")
	}
}

func TestSuggestion(t *testing.T) {
	for name, want := range map[string]string{
		"sourceURL": "source_url", "source url": "source_url", "soucre_url": "source_url", "tilte": "title", "titles": "title",
		"jobType": "job_type", "note": "notes", "statsu": "status", "capturedVia": "captured_via", "applicationUrl": "application_url",
	} {
		if got := suggestion(name, namesOf(jobFields)); got != "did you mean "+want+"?" {
			t.Errorf("suggestion(%q): %s", name, got)
		}
	}
	for _, name := range []string{"", "id", "salary", "url", strings.Repeat("title", 1000)} {
		if got := suggestion(name, namesOf(jobFields)); !strings.HasPrefix(got, "its fields are") {
			t.Errorf("suggestion(%q): %s", name, got)
		}
	}
}

func TestContentType(t *testing.T) {
	for _, tt := range []struct {
		contentType, contentEncoding string
		detail                       string // empty when it is taken
	}{
		{"application/json", "", ""},
		{"Application/JSON ; charset=UTF-8", "", ""},
		{"application/json;charset=\"utf-8\"", "identity", ""},
		{"application/json; version=1", "", ""},
		{"", "", "is missing; send Content-Type: application/json"},
		{"text/plain", "", "said to be text/plain; send Content-Type: application/json"},
		{"application/x-www-form-urlencoded", "", "curl -d"},
		{"application/merge-patch+json", "", "said to be application/merge-patch+json"},
		{"application/json; charset=iso-8859-1", "", "another charset"},
		{"application/json; charset", "", "cannot be read"},
		{"application/json", "gzip", "compressed"},
	} {
		header := nethttp.Header{}
		if tt.contentType != "" {
			header.Set("Content-Type", tt.contentType)
		}
		if tt.contentEncoding != "" {
			header.Set("Content-Encoding", tt.contentEncoding)
		}
		_, err := checkContent(header, jsonContentType)
		var p *problem
		switch {
		case tt.detail == "" && err != nil:
			t.Errorf("%q: %v", tt.contentType, err)
		case tt.detail != "" && (!errors.As(err, &p) || p.Code != codeUnsupportedMediaType || !strings.Contains(p.Detail, tt.detail)):
			t.Errorf("%q: %v, want %q", tt.contentType, err, tt.detail)
		}
	}
}
