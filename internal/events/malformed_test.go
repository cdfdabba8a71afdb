package events

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// set returns a change that sets a header to a value.
func set(key, value string) func(*Message) {
	return func(m *Message) { m.Header[key] = []string{value} }
}

func without(key string) func(*Message) { return func(m *Message) { delete(m.Header, key) } }

func subjectOf(s string) func(*Message) { return func(m *Message) { m.Subject = s } }

func dataOf(s string) func(*Message) { return func(m *Message) { m.Data = []byte(s) } }

// replace changes the data, which must hold the old text.
func replace(before, after string) func(*Message) {
	return func(m *Message) {
		if !strings.Contains(string(m.Data), before) {
			panic(fmt.Sprintf("%s is not in %s", before, m.Data))
		}
		m.Data = []byte(strings.Replace(string(m.Data), before, after, 1))
	}
}

const (
	otherSubject  = "the subject is not requests.<partition>.<account>.<kind>"
	noSuchAccount = "the subject names no account"
	noID          = "a request id has 1 to 255 bytes"
	control       = "a request id has no control characters"
	notEscaped    = "ce-id: not percent-encoded UTF-8"
	notATime      = "ce-time is not a time of RFC 3339, of the years 0 to 9999 in UTC"
	notCapture    = "the data is not that of a jobtally.job.capture_requested.v1"
	notOpen       = "the data is not that of a jobtally.account.open_requested.v1"
	notToken      = "the data is not that of a jobtally.token.issue_requested.v1"
	needs         = "a capture needs canonical_url, month and payload_hash"
	needsJob      = "a job needs job_id, and a version that is positive"
	needsToken    = "a token needs token_id and secret_hash"
)

type malformedCase struct {
	name   string
	of     string // the type of the request that is changed
	change func(*Message)
	// What remains: the account and the id as far as they could be read, the kind, and the reason. The reason goes into
	// the decision and so into its digest: a text that changes is another decision on the same request.
	account, id, kind, reason string
}

