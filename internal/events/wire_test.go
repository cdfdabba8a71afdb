package events

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func drawText(t *rapid.T, label string) string {
	awkward := rapid.SampledFrom([]string{"", "<script>&amp;", "\u2028\u2029", "\x00\x1f\x7f", "\ufffd", `\u0041"`, "\ufeff", "🗼", "e\u0301"})
	return rapid.OneOf(rapid.String(), awkward).Draw(t, label)
}

func drawAccount(t *rapid.T) string {
	return rapid.StringMatching(`[a-z0-9_-]{1,64}`).Draw(t, "account")
}

func drawRequestID(t *rapid.T) string {
	printable := rapid.OneOf(rapid.Rune(), rapid.RuneFrom([]rune(` "%~ü`))).Filter(func(r rune) bool { return r >= ' ' && r != 0x7f })
	return rapid.StringOfN(printable, 1, -1, MaxRequestIDLength).Draw(t, "request id")
}

// drawTime draws an instant of the years 0 to 9999, those that RFC 3339 can write.
func drawTime(t *rapid.T, label string) time.Time {
	first, last := time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC).Unix(), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).Unix()
	nanoseconds := rapid.SampledFrom([]int64{0, 1, 500_000_000, 999_999_999}).Draw(t, label+" nanoseconds")
	return time.Unix(rapid.Int64Range(first, last).Draw(t, label), nanoseconds).UTC()
}

func drawMonth(t *rapid.T) Month { return MonthOf(drawTime(t, "month")) }

func drawLimit(t *rapid.T) int64 { return rapid.Int64Range(-1, math.MaxInt64).Draw(t, "limit") }

func drawDigest(t *rapid.T, label string) Digest {
	return Digest(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, label))
}

func drawPosition(t *rapid.T, partition int) Position {
	return Position{Partition: partition, Sequence: rapid.Uint64Range(1, math.MaxInt64).Draw(t, "sequence")}
}

func drawJob(t *rapid.T) Job {
	return Job{
		SourceURL: drawText(t, "source_url"), Title: drawText(t, "title"), Company: drawText(t, "company"),
		Location: drawText(t, "location"), Description: drawText(t, "description"), ApplicationURL: drawText(t, "application_url"),
		JobType: drawText(t, "job_type"), Notes: drawText(t, "notes"), Status: drawText(t, "status"), CapturedVia: drawText(t, "captured_via"),
	}
}

func drawNonEmpty(t *rapid.T, label string) string { return "x" + drawText(t, label) }

func drawWho(t *rapid.T) Who { return Who{By: drawText(t, "by"), Reason: drawText(t, "why")} }

func drawTerms(t *rapid.T) (terms TokenTerms) {
	terms = TokenTerms{Name: drawText(t, "name"), LastFour: drawText(t, "last four")}
	for range rapid.IntRange(0, 3).Draw(t, "scopes") {
		terms.Scopes = append(terms.Scopes, rapid.SampledFrom(Scopes()).Draw(t, "scope"))
	}
	if rapid.Bool().Draw(t, "expires") {
		terms.ExpiresAt = drawTime(t, "expires at")
	}
	return terms
}

// drawChanges draws what an update may ask for: at least one field.
func drawChanges(t *rapid.T) map[string]string {
	changes := map[string]string{"title": drawNonEmpty(t, "title")}
	for _, name := range EditableFields() {
		if rapid.Bool().Draw(t, name+" changes") {
			changes[name] = drawNonEmpty(t, name)
		}
	}
	if rapid.Bool().Draw(t, "notes are removed") {
		changes["notes"] = ""
	}
	return changes
}

func drawVersion(t *rapid.T) int64 { return rapid.Int64Min(0).Draw(t, "version") }

func drawRequestBody(t *rapid.T) RequestBody {
	switch rapid.IntRange(0, 6).Draw(t, "type of request") {
	case 0:
		return &AccountOpenRequested{Plan: drawNonEmpty(t, "plan"), Limit: drawLimit(t), Who: drawWho(t)}
	case 1:
		return &PlanChangeRequested{Plan: drawNonEmpty(t, "plan"), Limit: drawLimit(t), Who: drawWho(t)}
	case 2:
		return &TokenIssueRequested{
			TokenID: drawNonEmpty(t, "token"), SecretHash: Hash([]byte(drawText(t, "secret"))), TokenTerms: drawTerms(t), Who: drawWho(t),
		}
	case 3:
		return &TokenRevokeRequested{TokenID: drawNonEmpty(t, "token"), Who: drawWho(t)}
	case 4:
		return &JobUpdateRequested{JobID: drawNonEmpty(t, "job"), IfVersion: drawVersion(t), Changes: drawChanges(t)}
	case 5:
		return &JobDeleteRequested{JobID: drawNonEmpty(t, "job"), IfVersion: drawVersion(t)}
	}
	return &JobCaptureRequested{
		Month: drawMonth(t), Job: drawJob(t), CanonicalURL: drawNonEmpty(t, "canonical_url"),
		SourceRules: rapid.Int().Draw(t, "rules"), PayloadHash: Hash([]byte(drawText(t, "payload"))),
	}
}

