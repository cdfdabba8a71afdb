package http

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/events"
	"jobtally/internal/token"
)

func TestAuthentication(t *testing.T) {
	n := newNode(t)
	stranger, anna := token.New(), n.anna.Reveal()
	forged := "jt_" + n.anna.ID() + stranger.Reveal()[15:] // her id, another secret: the checksum is wrong
	const invalid = `Bearer realm="jobtally", error="invalid_token"`
	for _, tt := range []struct {
		name, authorization string
		want                code // empty when it is taken
		challenge           string
	}{
		{"valid", "Bearer " + anna, "", ""},
		{"other case", "bEARER " + anna, "", ""},
		{"two spaces", "Bearer  " + anna, "", ""},
		{"nothing", "", codeTokenMissing, `Bearer realm="jobtally"`},
		{"scheme only", "Bearer", codeTokenMissing, `Bearer realm="jobtally"`},
		{"scheme and space", "Bearer ", codeTokenMissing, `Bearer realm="jobtally"`},
		{"other scheme", "Basic " + anna, codeTokenMissing, `Bearer realm="jobtally"`},
		{"no scheme", anna, codeTokenMissing, `Bearer realm="jobtally"`},
		{"cut off", "Bearer " + anna[:50], codeTokenMalformed, invalid},
		{"typo", "Bearer " + strings.Replace(anna, anna[20:21], string(anna[20]^1), 1), codeTokenMalformed, invalid},
		{"with a name", "Bearer token=" + anna, codeTokenMalformed, invalid},
		{"forged", "Bearer " + forged, codeTokenMalformed, invalid},
		{"never issued", "Bearer " + stranger.Reveal(), codeTokenUnknown, invalid},
		{"revoked", "Bearer " + n.gone.Reveal(), codeTokenRevoked, invalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := n.send(t, "GET", "/api/jobs/quota", "", "Authorization: "+tt.authorization)
			if tt.want == "" {
				x.wants(t, 200, `{"used":…`)
				return
			}
			x.wantsProblem(t, tt.want)
			x.wantsHeader(t, "WWW-Authenticate: "+tt.challenge, "Ledger-Position:")
		})
	}
	for _, held := range []token.Token{n.anna, n.gone, stranger} {
		if strings.Contains(n.log.String(), held.Reveal()[16:]) {
			t.Errorf("the log has a secret:\n%s", n.log.String())
		}
	}
}

// TestOneTokenIDWithTwoSecrets: ids are not unique by construction, and who has the id but not the secret learns
// nothing of a revocation.
func TestOneTokenIDWithTwoSecrets(t *testing.T) {
	n := newNode(t)
	candidates := []capture.Token{
		{Account: "anna", SecretHash: token.New().Hash(), Revoked: true},
		{Account: "bob", SecretHash: n.bob.Hash()},
	}
	n.Tokens = func(context.Context, string) ([]capture.Token, error) { return candidates, nil }
	x := n.send(t, "GET", "/api/jobs/quota", "", "Authorization: Bearer "+n.bob.Reveal())
	x.wants(t, 200, `{"used":0,"limit":-1…`)
	n.send(t, "GET", "/api/jobs/quota", "").wantsProblem(t, codeTokenUnknown)
}

