package main

import (
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"jobtally/internal/events"
	internalhttp "jobtally/internal/http"
	"jobtally/internal/token"
)

// example says how a route is called about something of anna's. A route that names nothing of anybody is about the caller's
// own, or with public about the service.
type example struct {
	public bool              // needs no token
	admin  bool              // is for administrators, who may act on any account
	theirs map[string]string // the parameters of the path that name something of anna's
	nobody map[string]string // ... that name something that never was
	own    map[string]string // ... that name something of whoever calls
	query  string
	body   string // of the posting that anna has
}

// examplesOf has every route but those of HEAD, which are called as GET is. A new route needs an entry here: who may call it,
// and what in its path is somebody's?
func examplesOf(anna victim) map[string]example {
	account, nobody := map[string]string{"account": "anna"}, map[string]string{"account": "nobody"}
	token, noToken := map[string]string{"account": "anna", "token": anna.token[3:15]}, map[string]string{"account": "nobody", "token": "000000000000"}
	hook, noHook := map[string]string{"id": anna.hook}, map[string]string{"id": "wh_aaaaaaaaaaaaaaaaaaaa"}
	return map[string]example{
		"GET /livez":  {public: true},
		"GET /readyz": {public: true},

		"GET /openapi.yaml": {public: true},
		"GET /docs":         {public: true},

		"GET /asyncapi.yaml":   {public: true},
		"GET /schemas/:schema": {public: true, own: map[string]string{"schema": "event.json"}},

		"GET /api/jobs/quota":                {},
		"GET /api/jobs/quota/history":        {},
		"GET /api/jobs/quota/history/:month": {own: map[string]string{"month": "2026-11"}},
		"POST /api/jobs":                     {body: jobAt(jobURL(1))},
		"POST /api/jobs/batch":               {body: `{"jobs":[` + jobAt(jobURL(2)) + `]}`},
		"GET /api/jobs":                      {},
		"GET /api/jobs/lookup":               {query: "?source_url=" + jobURL(1)},
		"GET /api/jobs/events":               {}, // from now on: before, bob named what is anna's himself
		"GET /api/jobs/captures/:position": {
			theirs: map[string]string{"position": anna.position}, nobody: map[string]string{"position": "0-999999"},
		},
		"GET /api/jobs/:id": {
			theirs: map[string]string{"id": anna.job}, nobody: map[string]string{"id": "job_aaaaaaaaaaaaaaaaaaaaaaaa"},
		},
		"PATCH /api/jobs/:id": {
			theirs: map[string]string{"id": anna.job}, nobody: map[string]string{"id": "job_aaaaaaaaaaaaaaaaaaaaaaaa"}, body: `{"notes":"x"}`,
		},
		"DELETE /api/jobs/:id": {
			theirs: map[string]string{"id": anna.job}, nobody: map[string]string{"id": "job_aaaaaaaaaaaaaaaaaaaaaaaa"},
		},
		"GET /api/webhooks":                {},
		"POST /api/webhooks":               {body: `{"url":"https://hooks.invalid/bob"}`},
		"GET /api/webhooks/:id":            {theirs: hook, nobody: noHook},
		"PATCH /api/webhooks/:id":          {theirs: hook, nobody: noHook, body: `{"enabled":false}`},
		"DELETE /api/webhooks/:id":         {theirs: hook, nobody: noHook},
		"POST /api/webhooks/:id/secret":    {theirs: hook, nobody: noHook, body: `{}`},
		"POST /api/webhooks/:id/test":      {theirs: hook, nobody: noHook},
		"GET /api/webhooks/:id/deliveries": {theirs: hook, nobody: noHook},
		"GET /api/account":                 {},
		"GET /api/admin/accounts":          {admin: true},
		"POST /api/admin/accounts":         {admin: true, body: `{"account":"anna"}`},

		"GET /api/admin/accounts/:account":                  {admin: true, theirs: account, nobody: nobody},
		"DELETE /api/admin/accounts/:account":               {admin: true, theirs: account, nobody: nobody},
		"PUT /api/admin/accounts/:account/plan":             {admin: true, theirs: account, nobody: nobody, body: `{"limit":1}`},
		"GET /api/admin/accounts/:account/tokens":           {admin: true, theirs: account, nobody: nobody},
		"POST /api/admin/accounts/:account/tokens":          {admin: true, theirs: account, nobody: nobody, body: `{}`},
		"DELETE /api/admin/accounts/:account/tokens/:token": {admin: true, theirs: token, nobody: noToken},
	}
}

