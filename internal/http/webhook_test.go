package http

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/webhook"
)

const postedWebhook = `"url":"https://example.com/hooks","types":["jobtally.job.captured"],"description":"to the chat","state":"enabled",` +
	`"state_since":"2024-01-15T00:00:00.000Z","created_at":"2024-01-15T00:00:00.000Z","after":"0-5"`

func TestWebhookIsRegisteredAndShownWithoutItsSecret(t *testing.T) {
	n := newNode(t)
	x := n.send(t, "POST", webhooksPath, `{"url":"https://example.com/hooks","types":["jobtally.job.captured"],"description":" to the chat "}`)
	x.wants(t, 201, `{"id":"wh_aaaaaaaaaaaaaaaaaaaa",`+postedWebhook+`,"version":1,"secret":"`+secretOfTest+`"}`)
	x.wantsHeader(t, "Location: /api/webhooks/wh_aaaaaaaaaaaaaaaaaaaa", `Etag: "1"`, "Cache-Control: no-store")

	t.Log("no other answer has the secret")
	n.send(t, "GET", webhooksPath, "").wants(t, 200, `{"webhooks":[{"id":"wh_aaaaaaaaaaaaaaaaaaaa",`+postedWebhook+`,"version":1}]}`)
	x = n.send(t, "GET", testWebhook, "")
	x.wants(t, 200, `{"id":"wh_aaaaaaaaaaaaaaaaaaaa",`+postedWebhook+`,"version":1,"progress":{"pending":3,"delivered":"0-7","attempts":2,"consecutive_failures":2,`+
		`"failing_since":"2024-01-15T09:00:00.000Z","circuit":"open","poisoned":1}}`)
	x.wantsHeader(t, `Etag: "1"`, "Cache-Control: no-store")
	if strings.Contains(n.log.String(), secretOfTest) {
		t.Error("the secret is in the log")
	}

	t.Log("another account has none, and finds none")
	asBob := "Authorization: Bearer " + n.bob.Reveal()
	n.send(t, "GET", webhooksPath, "", asBob).wants(t, 200, `{"webhooks":[]}`)
	for _, call := range []string{"GET ", "PATCH ", "DELETE ", "POST secret", "POST test", "GET deliveries"} {
		method, rest, _ := strings.Cut(call, " ")
		body := map[string]string{"PATCH ": `{"enabled":true}`, "POST secret": "{}"}[call]
		n.send(t, method, strings.TrimSuffix(testWebhook+"/"+rest, "/"), body, asBob).wantsProblem(t, codeWebhookNotFound)
	}
}

