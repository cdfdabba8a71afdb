package client

import (
	"fmt"
	"time"
)

// Code names a kind of problem for ever. It is an error, so that errors.Is(err, client.QuotaExceeded) tells a problem by it.
type Code string

// The codes that callers tell apart. There are others: those of requests that are wrong in themselves say so in their Detail.
const (
	InvalidRequest       Code = "invalid_request"
	TokenMissing         Code = "token_missing"
	TokenMalformed       Code = "token_malformed"
	TokenUnknown         Code = "token_unknown"
	TokenRevoked         Code = "token_revoked"
	TokenExpired         Code = "token_expired"
	ScopeMissing         Code = "scope_missing"
	QuotaExceeded        Code = "quota_exceeded"
	JobNotFound          Code = "job_not_found"
	CaptureNotFound      Code = "capture_not_found"
	MonthNotFound        Code = "month_not_found"
	TokenNotFound        Code = "token_not_found"
	AccountUnknown       Code = "account_unknown"
	AccountExists        Code = "account_exists"
	VersionConflict      Code = "version_conflict"
	IdempotencyKeyReused Code = "idempotency_key_reused"
	RateLimited          Code = "rate_limited"
	TooManyAtOnce        Code = "too_many_requests_at_once"
	LedgerUnavailable    Code = "ledger_unavailable"
	OutcomeUnknown       Code = "outcome_unknown"
	PositionNotReached   Code = "position_not_reached"
	Interrupted          Code = "interrupted"
	NotReady             Code = "not_ready"

	WebhookNotFound        Code = "webhook_not_found"
	TooManyWebhooks        Code = "too_many_webhooks"
	WebhookTestRunning     Code = "webhook_test_running"
	WebhookVersionConflict Code = "webhook_version_conflict"
	WebhooksUnavailable    Code = "webhooks_unavailable"
)

// Error returns the code.
func (c Code) Error() string { return string(c) }

// Problem is what the service answers instead of what was asked for: problem details (RFC 9457).
type Problem struct {
	Type   string       `json:"type"`
	Title  string       `json:"title"`
	Status int          `json:"status"`
	Detail string       `json:"detail"`
	Code   Code         `json:"code"`             // empty where something between answered, such as a proxy
	Errors []FieldError `json:"errors,omitempty"` // of invalid_request

	// Of quota_exceeded: the quota, and where the answer stands in the ledger.
	Used      int64    `json:"used"`
	Limit     int64    `json:"limit"`
	Remaining int64    `json:"remaining"`
	ResetDate string   `json:"reset_date"`
	Receipt   *Receipt `json:"receipt,omitempty"`

	Version int64 `json:"version,omitempty"` // of version_conflict and webhook_version_conflict: the version that there is

	RequestID  string        `json:"-"` // by which the service's log knows the call
	RetryAfter time.Duration `json:"-"` // how long the service asks to wait; 0 where it does not
}

// FieldError says what is wrong with a field.
type FieldError struct {
	Field  string `json:"field"`
	Detail string `json:"detail"`
}

// Error returns status, code and detail.
func (p *Problem) Error() string {
	if p.Code == "" {
		return fmt.Sprintf("jobtally: %d %s: %s", p.Status, p.Title, p.Detail)
	}
	return fmt.Sprintf("jobtally: %d %s: %s", p.Status, p.Code, p.Detail)
}

// Is says whether target is the code of the problem.
func (p *Problem) Is(target error) bool {
	code, is := target.(Code)
	return is && code == p.Code
}
