package http

import (
	"crypto/tls"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"jobtally/internal/token"
)

func TestEveryAnswerTellsBrowsersWhatItIsNot(t *testing.T) {
	n := newNode(t)
	for _, call := range []string{"GET /livez", "GET /api/jobs/quota", "POST /api/jobs", "GET /nothing", "BREW /livez", "OPTIONS /api/jobs"} {
		method, path, _ := strings.Cut(call, " ")
		n.send(t, method, path, "").wantsHeader(t, "X-Content-Type-Options: nosniff", "Referrer-Policy: no-referrer",
			"Content-Security-Policy: default-src 'none'; frame-ancestors 'none'", "Cross-Origin-Resource-Policy: same-origin",
			"Strict-Transport-Security:", "Server:")
	}
	r := httptest.NewRequest("GET", "/nothing", nil)
	r.TLS = &tls.ConnectionState{}
	w := httptest.NewRecorder()
	NewHandler(Config{Backend: n.Backend}).ServeHTTP(w, r)
	exchange{Response: w.Result()}.wantsHeader(t, "Strict-Transport-Security: max-age=31536000")
}

// A token in the wrong place is neither recorded nor told back.
func TestATokenInTheWrongPlaceIsRefused(t *testing.T) {
	n := newNode(t)
	held := n.anna.Reveal()
	typo := held[:20] + "a" + held[21:]
	if typo == held {
		typo = held[:20] + "b" + held[21:]
	}
	for _, secret := range []string{held, token.New().Reveal(), typo} {
		escaped := strings.ReplaceAll(secret, "_", "%5F")
		for _, path := range []string{
			"/api/jobs/quota?access_token=" + secret, "/api/jobs/quota?" + secret, "/api/jobs/quota?t=" + escaped, "/api/jobs/" + secret,
			"/api/jobs/" + escaped, "/api/admin/accounts/" + secret, "/" + secret, "/livez?q=a&token=%20" + secret,
			"/api/jobs/quota?t=%" + url.QueryEscape(secret),
		} {
			x := n.send(t, "GET", path, "")
			x.wantsProblem(t, codeInvalidRequest)
			n.holdsNot(t, x, secret)
		}
		for _, key := range []string{secret, `"` + secret + `"`, "key-" + secret, `"\"` + secret + `"`} {
			x := n.send(t, "POST", "/api/jobs", gopher, "Idempotency-Key: "+key)
			x.wantsProblem(t, codeInvalidIdempotencyKey)
			n.holdsNot(t, x, secret)
		}
		n.holdsNot(t, n.send(t, "GET", "/livez", "", "X-Request-Id: "+secret), secret)
		n.holdsNot(t, n.send(t, "GET", "/livez", "", "X-Request-Id: id-"+secret), secret)
	}
	if len(n.requests) != 5 {
		t.Error("something was recorded")
	}
}

func (n *node) holdsNot(t *testing.T, x exchange, held string) {
	t.Helper()
	secret := held[16:]
	var header strings.Builder
	_ = x.Header.Write(&header)
	for name, text := range map[string]string{"body": x.body, "header": header.String(), "log": n.log.String()} {
		if strings.Contains(text, secret) {
			t.Errorf("the %s has the secret: %s", name, text)
		}
	}
}
