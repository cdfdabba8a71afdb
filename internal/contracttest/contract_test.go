package contracttest

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"jobtally/internal/contract"
)

func checker(t *testing.T) *Checker {
	t.Helper()
	c, err := New()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestEveryExampleIsAllowed checks the examples that the page shows of bodies, answers, parameters and headers, be they
// written down or put together.
func TestEveryExampleIsAllowed(t *testing.T) {
	c := checker(t)
	wants := func(what string, s *contract.Schema) {
		t.Helper()
		for _, choice := range append([]*contract.Schema{s}, s.Choices()...) {
			if err := c.CheckJSON(choice, choice.Example()); err != nil {
				t.Errorf("%s: %s: %v", what, choice.Example(), err)
			}
		}
	}
	for _, s := range c.Schemas {
		wants(s.Name, s)
	}
	for _, o := range c.Operations {
		for _, m := range o.Body {
			wants(o.ID+" "+m.Type, m.Schema)
		}
		for _, p := range o.Parameters {
			if p.Required {
				wants(o.ID+" "+p.Name, p.Schema)
			}
		}
		for _, a := range o.Answers {
			for _, m := range a.Media {
				wants(o.ID, m.Schema)
			}
			for _, h := range a.Headers {
				wants(o.ID+" "+h.Name, h.Schema)
			}
		}
	}
}

func TestOperationsAreWhole(t *testing.T) {
	c, ids := checker(t), map[string]bool{}
	for _, o := range c.Operations {
		if ids[o.ID] || o.ID == "" || o.Summary == "" || o.Description == "" || o.Tag == "" {
			t.Errorf("%s %s, operation %q: it lacks a name of its own, a summary, a description or a tag", o.Method, o.Path, o.ID)
		}
		ids[o.ID] = true
		statuses := []int{401, 429, 500, 503}
		if len(o.Scopes) > 0 {
			statuses = append(statuses, 403)
		}
		for _, status := range statuses {
			if _, known := o.Answer(status); !known && !o.Open {
				t.Errorf("%s does not say that it may answer %d", o.ID, status)
			}
		}
		for _, a := range o.Answers {
			for _, m := range a.Media {
				if a.Status >= 400 && m.Type != "application/problem+json" {
					t.Errorf("%s answers %d with %s", o.ID, a.Status, m.Type)
				}
			}
		}
	}
}

func TestThePageIsWholeAndLoadsNothing(t *testing.T) {
	c := checker(t)
	html, policy, err := c.Page()
	if err != nil {
		t.Fatal(err)
	}
	page := string(html)
	if len(c.Webhooks) == 0 {
		t.Error("the contract says nothing of what webhooks are sent")
	}
	for _, o := range slices.Concat(c.Operations, c.Webhooks) {
		if !strings.Contains(page, `id="`+o.ID+`"`) {
			t.Errorf("operation %s is not there", o.ID)
		}
	}
	if m := regexp.MustCompile(`\[[^\]"]+\]\([^)]+\)`).FindString(page); m != "" {
		t.Errorf("a link stands there as it is written: %s", m)
	}
	for _, m := range regexp.MustCompile(`href="#([^"]+)"`).FindAllStringSubmatch(page, -1) {
		if !strings.Contains(page, `id="`+m[1]+`"`) {
			t.Errorf("a link leads to #%s, which is not there", m[1])
		}
	}
	if m := regexp.MustCompile(`<script|\ssrc=|\son[a-z]+=|style="|@import|url\(|href="(?:https?:)?//`).FindString(page); m != "" {
		t.Errorf("the page has %q", m)
	}
	if strings.Contains(policy, "unsafe") || !strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-") ||
		!strings.Contains(policy, "; img-src data:;") { // for the icon, which is an empty one, so that no browser asks for another
		t.Errorf("its policy is %s", policy)
	}
	if !strings.Contains(page, "curl -sN &#34;$URL/api/jobs/events&#34;") {
		t.Error("curl keeps back what comes in the stream of events")
	}
}

// TestCheckFindsWhatDiffers shows that an exchange that is not by the contract is called so.
func TestCheckFindsWhatDiffers(t *testing.T) {
	c := checker(t)
	for name, change := range map[string]func(*Exchange){
		"":                          func(*Exchange) {},
		"does not know: ":           func(x *Exchange) { x.Status = 418 },
		"X-Request-Id is missing":   func(x *Exchange) { x.Header.Del("X-Request-Id") },
		"not know header Server":    func(x *Exchange) { x.Header.Set("Server", "x") },
		"header Ledger-Position: 7": func(x *Exchange) { x.Header.Set("Ledger-Position", "7") },
		"the body is text/html":     func(x *Exchange) { x.Header.Set("Content-Type", "text/html") },
		"additional properties": func(x *Exchange) {
			x.Body = []byte(`{"used":1,"limit":2,"remaining":1,"reset_date":"2026-12-01","left":1}`)
		},
		"missing property 'used'":    func(x *Exchange) { x.Body = []byte(`{"limit":2,"remaining":1,"reset_date":"2026-12-01"}`) },
		"grants with 200":            func(x *Exchange) { x.Request.Header.Set("Ledger-Position", "seven") },
		"is not in the contract":     func(x *Exchange) { x.Request.URL.Path = "/api/jobs/quota/left" },
		"FOO /api/jobs/quota is not": func(x *Exchange) { x.Request.Method = "FOO" },
	} {
		x := &Exchange{
			Request: &http.Request{Method: "GET", URL: &url.URL{Path: "/api/jobs/quota"}, Header: http.Header{}},
			Status:  200, Body: []byte(`{"used":1,"limit":2,"remaining":1,"reset_date":"2026-12-01"}`),
			Header: http.Header{
				"X-Request-Id": {"a"}, "Cache-Control": {"private, no-cache"}, "Ledger-Position": {"0-7"}, "Etag": {`"1"`},
				"Content-Type": {"application/json"},
			},
		}
		change(x)
		if err := c.Check(x); (err != nil) != (name != "") || err != nil && !strings.Contains(err.Error(), name) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestUnexercised(t *testing.T) {
	c := checker(t)
	x := &Exchange{Request: &http.Request{Method: "GET", URL: &url.URL{Path: "/livez"}}, Status: 200, Body: []byte(`{"status":"alive"}`),
		Header: http.Header{"X-Request-Id": {"a"}, "Cache-Control": {"no-store"}, "Content-Type": {"application/json"}}}
	before := c.Unexercised()
	if err := c.Check(x); err != nil {
		t.Fatal(err)
	}
	if after := c.Unexercised(); !slices.Contains(before, "getLive 200") || slices.Contains(after, "getLive 200") || len(after) != len(before)-1 {
		t.Errorf("before %d, after %d", len(before), len(after))
	}
}