// victim is an account of which nobody else is to learn anything.
type victim struct {
	client
	job, position string
	hook          string   // a webhook
	marks         []string // what only an answer to her may have in it
}

func newVictim(t *testing.T, c client) victim {
	t.Helper()
	body := posting{Title: "secret-anna-title", Company: "secret-anna-company", SourceURL: jobURL(1)}.json()
	r := c.post(t, body, "Idempotency-Key: secret-anna-key").wants(t, http.StatusCreated)
	c.post(t, strings.Replace(body, jobURL(1), jobURL(2), 1)).wants(t, http.StatusCreated)
	hook := c.hook(t, `{"url":"https://secret-anna.invalid/hooks"}`)
	return victim{c, r.Job.ID, r.Receipt.Position, hook.ID, []string{"secret-anna", r.Job.ID, r.Receipt.Digest, hook.ID, hook.Secret, `"anna"`}}
}

// fill puts values in the place of the parameters of a path.
func fill(path string, values ...map[string]string) string {
	for _, some := range values {
		for name, value := range some {
			path = strings.ReplaceAll(path+"/", "/:"+name+"/", "/"+value+"/")
			path = strings.TrimSuffix(path, "/")
		}
	}
	return path
}

// send calls a route as an example says, with the parameters of somebody.
func (c client) send(t *testing.T, route string, e example, whose map[string]string, headers ...string) reply {
	t.Helper()
	method, path, _ := strings.Cut(route, " ")
	path = fill(path, whose, e.own)
	if strings.Contains(path, "/:") {
		t.Fatalf("the example of %s leaves %s", route, path)
	}
	r, err := c.call(method, path+e.query, strings.NewReader(e.body), headers...)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range whose { // so that answers can be compared: they may repeat what was asked
		r.body = strings.ReplaceAll(r.body, value, ":"+name)
	}
	return r
}

// wantsNothingOf checks that nothing in an answer is of an account.
func (r reply) wantsNothingOf(t *testing.T, v victim) {
	t.Helper()
	var text strings.Builder
	_ = r.header.Write(&text)
	text.WriteString(r.body)
	for _, mark := range v.marks {
		if strings.Contains(text.String(), mark) {
			t.Errorf("the answer tells %q:\n%s", mark, text.String())
		}
	}
}

// ownReceipt is where the request of whoever calls stands. A change is decided whether there is such a job or not.
var ownReceipt = regexp.MustCompile(`"instance":"[^"]*"|"receipt":\{[^}]*\}`)

// wantsAlike checks that two answers cannot be told apart.
func (r reply) wantsAlike(t *testing.T, other reply) {
	t.Helper()
	a, b := r.header.Clone(), other.header.Clone()
	for _, header := range []http.Header{a, b} {
		header.Del("X-Request-Id")
		header.Del("Idempotency-Key") // made anew for each
		header.Del("Date")
		header.Del("Ledger-Position")
		header.Del("Content-Length") // the parameters have not one length
	}
	one, two := ownReceipt.ReplaceAllString(r.body, ""), ownReceipt.ReplaceAllString(other.body, "")
	if r.status != other.status || one != two || !maps.EqualFunc(a, b, slices.Equal) {
		t.Errorf("what is anna's is told from what never was:\n%d %v %s\n%d %v %s", r.status, a, r.body, other.status, b, other.body)
	}
}

