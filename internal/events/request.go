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

// JobUpdateRequested asks for a job of the tracker to be changed.
type JobUpdateRequested struct {
	JobID     string `json:"job_id"`
	IfVersion int64  `json:"if_version,omitempty"` // the version that is to be changed; 0 is whichever there is
	// Changes has the new text of each field that is to change, by its JSON name; an optional field without text is removed.
	// Only the fields of EditableFields are known.
	Changes map[string]string `json:"changes"`
}

// JobDeleteRequested asks for a job to be taken out of the tracker. What it counted stays counted.
type JobDeleteRequested struct {
	JobID     string `json:"job_id"`
	IfVersion int64  `json:"if_version,omitempty"` // as of JobUpdateRequested
}

// Who says on whose behalf something is asked, and why.
type Who struct {
	By     string `json:"by,omitempty"`     // token:<id> of an administrator, or operator
	Reason string `json:"reason,omitempty"` // in the words of whoever asked
}

// AccountOpenRequested asks for a new account. The plan is resolved at the edge: Limit is what counts.
type AccountOpenRequested struct {
	Plan  string `json:"plan"`
	Limit int64  `json:"limit"` // captures a month, -1 = unlimited
	Who
}

// PlanChangeRequested asks for another plan, from the next decision on.
type PlanChangeRequested struct {
	Plan  string `json:"plan"`
	Limit int64  `json:"limit"` // captures a month, -1 = unlimited
	Who
}

// TokenIssueRequested asks for a token to be accepted. The secret itself never comes here.
type TokenIssueRequested struct {
	TokenID    string `json:"token_id"`
	SecretHash Digest `json:"secret_hash"` // SHA-256 of the whole token
	TokenTerms
	Who
}

// TokenTerms are what a token is issued with.
type TokenTerms struct {
	// Scopes are what the token may be used for. One that has neither ScopeJobsRead nor ScopeJobsWrite has both.
	Scopes    []string  `json:"scopes,omitempty"`
	Name      string    `json:"name,omitempty"`      // by which its owner knows it
	LastFour  string    `json:"last_four,omitempty"` // characters of the token, by which its owner tells it from others
	ExpiresAt time.Time `json:"expires_at,omitzero"` // from when on it is accepted no longer; zero is never
}

// The scopes of tokens.
const (
	ScopeJobsRead  = "jobs:read"  // read the jobs and the quota of its account
	ScopeJobsWrite = "jobs:write" // capture, update and delete jobs of its account
	ScopeAdmin     = "admin"      // act on any account
)

// Scopes returns every scope that a token may have.
func Scopes() []string { return []string{ScopeJobsRead, ScopeJobsWrite, ScopeAdmin} }

// TokenRevokeRequested asks for a token to be accepted no longer.
type TokenRevokeRequested struct {
	TokenID string `json:"token_id"`
	Who
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
	TypeJobUpdateRequested    = "jobtally.job.update_requested.v1"
	TypeJobDeleteRequested    = "jobtally.job.delete_requested.v1"
	TypeAccountOpenRequested  = "jobtally.account.open_requested.v1"
	TypePlanChangeRequested   = "jobtally.plan.change_requested.v1"
	TypeTokenIssueRequested   = "jobtally.token.issue_requested.v1"
	TypeTokenRevokeRequested  = "jobtally.token.revoke_requested.v1"
	TypeMonthCloseRequested   = "jobtally.month.close_requested.v1"
	TypeAccountEraseRequested = "jobtally.account.erase_requested.v1"
)

func (*JobCaptureRequested) requestKind() string   { return "job_capture" }
func (*JobUpdateRequested) requestKind() string    { return "job_update" }
func (*JobDeleteRequested) requestKind() string    { return "job_delete" }
func (*AccountOpenRequested) requestKind() string  { return kindAccountOpen }
func (*PlanChangeRequested) requestKind() string   { return "plan_change" }
func (*TokenIssueRequested) requestKind() string   { return "token_issue" }
func (*TokenRevokeRequested) requestKind() string  { return "token_revoke" }
func (*MonthCloseRequested) requestKind() string   { return kindMonthClose }
func (*AccountEraseRequested) requestKind() string { return kindAccountErase }
func (m *Malformed) requestKind() string           { return m.Kind }
func (*Erased) requestKind() string                { return "" }

func (*JobCaptureRequested) requestType() string   { return TypeJobCaptureRequested }
func (*JobUpdateRequested) requestType() string    { return TypeJobUpdateRequested }
func (*JobDeleteRequested) requestType() string    { return TypeJobDeleteRequested }
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
	case TypeJobUpdateRequested:
		return &JobUpdateRequested{}
	case TypeJobDeleteRequested:
		return &JobDeleteRequested{}
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