// TestScopes: a token without a scope for jobs has both, whatever else it has.
func TestScopes(t *testing.T) {
	n := newNode(t)
	calls := map[string]string{
		"GET /api/jobs/quota": events.ScopeJobsRead, "HEAD /api/jobs/quota": events.ScopeJobsRead, "GET /api/jobs/quota/history": events.ScopeJobsRead,
		"GET /api/jobs/captures/0-1": events.ScopeJobsRead, "GET /api/jobs/job_1": events.ScopeJobsRead,
		"GET /api/jobs": events.ScopeJobsRead, "GET /api/jobs/lookup": events.ScopeJobsRead,
		"PATCH /api/jobs/job_1": events.ScopeJobsWrite, "DELETE /api/jobs/job_1": events.ScopeJobsWrite,
		"POST /api/jobs/batch": events.ScopeJobsWrite, "POST /api/jobs?dry_run=true": events.ScopeJobsWrite,
		"POST /api/jobs": events.ScopeJobsWrite, "DELETE /api/admin/accounts/bob": events.ScopeAdmin,
	}
	for _, tt := range []struct{ scopes, has string }{
		{"", "jobs:read jobs:write"}, {"admin", "jobs:read jobs:write admin"}, {"jobs:read", "jobs:read"}, {"jobs:write", "jobs:write"},
		{"jobs:read jobs:write", "jobs:read jobs:write"}, {"admin jobs:read", "admin jobs:read"},
	} {
		issued := capture.Token{Account: "anna", SecretHash: n.anna.Hash(), TokenTerms: events.TokenTerms{Scopes: strings.Fields(tt.scopes)}}
		n.Tokens = func(context.Context, string) ([]capture.Token, error) { return []capture.Token{issued}, nil }
		for call, scope := range calls {
			method, path, _ := strings.Cut(call, " ")
			x := n.send(t, method, path, "")
			if slices.Contains(strings.Fields(tt.has), scope) {
				if strings.Contains(x.body, `"scope_missing"`) {
					t.Errorf("%s with scopes %q: %s", call, tt.scopes, x.body)
				}
				continue
			}
			x.wantsProblem(t, codeScopeMissing)
			x.wantsHeader(t, `WWW-Authenticate: Bearer realm="jobtally", error="insufficient_scope", scope="`+scope+`"`)
			if !strings.Contains(x.body, "needs a token of scope "+scope) {
				t.Errorf("%s: %s", call, x.body)
			}
		}
	}
}

func TestTokensExpire(t *testing.T) {
	n := newNode(t)
	expires := n.now.Truncate(time.Millisecond)
	issued := capture.Token{Account: "anna", SecretHash: n.anna.Hash(), TokenTerms: events.TokenTerms{ExpiresAt: expires}}
	n.Tokens = func(context.Context, string) ([]capture.Token, error) { return []capture.Token{issued}, nil }
	n.now = expires.Add(-time.Millisecond)
	n.send(t, "GET", "/api/jobs/quota", "").wants(t, 200, `{"used"…`)
	n.now = expires
	x := n.send(t, "GET", "/api/jobs/quota", "")
	x.wantsProblem(t, codeTokenExpired)
	x.wantsHeader(t, `WWW-Authenticate: Bearer realm="jobtally", error="invalid_token"`)
	issued.Revoked = true
	n.send(t, "GET", "/api/jobs/quota", "").wantsProblem(t, codeTokenRevoked)
}

func TestRouting(t *testing.T) {
	n := newNode(t)
	for _, path := range []string{"/", "/api", "/api/jobs/", "/nothing", "//api/jobs"} {
		n.send(t, "GET", path, "").wantsProblem(t, codeNotFound)
	}
	for _, tt := range []struct{ method, path, allow string }{
		{"DELETE", "/api/jobs", "OPTIONS, GET, HEAD, POST"},
		{"POST", "/api/jobs/quota", "OPTIONS, GET, HEAD"},
		{"PUT", "/api/jobs/job_1", "OPTIONS, DELETE, GET, HEAD, PATCH"},
		{"POST", "/api/jobs/captures/0-1", "OPTIONS, GET, HEAD"},
		{"POST", "/livez", "OPTIONS, GET, HEAD"},
		{"BREW", "/readyz", "OPTIONS, GET, HEAD"},
	} {
		x := n.send(t, tt.method, tt.path, "")
		x.wantsProblem(t, codeMethodNotAllowed)
		x.wantsHeader(t, "Allow: "+tt.allow)
	}
}