func malformedCases() []malformedCase {
	const capture, open, plan, issue, revoke = TypeJobCaptureRequested, TypeAccountOpenRequested, TypePlanChangeRequested, TypeTokenIssueRequested, TypeTokenRevokeRequested
	id, long := requestFixtures()[0].ID, strings.Repeat("x", 256)
	return []malformedCase{
		{"three tokens", capture, subjectOf("requests.6.demo"), "", "", "", otherSubject},
		{"five tokens", capture, subjectOf("requests.6.demo.job.capture"), "", "", "", otherSubject},
		{"account in capitals", capture, subjectOf("requests.6.Demo.job_capture"), "", "", "job_capture", noSuchAccount},
		{"empty account", capture, subjectOf("requests.6..job_capture"), "", "", "job_capture", noSuchAccount},
		{"account of bytes", capture, subjectOf("requests.6.\xff.job_capture"), "", "", "job_capture", noSuchAccount},
		{"account too long", capture, subjectOf("requests.6." + long + ".job_capture"), "", "", "job_capture", noSuchAccount},
		{"wrong partition", capture, subjectOf("requests.6.acme.job_capture"), "", "", "job_capture", "account acme belongs to partition 15"},
		{"no account of another kind", capture, subjectOf("requests.6.~.job_capture"), "", "", "job_capture", noSuchAccount},
		{"close of no month", TypeMonthCloseRequested, replace(`"2026-11"`, `""`), "", id, "month_close", "the data is not that of a jobtally.month.close_requested.v1"},
		{"close without a month", TypeMonthCloseRequested, dataOf("{}"), "", id, "month_close", "a month close needs month"},
		{"close for an account", TypeMonthCloseRequested, subjectOf("requests.6.demo.month_close"), "demo", "", "month_close", "a month is closed for no account"},
		{"wrong kind", capture, subjectOf("requests.6.demo.plan_change"), "demo", id, "plan_change", capture + " stands under the subject of another kind"},
		{"unknown kind", plan, subjectOf("requests.6.demo.x"), "demo", id, "x", plan + " stands under the subject of another kind"},
		{"no kind", plan, subjectOf("requests.6.demo."), "demo", id, "", plan + " stands under the subject of another kind"},
		{"kind of bytes", plan, subjectOf("requests.6.demo.\xff"), "demo", id, "\ufffd", plan + " stands under the subject of another kind"},

		{"no headers", capture, func(m *Message) { m.Header = nil }, "demo", "", "job_capture", noID},
		{"no ce-id", capture, without(headerID), "demo", "", "job_capture", noID},
		{"no value of ce-id", capture, func(m *Message) { m.Header[headerID] = nil }, "demo", "", "job_capture", noID},
		{"empty ce-id", capture, set(headerID, ""), "demo", "", "job_capture", noID},
		{"long ce-id", capture, set(headerID, long), "demo", "", "job_capture", noID},
		{"long ce-id after unescaping", capture, set(headerID, strings.Repeat("%C3%BC", 128)), "demo", "", "job_capture", noID},
		{"escaped line feed", capture, set(headerID, "a%0Ab"), "demo", "", "job_capture", control},
		{"escaped NUL", capture, set(headerID, "%00"), "demo", "", "job_capture", control},
		{"raw tab", capture, set(headerID, "a\tb"), "demo", "", "job_capture", control},
		{"DEL", capture, set(headerID, "%7F"), "demo", "", "job_capture", control},
		{"half an escape", capture, set(headerID, "a%2"), "demo", "", "job_capture", notEscaped},
		{"escaped bytes", capture, set(headerID, "a%FF"), "demo", "", "job_capture", notEscaped},
		{"raw bytes", capture, set(headerID, "a\xff"), "demo", "", "job_capture", notEscaped},

		{"no ce-time", capture, without(headerTime), "demo", id, "job_capture", notATime},
		{"a day", capture, set(headerTime, "2026-11-30"), "demo", id, "job_capture", notATime},
		{"no zone", capture, set(headerTime, "2026-11-30T23:59:59"), "demo", id, "job_capture", notATime},
		{"30 February", capture, set(headerTime, "2026-02-30T00:00:00Z"), "demo", id, "job_capture", notATime},
		{"year 10000 in UTC", capture, set(headerTime, "9999-12-31T23:59:59-00:01"), "demo", id, "job_capture", notATime},
		{"year -1 in UTC", capture, set(headerTime, "0000-01-01T00:00:00+00:01"), "demo", id, "job_capture", notATime},

		{"no ce-type", capture, without(headerType), "demo", id, "job_capture", "ce-type is missing"},
		{"empty ce-type", capture, set(headerType, ""), "demo", id, "job_capture", "ce-type is missing"},

		{"no data", capture, dataOf(""), "demo", id, "job_capture", notCapture},
		{"half the data", capture, dataOf(`{"month":"2026-11"`), "demo", id, "job_capture", notCapture},
		{"data and more", capture, dataOf(`{} {}`), "demo", id, "job_capture", notCapture},
		{"a list", capture, dataOf(`[]`), "demo", id, "job_capture", notCapture},
		{"bytes", open, dataOf("\xff\x00"), "demo", id, "account_open", notOpen},
		{"a number for a name", capture, replace(`"title":"Go `, `"title":7,"x":"`), "demo", id, "job_capture", notCapture},
		{"month 13", capture, replace(`"2026-11"`, `"2026-13"`), "demo", id, "job_capture", notCapture},
		{"month spelt otherwise", capture, replace(`"2026-11"`, `"2026-1"`), "demo", id, "job_capture", notCapture},
		{"half a payload hash", capture, replace(`"payload_hash":"`, `"payload_hash":"00`), "demo", id, "job_capture", notCapture},
		{"no month", capture, replace(`"month"`, `"mouth"`), "demo", id, "job_capture", needs},
		{"no canonical_url", capture, replace(`"canonical_url"`, `"canonical"`), "demo", id, "job_capture", needs},
		{"null", capture, dataOf("null"), "demo", id, "job_capture", needs},

		{"limit -2", open, replace(`"limit":50`, `"limit":-2`), "demo", id, "account_open", "limit -2: a limit is a number of captures, or -1 for unlimited"},
		{"limit -2 of a plan", plan, replace(`"limit":-1`, `"limit":-2`), "demo", id, "plan_change", "limit -2: a limit is a number of captures, or -1 for unlimited"},
		{"no plan", open, replace(`"plan":"free"`, `"plan":""`), "demo", id, "account_open", "a plan needs a name"},
		{"null as a plan", plan, dataOf("null"), "demo", id, "plan_change", "a plan needs a name"},
		{"half a limit", open, replace(`"limit":50`, `"limit":0.5`), "demo", id, "account_open", notOpen},
		{"limit beyond numbers", open, replace(`"limit":50`, `"limit":9223372036854775808`), "demo", id, "account_open", notOpen},
		{"no token_id", issue, replace(`"token_id"`, `"token"`), "demo", id, "token_issue", needsToken},
		{"no secret_hash", issue, replace(`"secret_hash"`, `"secret"`), "demo", id, "token_issue", needsToken},
		{"a secret", issue, replace(fixtureSecret.String(), "secret"), "demo", id, "token_issue", notToken},
		{"update of no job", TypeJobUpdateRequested, replace(`"job_id"`, `"job"`), "demo", id, "job_update", needsJob},
		{"update of version -2", TypeJobUpdateRequested, replace(`"if_version":2`, `"if_version":-2`), "demo", id, "job_update", needsJob},
		{"update of nothing", TypeJobUpdateRequested, dataOf(`{"job_id":"x"}`), "demo", id, "job_update", "an update needs changes"},
		{"update of the URL", TypeJobUpdateRequested, replace(`"notes"`, `"source_url"`), "demo", id, "job_update", "an update changes what cannot be changed"},
		{"update without a status", TypeJobUpdateRequested, replace(`"status":"applied"`, `"status":""`), "demo", id, "job_update", "title, company and status cannot be removed"},
		{"update to a number", TypeJobUpdateRequested, replace(`"status":"applied"`, `"status":7`), "demo", id, "job_update", "the data is not that of a jobtally.job.update_requested.v1"},
		{"deletion of no job", TypeJobDeleteRequested, dataOf(`{}`), "demo", id, "job_delete", needsJob},
		{"an expiry after the year 9999", issue, dataOf(`{"token_id":"t","secret_hash":"` + fixtureSecret.String() + `","expires_at":"9999-12-31T23:59:59-01:00"}`),
			"demo", id, "token_issue", "a token expires in one of the years 0 to 9999 in UTC"},
		{"an expiry that is none", issue, dataOf(`{"token_id":"t","secret_hash":"` + fixtureSecret.String() + `","expires_at":"never"}`),
			"demo", id, "token_issue", "the data is not that of a " + issue},
		{"nothing to revoke", revoke, dataOf(`{}`), "demo", id, "token_revoke", "a token needs token_id"},
	}
}

