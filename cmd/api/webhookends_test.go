package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"jobtally/internal/webhook"
)

// A URL that the operator does not allow is refused where that can be seen, and never called where not.
func TestNothingIsSentToWhatIsNotPublic(t *testing.T) {
	t.Parallel()
	s, r := start(t, t.TempDir(), midNovember), newReceiver(t)
	for _, url := range []string{r.url + "/inside", strings.Replace(r.url, "http:", "https:", 1), "https://localhost/", "https://[::1]/", "https://169.254.169.254/latest", "ftp://acme.example/"} {
		refused := s.ask(t, http.MethodPost, "/api/webhooks", fmt.Sprintf(`{"url":%q}`, url)).wantsProblem(t, http.StatusBadRequest, "invalid_request")
		if len(refused.Errors) != 1 || refused.Errors[0].Field != "url" || !strings.HasPrefix(refused.Errors[0].Detail, "cannot be used: ") {
			t.Errorf("%s: %s", url, refused.body)
		}
	}
	h := s.hook(t, `{"url":"https://nowhere.invalid/hooks"}`)
	tested := s.ask(t, http.MethodPost, "/api/webhooks/"+h.ID+"/test", "").wants(t, http.StatusOK)
	if !strings.Contains(tested.body, `"type":"jobtally.webhook.test.v1","cause":"test"`) || !strings.Contains(tested.body, `"outcome":"failed","error":"`) {
		t.Errorf("the test says %s", tested.body)
	}
	if all, _ := r.at("/inside"); len(all) > 0 {
		t.Errorf("it was sent %s", linesOf(all))
	}
}