func TestPreflight(t *testing.T) {
	n := newNode(t)
	ask := []string{"Origin: chrome-extension://abc", "Access-Control-Request-Method: POST", "Authorization: "}
	x := n.send(t, "OPTIONS", "/api/jobs", "", ask...)
	x.wants(t, 204, "")
	x.wantsHeader(t, "Access-Control-Allow-Origin: *", "Access-Control-Allow-Methods: OPTIONS, GET, HEAD, POST", "Access-Control-Max-Age: 7200",
		"Access-Control-Allow-Headers: Authorization, Content-Type, Idempotency-Key, Prefer, If-Match, If-None-Match, Ledger-Position, X-Request-Id, Traceparent, Last-Event-ID",
		"Access-Control-Allow-Private-Network:", "Access-Control-Allow-Credentials:")
	x = n.send(t, "OPTIONS", "/api/jobs/quota", "", append(ask, "Access-Control-Request-Private-Network: true")...)
	x.wantsHeader(t, "Access-Control-Allow-Private-Network: true", "Access-Control-Allow-Methods: OPTIONS, GET, HEAD")
	x = n.send(t, "OPTIONS", "/api/jobs", "")
	x.wants(t, 204, "")
	x.wantsHeader(t, "Allow: OPTIONS, GET, HEAD, POST", "Access-Control-Allow-Methods:")
	n.send(t, "OPTIONS", "/nothing", "", ask...).wantsProblem(t, codeNotFound)

	n.send(t, "GET", "/api/jobs/quota", "", "Origin: https://a.example").wantsHeader(t, "Access-Control-Allow-Origin: *",
		"Access-Control-Expose-Headers: ETag, Link, Location, Ledger-Position, RateLimit, RateLimit-Policy, Retry-After, "+
			"Idempotent-Replayed, Preference-Applied, Idempotency-Key, X-Request-Id")
}

func TestLedgerPosition(t *testing.T) {
	n := newNode(t)
	n.send(t, "GET", "/api/jobs/quota", "", "Ledger-Position: 0-5").wants(t, 200, `{"used":0…`)
	for _, bad := range []string{"5", "0-0", "0-", "1-5", "-1", "0-99999999999999999999"} {
		n.send(t, "GET", "/api/jobs/quota", "", "Ledger-Position: "+bad).wantsProblem(t, codeInvalidPosition)
	}
	n.send(t, "GET", "/api/jobs/quota", "", "Ledger-Position: 0-1", "Ledger-Position: 0-2").wantsProblem(t, codeInvalidPosition)

	n.hold = true
	n.send(t, "POST", "/api/jobs", gopher, "Prefer: respond-async")
	done := make(chan exchange)
	go func() { done <- n.send(t, "GET", "/api/jobs/quota", "", "Ledger-Position: 0-6") }()
	n.release()
	x := <-done
	x.wants(t, 200, `{"used":1…`)
	x.wantsHeader(t, "Ledger-Position: 0-6")
}

func TestLedgerPositionThatIsNotReached(t *testing.T) {
	n := newNode(t)
	n.Await = func(ctx context.Context, _ events.Position) (events.Decision, error) {
		if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > maxPositionWait {
			t.Errorf("the wait has no end: %v", deadline)
		}
		return events.Decision{}, context.DeadlineExceeded
	}
	x := n.send(t, "POST", "/api/jobs", gopher, "Ledger-Position: 0-9223372036854775807")
	x.wantsProblem(t, codePositionNotReached)
	x.wantsHeader(t, "Retry-After: 1", "Ledger-Position: 0-5")
	if len(n.requests) != 5 {
		t.Error("something was appended")
	}
	n.Await = func(context.Context, events.Position) (events.Decision, error) {
		return events.Decision{}, errors.New("the projector stopped")
	}
	n.send(t, "GET", "/api/jobs/quota", "", "Ledger-Position: 0-6").wantsProblem(t, codeInternal)
}

func TestLedgerPositionIsOfTheAccountsPartition(t *testing.T) {
	n := newNode(t)
	n.Partitions = 16
	p := events.PartitionOf("anna", 16)
	x := n.send(t, "GET", "/api/jobs/quota", "", fmt.Sprintf("Ledger-Position: %d-5", p))
	x.wants(t, 200, `{"used":0…`)
	x.wantsHeader(t, fmt.Sprintf("Ledger-Position: %d-5", p))
	n.send(t, "GET", "/api/jobs/quota", "", fmt.Sprintf("Ledger-Position: %d-5", (p+1)%16)).wantsProblem(t, codeInvalidPosition)
}

func TestFailuresTellNothing(t *testing.T) {
	secret := errors.New("open /var/lib/x.db: disk on fire")
	for name, spoil := range map[string]func(*node){
		"quota": func(n *node) {
			n.Quota = func(context.Context, string, events.Month) (q capture.Quota, err error) { return q, secret }
		},
		"tokens": func(n *node) {
			n.Tokens = func(context.Context, string) ([]capture.Token, error) { return nil, secret }
		},
		"panic":     func(n *node) { n.Folded = func(int) uint64 { panic(secret) } },
		"nil panic": func(n *node) { n.Quota = nil },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			spoil(n)
			x := n.send(t, "GET", "/api/jobs/quota", "", "X-Request-Id: r-1", "Origin: https://a.example")
			x.wantsProblem(t, codeInternal)
			x.wantsHeader(t, "X-Request-Id: r-1")
			if strings.Contains(x.body, "fire") {
				t.Errorf("the client is told %s", x.body)
			}
			if log := n.log.String(); !strings.Contains(log, `"level":"ERROR"`) || !strings.Contains(log, `"request_id":"r-1"`) {
				t.Errorf("the log has not what failed: %s", log)
			}
		})
	}
}

