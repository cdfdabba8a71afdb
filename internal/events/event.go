package events

import (
	"regexp"
	"slices"
	"strings"
	"time"
)

// The CloudEvents types of what follows from a decision for an account's quota. They are no decisions: they are made of one
// for whoever is told of an account, and are in no stream.
const (
	TypeQuotaThresholdReached = "jobtally.quota.threshold_reached.v1"
	TypeQuotaReset            = "jobtally.quota.reset.v1"
)

// QuotaThresholdReached says that a capture brought the count to 80 or 100 percent of the limit.
type QuotaThresholdReached struct {
	Threshold int `json:"threshold"` // 80 or 100
	Count
	ResetDate string `json:"reset_date"` // the day from which on the count starts at 0 again
}

// QuotaReset says that a month is archived: nothing counts in it any more, and the one after it began at 0.
type QuotaReset struct {
	Month    Month `json:"month"` // in which captures count from now on
	Archived Month `json:"archived"`
}

// Event is what is told of an account: a decision on one of its jobs, or what follows from a decision for its quota. What an
// operator did with the account and its tokens is not told.
type Event struct {
	ID        string // of a decision its position; of what follows from one that, and what it is, as in 0-1234-threshold
	Position  Position
	Account   string
	Type      string
	Time      time.Time
	Subject   string // the job's id, or nothing
	RequestID string // of what led to it, or nothing
	Digest    Digest // of the decision itself; zero for what follows from it
	Data      []byte // JSON
}

// JobEventTypes returns the types of the events that are decisions on jobs.
func JobEventTypes() []string {
	return []string{
		TypeJobCaptured, TypeJobCaptureDuplicated, TypeJobCaptureRejected, TypeJobCaptureRepeated, TypeJobUpdated, TypeJobDeleted, TypeRequestRefused,
	}
}

// DecisionTypes returns the types of all decisions: those on jobs first.
func DecisionTypes() []string {
	return append(JobEventTypes(), TypeAccountOpened, TypePlanChanged, TypeTokenIssued, TypeTokenRevoked, TypeMonthArchived, TypeAccountErased)
}

// QuotaEventTypes returns the types of the events that follow for a quota.
func QuotaEventTypes() []string { return []string{TypeQuotaThresholdReached, TypeQuotaReset} }

var version = regexp.MustCompile(`\.v[0-9]+$`)

// IsOfType says whether a CloudEvents type is the one that is wanted, or, where that has no version, is one of its versions:
// jobtally.job.captured means jobtally.job.captured.v1 and whatever follows it.
func IsOfType(ceType, wanted string) bool {
	return ceType == wanted || strings.HasPrefix(ceType, wanted+".v") && version.ReplaceAllString(ceType, "") == wanted
}

// KnownEventType says whether there is an event of a type, with or without its version.
func KnownEventType(wanted string) bool {
	return slices.ContainsFunc(slices.Concat(JobEventTypes(), QuotaEventTypes()), func(t string) bool { return IsOfType(t, wanted) })
}

// JobEvent returns the event that a sealed decision is, if it is told to its account: if it is on a job.
func (d *Decision) JobEvent() (Event, bool) {
	if d.root() != jobsSubject {
		return Event{}, false
	}
	return Event{
		ID: d.Position.String(), Position: d.Position, Account: d.Account, Type: d.Body.decisionType(), Time: d.Time,
		Subject: d.Body.about(), RequestID: d.RequestID, Digest: d.Digest, Data: d.Data,
	}, true
}

// QuotaEvent returns what follows from a decision for the quota of an account, if anything does. The archiving of a month is
// for every account of the partition.
func (d *Decision) QuotaEvent(account string) (Event, bool) {
	switch b := d.Body.(type) {
	case *JobCaptured:
		if b.Threshold != 0 && d.Account == account {
			return d.follows(account, TypeQuotaThresholdReached, "threshold", &QuotaThresholdReached{
				Threshold: b.Threshold, Count: b.Count, ResetDate: b.Month.Next().Start().Format(time.DateOnly),
			}), true
		}
	case *MonthArchived:
		return d.follows(account, TypeQuotaReset, "reset", &QuotaReset{Month: b.Month.Next(), Archived: b.Month}), true
	}
	return Event{}, false
}

func (d *Decision) follows(account, ceType, what string, data any) Event {
	return Event{
		ID: d.Position.String() + "-" + what, Position: d.Position, Account: account, Type: ceType, Time: d.Time, Data: encode(data),
	}
}

// AppendJSON appends the event to b as one CloudEvent in the JSON format, on one line. Beside the attributes of CloudEvents
// it has position, account, requestid and digest, and timestamp, which is the time under the name that Standard Webhooks give it.
func (e *Event) AppendJSON(b []byte) []byte {
	at := formatTime(e.Time)
	b = appendMember(append(b, '{'), "specversion", "1.0")
	for _, member := range [...]struct{ name, value string }{
		{"id", e.ID}, {"source", sourceDecisions}, {"type", e.Type}, {"subject", e.Subject}, {"time", at}, {"timestamp", at},
		{"datacontenttype", contentType}, {attributePosition, e.Position.String()}, {"account", e.Account},
		{"requestid", strings.ToValidUTF8(e.RequestID, "\ufffd")}, {"digest", e.digest()},
	} {
		if member.value != "" {
			b = appendMember(append(b, ','), member.name, member.value)
		}
	}
	return append(append(append(b, `,"data":`...), e.Data...), '}')
}

func (e *Event) digest() string {
	if e.Digest == (Digest{}) {
		return ""
	}
	return e.Digest.String()
}