func drawDecisionBody(t *rapid.T, partition int) DecisionBody {
	source := Source{CanonicalURL: drawText(t, "canonical_url"), SourceRules: rapid.Int().Draw(t, "rules"), PayloadHash: drawDigest(t, "payload")}
	count := Count{Month: drawMonth(t), Used: rapid.Int64Min(0).Draw(t, "used"), Limit: drawLimit(t)}
	switch rapid.IntRange(0, 10).Draw(t, "type of decision") {
	case 0:
		return &JobCaptureDuplicated{JobID: drawText(t, "job"), SourceURL: drawText(t, "url"), Source: source, Count: count}
	case 1:
		return &JobCaptureRejected{
			Reason: drawText(t, "reason"), SourceURL: drawText(t, "url"), Source: source, Count: count, ResetDate: drawText(t, "reset"),
		}
	case 2:
		return &JobCaptureRepeated{First: drawPosition(t, partition), Month: drawMonth(t)}
	case 3:
		return &RequestRefused{Kind: drawText(t, "kind"), Reason: drawText(t, "reason"), Detail: drawText(t, "detail")}
	case 4:
		return &AccountOpened{Plan: drawText(t, "plan"), Limit: drawLimit(t), Who: drawWho(t)}
	case 5:
		return &PlanChanged{
			Plan: drawText(t, "plan"), Limit: drawLimit(t), PreviousPlan: drawText(t, "previous"), PreviousLimit: drawLimit(t), Who: drawWho(t),
		}
	case 6:
		return &TokenIssued{TokenID: drawText(t, "token"), SecretHash: drawDigest(t, "secret"), TokenTerms: drawTerms(t), Who: drawWho(t)}
	case 7:
		return &TokenRevoked{TokenID: drawText(t, "token"), Who: drawWho(t)}
	case 8:
		return &JobUpdated{
			JobID: drawText(t, "job"), Version: drawVersion(t), Job: drawJob(t), CanonicalURL: source.CanonicalURL,
			Changed: rapid.SliceOf(rapid.SampledFrom(EditableFields())).Draw(t, "changed"),
		}
	case 9:
		return &JobDeleted{JobID: drawText(t, "job"), Version: drawVersion(t), CanonicalURL: source.CanonicalURL}
	}
	return &JobCaptured{
		JobID: drawText(t, "job"), Job: drawJob(t), Source: source, Count: count,
		Threshold: rapid.SampledFrom([]int{0, 80, 100}).Draw(t, "threshold"),
	}
}

// checkHeaderValue fails unless the value is what every NATS client and server carries unchanged.
func checkHeaderValue(t interface{ Fatalf(string, ...any) }, key, value string) {
	for _, c := range []byte(value) {
		if c < 0x21 || c > 0x7e {
			t.Fatalf("header %s: %q has the byte %#x", key, value, c)
		}
	}
}

func checkMessage(t *rapid.T, m Message) {
	for key, values := range m.Header {
		if key != strings.ToLower(key) || len(values) != 1 {
			t.Fatalf("header %s: %q, want a lower-case key with one value", key, values)
		}
		checkHeaderValue(t, key, values[0])
	}
	checkHeaderValue(t, "subject of the message", m.Subject)
	if strings.Count(m.Subject, ".") != 3 || strings.ContainsAny(m.Subject, "*>") {
		t.Fatalf("subject %q, want four tokens", m.Subject)
	}
	if !json.Valid(m.Data) || !utf8.Valid(m.Data) || m.Data[len(m.Data)-1] == '\n' {
		t.Fatalf("data %q is not one JSON value", m.Data)
	}
}

func TestRequestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		partitions := rapid.IntRange(1, 64).Draw(t, "partitions")
		r := Request{Account: drawAccount(t), ID: drawRequestID(t), Time: drawTime(t, "time"), Body: drawRequestBody(t)}
		m := r.Message(partitions)
		checkMessage(t, m)
		r.Position = drawPosition(t, PartitionOf(r.Account, partitions))
		r.Digest = requestDigest(m)
		m.Sequence = r.Position.Sequence
		got, err := DecodeRequest(m, r.Position.Partition, partitions)
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Fatalf("%s\n%s\nreads as\n%+v, %v\nwant\n%+v", m.Subject, m.Data, got, err, r)
		}
	})
}

func TestDecisionRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		partition := rapid.IntRange(0, 64).Draw(t, "partition")
		account := rapid.OneOf(rapid.Just(""), rapid.StringMatching(`[a-z0-9_-]{1,64}`)).Draw(t, "account")
		d := Decision{
			Position: drawPosition(t, partition), Account: account, RequestID: drawText(t, "request id"),
			Time: drawTime(t, "time"), RequestDigest: drawDigest(t, "request"), Body: drawDecisionBody(t, partition),
		}
		previous := drawDigest(t, "previous")
		d.Seal(previous)
		m := d.Message()
		checkMessage(t, m)
		got, err := DecodeDecision(m, partition)
		if err != nil || !reflect.DeepEqual(got, d) {
			t.Fatalf("%s\n%s\nreads as\n%+v, %v\nwant\n%+v", m.Subject, m.Data, got, err, d)
		}
		if err := got.Verify(previous); err != nil {
			t.Fatal(err)
		}
	})
}

// TestDecisionSubjects: decisions on captures and decisions on the account stand apart, and one that names no account
// stands where no account can.
func TestDecisionSubjects(t *testing.T) {
	want := map[string]string{
		TypeJobCaptured: "jobs.6.demo.captured", TypeJobCaptured + ".bare": "jobs.6.demo.captured",
		TypeJobCaptureDuplicated: "jobs.6.demo.duplicated", TypeJobCaptureRejected: "jobs.6.demo.rejected",
		TypeJobCaptureRepeated: "jobs.6.demo.repeated", TypeRequestRefused: "accounts.6.demo.refused",
		TypeRequestRefused + ".job": "jobs.6.demo.refused", TypeAccountOpened: "accounts.6.demo.opened",
		TypePlanChanged: "accounts.6.demo.plan_changed", TypeTokenIssued: "accounts.6.demo.token_issued",
		TypeTokenRevoked: "accounts.6.demo.token_revoked", TypeTokenIssued + ".admin": "accounts.6.demo.token_issued",
		TypeJobUpdated: "jobs.6.demo.updated", TypeJobUpdated + ".nothing": "jobs.6.demo.updated", TypeJobDeleted: "jobs.6.demo.deleted",
		TypeAccountOpened + ".who": "accounts.6.demo.opened", TypePlanChanged + ".who": "accounts.6.demo.plan_changed",
		TypeTokenIssued + ".terms": "accounts.6.demo.token_issued", TypeTokenRevoked + ".who": "accounts.6.demo.token_revoked",
		TypeMonthArchived: "accounts.6.~.month_archived", TypeAccountErased: "accounts.6.demo.erased",
	}
	for _, f := range decisionFixtures() {
		if got := f.Message().Subject; got != want[f.name] {
			t.Errorf("%s: subject %s, want %s", f.name, got, want[f.name])
		}
		if OutcomeOf(f.Body) != f.Message().Subject[strings.LastIndexByte(f.Message().Subject, '.')+1:] || !strings.HasPrefix(f.name, TypeOf(f.Body)) {
			t.Errorf("%s: outcome %s, type %s", f.name, OutcomeOf(f.Body), TypeOf(f.Body))
		}
	}
	nobody := Decision{Position: Position{3, 7}, Body: &RequestRefused{Reason: ReasonMalformed}}
	if got := nobody.Message().Subject; got != "accounts.3.~.refused" || ValidAccount("~") == nil {
		t.Errorf("a refusal to nobody stands at %s", got)
	}
}

func TestStreams(t *testing.T) {
	if got, want := Requests.Name(3), "REQUESTS_3"; got != want {
		t.Errorf("stream %s, want %s", got, want)
	}
	if got, want := Decisions.Name(12), "DECISIONS_12"; got != want {
		t.Errorf("stream %s, want %s", got, want)
	}
	if got, want := Requests.Subjects(3), []string{"requests.3.>"}; !reflect.DeepEqual(got, want) {
		t.Errorf("subjects %q, want %q", got, want)
	}
	if got, want := Decisions.Subjects(3), []string{"jobs.3.>", "accounts.3.>"}; !reflect.DeepEqual(got, want) {
		t.Errorf("subjects %q, want %q", got, want)
	}
}

// TestVocabulary: the values of a job's fields are part of the wire form; the first of each is what an absent one means.
func TestVocabulary(t *testing.T) {
	for got, want := range map[string]string{
		strings.Join(JobTypes(), " "):    "full_time part_time contract internship temporary freelance other",
		strings.Join(Statuses(), " "):    "saved applied interviewing offered rejected withdrawn",
		strings.Join(CapturedVia(), " "): "api extension",
	} {
		if got != want {
			t.Errorf("values %q, want %q", got, want)
		}
	}
}