func TestFailuresOfReading(t *testing.T) {
	n := newNode(t)
	n.send(t, "POST", "/api/jobs", gopher, "Idempotency-Key: k1")
	n.Job = func(context.Context, string, string) (j capture.StoredJob, err error) {
		return j, errors.New("on fire")
	}
	n.send(t, "GET", "/api/jobs/job_1", "").wantsProblem(t, codeInternal)
	n.send(t, "POST", "/api/jobs", gopher).wantsProblem(t, codeInternal) // a duplicate
	n.Decision = func(context.Context, events.Position) (d events.Decision, err error) { return d, errors.New("on fire") }
	n.send(t, "GET", "/api/jobs/captures/0-6", "").wantsProblem(t, codeInternal)
	n.send(t, "POST", "/api/jobs", gopher, "Idempotency-Key: k1").wantsProblem(t, codeInternal) // a repetition
	n.Decision = func(context.Context, events.Position) (d events.Decision, err error) { return d, events.ErrNotFound }
	n.Requester = func(context.Context, events.Position) (string, error) { return "", errors.New("on fire") }
	n.send(t, "GET", "/api/jobs/captures/0-99", "").wantsProblem(t, codeInternal)
}

func TestInterruptedCallIsNoFailure(t *testing.T) {
	n := newNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	n.Quota = func(ctx context.Context, _ string, _ events.Month) (capture.Quota, error) {
		cancel()
		return capture.Quota{}, fmt.Errorf("query: %w", ctx.Err())
	}
	r := httptest.NewRequestWithContext(ctx, "GET", "/api/jobs/quota", nil)
	r.Header.Set("Authorization", "Bearer "+n.anna.Reveal())
	w := httptest.NewRecorder()
	NewHandler(Config{Backend: n.Backend}).ServeHTTP(w, r)
	if w.Code != 503 || !strings.Contains(w.Body.String(), `"code":"interrupted"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestHealth(t *testing.T) {
	n := newNode(t)
	for _, method := range []string{"GET", "HEAD"} {
		for _, path := range []string{"/livez", "/readyz"} {
			x := n.send(t, method, path, "", "Authorization: ")
			x.wants(t, 200, `{"status":"…`)
			x.wantsHeader(t, "Cache-Control: no-store", "X-Content-Type-Options: nosniff")
		}
	}
	n.Ready = func(context.Context) error { return errors.New("partition 3 is 120 decisions behind") }
	x := n.send(t, "GET", "/readyz", "")
	if body := x.wantsProblem(t, codeNotReady); !strings.Contains(body, "partition 3 is 120 decisions behind") {
		t.Errorf("no reason: %s", body)
	}
	x.wantsHeader(t, "Retry-After: 1")
	n.send(t, "GET", "/livez", "").wants(t, 200, `{"status":"alive"}`)
}

// Until a node has folded what the ledger had when it started, it might take a revoked token, or read a quota too low.
func TestNothingIsAnsweredBeforeTheNodeHasCaughtUp(t *testing.T) {
	n := newNode(t)
	n.CaughtUp = func() bool { return false }
	for _, call := range []string{"GET /api/jobs/quota", "POST /api/jobs", "GET /api/jobs/captures/0-1", "GET /api/jobs/job_1",
		"GET /api/jobs/quota/history", "GET /api/jobs/quota/history/2024-01"} {
		method, path, _ := strings.Cut(call, " ")
		x := n.send(t, method, path, gopher)
		x.wantsProblem(t, codeNotReady)
		x.wantsHeader(t, "Retry-After: 1")
	}
	n.send(t, "GET", "/livez", "").wants(t, 200, `{"status":"alive"}`)
}

