package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const adminAccounts = "/api/admin/accounts"

// ask calls with a JSON body, or with none.
func (c client) ask(t *testing.T, method, path, body string, headers ...string) reply {
	t.Helper()
	r, err := c.call(method, path, strings.NewReader(body), headers...)
	if err != nil {
		t.Error(err)
	}
	return r
}

// issued is what the answer of an issue tells.
type issued struct {
	Token, ID string
	Scopes    []string
	ExpiresAt string `json:"expires_at"`
}

// issue has a token issued for an account, and returns a client with it.
func (c client) issue(t *testing.T, account, terms string) (client, issued) {
	t.Helper()
	r := c.ask(t, "POST", adminAccounts+"/"+account+"/tokens", terms).wants(t, http.StatusCreated)
	r.wantsReceipt(t)
	var said issued
	if err := json.Unmarshal([]byte(r.body), &said); err != nil {
		t.Errorf("%v in %s", err, r.body)
	}
	return client{c.url, said.Token, c.http}, said
}

func TestAnAdministratorOpensAnAccountAndItsTokens(t *testing.T) {
	t.Parallel()
	now := clockAt(t, "2026-11-15T12:00:00Z")
	s := start(t, t.TempDir(), now.now, "--plans", "free=1,pro=3", "--log-level", "debug")
	ops := s.admin(t)
	ops.ask(t, "POST", adminAccounts, `{"account":"acme"}`).wants(t, http.StatusCreated).wantsReceipt(t)
	ops.ask(t, "POST", adminAccounts, `{"account":"acme","limit":7}`).wantsProblem(t, http.StatusConflict, "account_exists")
	if r := ops.ask(t, "POST", adminAccounts, `{"account":"other","plan":"premium"}`); !strings.Contains(r.body, "plan must be one of free, pro, or") {
		t.Errorf("a plan that is not in the catalogue: %s", r.body)
	}

	acme, all := ops.issue(t, "acme", `{"name":"laptop"}`)
	reader, read := ops.issue(t, "acme", `{"scopes":["jobs:read"],"expires_at":"2026-11-16T00:00:00Z"}`)
	if fmt.Sprintf("%s %s %s", all.Scopes, read.Scopes, read.ExpiresAt) != "[jobs:read jobs:write] [jobs:read] 2026-11-16T00:00:00.000Z" {
		t.Errorf("issued %+v and %+v", all.Scopes, read)
	}
	reader.wantsQuota(t, quota{0, 1, 1, december})
	if r := reader.get(t, "/api/account"); !strings.Contains(r.body, `"token":{"id":"`+read.ID+`","scopes":["jobs:read"],"expires_at":"2026-11-16T00:00:00.000Z"}`) {
		t.Errorf("the account of the token: %d %s", r.status, r.body)
	}

	t.Log("a plan holds for the next capture")
	acme.capture(t, jobURL(1)).wants(t, http.StatusCreated)
	acme.capture(t, jobURL(2)).wantsExhausted(t, 1, 1, december)
	changed := ops.ask(t, "PUT", adminAccounts+"/acme/plan", `{"plan":"pro","reason":"upgrade by invoice 17"}`).wants(t, http.StatusOK)
	changed.wantsReceipt(t)
	if changed.Quota != (quota{1, 3, 2, december}) {
		t.Errorf("changed: %s", changed.body)
	}
	acme.capture(t, jobURL(2)).wants(t, http.StatusCreated)
	opsID := strings.Split(ops.token, "_")[1]
	if r := ops.get(t, adminAccounts+"/acme"); !strings.Contains(r.body, `"by":"token:`+opsID+`","reason":"upgrade by invoice 17","position":"`+changed.Receipt.Position+`"`) {
		t.Errorf("who set the plan: %s", r.body)
	}
	if said := s.operator(t, "account", "show", "acme"); !strings.Contains(said, "by token:"+opsID+": upgrade by invoice 17") {
		t.Errorf("the operator is told\n%s", said)
	}

	t.Log("a token that is revoked is refused from then on")
	path := adminAccounts + "/acme/tokens"
	for range 2 {
		ops.ask(t, "DELETE", path+"/"+all.ID, "").wants(t, http.StatusOK).wantsReceipt(t)
		acme.get(t, "/api/account").wantsProblem(t, http.StatusUnauthorized, "token_revoked")
	}
	ops.ask(t, "DELETE", adminAccounts+"/demo/tokens/"+all.ID, "").wantsProblem(t, http.StatusNotFound, "token_not_found")
	now.set(t, "2026-11-16T12:00:00Z")
	reader.get(t, "/api/account").wantsProblem(t, http.StatusUnauthorized, "token_expired")
	list := ops.get(t, path).wants(t, http.StatusOK)
	for id, want := range map[string]string{all.ID: `"last_used":"2026-11-15","status":"revoked"`, read.ID: `"last_used":"2026-11-15","status":"expired"`} {
		if !regexp.MustCompile(`{"id":"` + id + `",[^}]*` + want + `}`).MatchString(list.body) {
			t.Errorf("token %s is not there with %s: %s", id, want, list.body)
		}
	}
	if r := ops.get(t, adminAccounts+"/demo/tokens"); !strings.Contains(r.body, `"name":"first start"`) {
		t.Errorf("the token of the first start: %s", r.body)
	}
	if r := ops.get(t, adminAccounts+"?limit=2"); !strings.Contains(r.body, `[{"account":"acme",`) || r.header.Get("Link") == "" {
		t.Errorf("accounts: %s, Link %s", r.body, r.header.Get("Link"))
	}
	listed := s.operator(t, "token", "list", "--account", "acme") + s.operator(t, "replay", "--account", "acme", "--format", "json")
	for _, said := range []string{list.body, s.stderr.String(), s.stdout.String(), listed} {
		for _, secret := range []string{all.Token, read.Token, ops.token} {
			if strings.Contains(said, secret[len("jt_123456789012_"):][:16]) {
				t.Errorf("a secret was told: %s", said)
			}
		}
	}
}

