package events

import "time"

// MaxRequestIDLength is the longest request id, in bytes.
const MaxRequestIDLength = 255

// Request is one message of REQUESTS_p: something that was asked. It carries everything that the decision needs,
// so that deciding it again in ten years gives the same answer.
type Request struct {
	Account string    // of this partition; empty where the message names none such, or asks for no account
	ID      string    // the idempotency key: unique in the account, chosen by the client or at the edge
	Time    time.Time // the one clock reading of the request, UTC
	Body    RequestBody

	// Position and Digest are known once the request is in the ledger: DecodeRequest sets them.
	Position Position
	Digest   Digest

	// Traceparent is the trace that it belongs to, a ValidTraceparent, or empty. It is in no digest.
	Traceparent string
}

// RequestBody is what is asked: one of the types in this file.
type RequestBody interface {
	// requestKind returns the last token of the subject; requestType the CloudEvents type.
	requestKind() string
	requestType() string
}

// JobCaptureRequested asks for a job to be put into the account's tracker.
type JobCaptureRequested struct {
	Month        Month  `json:"month"` // the UTC month of the request's time
	Job          Job    `json:"job"`
	CanonicalURL string `json:"canonical_url"` // the key under which the account knows the job
	SourceRules  int    `json:"source_rules"`  // the version of the rules that made CanonicalURL
	PayloadHash  Digest `json:"payload_hash"`  // of the job as asked for: tells a retry from a reused key
}

// AccountOpenRequested asks for a new account. The plan is resolved at the edge: Limit is what counts.
type AccountOpenRequested struct {
	Plan  string `json:"plan"`
	Limit int64  `json:"limit"` // captures a month, -1 = unlimited
}

// PlanChangeRequested asks for another plan, from the next decision on.
type PlanChangeRequested struct {
	Plan  string `json:"plan"`
	Limit int64  `json:"limit"` // captures a month, -1 = unlimited
}

// TokenIssueRequested asks for a token to be accepted. The secret itself never comes here.
type TokenIssueRequested struct {
	TokenID    string `json:"token_id"`
	SecretHash Digest `json:"secret_hash"` // SHA-256 of the whole token
	// Scopes is what the token may be used for beyond the jobs and the quota of its account: ScopeAdmin, or nothing.
	Scopes []string `json:"scopes,omitempty"`
}

// ScopeAdmin lets a token act on any account.
const ScopeAdmin = "admin"

// TokenRevokeRequested asks for a token to be accepted no longer.
type TokenRevokeRequested struct {
	TokenID string `json:"token_id"`
}

// MonthCloseRequested asks for the month of the partition to be archived. It is the projector's own, of no account.
type MonthCloseRequested struct {
	Month Month `json:"month"`
}

// AccountEraseRequested asks for the account to be forgotten: everything that was asked and decided of it so far.
type AccountEraseRequested struct{}

// Malformed stands for a message that cannot be read as a request. It is made by DecodeRequest and never written.
type Malformed struct {
	Kind   string // the last token of the subject
	Reason string // why it cannot be read
}

// Erased stands for a request or a decision that was erased with its account: a number to which there is no message any
// more. It is made by DecodeRequest and DecodeDecision of a void, and never written.
type Erased struct{}

// The CloudEvents types of requests.
const (
	TypeJobCaptureRequested   = "jobtally.job.capture_requested.v1"
	TypeAccountOpenRequested  = "jobtally.account.open_requested.v1"
	TypePlanChangeRequested   = "jobtally.plan.change_requested.v1"
	TypeTokenIssueRequested   = "jobtally.token.issue_requested.v1"
	TypeTokenRevokeRequested  = "jobtally.token.revoke_requested.v1"
	TypeMonthCloseRequested   = "jobtally.month.close_requested.v1"
	TypeAccountEraseRequested = "jobtally.account.erase_requested.v1"
)

func (*JobCaptureRequested) requestKind() string   { return "job_capture" }
func (*AccountOpenRequested) requestKind() string  { return kindAccountOpen }
func (*PlanChangeRequested) requestKind() string   { return "plan_change" }
func (*TokenIssueRequested) requestKind() string   { return "token_issue" }
func (*TokenRevokeRequested) requestKind() string  { return "token_revoke" }
func (*MonthCloseRequested) requestKind() string   { return kindMonthClose }
func (*AccountEraseRequested) requestKind() string { return kindAccountErase }
func (m *Malformed) requestKind() string           { return m.Kind }
func (*Erased) requestKind() string                { return "" }

func (*JobCaptureRequested) requestType() string   { return TypeJobCaptureRequested }
func (*AccountOpenRequested) requestType() string  { return TypeAccountOpenRequested }
func (*PlanChangeRequested) requestType() string   { return TypePlanChangeRequested }
func (*TokenIssueRequested) requestType() string   { return TypeTokenIssueRequested }
func (*TokenRevokeRequested) requestType() string  { return TypeTokenRevokeRequested }
func (*MonthCloseRequested) requestType() string   { return TypeMonthCloseRequested }
func (*AccountEraseRequested) requestType() string { return TypeAccountEraseRequested }
func (*Malformed) requestType() string             { return "" }
func (*Erased) requestType() string                { return "" }

// KindOf returns the last token of the subject of a request with this body, such as job_capture.
func KindOf(body RequestBody) string { return body.requestKind() }

// newRequestBody returns an empty body for a CloudEvents type, or nil for a type that is not known.
func newRequestBody(ceType string) RequestBody {
	switch ceType {
	case TypeJobCaptureRequested:
		return &JobCaptureRequested{}
	case TypeAccountOpenRequested:
		return &AccountOpenRequested{}
	case TypePlanChangeRequested:
		return &PlanChangeRequested{}
	case TypeTokenIssueRequested:
		return &TokenIssueRequested{}
	case TypeTokenRevokeRequested:
		return &TokenRevokeRequested{}
	case TypeMonthCloseRequested:
		return &MonthCloseRequested{}
	case TypeAccountEraseRequested:
		return &AccountEraseRequested{}
	}
	return nil
}
