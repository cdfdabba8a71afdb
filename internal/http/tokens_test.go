package http

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"jobtally/internal/events"
	"jobtally/internal/token"
)

// wrongIn returns what a problem says is wrong with fields, or its detail, after a !.
func wrongIn(t *testing.T, body string) string {
	t.Helper()
	var p problem
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Fatal(err)
	}
	if len(p.Errors) == 0 {
		return "!" + p.Detail
	}
	var wrong []string
	for _, e := range p.Errors {
		wrong = append(wrong, e.Field+" "+e.Detail)
	}
	return strings.Join(wrong, "|")
}

// nextOf returns where the next page is, or nothing.
func nextOf(x exchange) string {
	m := regexp.MustCompile(`^<([^>]+)>; rel="next"$`).FindStringSubmatch(x.Header.Get("Link"))
	if m == nil {
		return ""
	}
	return m[1]
}

func TestIssueToken(t *testing.T) {
	n, asBob := newAdministered(t)
	path := annasAccount + "/tokens"
	x := n.send(t, "POST", path, `{"name":" laptop ","scopes":["jobs:read"],"expires_at":"2024-01-16T12:00:00.1239+02:00"}`, asBob)
	var said issuedForm
	if err := json.Unmarshal([]byte(x.body), &said); err != nil {
		t.Fatalf("%v in %s", err, x.body)
	}
	x.wants(t, 201, `{"token":"`+said.Token+`","id":"`+said.ID+`","name":"laptop","scopes":["jobs:read"],"expires_at":"2024-01-16T10:00:00.123Z",`+
		`"receipt":{"position":"0-6","digest":"`+n.digest(6)+`"}}`)
	x.wantsHeader(t, "Cache-Control: no-store", "Location: "+path+"/"+said.ID, "Ledger-Position: 0-6", "Vary: Prefer")
	issued, err := token.Parse(said.Token)
	if err != nil || issued.ID() != said.ID {
		t.Fatalf("%s: %v", said.Token, err)
	}
	asked := n.requests[5].Body.(*events.TokenIssueRequested)
	if asked.By != "token:"+n.bob.ID() || asked.SecretHash != issued.Hash() || asked.LastFour != said.Token[len(said.Token)-4:] {
		t.Errorf("asked for %+v", asked)
	}

	t.Log("it works from then on, and the list tells of it, and not the secret")
	n.send(t, "GET", "/api/account", "", "Authorization: Bearer "+said.Token).wants(t, 200, `{"account":"anna",…`)
	list := n.send(t, "GET", path, "", asBob)
	if want := `{"id":"` + said.ID + `","prefix":"jt_` + said.ID + `","last_four":"` + asked.LastFour + `","name":"laptop","scopes":["jobs:read"],` +
		`"issued_at":"2024-01-15T10:20:30.456Z","expires_at":"2024-01-16T10:00:00.123Z","last_used":"2024-01-15","status":"active"}`; !strings.Contains(list.body, want) {
		t.Errorf("%s\nhas no %s", list.body, want)
	}
	if want := `{"id":"` + n.gone.ID() + `","prefix":"jt_` + n.gone.ID() + `","scopes":["jobs:read","jobs:write"],"issued_at":"2024-01-15T10:20:30.456Z","status":"revoked"}`; !strings.Contains(list.body, want) {
		t.Errorf("%s\nhas no %s", list.body, want)
	}
	secret := said.Token[len("jt_123456789012_"):]
	if strings.Contains(list.body, secret[:8]) || strings.Contains(n.log.String(), secret[:8]) {
		t.Error("the secret is told again")
	}
	n.now = n.now.AddDate(0, 0, 1)
	if list := n.send(t, "GET", path, "", asBob); !strings.Contains(list.body, `"last_used":"2024-01-15","status":"expired"}`) {
		t.Errorf("a day later: %s", list.body)
	}

	t.Log("each call issues another, whatever the key")
	for range 2 {
		n.send(t, "POST", path, `{"name":null,"scopes":null,"expires_at":null}`, asBob, "Idempotency-Key: k").wants(t, 201, `{"token":"jt_…`)
	}
	if n.requests[6].ID == n.requests[7].ID || len(n.requests) != 8 {
		t.Errorf("%d requests, the last with ids %s and %s", len(n.requests), n.requests[6].ID, n.requests[7].ID)
	}
	n.send(t, "POST", admins+"/nobody/tokens", "{}", asBob).wantsProblem(t, codeAccountUnknown)
	n.send(t, "GET", admins+"/nobody/tokens", "", asBob).wantsProblem(t, codeAccountUnknown)
}

func TestTokensInPages(t *testing.T) {
	n, asBob := newAdministered(t)
	var ids []string
	for x := issuedTokens(t, n, asBob, 3); ; x = n.send(t, "GET", nextOf(x), "", asBob) {
		x.wants(t, 200, `{"tokens":[{"id":"…`)
		for _, m := range regexp.MustCompile(`"id":"(\w+)"`).FindAllStringSubmatch(x.body, -1) {
			ids = append(ids, m[1])
		}
		if nextOf(x) == "" {
			break
		}
	}
	if len(ids) != 5 || !slices.IsSorted(ids) || !slices.Contains(ids, n.gone.ID()) {
		t.Errorf("%s", ids)
	}
}

func TestRevokeToken(t *testing.T) {
	n, asBob := newAdministered(t)
	path := annasAccount + "/tokens/" + n.anna.ID()
	x := n.send(t, "DELETE", path, "", asBob)
	x.wants(t, 200, `{"outcome":"revoked","id":"`+n.anna.ID()+`","receipt":{"position":"0-6","digest":"`+n.digest(6)+`"}}`)
	x.wantsHeader(t, "Ledger-Position: 0-6")
	if asked := n.requests[5].Body.(*events.TokenRevokeRequested); asked.By != "token:"+n.bob.ID() {
		t.Errorf("asked for %+v", asked)
	}
	n.send(t, "GET", "/api/account", "").wantsProblem(t, codeTokenRevoked)
	n.send(t, "DELETE", path, "", asBob).wants(t, 200, `{"outcome":"revoked","id":"`+n.anna.ID()+`","receipt":{"position":"0-7",…`)

	t.Log("what is no token of the account is none, and nothing is recorded")
	for _, path := range []string{annasAccount + "/tokens/000000000000", annasAccount + "/tokens/" + n.bob.ID(), annasAccount + "/tokens/x"} {
		n.send(t, "DELETE", path, "", asBob).wantsProblem(t, codeTokenNotFound)
	}
	n.send(t, "DELETE", admins+"/nobody/tokens/"+n.anna.ID(), "", asBob).wantsProblem(t, codeAccountUnknown)
	if len(n.requests) != 7 {
		t.Errorf("%d requests", len(n.requests))
	}
	n.send(t, "GET", path, "", asBob).wantsProblem(t, codeMethodNotAllowed)
}