func TestWebhookThatIsNotValid(t *testing.T) {
	n := newNode(t)
	n.hooks.add("anna", "wh_aaaaaaaaaaaaaaaaaaaa")
	for body, want := range map[string]string{
		`{}`:                           "url is missing",
		`{"url":null}`:                 "url must be a string, not null",
		`{"url":""}`:                   "url must be a URL, such as https://example.com/hooks",
		`{"url":"http://example.com"}`: "url cannot be used: it does not begin with https://",
		`{"url":"https://example.com/` + n.gone.Reveal() + `"}`:                                 "url must not have a token in it: everybody could read that",
		`{"url":"https://example.com/` + strings.Repeat("a", 2048) + `"}`:                       "url must have at most 2048 characters, not 2068",
		`{"url":"https://example.com","uri":1}`:                                                 "uri is not a field of a webhook; did you mean url?",
		`{"url":"https://example.com","secret":"s"}`:                                            "secret is not a field of a webhook; its fields are url, types, description",
		`{"url":"https://example.com","types":"all"}`:                                           "types must be an array of strings, not a string",
		`{"url":"https://example.com","types":[1]}`:                                             "types must be an array of strings: element 0 must be a string, not a number",
		`{"url":"https://example.com","types":["jobtally.job.capture.v1"]}`:                     `types has "jobtally.job.capture.v1", which is no type of event; did you mean jobtally.job.captured.v1?`,
		`{"url":"https://example.com","types":["job.deleted"]}`:                                 `types has "job.deleted", which is no type of event; did you mean jobtally.job.deleted?`,
		`{"url":"https://example.com","types":["jobtally.plan.changed.v1"]}`:                    `types has "jobtally.plan.changed.v1", which is no type of event; they are jobtally.job.captured.v1, jobtally.job.capture_duplicated.v1, jobtally.job.capture_rejected.v1, jobtally.job.capture_repeated.v1, jobtally.job.updated.v1, jobtally.job.deleted.v1, jobtally.request.refused.v1, jobtally.quota.threshold_reached.v1, jobtally.quota.reset.v1, each also without its version`,
		`{"url":"https://example.com","types":["jobtally.job.deleted","jobtally.job.deleted"]}`: "types must have jobtally.job.deleted once",
	} {
		if got := wrongIn(t, n.send(t, "POST", webhooksPath, body).wantsProblem(t, codeInvalidRequest)); got != want {
			t.Errorf("%.100s: %s\nwant %s", body, got, want)
		}
	}
	for body, want := range map[string]string{
		`{}`:                      "!the patch changes nothing; send at least one field",
		`{"enabled":null}`:        "enabled must be true or false, not null",
		`{"state":"enabled"}`:     "state cannot be changed; enabled, true or false, can",
		`{"secret":"s","id":"x"}`: "secret cannot be changed|id cannot be changed",
		`{"enable":true}`:         "enable is not a field of a webhook; did you mean enabled?",
	} {
		if got := wrongIn(t, n.send(t, "PATCH", testWebhook, body).wantsProblem(t, codeInvalidRequest)); got != want {
			t.Errorf("%s: %s\nwant %s", body, got, want)
		}
	}
	for body, want := range map[string]string{
		`{"keep_seconds":-1}`: "keep_seconds must be a whole number of seconds from 0 to 604800", `{"keep_seconds":604801}`: "keep_seconds must be a whole number of seconds from 0 to 604800",
		`{"keep_seconds":"1"}`: "keep_seconds must be a number, not a string", `{"keep":1}`: "keep is not a field of a rotation; its fields are keep_seconds",
	} {
		if got := wrongIn(t, n.send(t, "POST", testWebhook+"/secret", body).wantsProblem(t, codeInvalidRequest)); got != want {
			t.Errorf("%s: %s\nwant %s", body, got, want)
		}
	}
	for range webhook.MaxPerAccount - 1 {
		n.send(t, "POST", webhooksPath, `{"url":"https://example.com/hooks","types":null,"description":null}`).wants(t, 201, `{"id":"wh_…`)
	}
	n.send(t, "POST", webhooksPath, `{"url":"https://example.com/hooks"}`).wantsProblem(t, codeTooManyWebhooks)
}

func TestWebhookChangesWhileItHasTheVersion(t *testing.T) {
	n := newNode(t)
	n.hooks.add("anna", "wh_aaaaaaaaaaaaaaaaaaaa")
	x := n.send(t, "PATCH", testWebhook, `{"enabled":false,"types":null,"description":"x"}`, `If-Match: "1"`, "Content-Type: "+mergePatchContentType)
	x.wantsHeader(t, `Etag: "2"`, "Accept-Patch: application/merge-patch+json, application/json")
	x.wants(t, 200, `{"id":"wh_aaaaaaaaaaaaaaaaaaaa","url":"https://example.com/hooks","types":[],"description":"x","state":"disabled",…`)
	said := n.send(t, "PATCH", testWebhook, `{"enabled":true}`, `If-Match: "1"`).wantsProblem(t, codeWebhookChanged)
	if !strings.Contains(said, `"version":2`) {
		t.Error(said)
	}
	n.send(t, "DELETE", testWebhook, "", `If-Match: "1"`).wantsProblem(t, codeWebhookChanged)
	n.send(t, "DELETE", testWebhook, "", `If-Match: x`).wantsProblem(t, codeInvalidETag)
	n.send(t, "PATCH", testWebhook, `{"description":null}`, `If-Match: "7", "2"`).wants(t, 200, `{"id":"wh_aaaaaaaaaaaaaaaaaaaa",…`)
	n.hooks.read = func() { // somebody else is as quick
		n.hooks.read = nil
		n.hooks.endpoints[0].Version = 4
	}
	n.send(t, "DELETE", testWebhook, "", `If-Match: "3"`).wantsProblem(t, codeWebhookChanged)
	n.send(t, "DELETE", testWebhook, "", `If-Match: "4"`).wants(t, 204, "")
	n.send(t, "DELETE", testWebhook, "").wantsProblem(t, codeWebhookNotFound)
}

