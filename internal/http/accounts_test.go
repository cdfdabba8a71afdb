package http

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strings"
	"testing"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

const admins = "/api/admin/accounts"

func TestOwnAccount(t *testing.T) {
	n, asBob := newAdministered(t)
	const annas = `{"account":"anna","plan":"two","limit":2,"opened_at":"2024-01-15T10:20:30.456Z",` +
		`"quota":{"used":%d,"limit":2,"remaining":%d,"reset_date":"2024-02-01"},"token":{"id":"%s","scopes":["jobs:read","jobs:write"]}}`
	x := n.send(t, "GET", "/api/account", "")
	x.wants(t, 200, fmt.Sprintf(annas, 0, 2, n.anna.ID()))
	x.wantsHeader(t, "Ledger-Position: 0-5", "Cache-Control: private, no-cache")
	n.send(t, "POST", "/api/jobs", gopher).wants(t, 201, "{…")
	n.send(t, "GET", "/api/account", "").wants(t, 200, fmt.Sprintf(annas, 1, 1, n.anna.ID()))
	n.send(t, "GET", "/api/account", "", asBob).wants(t, 200, `{"account":"bob","plan":"free","limit":-1,"opened_at":"2024-01-15T10:20:30.456Z",`+
		`"quota":{"used":0,"limit":-1,"remaining":-1,"reset_date":"2024-02-01"},"token":{"id":"`+n.bob.ID()+`","scopes":["jobs:read","jobs:write","admin"]}}`)
	n.send(t, "GET", "/api/account", "", "Authorization: ").wantsProblem(t, codeTokenMissing)
	n.Account = func(context.Context, string) (a capture.StoredAccount, err error) { return a, events.ErrNotFound }
	n.send(t, "GET", "/api/account", "").wantsProblem(t, codeAccountUnknown)
}

func TestOpenAccount(t *testing.T) {
	n, asBob := newAdministered(t)
	for i, c := range []struct{ body, plan, limit, remaining string }{
		{`{"account":"a0"}`, "free", "50", "50"},
		{`{"account":"a1","plan":"pro"}`, "pro", "500", "500"},
		{`{"account":"a2","plan":null,"limit":1000}`, "custom", "1000", "1000"},
		{`{"account":"a3","limit":-1,"plan":""}`, "custom", "-1", "-1"},
		{`{"account":"a4","limit":0}`, "custom", "0", "0"},
		{`{"account":"a5","limit":1000000000000}`, "custom", "1000000000000", "1000000000000"},
	} {
		position := fmt.Sprintf("0-%d", 6+i)
		x := n.send(t, "POST", admins, c.body, asBob)
		x.wants(t, 201, fmt.Sprintf(`{"account":"a%d","plan":"%s","limit":%s,"opened_at":"2024-01-15T10:20:30.456Z",`+
			`"quota":{"used":0,"limit":%s,"remaining":%s,"reset_date":"2024-02-01"},"receipt":{"position":"%s","digest":"%s"}}`,
			i, c.plan, c.limit, c.limit, c.remaining, position, n.digest(6+i)))
		x.wantsHeader(t, fmt.Sprintf("Location: %s/a%d", admins, i), "Ledger-Position: "+position, "Cache-Control: private, no-cache")
	}
	opened := n.requests[5].Body.(*events.AccountOpenRequested)
	if opened.By != "token:"+n.bob.ID() {
		t.Errorf("asked by %q", opened.By)
	}
	t.Log("what is there is not opened again, and nothing is recorded for that")
	n.send(t, "POST", admins, `{"account":"anna","plan":"pro"}`, asBob).wantsProblem(t, codeAccountExists)
	n.send(t, "POST", admins, `{"account":"a0"}`, asBob, "Idempotency-Key: k").wantsProblem(t, codeAccountExists)
	if len(n.requests) != 11 {
		t.Errorf("%d requests", len(n.requests))
	}
	t.Log("unless another node opened it, which this one has not folded")
	n.Account = func(context.Context, string) (a capture.StoredAccount, err error) { return a, events.ErrNotFound }
	if body := n.send(t, "POST", admins, `{"account":"anna"}`, asBob).wantsProblem(t, codeAccountExists); !strings.Contains(body, `"receipt":{"position":"0-12"`) {
		t.Errorf("no receipt: %s", body)
	}
}

