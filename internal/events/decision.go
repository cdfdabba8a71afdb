package events

import (
	"encoding/json"
	"fmt"
	"time"
)

// Decision is one message of DECISIONS_p: the answer to the request at the same position. It is self-contained:
// whoever folds or consumes it never needs the request.
type Decision struct {
	Position      Position
	Account       string
	RequestID     string
	Time          time.Time // of the request: a decision has no clock of its own
	RequestDigest Digest
	Body          DecisionBody

	// Data is Body as it is digested, stored and sent; Digest is the next link of the account's hash chain.
	// Seal sets both.
	Data   []byte
	Digest Digest

	// Traceparent is that of the request, where it had one and the decision was not appended again from a projection,
	// which does not keep it. It is in no digest.
	Traceparent string
}

// DecisionBody is what was decided: one of the types in this file.
type DecisionBody interface {
	// outcome returns the last token of the subject; decisionType the CloudEvents type.
	outcome() string
	decisionType() string
	// about names what the decision is about, the CloudEvents subject: a job id, a token id or nothing.
	about() string
}

// The CloudEvents types of decisions.
const (
	TypeJobCaptured          = "jobtally.job.captured.v1"
	TypeJobCaptureDuplicated = "jobtally.job.capture_duplicated.v1"
	TypeJobCaptureRejected   = "jobtally.job.capture_rejected.v1"
	TypeJobCaptureRepeated   = "jobtally.job.capture_repeated.v1"
	TypeJobUpdated           = "jobtally.job.updated.v1"
	TypeJobDeleted           = "jobtally.job.deleted.v1"
	TypeRequestRefused       = "jobtally.request.refused.v1"
	TypeAccountOpened        = "jobtally.account.opened.v1"
	TypePlanChanged          = "jobtally.plan.changed.v1"
	TypeTokenIssued          = "jobtally.token.issued.v1"
	TypeTokenRevoked         = "jobtally.token.revoked.v1"
	TypeMonthArchived        = "jobtally.month.archived.v1"
	TypeAccountErased        = "jobtally.account.erased.v1"
)

// Count is a month's count as a decision left it.
type Count struct {
	Month Month `json:"month"`
	Used  int64 `json:"used"`
	Limit int64 `json:"limit"` // -1 = unlimited
}

// Source says which posting a capture was about, and what its request looked like.
type Source struct {
	CanonicalURL string `json:"canonical_url"`
	SourceRules  int    `json:"source_rules"`
	PayloadHash  Digest `json:"payload_hash"`
}

// JobCaptured says that a job came into the tracker and was counted: Used is the count with it.
type JobCaptured struct {
	JobID string `json:"job_id"`
	Job   Job    `json:"job"`
	Source
	Count
	Threshold int `json:"threshold,omitempty"` // 80 or 100: the percentage of the limit just reached
}

// JobCaptureDuplicated says that the account's tracker has this posting already. Nothing was counted.
type JobCaptureDuplicated struct {
	JobID     string `json:"job_id"` // the job that is there
	SourceURL string `json:"source_url"`
	Source
	Count
}

// JobCaptureRejected says that the month's quota was used up. Nothing was counted.
type JobCaptureRejected struct {
	Reason    string `json:"reason"` // quota_exceeded
	SourceURL string `json:"source_url"`
	Source
	Count
	ResetDate string `json:"reset_date"` // the day from which on the count starts at 0 again
}

// JobCaptureRepeated says that a request with this id was decided before. Its answer is the one at First.
type JobCaptureRepeated struct {
	First Position `json:"first"`
	Month Month    `json:"month"`
}

// JobUpdated says that a job changed, and what it is now.
type JobUpdated struct {
	JobID        string   `json:"job_id"`
	Version      int64    `json:"version"` // a job is captured with version 1
	Job          Job      `json:"job"`
	CanonicalURL string   `json:"canonical_url"`
	Changed      []string `json:"changed"` // the fields that differ from the version before, in the order of a job's fields
}

// JobDeleted says that a job is no longer in the tracker. Its posting can be captured anew.
type JobDeleted struct {
	JobID        string `json:"job_id"`
	Version      int64  `json:"version"` // one more than its last
	CanonicalURL string `json:"canonical_url"`
}

