package main

import (
	"bytes"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"jobtally/internal/contract"
)

// example sends the request that the contract gives as the example of an operation, with headers as call takes them.
func (c client) example(t *testing.T, o *contract.Operation, headers ...string) reply {
	t.Helper()
	var body []byte
	if len(o.Body) > 0 {
		body = o.Body[0].Schema.Example()
	}
	return c.exampleWith(t, o, body, headers...)
}

// exampleWith sends it with another body.
func (c client) exampleWith(t *testing.T, o *contract.Operation, body []byte, headers ...string) reply {
	t.Helper()
	g, query, path := generator{}, url.Values{}, o.Path
	for _, p := range o.Parameters {
		switch value, _ := g.example(p.Schema).(string); {
		case p.In == "path":
			path = strings.ReplaceAll(path, "{"+p.Name+"}", value)
		case p.In == "query" && p.Required:
			query.Set(p.Name, "https://jobs.example.com/openings/1")
		}
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	if len(o.Body) > 0 {
		headers = append([]string{"Content-Type: " + o.Body[0].Type}, headers...)
	}
	r, err := c.call(o.Method, path, bytes.NewReader(body), headers...)
	if err != nil {
		t.Error(err)
	}
	return r
}

// TestEveryOperationWantsATokenThatMayDoIt asks for every operation without a token, with one that lacks the scope, and for a
// position that is none; and for those that need none with a token where logs would keep it.
func TestEveryOperationWantsATokenThatMayDoIt(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember)
	ops := s.admin(t)
	s.settle(t)
	reader, _ := ops.issue(t, "demo", `{"scopes":["jobs:read"]}`)
	writer, _ := ops.issue(t, "demo", `{"scopes":["jobs:write"]}`)
	lacking := map[string]client{"jobs:read": writer, "jobs:write": reader, "admin": s.client}
	for _, o := range theContract().Operations {
		if o.Open {
			s.get(t, o.Path+"?token="+s.token, "Authorization:").wantsProblem(t, http.StatusBadRequest, "invalid_request")
			continue
		}
		t.Run(o.ID, func(t *testing.T) {
			s.example(t, o, "Authorization:").wantsProblem(t, http.StatusUnauthorized, "token_missing")
			s.example(t, o, "Authorization: Bearer "+unknownToken).wantsProblem(t, http.StatusUnauthorized, "token_unknown")
			for _, scope := range o.Scopes {
				r := lacking[scope].example(t, o).wantsProblem(t, http.StatusForbidden, "scope_missing")
				if wants := r.header.Get("Www-Authenticate"); !strings.Contains(wants, `scope="`+scope+`"`) {
					t.Errorf("it says %s", wants)
				}
			}
			if slices.ContainsFunc(o.Parameters, func(p contract.Parameter) bool { return p.Name == "Ledger-Position" }) {
				ops.example(t, o, "Ledger-Position: seven").wantsProblem(t, http.StatusBadRequest, "invalid_position")
			}
		})
	}
}

// TestEveryOperationChecksItsBody sends bodies that are said to be something else, or are too large.
func TestEveryOperationChecksItsBody(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember)
	ops := s.admin(t)
	s.settle(t)
	for _, o := range theContract().Operations {
		if len(o.Body) == 0 {
			continue
		}
		most := 256 << 10
		if o.ID == "captureJobs" {
			most = 4 << 20
		}
		ops.example(t, o, "Content-Type: text/plain").wantsProblem(t, http.StatusUnsupportedMediaType, "unsupported_media_type")
		ops.exampleWith(t, o, bytes.Repeat([]byte(" "), most+1)).wantsProblem(t, http.StatusRequestEntityTooLarge, "body_too_large")
		ops.exampleWith(t, o, bytes.Repeat([]byte(" "), most)).wantsProblem(t, http.StatusBadRequest, "invalid_request")
	}
}

func TestTheDocumentsAreServedToEverybody(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember)
	for path, says := range map[string]string{
		"/openapi.yaml": "openapi: 3.1.0", "/docs": "<h1>jobtally</h1>", "/asyncapi.yaml": "asyncapi: 3.1.0", "/schemas/event.json": "CloudEvent",
	} {
		first := s.get(t, path, "Authorization:").wants(t, http.StatusOK)
		if !strings.Contains(first.body, says) {
			t.Errorf("%s: %.300s", path, first.body)
		}
		s.get(t, path, "Authorization:", "If-None-Match: "+first.header.Get("ETag")).wants(t, http.StatusNotModified)
	}
	s.get(t, "/schemas/jobtally.job.captured.v2.json", "Authorization:").wantsProblem(t, http.StatusNotFound, "not_found")
}