// TestWrongBodiesOfAdministrators has what is wrong with each, in order.
func TestWrongBodiesOfAdministrators(t *testing.T) {
	n, asBob := newAdministered(t)
	const catalogue = "plan must be one of free, premium, pro, or left out with a limit instead"
	const limits = "limit must be a whole number from -1, which is unlimited, to 1000000000000"
	const times = "expires_at must be a time such as 2027-01-01T00:00:00Z"
	for _, c := range []struct{ call, body, want string }{
		{"POST ", `{}`, "account is missing"},
		{"POST ", `{"account":"Acme.1"}`, "account must have 1 to 64 characters out of a-z, 0-9, _ and -"},
		{"POST ", `{"account":null}`, "account must be a string, not null"},
		{"POST ", `{"acount":"acme","plan":"pro","limit":3,"plan":"pro"}`,
			"acount is not a field of an account; did you mean account?|plan is there more than once|account is missing"},
		{"POST ", `{"account":"acme","salary":1}`, "salary is not a field of an account; its fields are account, plan, limit"},
		{"POST ", `{"account":7,"plan":"gold"}`, "account must be a string, not a number|" + catalogue},
		{"POST ", `{"account":"acme","plan":"custom"}`, catalogue},
		{"POST ", `{"account":"acme","plan":"pro","limit":3}`, "limit must not be there together with plan"},
		{"PUT /anna/plan", `{}`, "plan is missing, and so is limit: send one of them"},
		{"PUT /anna/plan", `{"plan":null,"reason":"x"}`, "plan is missing, and so is limit: send one of them"},
		{"PUT /anna/plan", `{"plan":"pro","limit":0}`, "limit must not be there together with plan"},
		{"PUT /anna/plan", `{"plan":["pro"],"reason":1}`, "plan must be a string, not an array|reason must be a string, not a number"},
		{"PUT /anna/plan", `{"limit":"3"}`, "limit must be a number, not a string"},
		{"PUT /anna/plan", `{"limit":-2}`, limits},
		{"PUT /anna/plan", `{"limit":1000000000001}`, limits},
		{"PUT /anna/plan", `{"limit":1.5}`, limits},
		{"PUT /anna/plan", `{"limit":1e3}`, limits},
		{"PUT /anna/plan", `{"limit":99999999999999999999}`, limits},
		{"PUT /anna/plan", `{"plan":"pro","reason":"` + strings.Repeat("é", 501) + `"}`, "reason must have at most 500 characters, not 501"},
		{"PUT /anna/plan", `{"plan":"pro","reason":"a\u0000b"}`, "reason must not contain the control character U+0000"},
		{"PUT /anna/plan", `{"plan":"pro","reason":"\ud83d"}`, `reason must not contain half of a surrogate pair, as \ud83d is without \ude00`},
		{"PUT /anna/plan", `{"Plan":"pro"}`, "Plan is not a field of a plan; did you mean plan?|plan is missing, and so is limit: send one of them"},
		{"PUT /anna/plan", `{"plan":"pro","reason":"for ` + n.gone.Reveal() + `"}`, "reason must not have a token in it: everybody could read that"},
		{"POST /anna/tokens", `{"name":"` + strings.Repeat("x", 101) + `"}`, "name must have at most 100 characters, not 101"},
		{"POST /anna/tokens", `{"scopes":"admin"}`, "scopes must be an array of strings, not a string"},
		{"POST /anna/tokens", `{"scopes":["admin",1]}`, "scopes must be an array of strings: element 1 must be a string, not a number"},
		{"POST /anna/tokens", `{"scopes":["root"]}`, `scopes must be out of jobs:read, jobs:write, admin: there is no "root"`},
		{"POST /anna/tokens", `{"scopes":["admin","admin"]}`, "scopes must have admin once"},
		{"POST /anna/tokens", `{"expires_at":"2024-01-15T10:20:30.456Z"}`, "expires_at must be in the future"},
		{"POST /anna/tokens", `{"expires_at":"2024-01-15"}`, times},
		{"POST /anna/tokens", `{"expires_at":1705314030}`, "expires_at must be a string, not a number"},
		{"POST /anna/tokens", `{"expires_at":"9999-12-31T23:59:59-01:00"}`, times},
		{"POST /anna/tokens", `{"expires":"x","scope":[]}`, "expires is not a field of a token; did you mean expires_at?|" +
			"scope is not a field of a token; did you mean scopes?"},
		{"POST /anna/tokens", ``, "!the body is empty; send a JSON object"},
		{"POST /anna/tokens", `[]`, "!the body must be a JSON object, not an array"},
		{"PUT /anna/plan", `{"plan":"pro"} {}`, "!something follows the JSON object; send one object and nothing else"},
		{"POST ", `{"account":"acme"`, "!the body is not JSON: it ends too early"},
		{"POST ", "{\"account\":\"caf\xe9\"}", "!the body is not UTF-8"},
	} {
		method, path, _ := strings.Cut(c.call, " ")
		body := n.send(t, method, admins+path, c.body, asBob, "Content-Type: application/json").wantsProblem(t, codeInvalidRequest)
		if got := wrongIn(t, body); got != c.want {
			t.Errorf("%s %s: %s\nwant %s", c.call, c.body, got, c.want)
		}
	}
	n.send(t, "POST", admins, `{"account":"acme"}`, asBob, "Content-Type: text/plain").wantsProblem(t, codeUnsupportedMediaType)
	for _, call := range []string{"POST ?x=1", "PUT /anna/plan?x=1", "POST /anna/tokens?x=1", "DELETE /anna/tokens/" + n.gone.ID() + "?x=1"} {
		method, path, _ := strings.Cut(call, " ")
		n.send(t, method, admins+path, `{"account":"acme"}`, asBob).wantsProblem(t, codeInvalidRequest)
	}
	if len(n.requests) != 5 {
		t.Errorf("%d requests: a wrong one was recorded", len(n.requests))
	}
}