// Reasons of RequestRefused, and of JobCaptureRejected.
const (
	ReasonQuotaExceeded        = "quota_exceeded"
	ReasonNotFound             = "not_found"
	ReasonVersionConflict      = "version_conflict"
	ReasonIdempotencyKeyReused = "idempotency_key_reused"
	ReasonMalformed            = "malformed"
	ReasonAccountUnknown       = "account_unknown"
	ReasonAccountExists        = "account_exists"
	ReasonTokenExists          = "token_exists"
	ReasonTokenUnknown         = "token_unknown"
	ReasonMonthNotOver         = "month_not_over"
	ReasonMonthNotNext         = "month_not_next"
)

// RequestRefused says that a request has no effect at all.
type RequestRefused struct {
	Kind   string `json:"kind"`   // of the request, as in its subject
	Reason string `json:"reason"` // one of the Reason constants
	Detail string `json:"detail"`
}

// AccountOpened says that the account exists from here on.
type AccountOpened struct {
	Plan  string `json:"plan"`
	Limit int64  `json:"limit"` // -1 = unlimited
	Who
}

// PlanChanged says which plan holds from the next decision on, and which held before.
type PlanChanged struct {
	Plan          string `json:"plan"`
	Limit         int64  `json:"limit"` // -1 = unlimited
	PreviousPlan  string `json:"previous_plan"`
	PreviousLimit int64  `json:"previous_limit"`
	Who
}

// TokenIssued says that a token is accepted from here on.
type TokenIssued struct {
	TokenID    string `json:"token_id"`
	SecretHash Digest `json:"secret_hash"`
	TokenTerms
	Who
}

// TokenRevoked says that a token is accepted no longer.
type TokenRevoked struct {
	TokenID string `json:"token_id"`
	Who
}

// Totals are the counts of a month: of one account, or of a partition.
type Totals struct {
	Requests   int64 `json:"requests"` // all that belong to the month, counted or not
	Captured   int64 `json:"captured"`
	Duplicated int64 `json:"duplicated"`
	Rejected   int64 `json:"rejected"`
	Repeated   int64 `json:"repeated"`

	// The positions of the first and the last of the requests; absent where there is none.
	First Position `json:"first,omitzero"`
	Last  Position `json:"last,omitzero"`
}

// MonthArchived says that a month of the partition is over: what comes later counts in the month after it. The totals do
// not include the closing itself. It is a link of the chain of the partition's months, and of no account.
type MonthArchived struct {
	Month Month `json:"month"`
	Totals
	Accounts int64  `json:"accounts"` // that have requests in the month
	Digest   Digest `json:"digest"`   // over the leaves of these accounts, in the order of their names
}

// AccountErased says that the account is forgotten: its requests and decisions before this one are removed, but for
// those of earlier erasures. What stays is its name and, so that the months it counted in can still be proved, its
// totals. Nothing before it is there to follow from: its chain begins with it.
type AccountErased struct {
	Requests int64         `json:"requests"` // that are removed, each with its decision
	Months   []ErasedMonth `json:"months"`   // in order
}

// ErasedMonth is what stays of a month of an erased account.
type ErasedMonth struct {
	Month Month `json:"month"`
	Totals
	Leaf Digest `json:"leaf"` // of the account in the digest of the month
}

func (*JobCaptured) outcome() string          { return "captured" }
func (*JobCaptureDuplicated) outcome() string { return "duplicated" }
func (*JobCaptureRejected) outcome() string   { return "rejected" }
func (*JobCaptureRepeated) outcome() string   { return "repeated" }
func (*JobUpdated) outcome() string           { return "updated" }
func (*JobDeleted) outcome() string           { return "deleted" }
func (*RequestRefused) outcome() string       { return "refused" }
func (*AccountOpened) outcome() string        { return "opened" }
func (*PlanChanged) outcome() string          { return "plan_changed" }
func (*TokenIssued) outcome() string          { return "token_issued" }
func (*TokenRevoked) outcome() string         { return "token_revoked" }
func (*MonthArchived) outcome() string        { return outcomeMonthArchived }
func (*AccountErased) outcome() string        { return outcomeErased }
func (*Erased) outcome() string               { return "" }

