package http

import (
	"context"
	"errors"
	"strings"
	"testing"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// newAdministered is a node at which bob's token has the scope admin, and with what it takes to call so.
func newAdministered(t *testing.T) (n *node, asBob string) {
	t.Helper()
	n = newNode(t)
	tokens := n.Tokens
	n.Tokens = func(ctx context.Context, id string) ([]capture.Token, error) {
		issued, err := tokens(ctx, id)
		if id == n.bob.ID() {
			issued[0].Scopes = []string{events.ScopeAdmin}
		}
		return issued, err
	}
	return n, "Authorization: Bearer " + n.bob.Reveal()
}

const annasAccount = "/api/admin/accounts/anna"

func TestDeleteAccount(t *testing.T) {
	n, asBob := newAdministered(t)
	x := n.send(t, "DELETE", annasAccount, "", asBob, "Idempotency-Key: e1")
	x.wants(t, 200, `{"outcome":"erased","account":"anna","requests":0,"months":[],"receipt":{"position":"0-6","digest":"…`)
	x.wantsHeader(t, `Idempotency-Key: "e1"`, "Ledger-Position: 0-6", "Idempotent-Replayed:", "Vary: Prefer", "Cache-Control: private, no-cache")
	if r := n.requests[5]; r.Account != "anna" || r.ID != "e1" || events.KindOf(r.Body) != "account_erase" {
		t.Errorf("appended %+v", r)
	}

	t.Log("who asks again is told the same, and nothing is appended")
	n.send(t, "DELETE", annasAccount, "", asBob).wants(t, 200, x.body)
	again := n.send(t, "DELETE", annasAccount, "", asBob, "Idempotency-Key: e1")
	again.wants(t, 200, x.body)
	again.wantsHeader(t, "Idempotent-Replayed: true")
	if len(n.requests) != 6 {
		t.Fatalf("%d requests", len(n.requests))
	}

	t.Log("under its key also when the account is open again, which another key erases")
	open := events.Request{Account: "anna", ID: "open2", Time: n.now, Body: &events.AccountOpenRequested{Plan: "two", Limit: 2}}
	if _, err := n.append(t.Context(), &open); err != nil {
		t.Fatal(err)
	}
	n.send(t, "DELETE", annasAccount, "", asBob, "Idempotency-Key: e1").wants(t, 200, x.body)
	n.send(t, "DELETE", annasAccount, "", asBob, "Idempotency-Key: e2").wants(t, 200,
		`{"outcome":"erased","account":"anna","requests":0,"months":[],"receipt":{"position":"0-8",…`)
}

func TestDeleteAccountIsForAdministrators(t *testing.T) {
	n, asBob := newAdministered(t)
	for name, c := range map[string]struct {
		path, authorization string
		want                code
		challenge           string
	}{
		"of another account":  {"/api/admin/accounts/bob", "", codeScopeMissing, `Bearer realm="jobtally", error="insufficient_scope", scope="admin"`},
		"of the own account":  {annasAccount, "", codeScopeMissing, `Bearer realm="jobtally", error="insufficient_scope", scope="admin"`},
		"of no account":       {"/api/admin/accounts/nobody", "", codeScopeMissing, `Bearer realm="jobtally", error="insufficient_scope", scope="admin"`},
		"no token":            {annasAccount, "Authorization: ", codeTokenMissing, `Bearer realm="jobtally"`},
		"a revoked one":       {annasAccount, "Authorization: Bearer " + n.gone.Reveal(), codeTokenRevoked, `Bearer realm="jobtally", error="invalid_token"`},
		"an unknown account":  {"/api/admin/accounts/nobody", asBob, codeAccountUnknown, ""},
		"no possible account": {"/api/admin/accounts/No.Body", asBob, codeAccountUnknown, ""},
		"a parameter":         {annasAccount + "?dry_run=true", asBob, codeInvalidRequest, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var headers []string
			if c.authorization != "" {
				headers = append(headers, c.authorization)
			}
			x := n.send(t, "DELETE", c.path, "", headers...)
			x.wantsProblem(t, c.want)
			x.wantsHeader(t, "WWW-Authenticate: "+c.challenge)
		})
	}
	n.send(t, "DELETE", annasAccount, "", asBob, `Idempotency-Key: "`).wantsProblem(t, codeInvalidIdempotencyKey)
	n.send(t, "DELETE", annasAccount, "", asBob, "Ledger-Position: 1-1").wantsProblem(t, codeInvalidPosition)
	n.send(t, "PATCH", annasAccount, "", asBob).wantsProblem(t, codeMethodNotAllowed)
	if len(n.requests) != 5 {
		t.Errorf("something was appended: %d requests", len(n.requests))
	}
	x := n.send(t, "OPTIONS", annasAccount, "", "Origin: https://a.example", "Access-Control-Request-Method: DELETE", "Authorization: ")
	x.wantsHeader(t, "Access-Control-Allow-Methods: OPTIONS, DELETE, GET, HEAD")
}