// TestAWebhookFromItsRegistrationToItsDeletion does with one what the API has for it.
func TestAWebhookFromItsRegistrationToItsDeletion(t *testing.T) {
	t.Parallel()
	s, r := start(t, t.TempDir(), midNovember, allowLoopback...), newReceiver(t)
	h := r.hook(t, s.client, "/hook", `,"description":"to the chat"`)
	path := "/api/webhooks/" + h.ID
	s.get(t, path, `If-None-Match: "1"`).wants(t, http.StatusOK)
	list := s.get(t, "/api/webhooks").wants(t, http.StatusOK)
	s.get(t, "/api/webhooks", "If-None-Match: "+list.header.Get("ETag")).wants(t, http.StatusNotModified)
	s.get(t, path, "Ledger-Position: x").wantsProblem(t, http.StatusBadRequest, "invalid_position")
	s.get(t, path+"/deliveries?limit=0").wantsProblem(t, http.StatusBadRequest, "invalid_request")

	t.Log("of two tests at once the second is told so")
	begun, end := make(chan struct{}), make(chan struct{})
	r.set(func(received) (int, http.Header) { close(begun); <-end; return http.StatusTeapot, nil })
	first := make(chan reply)
	go func() { first <- s.ask(t, http.MethodPost, path+"/test", "") }()
	<-begun
	s.ask(t, http.MethodPost, path+"/test", "").wantsProblem(t, http.StatusConflict, "webhook_test_running")
	close(end)
	if tested := (<-first).wants(t, http.StatusOK); !strings.Contains(tested.body, `"status":418,"outcome":"failed","error":"it answered 418 I'm a teapot"`) {
		t.Errorf("the test says %s", tested.body)
	}

	t.Log("what is not accepted is tried again; what is disabled is sent nothing, and goes on where it stopped")
	r.set(func(received) (int, http.Header) {
		return http.StatusServiceUnavailable, http.Header{"Retry-After": {"3600"}}
	})
	s.capture(t, jobURL(1)).wants(t, http.StatusCreated)
	failing := s.awaitProgress(t, h.ID, func(p progress) bool { return p.Progress.NextAttempt != "" })
	if p := failing.Progress; p.Attempts != 1 || p.ConsecutiveFailures != 1 || p.FailingSince == "" || p.Pending != 1 || p.Circuit != "closed" {
		t.Errorf("after a 503: %+v", failing)
	}
	change := func(body string, headers ...string) reply { return s.ask(t, http.MethodPatch, path, body, headers...) }
	off := change(`{"enabled":false}`, fmt.Sprintf(`If-Match: "%d"`, failing.Version)).wants(t, http.StatusOK)
	change(`{"enabled":true}`, fmt.Sprintf(`If-Match: "%d"`, failing.Version)).wantsProblem(t, http.StatusPreconditionFailed, "webhook_version_conflict")
	s.ask(t, http.MethodDelete, path, "", `If-Match: "1"`).wantsProblem(t, http.StatusPreconditionFailed, "webhook_version_conflict")
	change(`{"url":"http://192.0.2.1/"}`).wantsProblem(t, http.StatusBadRequest, "invalid_request")
	if !strings.Contains(off.body, `"state":"disabled"`) {
		t.Errorf("disabled: %s", off.body)
	}
	s.capture(t, jobURL(2)).wants(t, http.StatusCreated)
	r.set(nil)
	r.mu.Lock()
	r.secret["/other"] = h.Secret
	r.mu.Unlock()
	change(`{"enabled":true,"url":"`+r.url+`/other","types":["jobtally.job.captured"]}`).wants(t, http.StatusOK)
	sent := r.awaitN(t, "/other", 2)
	if got := typesOf(sent); got != "job.captured job.captured" {
		t.Errorf("it goes on with %s", got)
	}

	t.Log("after a rotation both secrets sign, and without keeping it only the new one")
	rotated := s.ask(t, http.MethodPost, path+"/secret", `{}`).wants(t, http.StatusOK)
	if !strings.Contains(rotated.body, `"previous_expires_at":"`) || strings.Contains(rotated.body, h.Secret) {
		t.Errorf("rotated: %s", rotated.body)
	}
	s.ask(t, http.MethodPost, path+"/test", "").wants(t, http.StatusOK) // is verified with the first
	r.mu.Lock()
	r.secret["/other"] = s.rotate(t, path)
	r.mu.Unlock()
	if tested := s.ask(t, http.MethodPost, path+"/test", "").wants(t, http.StatusOK); !strings.Contains(tested.body, `"outcome":"accepted"`) {
		t.Errorf("the test says %s", tested.body)
	}

	t.Log("the log of deliveries has all of that, the latest first")
	var causes []string
	s.pages(t, path+"/deliveries?limit=2", func(page reply) {
		for _, part := range strings.Split(page.body, `"cause":"`)[1:] {
			causes = append(causes, part[:strings.Index(part, `"`)])
		}
	})
	if got := strings.Join(causes, " "); got != "test test event event event test" {
		t.Errorf("the causes are %s", got)
	}

	t.Log("an endpoint that answers 410 is sent nothing more")
	r.set(func(received) (int, http.Header) { return http.StatusGone, nil })
	s.capture(t, jobURL(3)).wants(t, http.StatusCreated)
	s.awaitProgress(t, h.ID, func(p progress) bool { return p.State == "gone" })

	s.ask(t, http.MethodDelete, path, "").wants(t, http.StatusNoContent)
	for _, call := range []string{"GET ", "PATCH ", "DELETE ", "POST /secret", "POST /test", "GET /deliveries"} {
		method, rest, _ := strings.Cut(call, " ")
		s.ask(t, method, path+rest, map[string]string{"PATCH ": `{"enabled":true}`, "POST /secret": `{}`}[call]).wantsProblem(t, http.StatusNotFound, "webhook_not_found")
	}
	for range webhook.MaxPerAccount {
		s.hook(t, `{"url":"https://hooks.invalid/"}`)
	}
	s.ask(t, http.MethodPost, "/api/webhooks", `{"url":"https://hooks.invalid/"}`).wantsProblem(t, http.StatusConflict, "too_many_webhooks")
}

// rotate gives a webhook another secret, at once.
func (s *service) rotate(t *testing.T, path string) string {
	t.Helper()
	r := s.ask(t, http.MethodPost, path+"/secret", `{"keep_seconds":0}`).wants(t, http.StatusOK)
	_, rest, _ := strings.Cut(r.body, `"secret":"`)
	secret, _, _ := strings.Cut(rest, `"`)
	return secret
}