func TestMalformedRequests(t *testing.T) {
	for _, tt := range malformedCases() {
		t.Run(tt.name, func(t *testing.T) {
			_, m := requestFixtureOf(t, tt.of)
			m = m.clone()
			tt.change(&m)
			r, err := DecodeRequest(m, fixturePartition, fixturePartitions)
			if err != nil {
				t.Fatalf("error %v: a decision is due to bytes that cannot be read", err)
			}
			want := Request{
				Account: tt.account, ID: tt.id, Position: fixturePosition, Digest: requestDigest(m),
				Time: r.Time, Body: &Malformed{Kind: tt.kind, Reason: tt.reason},
			}
			if !reflect.DeepEqual(r, want) {
				t.Errorf("read\n%+v %+v\nwant\n%+v %+v", r, r.Body, want, want.Body)
			}
			if tt.reason == notATime && !r.Time.IsZero() {
				t.Errorf("the time is %s", r.Time)
			}
			checkRefusalCanBeWritten(t, &r)
		})
	}
}

// checkRefusalCanBeWritten fails unless the refusal of a malformed request is a decision that can be written and read
// back. One that cannot would stop its partition for ever.
func checkRefusalCanBeWritten(t *testing.T, r *Request) {
	t.Helper()
	malformed := r.Body.(*Malformed)
	d := Decision{
		Position: r.Position, Account: r.Account, RequestID: r.ID, Time: r.Time, RequestDigest: r.Digest,
		Body: &RequestRefused{Kind: malformed.Kind, Reason: ReasonMalformed, Detail: malformed.Reason},
	}
	d.Seal(Digest{})
	m := d.Message()
	for key, values := range m.Header {
		checkHeaderValue(t, key, values[0])
	}
	if got, err := DecodeDecision(m, r.Position.Partition); err != nil || !reflect.DeepEqual(got, d) {
		t.Errorf("the refusal\n%+v\nreads as\n%+v, %v", d, got, err)
	}
}

func TestUnknownTypeStops(t *testing.T) {
	for _, ceType := range []string{
		"jobtally.job.capture_requested.v2", "jobtally.month.close_requested.v2", "JOBTALLY.JOB.CAPTURE_REQUESTED.V1",
		TypeJobCaptured, // a decision is no request
		"x", "\xff",
	} {
		_, m := requestFixtureOf(t, TypeJobCaptureRequested)
		set(headerType, ceType)(&m)
		r, err := DecodeRequest(m, fixturePartition, fixturePartitions)
		if !errors.Is(err, ErrUnknownType) || r.Body != nil || r.Position != fixturePosition {
			t.Errorf("a request of type %q: %+v, %v, want ErrUnknownType", ceType, r, err)
		}
	}
	for _, ceType := range []string{"jobtally.job.captured.v2", TypeJobCaptureRequested, "", "\xff"} {
		m := decisionFixtures()[0].Message()
		set(headerType, ceType)(&m)
		if _, err := DecodeDecision(m, fixturePartition); !errors.Is(err, ErrUnknownType) {
			t.Errorf("a decision of type %q: %v, want ErrUnknownType", ceType, err)
		}
		if _, err := DecodeBody(ceType, m.Data); !errors.Is(err, ErrUnknownType) {
			t.Errorf("a body of type %q: %v, want ErrUnknownType", ceType, err)
		}
	}
}

// TestForeignWriters: a request may come from a writer that spells headers in its own way, adds attributes and fields,
// or leaves out what is not needed.
func TestForeignWriters(t *testing.T) {
	want, m := requestFixtureOf(t, TypeTokenRevokeRequested)
	set(headerTime, "2026-12-01T00:59:59.999000+01:00")(&m)
	set(headerID, `retry me: 50 %25 of "Gr%c3%bcße"`)(&m)
	set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")(&m)
	for _, key := range []string{headerSpecVersion, headerSource, headerSubject, headerContentType} {
		delete(m.Header, key)
	}
	m.Data = []byte(" {\"note\": {\"of\": [1]}, \"token_id\":\"tok\\u005f1\"}\n")
	want.Digest, want.Traceparent = requestDigest(m), m.Header[headerTraceparent][0]
	got, err := DecodeRequest(m, fixturePartition, fixturePartitions)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read\n%+v %+v, %v\nwant\n%+v %+v", got, got.Body, err, want, want.Body)
	}
}
