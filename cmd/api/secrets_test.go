package main

import (
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"jobtally/internal/token"
)

// told are paths that tell of the service, and so might tell too much. One that is not served is left out.
var told = []string{"/livez", "/readyz", "/metrics", "/api/jobs", "/openapi.yaml", "/docs", "/debug/pprof/", "/api/account"}

// witness sends calls and keeps everything that was answered.
type witness struct {
	client
	mu      sync.Mutex
	answers []string
}

// send sends one call, of which nothing but what comes back matters.
func (w *witness) send(t *testing.T, call, body string, headers ...string) reply {
	t.Helper()
	method, path, _ := strings.Cut(call, " ")
	r, err := w.call(method, path, strings.NewReader(body), headers...)
	if err != nil {
		t.Error(err)
	}
	var header strings.Builder
	_ = r.header.Write(&header)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers = append(w.answers, header.String()+"\n"+r.body)
	return r
}

// misuse sends a token to wherever one could end up that is pasted, logged or passed on without care. It may be good or not.
func (w *witness) misuse(t *testing.T, held string) {
	t.Helper()
	for _, call := range []string{
		"GET /api/jobs/quota?access_token=" + held, "GET /api/jobs/quota?" + held, "GET /api/jobs/" + held,
		"GET /api/jobs/captures/" + held, "GET /api/jobs/quota/history/" + held, "GET /api/jobs/quota/history?cursor=" + held,
		"POST /api/jobs?token=" + held, "DELETE /api/admin/accounts/" + held, "GET /" + held, "GET /api/jobs?q=" + held,
		"PATCH /api/jobs/" + held, "DELETE /api/jobs/" + held, "GET /api/jobs/lookup?source_url=https://a.example/" + held, "POST /api/jobs/batch?" + held,
		"GET /api/account?" + held, "GET /api/admin/accounts?cursor=" + held, "PUT /api/admin/accounts/" + held + "/plan",
		"POST /api/admin/accounts/" + held + "/tokens", "DELETE /api/admin/accounts/demo/tokens/" + held,
	} {
		if r := w.send(t, call, jobAt(jobURL(1))); r.status < 400 || r.status > 499 {
			t.Errorf("%s is answered %d", strings.ReplaceAll(call, held, "TOKEN"), r.status)
		}
	}
	for _, header := range []string{
		"X-Request-Id: " + held, "X-Request-Id: of-" + held, "Idempotency-Key: " + held, `Idempotency-Key: "` + held + `"`,
		"Ledger-Position: " + held, "If-None-Match: " + held, "If-Match: " + held, "Prefer: " + held, "Prefer: wait=" + held, "Cookie: token=" + held,
		"X-Forwarded-For: " + held, "User-Agent: " + held, "Referer: https://a.example/?t=" + held, "Origin: https://" + held,
		"traceparent: 00-" + held + "-1-01", "Authorization: Basic " + held, "Authorization: " + held, "Authorization: Bearer " + held + "x",
		"Authorization: Bearer token=" + held, "X-Api-Key: " + held, "Accept: " + held,
	} {
		for _, call := range []string{"GET /api/jobs/quota", "POST /api/jobs", "GET /livez", "GET /nothing", "GET /api/jobs/job_x"} {
			w.send(t, call, jobAt(jobURL(1)), header)
		}
	}
	for _, body := range []string{
		held, `"` + held + `"`, `{"token":"` + held + `"}`, `{"source_url":"` + held + `","title":"T","company":"C"}`,
		`{"source_url":"https://a.example/1","title":"T","company":"C","status":"` + held + `"}`,
		`{"source_url":"https://a.example/1","title":"T","company":"C","captured_via":"` + held + `"}`, `{"` + held + `":""}`,
	} {
		w.send(t, "POST /api/jobs", body).wants(t, http.StatusBadRequest)
		w.send(t, "PATCH /api/jobs/job_aaaaaaaaaaaaaaaaaaaaaaaa", body).wants(t, http.StatusBadRequest)
		w.send(t, "POST /api/jobs/batch", `{"jobs":`+body+`}`).wants(t, http.StatusBadRequest)
	}
	item := `{"source_url":"https://a.example/1","title":"T","company":"C","idempotency_key":"` + held + `"}`
	if r := w.send(t, "POST /api/jobs/batch", `{"jobs":[`+item+`]}`); len(r.Results) != 1 || r.Results[0].Outcome != "invalid" {
		t.Errorf("a token as the key of an item: %d %s", r.status, strings.ReplaceAll(r.body, held, "TOKEN"))
	}
}