// TestNoRouteTellsOfAnotherAccount calls every route there is about anna's with every kind of token that is not hers, and
// about what never was: the answers are alike, and nothing in them is of her.
func TestNoRouteTellsOfAnotherAccount(t *testing.T) {
	t.Parallel()
	now := clockAt(t, "2026-11-15T12:00:00Z")
	s := start(t, t.TempDir(), now.now)
	ops := s.admin(t)
	clients := s.accounts(t, 100, "anna", "bob")
	anna, bob := newVictim(t, clients[0]), clients[1]
	revoked := client{s.url, s.operator(t, "token", "issue", "--account", "anna"), s.http}
	s.operator(t, "token", "revoke", revoked.token, "--account", "anna")
	s.settle(t)
	expired, _ := ops.issue(t, "anna", `{"expires_at":"2026-11-16T00:00:00Z"}`)
	now.set(t, "2026-11-16T00:00:00Z")
	reader, _ := ops.issue(t, "bob", `{"scopes":["jobs:read"]}`)
	writer, _ := ops.issue(t, "bob", `{"scopes":["jobs:write"]}`)
	lacking := map[string]client{events.ScopeJobsRead: writer, events.ScopeJobsWrite: reader, events.ScopeAdmin: bob}
	untouched := []string{"/api/jobs/quota", "/api/jobs/" + anna.job, "/api/webhooks"}
	var before []reply
	for _, path := range untouched {
		before = append(before, anna.get(t, path))
	}

	examples, routes := examplesOf(anna), internalhttp.Routes()
	for route := range examples {
		if !slices.Contains(routes, route) {
			t.Errorf("there is an example of %s, which is no route", route)
		}
	}
	for _, route := range routes {
		e, known := examples[strings.Replace(route, "HEAD ", "GET ", 1)]
		if !known {
			t.Errorf("there is no example of %s: add one to examplesOf", route)
			continue
		}
		t.Run(route, func(t *testing.T) {
			if e.public {
				anna.send(t, route, e, nil, "Authorization:").wants(t, http.StatusOK).wantsNothingOf(t, anna)
				return
			}
			for name, c := range map[string]struct {
				held string
				code string
			}{
				"no token": {"", "token_missing"}, "malformed": {typoIn(anna.token), "token_malformed"},
				"never issued": {token.New().Reveal(), "token_unknown"}, "revoked": {revoked.token, "token_revoked"},
				"expired": {expired.token, "token_expired"},
			} {
				header := "Authorization: Bearer " + c.held
				theirs, nobodys := anna.send(t, route, e, e.theirs, header), anna.send(t, route, e, e.nobody, header)
				theirs.wantsStatus(t, name, c.code, http.StatusUnauthorized)
				theirs.wantsNothingOf(t, anna)
				theirs.wantsAlike(t, nobodys)
			}
			if c, needed := lacking[scopeOf(route)]; needed {
				theirs := c.send(t, route, e, e.theirs)
				theirs.wantsStatus(t, "without the scope", "scope_missing", http.StatusForbidden)
				theirs.wantsNothingOf(t, anna)
				theirs.wantsAlike(t, c.send(t, route, e, e.nobody))
			}
			if e.admin {
				return
			}
			theirs := bob.send(t, route, e, e.theirs)
			theirs.wantsNothingOf(t, anna)
			switch {
			case e.theirs != nil:
				theirs.wantsStatus(t, "bob", "", http.StatusNotFound)
				theirs.wantsAlike(t, bob.send(t, route, e, e.nobody))
			case theirs.status >= 300:
				t.Errorf("bob's own is answered %d %s", theirs.status, theirs.body)
			case strings.Contains(theirs.body, `"duplicate"`):
				t.Errorf("bob is told that somebody has it: %s", theirs.body)
			}
		})
	}
	for i, path := range untouched {
		anna.get(t, path).wantsSame(t, before[i])
	}
}

// scopeOf returns the scope that a route needs, if it needs one.
func scopeOf(route string) string {
	method, path, _ := strings.Cut(route, " ")
	switch {
	case strings.HasPrefix(path, "/api/admin"):
		return events.ScopeAdmin
	case !strings.HasPrefix(path, "/api/jobs") && !strings.HasPrefix(path, "/api/webhooks"):
		return ""
	case method == http.MethodGet || method == http.MethodHead:
		return events.ScopeJobsRead
	}
	return events.ScopeJobsWrite
}

// wantsStatus checks status and, where there is a body, the code of a problem.
func (r reply) wantsStatus(t *testing.T, who, code string, status int) {
	t.Helper()
	if r.status != status || r.body != "" && code != "" && r.Code != code {
		t.Errorf("%s: answered %d %s, want %d %s", who, r.status, r.body, status, code)
	}
}