func (*JobCaptured) decisionType() string          { return TypeJobCaptured }
func (*JobCaptureDuplicated) decisionType() string { return TypeJobCaptureDuplicated }
func (*JobCaptureRejected) decisionType() string   { return TypeJobCaptureRejected }
func (*JobCaptureRepeated) decisionType() string   { return TypeJobCaptureRepeated }
func (*JobUpdated) decisionType() string           { return TypeJobUpdated }
func (*JobDeleted) decisionType() string           { return TypeJobDeleted }
func (*RequestRefused) decisionType() string       { return TypeRequestRefused }
func (*AccountOpened) decisionType() string        { return TypeAccountOpened }
func (*PlanChanged) decisionType() string          { return TypePlanChanged }
func (*TokenIssued) decisionType() string          { return TypeTokenIssued }
func (*TokenRevoked) decisionType() string         { return TypeTokenRevoked }
func (*MonthArchived) decisionType() string        { return TypeMonthArchived }
func (*AccountErased) decisionType() string        { return TypeAccountErased }
func (*Erased) decisionType() string               { return "" }

func (b *JobCaptured) about() string          { return b.JobID }
func (b *JobCaptureDuplicated) about() string { return b.JobID }
func (*JobCaptureRejected) about() string     { return "" }
func (*JobCaptureRepeated) about() string     { return "" }
func (b *JobUpdated) about() string           { return b.JobID }
func (b *JobDeleted) about() string           { return b.JobID }
func (*RequestRefused) about() string         { return "" }
func (*AccountOpened) about() string          { return "" }
func (*PlanChanged) about() string            { return "" }
func (b *TokenIssued) about() string          { return b.TokenID }
func (b *TokenRevoked) about() string         { return b.TokenID }
func (b *MonthArchived) about() string        { return string(b.Month) }
func (*AccountErased) about() string          { return "" }
func (*Erased) about() string                 { return "" }

// TypeOf returns the CloudEvents type of a decision with this body, such as jobtally.job.captured.v1.
func TypeOf(body DecisionBody) string { return body.decisionType() }

// OutcomeOf returns the last token of the subject of a decision with this body, such as captured.
func OutcomeOf(body DecisionBody) string { return body.outcome() }

// newDecisionBody returns an empty body for a CloudEvents type, or nil for a type that is not known.
func newDecisionBody(ceType string) DecisionBody {
	switch ceType {
	case TypeJobCaptured:
		return &JobCaptured{}
	case TypeJobCaptureDuplicated:
		return &JobCaptureDuplicated{}
	case TypeJobCaptureRejected:
		return &JobCaptureRejected{}
	case TypeJobCaptureRepeated:
		return &JobCaptureRepeated{}
	case TypeJobUpdated:
		return &JobUpdated{}
	case TypeJobDeleted:
		return &JobDeleted{}
	case TypeRequestRefused:
		return &RequestRefused{}
	case TypeAccountOpened:
		return &AccountOpened{}
	case TypePlanChanged:
		return &PlanChanged{}
	case TypeTokenIssued:
		return &TokenIssued{}
	case TypeTokenRevoked:
		return &TokenRevoked{}
	case TypeMonthArchived:
		return &MonthArchived{}
	case TypeAccountErased:
		return &AccountErased{}
	}
	return nil
}

// DecodeBody reads the data of a decision of the given CloudEvents type. The error is ErrUnknownType, or tells what
// of the data cannot be read.
func DecodeBody(ceType string, data []byte) (DecisionBody, error) {
	body := newDecisionBody(ceType)
	if body == nil {
		return nil, fmt.Errorf("%w %q", ErrUnknownType, ceType)
	}
	if err := json.Unmarshal(data, body); err != nil {
		return nil, fmt.Errorf("data of %s: %w", ceType, err)
	}
	return body, nil
}

// Seal writes Data and links the decision to the chain that ends in previous:
// digest = SHA-256(previous, request digest, decision without digest).
func (d *Decision) Seal(previous Digest) {
	d.Data = encode(d.Body)
	d.Digest = d.link(previous)
}

// Verify returns an error unless the decision is the link that follows previous in its account's chain.
func (d *Decision) Verify(previous Digest) error {
	if d.link(previous) != d.Digest {
		return fmt.Errorf("decision %s of account %s does not follow from the one before it: its digest differs", d.Position, d.Account)
	}
	return nil
}

func (d *Decision) link(previous Digest) Digest {
	return Hash(previous[:], d.RequestDigest[:], []byte(d.Position.String()), []byte(d.Account), []byte(d.RequestID),
		[]byte(formatTime(d.Time)), []byte(d.Body.decisionType()), d.Data)
}