// TestReplayAndRebuildSendNothing folds and reads everything again beside a service with a webhook.
func TestReplayAndRebuildSendNothing(t *testing.T) {
	t.Parallel()
	s, r := startBinary(t, t.TempDir(), allowLoopback...), newReceiver(t)
	h := r.hook(t, s.client, "/hook", "")
	for i := range 5 {
		s.capture(t, jobURL(i)).wants(t, http.StatusCreated)
	}
	r.awaitN(t, "/hook", 5)
	s.operator(t, "rebuild")
	s.operator(t, "replay", "--account", "demo")
	s.operator(t, "audit")
	s.stop(t)
	for _, name := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(s.projection() + name); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	s = startBinary(t, s.data, allowLoopback...)
	s.awaitIdle(t, h.ID, s.capture(t, jobURL(6)).wants(t, http.StatusCreated))
	all, _ := r.at("/hook")
	if wantsOnceEach(t, all); len(all) != 6 {
		t.Errorf("it was sent\n%s", linesOf(all))
	}

	t.Log("on demand a stretch is sent again, and says so")
	s.operator(t, "webhook", "redrive", h.ID, "--redeliver", "--from", all[1].Position, "--to", all[3].Position, "--yes", "--webhook-allow", "127.0.0.0/8")
	again := r.awaitN(t, "/hook", 9)[6:]
	for i, got := range again {
		if !got.again || got.id != all[i+1].id || got.body != all[i+1].body {
			t.Errorf("it was sent again as\n%s%s", linesOf(again), got.body)
		}
	}
}

// TestAnErasedAccountLeavesNothingOfItsWebhooks erases an account to whose webhooks was sent, or not.
func TestAnErasedAccountLeavesNothingOfItsWebhooks(t *testing.T) {
	t.Parallel()
	s, r := startBinary(t, t.TempDir(), allowLoopback...), newReceiver(t)
	ops := s.admin(t)
	clients := s.accounts(t, 100, "anna", "bob")
	anna, bob := clients[0], clients[1]
	good := r.hook(t, anna, "/secret-anna-path", `,"description":"secret-anna-description"`)
	r.hook(t, bob, "/secret-bob-path", "")
	r.set(func(got received) (int, http.Header) {
		if got.path == "/secret-anna-stuck" {
			return http.StatusInternalServerError, nil
		}
		return http.StatusNoContent, nil
	})
	stuck := r.hook(t, anna, "/secret-anna-stuck", "")
	old := good.Secret
	for i := range 3 {
		anna.capture(t, jobURL(i)).wants(t, http.StatusCreated)
		bob.capture(t, jobURL(i)).wants(t, http.StatusCreated)
	}
	r.awaitN(t, "/secret-anna-path", 3)
	anna.awaitProgress(t, stuck.ID, func(p progress) bool { return p.Progress.Attempts > 0 })
	rotated := anna.ask(t, http.MethodPost, "/api/webhooks/"+good.ID+"/secret", `{}`).wants(t, http.StatusOK)
	_, rest, _ := strings.Cut(rotated.body, `"secret":"`)
	secrets := []string{"secret-anna", old[6:], stuck.Secret[6:], rest[6:40]}
	for i, text := range secrets {
		if len(s.found(t, []string{text})) == 0 {
			t.Fatalf("text %d is in no file: nothing can be shown", i)
		}
	}
	ops.erase(t, "anna").wants(t, http.StatusOK)
	s.wantsGone(t, secrets)
	before, _ := r.at("/secret-anna-path")
	again := s.accounts(t, 100, "anna")[0]
	again.capture(t, jobURL(9)).wants(t, http.StatusCreated)
	bob.capture(t, jobURL(9)).wants(t, http.StatusCreated)
	r.awaitN(t, "/secret-bob-path", 4)
	if list := again.get(t, "/api/webhooks").wants(t, http.StatusOK); list.body != `{"webhooks":[]}` {
		t.Errorf("an account of the same name has %s", list.body)
	}
	if after, _ := r.at("/secret-anna-path"); len(after) != len(before) {
		t.Errorf("the webhook of the erased account is sent\n%s", linesOf(after))
	}
	s.stop(t)
	if files := s.found(t, secrets); len(files) > 0 {
		t.Errorf("after a stop: %s", files)
	}
	if len(s.found(t, []string{"secret-bob-path"})) == 0 {
		t.Error("nothing of the other account is left")
	}
}