func TestWebhookSecretIsRotated(t *testing.T) {
	n := newNode(t)
	n.hooks.add("anna", "wh_aaaaaaaaaaaaaaaaaaaa")
	other := "whsec_" + strings.Repeat("B", 43) + "="
	x := n.send(t, "POST", testWebhook+"/secret", "{}")
	x.wants(t, 200, `{"id":"wh_aaaaaaaaaaaaaaaaaaaa","secret":"`+other+`","previous_expires_at":"2024-01-16T00:00:00.000Z","version":2}`)
	x.wantsHeader(t, "Cache-Control: no-store", `Etag: "2"`)
	n.send(t, "POST", testWebhook+"/secret", `{"keep_seconds":60}`).wants(t, 200, `{"id":"wh_aaaaaaaaaaaaaaaaaaaa","secret":"`+other+`","previous_expires_at":"2024-01-15T00:01:00.000Z","version":3}`)
	n.send(t, "POST", testWebhook+"/secret", `{"keep_seconds":0}`).wants(t, 200, `{"id":"wh_aaaaaaaaaaaaaaaaaaaa","secret":"`+other+`","version":4}`)
}

// One handler answers both calls, as one server does.
func TestOneTestOfAWebhookAtATime(t *testing.T) {
	n := newNode(t)
	n.hooks.add("anna", "wh_aaaaaaaaaaaaaaaaaaaa")
	handler := NewHandler(Config{Backend: n.Backend, Now: func() time.Time { return n.now }})
	begun, end := make(chan struct{}), make(chan struct{})
	n.hooks.sent = func() { close(begun); <-end }
	first := make(chan exchange)
	go func() { first <- n.sendTo(t, handler, "POST", testWebhook+"/test", "") }()
	<-begun
	n.sendTo(t, handler, "POST", testWebhook+"/test", "").wantsProblem(t, codeWebhookTestRunning)
	close(end)
	want := `{"message_id":"test_1","type":"jobtally.webhook.test.v1","cause":"test","attempt":1,"at":"2024-01-15T09:00:00.000Z","duration_ms":1,` +
		`"status":500,"outcome":"failed","error":"it answered 500"}`
	(<-first).wants(t, 200, want)
	n.hooks.sent = nil
	n.sendTo(t, handler, "POST", testWebhook+"/test", "").wants(t, 200, want)
}

func TestDeliveriesInPages(t *testing.T) {
	n := newNode(t)
	n.hooks.add("anna", "wh_aaaaaaaaaaaaaaaaaaaa")
	n.hooks.add("anna", "wh_aaaaaaaaaaaaaaaaaaab")
	for i := range 5 {
		n.hooks.deliveries = append(n.hooks.deliveries, webhook.Delivery{
			Sequence: uint64(10 * (i + 1)), MessageID: fmt.Sprintf("0-%d", i+6), Position: events.Position{Sequence: uint64(i + 6)}, Type: events.TypeJobCaptured,
			Cause: webhook.ByEvent, Attempt: 1, At: n.now, Status: 204, Outcome: webhook.Accepted,
		})
	}
	path, ids := testWebhook+"/deliveries?limit=2", []string{}
	for path != "" {
		x := n.send(t, "GET", path, "")
		for _, part := range strings.Split(x.body, `"message_id":"`)[1:] {
			id, _, _ := strings.Cut(part, `"`)
			ids = append(ids, id)
		}
		path = nextOf(x)
	}
	if got := strings.Join(ids, " "); got != "0-10 0-9 0-8 0-7 0-6" {
		t.Errorf("the pages have %s", got)
	}
	next := nextOf(n.send(t, "GET", testWebhook+"/deliveries?limit=2", ""))
	n.send(t, "GET", strings.Replace(next, "wh_aaaaaaaaaaaaaaaaaaaa", "wh_aaaaaaaaaaaaaaaaaaab", 1), "").wantsProblem(t, codeInvalidRequest)
}

