package capture

import (
	"errors"
	"testing"
	"time"

	"jobtally/internal/events"
)

// FuzzDecideAnyBytes: whatever stands in REQUESTS_p, unless of an unknown type, is decided, and the decision reads back
// from its message as it was decided. A decision that did not would stop its partition for ever.
func FuzzDecideAnyBytes(f *testing.F) {
	at := time.Date(2026, 11, 30, 23, 59, 59, 999_000_000, time.UTC)
	add := func(m events.Message) {
		f.Add(m.Subject, m.Header["ce-id"][0], m.Header["ce-type"][0], m.Header["ce-time"][0], m.Data)
	}
	url := "https://example.com/jobs/1"
	for _, body := range []events.RequestBody{
		captureBody(url, url, "Clerk", at), captureBody(url+"/2", url+"/2", "Ä<&>\u2028", at),
		&events.AccountOpenRequested{Plan: "free", Limit: -1}, &events.PlanChangeRequested{Plan: "pro", Limit: 0},
		&events.TokenIssueRequested{TokenID: "t1", SecretHash: events.Hash()},
		&events.TokenIssueRequested{TokenID: "line\nfeed: ü", SecretHash: events.Hash()},
		&events.JobUpdateRequested{JobID: "job_1", IfVersion: 1, Changes: map[string]string{"title": "Ä<&>\u2028", "notes": ""}},
		&events.JobDeleteRequested{JobID: "job_1 \x00"},
		&events.TokenIssueRequested{TokenID: "t2", SecretHash: events.Hash(), TokenTerms: events.TokenTerms{Scopes: []string{"admin"}, ExpiresAt: at}},
		&events.TokenRevokeRequested{TokenID: "t1"}, &events.TokenRevokeRequested{TokenID: "unknown \x00"},
	} {
		add(message("a", "id 1", at, body))
		add(message("closed", "id 2", at, body))
	}
	spoilt := message("a", "id 3", at, captureBody(url, url, "Clerk", at))
	for _, id := range []string{"%FF", "\xff", "a%0Ab", ""} {
		f.Add(spoilt.Subject, id, spoilt.Header["ce-type"][0], "9999-12-31T23:59:59-01:00", spoilt.Data)
	}
	f.Add("requests.0.a.job_\xff", "id 4", spoilt.Header["ce-type"][0], "2026-11-30T00:00:00Z", spoilt.Data)
	before := []events.Message{
		message("a", "open", at, &events.AccountOpenRequested{Plan: "free", Limit: 1}),
		message("a", "id 1", at, captureBody(url, url, "Clerk", at)),
		message("a", "issue", at, &events.TokenIssueRequested{TokenID: "t1", SecretHash: events.Hash()}),
	}
	f.Fuzz(func(t *testing.T, subject, id, ceType, ceTime string, data []byte) {
		m := events.Message{Subject: subject, Data: data, Header: map[string][]string{
			"ce-id": {id}, "ce-type": {ceType}, "ce-time": {ceTime},
		}}
		if _, err := events.DecodeRequest(m, 0, 1); errors.Is(err, events.ErrUnknownType) {
			return
		}
		h := replay(t, before)
		d := h.take(t, m).decision // fails unless the decision reads back the same
		for key, values := range d.Message().Header {
			for _, c := range []byte(values[0]) {
				if c < 0x21 || c > 0x7e {
					t.Fatalf("header %s: %q", key, values[0])
				}
			}
		}
	})
}