// TestAnErasureWithoutAServiceTakesTheWebhooksToo erases an account while nothing runs that would see to its webhooks.
func TestAnErasureWithoutAServiceTakesTheWebhooksToo(t *testing.T) {
	t.Parallel()
	s := startBinary(t, t.TempDir())
	clients := s.accounts(t, 100, "anna", "bob")
	h := clients[0].hook(t, `{"url":"https://secret-anna.invalid/hooks"}`)
	clients[1].hook(t, `{"url":"https://secret-bob.invalid/hooks"}`)
	s.stop(t)
	secrets := []string{"secret-anna", h.Secret[6:]}
	if found := s.found(t, secrets); len(found) < 2 {
		t.Fatalf("only this is in a file: %s", found)
	}
	s.operator(t, "erase", "--account", "anna", "--yes")
	if found := s.found(t, secrets); len(found) > 0 {
		t.Errorf("after the erasure: %s", found)
	}
	if len(s.found(t, []string{"secret-bob"})) == 0 {
		t.Error("nothing of the other account is left")
	}
}

// TestNoSecretOfAWebhookIsWrittenAnywhere looks for secrets in the log, and in every answer but the two that tell them.
func TestNoSecretOfAWebhookIsWrittenAnywhere(t *testing.T) {
	t.Parallel()
	s, r := startBinary(t, t.TempDir(), append(allowLoopback, "--log-level", "debug", "--log-format", "json", "--metrics-addr", "127.0.0.1:0")...), newReceiver(t)
	h := r.hook(t, s.client, "/hook", "")
	path := "/api/webhooks/" + h.ID
	rotated := s.ask(t, http.MethodPost, path+"/secret", `{}`).wants(t, http.StatusOK)
	_, rest, _ := strings.Cut(rotated.body, `"secret":"whsec_`)
	s.capture(t, jobURL(1)).wants(t, http.StatusCreated)
	r.awaitN(t, "/hook", 1)
	w := &witness{client: s.client}
	for _, call := range []string{"GET /api/webhooks", "GET " + path, "PATCH " + path, "POST " + path + "/test", "GET " + path + "/deliveries", "GET /api/account", "GET /readyz"} {
		body := ""
		if strings.HasPrefix(call, "PATCH") {
			body = `{"description":"x"}`
		}
		w.send(t, call, body).wants(t, http.StatusOK)
	}
	_, metrics := s.scrape(t)
	for _, args := range [][]string{{"list"}, {"list", "--json"}, {"show", h.ID}, {"show", h.ID, "--json"}, {"deliveries", h.ID}, {"disable", h.ID}} {
		w.answers = append(w.answers, s.operator(t, append([]string{"webhook"}, args...)...))
	}
	s.stop(t)
	for place, text := range map[string]string{"the log": s.stderr.String(), "the output": s.stdout.String(), "the metrics": metrics, "the answers": strings.Join(w.answers, "\n")} {
		for _, secret := range []string{h.Secret[6:], rest[:44]} {
			if strings.Contains(text, secret[:20]) {
				t.Errorf("%s have a secret:\n%.2000s", place, text)
			}
		}
	}
	if !strings.Contains(strings.Join(w.answers, "\n"), h.ID) {
		t.Error("not even the id is found: nothing is shown")
	}
	if info, err := os.Stat(filepath.Join(s.data, "jetstream")); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("others can read where the secrets are kept: %v, %v", info.Mode(), err)
	}
}