// TestWhatIsSentAtOnceCountsAsTen has a token that may send ten requests at once.
func TestWhatIsSentAtOnceCountsAsTen(t *testing.T) {
	for _, c := range []struct {
		method, path, body string
		ten                bool
	}{
		{"POST", testWebhook + "/test", "", true}, {"PATCH", testWebhook, `{"enabled":true}`, true}, {"PATCH", testWebhook, `{"url":"https://hooks.example/"}`, true},
		{"PATCH", testWebhook, `{"enabled":false}`, false}, {"PATCH", testWebhook, `{"description":"x"}`, false},
	} {
		n := newLimitedNode(t, Limits{RequestsPerSecond: 1})
		n.hooks.add("anna", "wh_aaaaaaaaaaaaaaaaaaaa")
		anna := n.anna.Reveal()
		n.answer(httptest.NewRequest(c.method, c.path, strings.NewReader(c.body)), home, anna, "Content-Type: application/json").wants(t, 200, `{…`)
		if status := n.get(away, anna).StatusCode; (status == 429) != c.ten {
			t.Errorf("after %s %s %s a request is answered %d", c.method, c.path, c.body, status)
		}
	}
}

// TestAWebhookThatCannotBeRead is shown as what it is, and can be deleted.
func TestAWebhookThatCannotBeRead(t *testing.T) {
	n := newNode(t)
	n.hooks.add("anna", "wh_aaaaaaaaaaaaaaaaaaaa")
	relay := n.hooks.relay()
	relay.List = func(_ context.Context, account string) ([]webhook.Endpoint, error) {
		return []webhook.Endpoint{{ID: "wh_aaaaaaaaaaaaaaaaaaaa", Account: account, State: webhook.Unreadable, StateSince: n.now, CreatedAt: n.now, Version: 7}}, nil
	}
	relay.Change = func(context.Context, string, string, uint64, webhook.Change) (webhook.Endpoint, error) {
		return webhook.Endpoint{}, webhook.ErrUnreadable
	}
	n.Webhooks = func() (Webhooks, error) { return relay, nil }
	n.send(t, "GET", webhooksPath, "").wants(t, 200, `{"webhooks":[{"id":"wh_aaaaaaaaaaaaaaaaaaaa","url":"","types":[],"state":"unreadable",…`)
	n.log.Reset()
	x := n.send(t, "PATCH", testWebhook, `{"enabled":true}`)
	if said := x.wantsProblem(t, codeWebhooksUnavailable); !strings.Contains(said, "it can be deleted") || !strings.Contains(n.log.String(), "cannot read") {
		t.Errorf("%s, and in the log: %s", said, n.log.String())
	}
	n.send(t, "DELETE", testWebhook, "").wants(t, 204, "")
}

func TestWebhooksThatAreNotToBeHad(t *testing.T) {
	n := newNode(t)
	unavailable := fmt.Errorf("%w: no answer", events.ErrUnavailable)
	relay := n.hooks.relay()
	relay.List = func(context.Context, string) ([]webhook.Endpoint, error) { return nil, unavailable }
	relay.Create = func(context.Context, string, string, string, []string) (webhook.Endpoint, error) {
		return webhook.Endpoint{}, unavailable
	}
	for name, c := range map[string]struct {
		relay            func() (Webhooks, error)
		reading, posting code
	}{
		"no relay":       {func() (Webhooks, error) { return Webhooks{}, unavailable }, codeWebhooksUnavailable, codeWebhooksUnavailable},
		"no answer":      {func() (Webhooks, error) { return relay, nil }, codeWebhooksUnavailable, codeOutcomeUnknown},
		"something else": {func() (Webhooks, error) { return Webhooks{}, errors.New("secret-inside") }, codeInternal, codeInternal},
	} {
		n.Webhooks = c.relay
		n.log.Reset()
		for _, x := range []struct {
			exchange
			want code
		}{
			{n.send(t, "GET", webhooksPath, ""), c.reading},
			{n.send(t, "POST", webhooksPath, `{"url":"https://hooks.invalid/"}`), c.posting},
		} {
			if said := x.wantsProblem(t, x.want); strings.Contains(said, "secret-inside") || strings.Contains(said, "no answer") {
				t.Errorf("%s: %s", name, said)
			}
			if x.want != codeInternal {
				x.wantsHeader(t, "Retry-After: 1")
			}
		}
		if log := n.log.String(); strings.Count(log, "no answer")+strings.Count(log, "secret-inside") != 2 {
			t.Errorf("%s: the log does not say why: %s", name, log)
		}
	}
}