func TestPlanOfAnAccount(t *testing.T) {
	n, asBob := newAdministered(t)
	n.send(t, "POST", "/api/jobs", gopher).wants(t, 201, "{…")
	n.send(t, "POST", "/api/jobs", crab).wants(t, 201, "{…")
	n.send(t, "POST", "/api/jobs", heron).wantsProblem(t, codeQuotaExceeded)
	x := n.send(t, "PUT", annasAccount+"/plan", `{"plan":"pro","reason":" upgrade by invoice 17\n"}`, asBob)
	by := "token:" + n.bob.ID()
	x.wants(t, 200, `{"account":"anna","plan":"pro","limit":500,"previous_plan":"two","previous_limit":2,"by":"`+by+`","reason":"upgrade by invoice 17",`+
		`"quota":{"used":2,"limit":500,"remaining":498,"reset_date":"2024-02-01"},"receipt":{"position":"0-9","digest":"`+n.digest(9)+`"}}`)
	x.wantsHeader(t, "Ledger-Position: 0-9", "Vary: Prefer")
	n.send(t, "POST", "/api/jobs", heron).wants(t, 201, "{…")
	n.send(t, "GET", annasAccount, "", asBob).wants(t, 200, `{"account":"anna","plan":"pro","limit":500,"opened_at":"2024-01-15T10:20:30.456Z",`+
		`"quota":{"used":3,"limit":500,"remaining":497,"reset_date":"2024-02-01"},`+
		`"plan_changed":{"at":"2024-01-15T10:20:30.456Z","by":"`+by+`","reason":"upgrade by invoice 17","position":"0-9"}}`)

	t.Log("a limit of its own, below what is used")
	n.send(t, "PUT", annasAccount+"/plan", `{"limit":1}`, asBob).wants(t, 200, `{"account":"anna","plan":"custom","limit":1,"previous_plan":"pro",`+
		`"previous_limit":500,"by":"`+by+`","quota":{"used":3,"limit":1,"remaining":0,"reset_date":"2024-02-01"},…`)
	t.Log("the same again changes nothing, and is recorded")
	n.send(t, "PUT", annasAccount+"/plan", `{"limit":1}`, asBob).wants(t, 200, `{"account":"anna","plan":"custom","limit":1,"previous_plan":"custom",`+
		`"previous_limit":1,…`)
	n.send(t, "GET", admins+"/nobody", "", asBob).wantsProblem(t, codeAccountUnknown)
	n.send(t, "PUT", admins+"/nobody/plan", `{"limit":1}`, asBob).wantsProblem(t, codeAccountUnknown)
	if len(n.requests) != 12 {
		t.Errorf("%d requests", len(n.requests))
	}
}

func TestAdministrationIsForAdministrators(t *testing.T) {
	n, asBob := newAdministered(t)
	for _, call := range []string{
		"GET ", "POST ", "GET /anna", "PUT /anna/plan", "GET /anna/tokens", "POST /anna/tokens", "DELETE /anna/tokens/" + n.anna.ID(),
	} {
		method, path, _ := strings.Cut(call, " ")
		x := n.send(t, method, admins+path, "{}")
		x.wantsProblem(t, codeScopeMissing)
		x.wantsHeader(t, `WWW-Authenticate: Bearer realm="jobtally", error="insufficient_scope", scope="admin"`)
		n.send(t, method, admins+path, "{}", "Authorization: ").wantsProblem(t, codeTokenMissing)
		n.send(t, method, admins+strings.Replace(path, "anna", "No.Body", 1)+"?x=1", "{}", asBob).wantsProblem(t, map[bool]code{
			true: codeAccountUnknown, false: codeInvalidRequest}[strings.Contains(path, "anna")])
	}
	if len(n.requests) != 5 {
		t.Errorf("%d requests", len(n.requests))
	}
}