func TestRequestID(t *testing.T) {
	n := newNode(t)
	n.send(t, "GET", "/livez", "", "X-Request-Id: abc-123").wantsHeader(t, "X-Request-Id: abc-123")
	for _, bad := range []string{"", "a b", "é", strings.Repeat("x", 129)} {
		if got := n.send(t, "GET", "/livez", "", "X-Request-Id: "+bad).Header.Get("X-Request-Id"); got == bad || len(got) != 26 {
			t.Errorf("the id %q became %q", bad, got)
		}
	}
}

func TestLog(t *testing.T) {
	n := newNode(t)
	n.send(t, "GET", "/api/jobs/job_1?q=secret", "", "X-Request-Id: r-1")
	log := n.log.String()
	for _, want := range []string{`"level":"DEBUG"`, `"method":"GET"`, `"route":"/api/jobs/:id"`, `"status":404`, `"account":"anna"`, `"request_id":"r-1"`, `"duration":`} {
		if !strings.Contains(log, want) {
			t.Errorf("%s has no %s", log, want)
		}
	}
	if strings.Contains(log, "secret") || strings.Contains(log, "Bearer") {
		t.Errorf("the log has a secret: %s", log)
	}
}

func TestBodySize(t *testing.T) {
	n := newNode(t)
	fits := `{"source_url":"https://a.example/1","title":"T","company":"C"}`
	fits += strings.Repeat(" ", maxBodyBytes-len(fits))
	n.send(t, "POST", "/api/jobs", fits).wants(t, 201, `{"outcome":"captured"…`)
	n.send(t, "POST", "/api/jobs", fits+" ").wantsProblem(t, codeBodyTooLarge)
}

// TestServer sends bytes over a connection, as no client library would.
func TestServer(t *testing.T) {
	n := newNode(t)
	s := NewServer(Config{Backend: n.Backend, Now: func() time.Time { return n.now }})
	if s.ReadTimeout <= maxPositionWait+maxWait || s.WriteTimeout <= s.ReadTimeout || s.ReadHeaderTimeout == 0 || s.IdleTimeout == 0 {
		t.Errorf("time-outs %v, %v, %v, %v do not fit the waits", s.ReadHeaderTimeout, s.ReadTimeout, s.WriteTimeout, s.IdleTimeout)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error)
	go func() { served <- s.Serve(listener) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-served; !errors.Is(err, nethttp.ErrServerClosed) {
			t.Error(err)
		}
	})
	head := "POST /api/jobs HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nAuthorization: Bearer " + n.anna.Reveal() + "\r\n"
	for _, tt := range []struct {
		name, request, want string
		status              int
	}{
		{"too large by its length", head + "Content-Length: 262145\r\n\r\n", `"code":"body_too_large"`, 413},
		{"too large in chunks", head + "Transfer-Encoding: chunked\r\n\r\n40001\r\n" + strings.Repeat(" ", 0x40001) + "\r\n0\r\n\r\n", `"code":"body_too_large"`, 413},
		{"chunks", head + "Transfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r\n", len(crab)) + crab + "\r\n0\r\n\r\n", `"outcome":"captured"`, 201},
		{"HEAD", "HEAD /api/jobs/quota HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + n.anna.Reveal() + "\r\n\r\n", "", 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, body := talk(t, listener.Addr().String(), tt.request)
			if status != tt.status || !strings.Contains(body, tt.want) {
				t.Errorf("%d %s", status, body)
			}
		})
	}
}

func talk(t *testing.T, address, request string) (status int, body string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	x, err := nethttp.ReadResponse(bufio.NewReader(conn), &nethttp.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Body.Close()
	text, err := io.ReadAll(x.Body)
	if err != nil {
		t.Fatal(err)
	}
	return x.StatusCode, string(text)
}

// TestEveryProblemIsComplete holds the table to what clients are promised of a problem.
func TestEveryProblemIsComplete(t *testing.T) {
	for of, k := range kinds {
		if k.status < 400 || k.status > 599 || k.title == "" || strings.Trim(string(of), "abcdefghijklmnopqrstuvwxyz_") != "" {
			t.Errorf("%s: %+v", of, k)
		}
	}
	got := string(encode(newProblem(codeNotFound, "")))
	want := `{"type":"urn:jobtally:problem:not_found","title":"Not found","status":404,"detail":"nothing is served under this path","code":"not_found"}`
	if got != want {
		t.Errorf("problem %s\nwant    %s", got, want)
	}
}