func TestDeleteAccountThatIsPending(t *testing.T) {
	n, asBob := newAdministered(t)
	n.hold = true
	x := n.send(t, "DELETE", annasAccount, "", asBob, "Prefer: respond-async")
	x.wants(t, 202, `{"outcome":"pending","receipt":{"position":"0-6"}}`)
	x.wantsHeader(t, "Retry-After: 1", "Preference-Applied: respond-async")
	n.release()
	n.send(t, "DELETE", annasAccount, "", asBob).wants(t, 200, `{"outcome":"erased","account":"anna",…`)
	if len(n.requests) != 6 {
		t.Errorf("%d requests", len(n.requests))
	}
}

func TestDeleteAccountThatFails(t *testing.T) {
	n, asBob := newAdministered(t)
	for want, err := range map[code]error{
		codeLedgerUnavailable: events.ErrUnavailable, codeOutcomeUnknown: events.ErrUnknownOutcome, codeInternal: errors.New("on fire"),
	} {
		n.Append = func(context.Context, *events.Request) (events.Position, error) { return events.Position{}, err }
		n.send(t, "DELETE", annasAccount, "", asBob).wantsProblem(t, want)
	}
	n.Append = func(context.Context, *events.Request) (events.Position, error) {
		return events.Position{Sequence: 1}, nil
	}
	n.send(t, "DELETE", annasAccount, "", asBob).wantsProblem(t, codeOutcomeUnknown)
	n.Quota = func(context.Context, string, events.Month) (q capture.Quota, err error) {
		return q, errors.New("on fire")
	}
	n.send(t, "DELETE", annasAccount, "", asBob).wantsProblem(t, codeInternal)
	n.Erasures = func(context.Context, string) ([]events.Decision, error) { return nil, errors.New("on fire") }
	n.send(t, "DELETE", annasAccount, "", asBob).wantsProblem(t, codeInternal)
}

// The account is erased while a capture of it is under way: before its decision, after it, and with it.
func TestCaptureOfAnAccountThatIsErasedMeanwhile(t *testing.T) {
	erase := func(n *node) {
		n.hold = true
		n.append(t.Context(), &events.Request{Account: "anna", ID: "erase", Time: n.now, Body: &events.AccountEraseRequested{}})
	}
	t.Run("decided before it", func(t *testing.T) {
		n := newNode(t)
		erase(n)
		go n.release()
		x := n.send(t, "POST", "/api/jobs", gopher)
		if body := x.wantsProblem(t, codeAccountUnknown); !strings.Contains(body, `"position":"0-7"`) {
			t.Errorf("no receipt: %s", body)
		}
	})
	t.Run("erased with it", func(t *testing.T) {
		n := newNode(t)
		n.Await = func(context.Context, events.Position) (d events.Decision, err error) { return d, events.ErrNotFound }
		n.send(t, "POST", "/api/jobs", gopher).wantsProblem(t, codeAccountUnknown)
		n.send(t, "GET", "/api/jobs/captures/0-6", "").wants(t, 200, `{"outcome":"captured",…`)
		n.Decision = func(context.Context, events.Position) (d events.Decision, err error) { return d, events.ErrNotFound }
		n.Requester = func(context.Context, events.Position) (string, error) { return "anna", nil } // it is not removed yet
		n.send(t, "GET", "/api/jobs/captures/0-6", "").wantsProblem(t, codeCaptureNotFound)
		n.send(t, "GET", "/api/jobs/captures/0-7", "", "Prefer: wait=1").wantsProblem(t, codeCaptureNotFound)
	})
	t.Run("the job that a duplicate names", func(t *testing.T) {
		n := newNode(t)
		n.send(t, "POST", "/api/jobs", gopher, "Idempotency-Key: k1")
		n.Job = func(context.Context, string, string) (j capture.StoredJob, err error) {
			delete(n.state.Accounts, "anna")
			return j, events.ErrNotFound
		}
		n.send(t, "POST", "/api/jobs", gopher).wantsProblem(t, codeAccountUnknown)
	})
	t.Run("the first answer", func(t *testing.T) {
		n := newNode(t)
		n.send(t, "POST", "/api/jobs", gopher, "Idempotency-Key: k1")
		n.Decision = func(context.Context, events.Position) (d events.Decision, err error) {
			delete(n.state.Accounts, "anna")
			return d, events.ErrNotFound
		}
		n.send(t, "POST", "/api/jobs", gopher, "Idempotency-Key: k1").wantsProblem(t, codeAccountUnknown)
	})
}
