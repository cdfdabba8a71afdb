package events

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// The ledger of the fixtures: demo lies in partition 6 of 16.
const (
	fixtureAccount    = "demo"
	fixturePartition  = 6
	fixturePartitions = 16
)

var (
	fixtureTime     = time.Date(2026, 11, 30, 23, 59, 59, 999_000_000, time.UTC)
	fixturePosition = Position{Partition: fixturePartition, Sequence: 1234}
	fixturePayload  = Hash([]byte("payload"))
	fixtureSecret   = Hash([]byte("secret"))
	fixturePrevious = Hash([]byte("the decision before"))
	fixtureTerms    = TokenTerms{
		Scopes: []string{ScopeJobsRead, ScopeAdmin}, Name: "Anna's <laptop>", LastFour: "x7Zz",
		ExpiresAt: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	fixtureWho    = Who{By: "token:0123456789AB", Reason: "paid for a year & more"}
	fixtureTotals = Totals{
		Requests: 11, Captured: 5, Duplicated: 3, Rejected: 2, Repeated: 1,
		First: Position{Partition: fixturePartition, Sequence: 7}, Last: Position{Partition: fixturePartition, Sequence: 1233},
	}
)

// fullJob has a value in every field, with the characters that JSON, HTML and UTF-8 treat in their own ways.
func fullJob() Job {
	return Job{
		SourceURL: "http://Example.com/jobs/1?utm_source=x&b=2", Title: `Go "Engineer" <m/w/d> & Co`, Company: "Łódź Söhne",
		Location: "東京 🗼", Description: "line one\nline two\ttabbed \\ slash \u2028 separated", ApplicationURL: "https://example.com/apply",
		JobType: "full_time", Notes: "call back", Status: "applied", CapturedVia: "extension",
	}
}

func bareJob() Job {
	return Job{SourceURL: "https://example.com/jobs/2", Title: "Clerk", Status: "saved", CapturedVia: "api"}
}

// requestFixture is a request with its golden file's name.
type requestFixture struct {
	name string
	Request
}

// requestFixtures returns a request of each type, as DecodeRequest gives it.
func requestFixtures() []requestFixture {
	bodies := []struct {
		name string
		body RequestBody
	}{

		{TypeJobCaptureRequested, &JobCaptureRequested{
			Month: "2026-11", Job: fullJob(), CanonicalURL: "https://example.com/jobs/1?b=2", SourceRules: 1, PayloadHash: fixturePayload,
		}},
		{TypeJobCaptureRequested + ".bare", &JobCaptureRequested{
			Month: "2026-11", Job: bareJob(), CanonicalURL: "https://example.com/jobs/2", SourceRules: 1, PayloadHash: fixturePayload,
		}},
		{TypeAccountOpenRequested, &AccountOpenRequested{Plan: "free", Limit: 50}},
		{TypePlanChangeRequested, &PlanChangeRequested{Plan: "pro", Limit: -1}},
		{TypeTokenIssueRequested, &TokenIssueRequested{TokenID: "tok_1", SecretHash: fixtureSecret}},
		{TypeTokenRevokeRequested, &TokenRevokeRequested{TokenID: "tok_1"}},
		{TypeMonthCloseRequested, &MonthCloseRequested{Month: "2026-11"}},
		{TypeAccountEraseRequested, &AccountEraseRequested{}},
		{TypeTokenIssueRequested + ".admin", &TokenIssueRequested{TokenID: "tok_1", SecretHash: fixtureSecret, TokenTerms: TokenTerms{Scopes: []string{ScopeAdmin}}}},
		{TypeTokenIssueRequested + ".terms", &TokenIssueRequested{TokenID: "tok_1", SecretHash: fixtureSecret, TokenTerms: fixtureTerms, Who: fixtureWho}},
		{TypeTokenRevokeRequested + ".who", &TokenRevokeRequested{TokenID: "tok_1", Who: fixtureWho}},
		{TypeAccountOpenRequested + ".who", &AccountOpenRequested{Plan: "free", Limit: 50, Who: fixtureWho}},
		{TypePlanChangeRequested + ".who", &PlanChangeRequested{Plan: "custom", Limit: 7, Who: fixtureWho}},
		{TypeJobUpdateRequested, &JobUpdateRequested{
			JobID: "job_mfrggzdfmztwq2lknnwg23tp", IfVersion: 2, Changes: map[string]string{"status": "applied", "notes": "", "title": `Go "Engineer" <m/w/d> & Co`},
		}},
		{TypeJobUpdateRequested + ".any", &JobUpdateRequested{JobID: "job_mfrggzdfmztwq2lknnwg23tp", Changes: map[string]string{"status": "applied"}}},
		{TypeJobDeleteRequested, &JobDeleteRequested{JobID: "job_mfrggzdfmztwq2lknnwg23tp", IfVersion: 3}},
		{TypeJobDeleteRequested + ".any", &JobDeleteRequested{JobID: "job_mfrggzdfmztwq2lknnwg23tp"}},
	}
	var fixtures []requestFixture
	for _, b := range bodies {
		r := Request{Account: fixtureAccount, ID: "retry me: 50 % of \"Grüße\"", Time: fixtureTime, Body: b.body, Position: fixturePosition}
		if b.name == TypeMonthCloseRequested {
			r.Account = ""
		}
		r.Digest = requestDigest(r.Message(fixturePartitions))
		fixtures = append(fixtures, requestFixture{b.name, r})
	}
	return fixtures
}

// decisionFixture is a decision with its golden file's name.
type decisionFixture struct {
	name string
	Decision
}

// decisionFixtures returns a sealed decision of each type, on the request fixtures. The digest of the first request
// stands in all of them, so that the golden files pin it too.
func decisionFixtures() []decisionFixture {
	source := Source{CanonicalURL: "https://example.com/jobs/1?b=2", SourceRules: 1, PayloadHash: fixturePayload}
	bodies := []struct {
		name string
		body DecisionBody
	}{
		{TypeJobCaptured, &JobCaptured{
			JobID: "job_mfrggzdfmztwq2lknnwg23tp", Job: fullJob(), Source: source, Count: Count{"2026-11", 40, 50}, Threshold: 80,
		}},
		{TypeJobCaptured + ".bare", &JobCaptured{
			JobID: "job_mfrggzdfmztwq2lknnwg23tp", Job: bareJob(), Source: source, Count: Count{"2026-11", 1, -1},
		}},
		{TypeJobCaptureDuplicated, &JobCaptureDuplicated{
			JobID: "job_mfrggzdfmztwq2lknnwg23tp", SourceURL: "https://example.com/jobs/1?b=2&utm_source=y", Source: source, Count: Count{"2026-11", 50, 50},
		}},
		{TypeJobCaptureRejected, &JobCaptureRejected{
			Reason: ReasonQuotaExceeded, SourceURL: "https://example.com/jobs/1?b=2", Source: source, Count: Count{"2026-11", 50, 50}, ResetDate: "2026-12-01",
		}},
		{TypeJobCaptureRepeated, &JobCaptureRepeated{First: Position{Partition: fixturePartition, Sequence: 7}, Month: "2026-11"}},
		{TypeRequestRefused, &RequestRefused{Kind: "plan_change", Reason: ReasonAccountUnknown, Detail: "account demo was never opened"}},
		{TypeRequestRefused + ".job", &RequestRefused{Kind: "job_capture", Reason: ReasonMalformed, Detail: "ce-type is missing"}},
		{TypeAccountOpened, &AccountOpened{Plan: "free", Limit: 50}},
		{TypePlanChanged, &PlanChanged{Plan: "pro", Limit: -1, PreviousPlan: "free", PreviousLimit: 50}},
		{TypeTokenIssued, &TokenIssued{TokenID: "tok_1", SecretHash: fixtureSecret}},
		{TypeTokenRevoked, &TokenRevoked{TokenID: "tok_1"}},
		{TypeTokenIssued + ".admin", &TokenIssued{TokenID: "tok_1", SecretHash: fixtureSecret, TokenTerms: TokenTerms{Scopes: []string{ScopeAdmin}}}},
		{TypeTokenIssued + ".terms", &TokenIssued{TokenID: "tok_1", SecretHash: fixtureSecret, TokenTerms: fixtureTerms, Who: fixtureWho}},
		{TypeTokenRevoked + ".who", &TokenRevoked{TokenID: "tok_1", Who: fixtureWho}},
		{TypeAccountOpened + ".who", &AccountOpened{Plan: "free", Limit: 50, Who: fixtureWho}},
		{TypePlanChanged + ".who", &PlanChanged{Plan: "custom", Limit: 7, PreviousPlan: "free", PreviousLimit: 50, Who: fixtureWho}},
		{TypeJobUpdated, &JobUpdated{
			JobID: "job_mfrggzdfmztwq2lknnwg23tp", Version: 3, Job: fullJob(), CanonicalURL: "https://example.com/jobs/1?b=2", Changed: []string{"title", "notes", "status"},
		}},
		{TypeJobUpdated + ".nothing", &JobUpdated{
			JobID: "job_mfrggzdfmztwq2lknnwg23tp", Version: 2, Job: bareJob(), CanonicalURL: "https://example.com/jobs/2", Changed: []string{},
		}},
		{TypeJobDeleted, &JobDeleted{JobID: "job_mfrggzdfmztwq2lknnwg23tp", Version: 4, CanonicalURL: "https://example.com/jobs/1?b=2"}},
		{TypeMonthArchived, &MonthArchived{Month: "2026-11", Totals: fixtureTotals, Accounts: 3, Digest: Hash([]byte("leaves"))}},
		{TypeAccountErased, &AccountErased{Requests: 11, Months: []ErasedMonth{{Month: "2026-11", Totals: fixtureTotals, Leaf: Hash([]byte("leaf"))}}}},
	}
	request := requestFixtures()[0].Request
	var fixtures []decisionFixture
	for _, b := range bodies {
		d := Decision{
			Position: request.Position, Account: request.Account, RequestID: request.ID, Time: request.Time,
			RequestDigest: request.Digest, Body: b.body,
		}
		if b.name == TypeMonthArchived {
			d.Account = ""
		}
		d.Seal(fixturePrevious)
		fixtures = append(fixtures, decisionFixture{b.name, d})
	}
	return fixtures
}

// requestFixtureOf returns the first fixture of a type, and its message.
func requestFixtureOf(tb testing.TB, ceType string) (Request, Message) {
	tb.Helper()
	for _, f := range requestFixtures() {
		if f.Body.requestType() == ceType {
			m := f.Message(fixturePartitions)
			m.Sequence = f.Position.Sequence
			return f.Request, m
		}
	}
	tb.Fatalf("no fixture of type %s", ceType)
	return Request{}, Message{}
}

// text writes a message as the golden files hold it: the subject, the headers by name, an empty line, the data.
func (m Message) text() []byte {
	var b bytes.Buffer
	fmt.Fprintln(&b, m.Subject)
	for _, key := range slices.Sorted(maps.Keys(m.Header)) {
		for _, value := range m.Header[key] {
			fmt.Fprintf(&b, "%s: %s\n", key, value)
		}
	}
	fmt.Fprintf(&b, "\n%s\n", m.Data)
	return b.Bytes()
}

// parseText reads what text writes. The sequence is not in it.
func parseText(tb testing.TB, golden []byte) Message {
	tb.Helper()
	head, data, ok := strings.Cut(string(golden), "\n\n")
	if !ok || !strings.HasSuffix(data, "\n") {
		tb.Fatal("a golden file has a head, an empty line, and data that ends with a line feed")
	}
	lines := strings.Split(head, "\n")
	m := Message{Subject: lines[0], Header: map[string][]string{}, Data: []byte(strings.TrimSuffix(data, "\n"))}
	for _, line := range lines[1:] {
		key, value, ok := strings.Cut(line, ": ")
		if !ok {
			tb.Fatalf("not a header: %q", line)
		}
		m.Header[key] = append(m.Header[key], value)
	}
	return m
}

// clone returns a message that shares nothing with m.
func (m Message) clone() Message {
	m.Data = bytes.Clone(m.Data)
	header := map[string][]string{}
	for key, values := range m.Header {
		header[key] = slices.Clone(values)
	}
	m.Header = header
	return m
}