func TestAccountsInPages(t *testing.T) {
	n, asBob := newAdministered(t)
	for i := range 5 {
		n.send(t, "POST", admins, fmt.Sprintf(`{"account":"a%d","limit":%d}`, i, i), asBob).wants(t, 201, "{…")
	}
	var names []string
	path, pages := admins+"?limit=3", 0
	for ; path != ""; pages++ {
		x := n.send(t, "GET", path, "", asBob)
		x.wants(t, 200, `{"accounts":[{"account":"…`)
		x.wantsHeader(t, "Cache-Control: private, no-cache", "Ledger-Position:")
		for _, m := range regexp.MustCompile(`"account":"(\w+)"`).FindAllStringSubmatch(x.body, -1) {
			names = append(names, m[1])
		}
		path = nextOf(x)
	}
	if got := strings.Join(names, " "); got != "a0 a1 a2 a3 a4 anna bob" || pages != 3 {
		t.Errorf("%s in %d pages", got, pages)
	}
	n.send(t, "GET", admins+"?limit=1", "", asBob).wants(t, 200, `{"accounts":[{"account":"a0","plan":"custom","limit":0,`+
		`"opened_at":"2024-01-15T10:20:30.456Z","quota":{"used":0,"limit":0,"remaining":0,"reset_date":"2024-02-01"}}]}`)
	tokens := nextOf(issuedTokens(t, n, asBob, 3))
	for _, query := range []string{"limit=0", "limit=101", "limit=x", "cursor=a0", "cursor=", "cursor=" + cursorEncoding.EncodeToString([]byte("a0")), "page=2", tokens[strings.Index(tokens, "?")+1:]} {
		n.send(t, "GET", admins+"?"+query, "", asBob).wantsProblem(t, codeInvalidRequest)
	}
	n.send(t, "GET", strings.Replace(tokens, "anna", "bob", 1), "", asBob).wantsProblem(t, codeInvalidRequest)
	n.Quota = func(context.Context, string, events.Month) (q capture.Quota, err error) { return q, events.ErrNotFound }
	n.send(t, "GET", admins, "", asBob).wants(t, 200, `{"accounts":[]}`) // all erased a moment ago
}

// issuedTokens issues tokens for anna, and returns the first page of them, which has two.
func issuedTokens(t *testing.T, n *node, asBob string, count int) exchange {
	t.Helper()
	for range count {
		n.send(t, "POST", annasAccount+"/tokens", "{}", asBob).wants(t, 201, "{…")
	}
	return n.send(t, "GET", annasAccount+"/tokens?limit=2", "", asBob)
}

func TestPendingAdministration(t *testing.T) {
	n, asBob := newAdministered(t)
	n.hold = true
	for i, call := range []string{"POST ", "PUT /anna/plan", "DELETE /anna/tokens/" + n.anna.ID()} {
		method, path, _ := strings.Cut(call, " ")
		body := map[string]string{"POST": `{"account":"acme"}`, "PUT": `{"limit":1}`}[method]
		x := n.send(t, method, admins+path, body, asBob, "Prefer: respond-async")
		x.wants(t, 202, fmt.Sprintf(`{"outcome":"pending","receipt":{"position":"0-%d"}}`, 6+i))
		x.wantsHeader(t, "Retry-After: 1", "Preference-Applied: respond-async", "Vary: Prefer", "Ledger-Position: 0-5")
	}
	x := n.send(t, "POST", annasAccount+"/tokens", `{"name":"laptop"}`, asBob, "Prefer: wait=0")
	x.wantsHeader(t, "Retry-After: 1", "Cache-Control: no-store", "Preference-Applied: wait=0")
	m := regexp.MustCompile(`^{"outcome":"pending","token":"(jt_\w{12}_\w{38})","id":"(\w{12})","name":"laptop","scopes":\["jobs:read","jobs:write"\],"receipt":{"position":"0-9"}}$`).FindStringSubmatch(x.body)
	if x.StatusCode != 202 || m == nil {
		t.Fatalf("%d %s", x.StatusCode, x.body)
	}
	x.wantsHeader(t, "Location: "+annasAccount+"/tokens/"+m[2])
	n.send(t, "GET", "/api/account", "", "Authorization: Bearer "+m[1]).wantsProblem(t, codeTokenUnknown)
	n.release()
	n.send(t, "GET", "/api/account", "", "Authorization: Bearer "+m[1]).wants(t, 200, `{"account":"anna","plan":"custom","limit":1,…`)
}