// TestWhatAnAdministratorAsksNeedNotBeAwaited asks for all of it without waiting, and finds it done by the time of the last position.
func TestWhatAnAdministratorAsksNeedNotBeAwaited(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember)
	ops := s.admin(t)
	s.settle(t)
	_, kept := ops.issue(t, "demo", `{}`)
	job := s.capture(t, jobURL(1)).wants(t, http.StatusCreated).Job.ID
	s.remove(t, job, "Prefer: respond-async").wants(t, http.StatusAccepted)
	var last reply
	for _, c := range []struct{ method, path, body string }{
		{"POST", "", `{"account":"acme"}`}, {"PUT", "/demo/plan", `{"limit":7}`}, {"POST", "/demo/tokens", `{"name":"laptop"}`},
		{"DELETE", "/demo/tokens/" + kept.ID, ""},
	} {
		last = ops.ask(t, c.method, adminAccounts+c.path, c.body, "Prefer: respond-async").wants(t, http.StatusAccepted)
		if last.Outcome != "pending" || last.header.Get("Preference-Applied") != "respond-async" {
			t.Errorf("%s %s: %s", c.method, c.path, last.body)
		}
	}
	folded := "Ledger-Position: " + last.Receipt.Position
	ops.get(t, adminAccounts+"/acme", folded).wants(t, http.StatusOK)
	s.get(t, "/api/jobs/"+job, folded).wantsProblem(t, http.StatusNotFound, "job_not_found")
	s.wantsQuota(t, quota{1, 7, 6, december}, folded)
	tokens := ops.get(t, adminAccounts+"/demo/tokens", folded)
	if !strings.Contains(tokens.body, `"name":"laptop"`) || !strings.Contains(tokens.body, `"status":"revoked"`) {
		t.Errorf("tokens %s", tokens.body)
	}
	for _, c := range []struct{ method, path, body string }{{"GET", "", ""}, {"PUT", "/plan", `{"limit":7}`}, {"POST", "/tokens", `{}`}} {
		ops.ask(t, c.method, adminAccounts+"/nobody"+c.path, c.body).wantsProblem(t, http.StatusNotFound, "account_unknown")
	}
}

func TestUsesOfTokensAreKeptAndErasedWithTheirAccount(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	s := start(t, data, midNovember)
	ops := s.admin(t)
	ops.ask(t, "POST", adminAccounts, `{"account":"anna"}`).wants(t, http.StatusCreated)
	anna, of := ops.issue(t, "anna", `{}`)
	anna.get(t, "/api/account").wants(t, http.StatusOK)
	s.stop(t)
	opsID := strings.Split(ops.token, "_")[1]
	uses := func() string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(data, "token-uses.json"))
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	for _, id := range []string{opsID, of.ID} {
		if !strings.Contains(uses(), `"`+id+`":"2026-11-15"`) {
			t.Fatalf("the uses of %s are not kept: %s", id, uses())
		}
	}
	s = start(t, data, midNovember)
	ops.url, anna.url = s.url, s.url
	if r := ops.get(t, adminAccounts+"/anna/tokens"); !strings.Contains(r.body, `"last_used":"2026-11-15","status":"active"`) {
		t.Errorf("after a restart: %s", r.body)
	}
	ops.erase(t, "anna").wants(t, http.StatusOK)
	anna.get(t, "/api/account").wantsProblem(t, http.StatusUnauthorized, "token_unknown")
	ops.get(t, adminAccounts+"/anna/tokens").wantsProblem(t, http.StatusNotFound, "account_unknown")
	s.wantsGone(t, secretsOf(t, "anna", anna.token))
	if !strings.Contains(uses(), opsID) {
		t.Errorf("the others are gone too: %s", uses())
	}

	t.Log("also where it is erased while no service runs")
	ops.ask(t, "POST", adminAccounts, `{"account":"anna"}`).wants(t, http.StatusCreated)
	anna, of = ops.issue(t, "anna", `{}`)
	anna.get(t, "/api/account").wants(t, http.StatusOK)
	s.stop(t)
	if !strings.Contains(uses(), of.ID) {
		t.Fatalf("the use is not kept: %s", uses())
	}
	s.operator(t, "erase", "--account", "anna", "--yes")
	if files := s.found(t, secretsOf(t, "anna", anna.token)); len(files) > 0 {
		t.Errorf("left: %s", files)
	}
}