// misuseAsAdministrator sends a token in what would be recorded of accounts and tokens.
func (w *witness) misuseAsAdministrator(t *testing.T, held string) {
	t.Helper()
	const tokens, plan = "POST /api/admin/accounts/demo/tokens", "PUT /api/admin/accounts/demo/plan"
	for _, c := range []struct{ call, body string }{
		{"POST /api/admin/accounts", `{"account":"` + held + `"}`}, {"POST /api/admin/accounts", `{"account":"other","plan":"` + held + `"}`},
		{plan, `{"plan":"pro","reason":"for ` + held + `"}`}, {plan, `{"plan":"` + held + `"}`}, {plan, `{"limit":"` + held + `"}`},
		{tokens, `{"name":"` + held + `"}`}, {tokens, `{"name":"of ` + held + `'s"}`}, {tokens, `{"scopes":["` + held + `"]}`},
		{tokens, `{"expires_at":"` + held + `"}`}, {tokens, `{"` + held + `":true}`},
	} {
		w.send(t, c.call, c.body).wants(t, http.StatusBadRequest)
	}
}

// TestNoTokenIsWrittenAnywhere uses tokens rightly and wrongly, and then looks for their secrets in the log, in every answer,
// and in every file but the one that is there to have a token.
func TestNoTokenIsWrittenAnywhere(t *testing.T) {
	t.Parallel()
	s := startBinary(t, t.TempDir(), "--log-level", "debug", "--log-format", "json", "--metrics-addr", "127.0.0.1:0")
	anna, ops := s.accounts(t, 100, "anna")[0], s.admin(t)
	s.settle(t)
	issued, of := ops.issue(t, "anna", `{"name":"laptop","scopes":["jobs:read","jobs:write"],"expires_at":"2999-01-01T00:00:00Z"}`)
	revoked := s.operator(t, "token", "issue", "--account", "anna")
	s.operator(t, "token", "revoke", revoked, "--account", "anna")
	s.settle(t)
	never := token.New().Reveal()
	typo := typoIn(anna.token)

	w := &witness{client: anna}
	for i, c := range []client{anna, ops, s.client, issued} {
		w.client = c
		captured := w.send(t, "POST /api/jobs", jobAt(jobURL(7+i))).wants(t, http.StatusCreated)
		w.send(t, "PATCH /api/jobs/"+captured.Job.ID, `{"notes":"x"}`).wants(t, http.StatusOK)
		w.send(t, "POST /api/jobs/batch", `{"jobs":[`+jobAt(jobURL(7))+`]}`).wants(t, http.StatusOK)
		for _, path := range append(told, "/api/jobs/quota", "/api/jobs/quota/history", "/api/jobs/"+captured.Job.ID, "/api/jobs/captures/"+captured.Receipt.Position) {
			w.send(t, "GET "+path, "")
		}
	}
	for _, held := range []string{typo, revoked, never} {
		w.client.token = held
		w.send(t, "GET /api/jobs/quota", "").wants(t, http.StatusUnauthorized)
		w.send(t, "POST /api/jobs", jobAt(jobURL(8))).wants(t, http.StatusUnauthorized)
	}
	all := []string{anna.token, ops.token, s.token, typo, revoked, never, issued.token}
	for _, held := range all {
		w.client = anna // she sends it, in whatever way, with her own token
		w.misuse(t, held)
		w.client = ops
		w.misuseAsAdministrator(t, held)
	}
	for _, path := range []string{"", "/anna", "/anna/tokens", "/demo/tokens"} {
		w.send(t, "GET /api/admin/accounts"+path, "").wants(t, http.StatusOK)
	}
	w.send(t, "DELETE /api/admin/accounts/anna/tokens/"+of.ID, "").wants(t, http.StatusOK)
	w.send(t, "DELETE /api/admin/accounts/anna", "").wants(t, http.StatusOK)
	_, metrics := s.scrape(t)
	w.answers = append(w.answers, metrics, s.operator(t, "status", "--json"), s.operator(t, "token", "list", "--account", "demo"))

	s.wantsNoSecret(t, all, w)
	s.stop(t)
	s.wantsNoSecret(t, all, w)
}

// typoIn returns a token with one wrong character in its secret.
func typoIn(held string) string {
	if held[20] == 'a' {
		return held[:20] + "b" + held[21:]
	}
	return held[:20] + "a" + held[21:]
}

// wantsNoSecret looks for the second half of the secrets: the first may have a typo.
func (s *service) wantsNoSecret(t *testing.T, tokens []string, w *witness) {
	t.Helper()
	files, read := os.DirFS(s.data), 0
	places := map[string]string{"the log": s.stderr.String(), "the answers": strings.Join(w.answers, "\n")}
	err := fs.WalkDir(files, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || path == "token" {
			return nil // the server just wrote one anew
		}
		if content, err := fs.ReadFile(files, path); err == nil {
			places[filepath.Join(s.data, path)] = string(content)
			read++
		}
		return nil
	})
	if err != nil || read < 10 {
		t.Fatalf("%d files were read: %v", read, err)
	}
	ids := 0
	for place, text := range places {
		for _, held := range tokens {
			if before, _, found := strings.Cut(text, held[30:]); found {
				t.Errorf("%s has the secret of token %.15s after ...%s", place, held, before[max(0, len(before)-200):])
			}
			ids += strings.Count(text, held[3:15])
		}
	}
	if ids == 0 {
		t.Error("not even the ids of the tokens are found: nothing is shown")
	}
}