func TestAdministrationThatFails(t *testing.T) {
	n, asBob := newAdministered(t)
	calls := map[string]string{
		"POST ": `{"account":"acme"}`, "PUT /anna/plan": `{"limit":1}`, "POST /anna/tokens": `{}`, "DELETE /anna/tokens/" + n.anna.ID(): "",
	}
	each := func(want code, says string) {
		t.Helper()
		for call, sent := range calls {
			method, path, _ := strings.Cut(call, " ")
			body := n.send(t, method, admins+path, sent, asBob).wantsProblem(t, want)
			if !strings.Contains(body, says) || strings.Contains(body, "Idempotency-Key") || strings.Contains(body, "fire") {
				t.Errorf("%s: %s", call, body)
			}
		}
	}
	n.Account = func(ctx context.Context, name string) (capture.StoredAccount, error) {
		if name == "acme" { // also once it is open: this node has not folded that
			return capture.StoredAccount{}, events.ErrNotFound
		}
		return n.account(ctx, name)
	}
	appends := n.Append
	for want, c := range map[code]struct {
		err  error
		says string
	}{
		codeLedgerUnavailable: {events.ErrUnavailable, "nothing was recorded"}, codeInternal: {errors.New("on fire"), ""},
		codeOutcomeUnknown: {events.ErrUnknownOutcome, "again"},
	} {
		n.Append = func(context.Context, *events.Request) (events.Position, error) { return events.Position{}, c.err }
		each(want, c.says)
	}
	n.Append = func(context.Context, *events.Request) (events.Position, error) {
		return events.Position{Sequence: 1}, nil
	}
	each(codeOutcomeUnknown, "again") // the position has the decision on another request

	n.Append = appends
	n.Await = func(context.Context, events.Position) (d events.Decision, err error) { return d, events.ErrNotFound }
	each(codeAccountUnknown, "no account of this name") // erased meanwhile

	all := calls
	for reason, want := range map[string]code{
		events.ReasonAccountUnknown: codeAccountUnknown, events.ReasonTokenUnknown: codeTokenNotFound, events.ReasonAccountExists: codeAccountExists,
		events.ReasonMalformed: codeRequestRefused,
	} {
		calls = maps.Clone(all)
		maps.DeleteFunc(calls, func(call, _ string) bool { // those that are not refused for it
			opens, revokes := call == "POST ", strings.HasPrefix(call, "DELETE")
			return want == codeAccountUnknown && opens || want == codeAccountExists && !opens || want == codeTokenNotFound && !revokes
		})
		n.Await = func(context.Context, events.Position) (events.Decision, error) {
			last := n.requests[len(n.requests)-1]
			return events.Decision{Position: last.Position, Account: last.Account, RequestID: last.ID, Body: &events.RequestRefused{Reason: reason, Detail: "why"}}, nil
		}
		each(want, `"receipt":{"position":"0-`)
	}
	calls = all
	n.Account = func(context.Context, string) (a capture.StoredAccount, err error) { return a, errors.New("on fire") }
	each(codeInternal, "")
}

func TestNothingIsAskedOfAnOutdatedNode(t *testing.T) {
	n, asBob := newAdministered(t)
	n.Outdated = func() bool { return true }
	for call, body := range map[string]string{
		"POST ": `{"account":"acme"}`, "PUT /anna/plan": `{"limit":1}`, "POST /anna/tokens": `{}`, "DELETE /anna/tokens/" + n.anna.ID(): "",
	} {
		method, path, _ := strings.Cut(call, " ")
		n.send(t, method, admins+path, body, asBob).wantsProblem(t, codeNotReady)
	}
	n.send(t, "GET", annasAccount, "", asBob).wants(t, 200, "{…")
}

func TestUsesAreNoted(t *testing.T) {
	n, asBob := newAdministered(t)
	n.send(t, "GET", "/api/jobs/quota", "", "Authorization: Bearer "+n.gone.Reveal()).wantsProblem(t, codeTokenRevoked)
	n.send(t, "GET", annasAccount, "", asBob).wants(t, 200, "{…")
	if got := fmt.Sprint(n.used); got != fmt.Sprint(map[string]time.Time{n.bob.ID(): n.now.Truncate(time.Millisecond)}) {
		t.Errorf("noted %s", got)
	}
}
