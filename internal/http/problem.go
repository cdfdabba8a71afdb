package http

import (
	"context"
	"errors"
	"fmt"
	nethttp "net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"jobtally/internal/events"
	"jobtally/internal/webhook"
)

// code names a kind of problem for ever: clients match it.
type code string

const (
	codeInvalidRequest        code = "invalid_request"
	codeInvalidIdempotencyKey code = "invalid_idempotency_key"
	codeInvalidPosition       code = "invalid_position"
	codeInvalidMonth          code = "invalid_month"
	codeInvalidETag           code = "invalid_etag"
	codeMalformed             code = events.ReasonMalformed
	codeTokenMissing          code = "token_missing"
	codeTokenMalformed        code = "token_malformed"
	codeTokenUnknown          code = "token_unknown"
	codeTokenRevoked          code = "token_revoked"
	codeTokenExpired          code = "token_expired"
	codeScopeMissing          code = "scope_missing"
	codeQuotaExceeded         code = events.ReasonQuotaExceeded
	codeNotFound              code = "not_found"
	codeJobNotFound           code = "job_not_found"
	codeCaptureNotFound       code = "capture_not_found"
	codeMonthNotFound         code = "month_not_found"
	codeAccountUnknown        code = events.ReasonAccountUnknown
	codeTokenNotFound         code = "token_not_found"
	codeAccountExists         code = events.ReasonAccountExists
	codeMethodNotAllowed      code = "method_not_allowed"
	codeVersionConflict       code = events.ReasonVersionConflict
	codePositionPruned        code = "position_pruned"
	codeBodyTooLarge          code = "body_too_large"
	codeUnsupportedMediaType  code = "unsupported_media_type"
	codeIdempotencyKeyReused  code = events.ReasonIdempotencyKeyReused
	codeMonthTooLarge         code = "month_too_large"
	codeRateLimited           code = "rate_limited"
	codeTooManyRequestsAtOnce code = "too_many_requests_at_once"
	codeTooManyStreams        code = "too_many_streams"
	codeInternal              code = "internal"
	codeRequestRefused        code = "request_refused"
	codeLedgerUnavailable     code = "ledger_unavailable"
	codeOutcomeUnknown        code = "outcome_unknown"
	codePositionNotReached    code = "position_not_reached"
	codeInterrupted           code = "interrupted"
	codeNotReady              code = "not_ready"
	codeReplayUnavailable     code = "replay_unavailable"
	codeWebhookNotFound       code = "webhook_not_found"
	codeTooManyWebhooks       code = "too_many_webhooks"
	codeWebhookTestRunning    code = "webhook_test_running"
	codeWebhookChanged        code = "webhook_version_conflict"
	codeWebhooksUnavailable   code = "webhooks_unavailable"
)

const (
	typePrefix         = "urn:jobtally:problem:" // and the code
	problemContentType = "application/problem+json"
	retryAfter         = "1" // second
	retryReplayAfter   = "5" // seconds: a replay takes longer than anything else
)

// kind is what all problems of one code share. The detail is for problems that have none of their own.
type kind struct {
	status int
	title  string
	detail string
}

// kinds is every problem there is. A 429 and a 503 carry Retry-After; a 401, and a token without the scope, WWW-Authenticate.
var kinds = map[code]kind{
	codeInvalidRequest:        {400, "The request is not valid", ""},
	codeInvalidIdempotencyKey: {400, "The Idempotency-Key is not valid", ""},
	codeInvalidPosition:       {400, "The position is not valid", "a position looks like 0-1234, <partition>-<sequence>"},
	codeInvalidMonth:          {400, "The month is not valid", "a month looks like 2026-11"},
	codeInvalidETag:           {400, "The If-Match header is not valid", `If-Match is *, or a list of entity tags such as "3"`},
	codeMalformed:             {400, "The request could not be read", ""},
	codeTokenMissing:          {401, "A token is needed", "send Authorization: Bearer <token>"},
	codeTokenMalformed:        {401, "The token is not well-formed", ""},
	codeTokenUnknown:          {401, "The token is not known", "no such token was issued"},
	codeTokenRevoked:          {401, "The token is revoked", "the token is accepted no longer; ask for a new one"},
	codeTokenExpired:          {401, "The token has expired", "the token is accepted no longer; ask for a new one"},
	codeScopeMissing:          {403, "The token lacks a scope", "this call needs a token of another scope"},
	codeQuotaExceeded:         {403, "The quota of the month is used up", ""},
	codeNotFound:              {404, "Not found", "nothing is served under this path"},
	codeJobNotFound:           {404, "No such job", "the account has no job with this id"},
	codeCaptureNotFound:       {404, "No such capture", "the account has no capture at this position"},
	codeMonthNotFound:         {404, "No such month", ""},
	codeAccountUnknown:        {404, "No such account", "the account of the token is not open"},
	codeTokenNotFound:         {404, "No such token", "the account has no token with this id"},
	codeAccountExists:         {409, "The account is open already", "there is an account of this name; nothing was changed"},
	codeMethodNotAllowed:      {405, "Method not allowed", "the Allow header lists the methods of this path"},
	codePositionPruned:        {410, "What comes after the position is gone", ""},
	codeVersionConflict:       {412, "The job has another version", ""},
	codeBodyTooLarge:          {413, "The body is too large", ""},
	codeUnsupportedMediaType:  {415, "Unsupported media type", ""},
	codeIdempotencyKeyReused: {422, "The Idempotency-Key was used for something else",
		"a capture of another job was sent with this key before; nothing was recorded for this one"},
	codeMonthTooLarge: {422, "The month is too large", ""},
	codeRateLimited: {429, "Too many requests",
		"more requests come from this token or address than are taken in a second; this is not the quota of the month"},
	codeTooManyRequestsAtOnce: {429, "Too many requests at once",
		"wait for the answers to the requests of this token or address that are under way; this is not the quota of the month"},
	codeTooManyStreams: {429, "Too many streams of events",
		"end one of the streams of this token, or have one told on to all who want it"},
	codeInternal:       {500, "Internal error", "the service failed; its log has the cause under the X-Request-Id of this answer"},
	codeRequestRefused: {500, "The request was refused", ""},
	codeLedgerUnavailable: {503, "The ledger takes no requests right now",
		"nothing was recorded; send the request again later"},
	codeOutcomeUnknown: {503, "It is not known whether the request was recorded",
		"the request may have been recorded; sending it again with the Idempotency-Key of this answer is safe"},
	codePositionNotReached: {503, "The position is not reached yet",
		"this node has not folded the position that the Ledger-Position header asks for; nothing was done"},
	codeInterrupted: {503, "Interrupted", "the request was interrupted before it was answered"},
	codeNotReady:    {503, "Not ready", ""},

	codeReplayUnavailable: {503, "The month cannot be replayed right now", ""},

	codeWebhookNotFound: {404, "No such webhook", "the account has no webhook with this id"},
	codeTooManyWebhooks: {409, "The account has as many webhooks as it may have",
		fmt.Sprintf("an account has at most %d webhooks; nothing was registered: change one that is there, or delete it first", webhook.MaxPerAccount)},
	codeWebhookTestRunning:  {409, "A test is under way", "the webhook is being sent a test already; wait for the answer to that"},
	codeWebhookChanged:      {412, "The webhook has another version", ""},
	codeWebhooksUnavailable: {503, "Webhooks are not to be had right now", "nothing was changed; send the request again later"},
}

// problem is the error of a handler that the client is told as it is: RFC 9457 problem details.
type problem struct {
	Type     string `json:"type"`
	Title    string `json:"title"`
	Status   int    `json:"status"`
	Detail   string `json:"detail"`
	Code     code   `json:"code"`
	Instance string `json:"instance,omitempty"`
	// Extensions, by code.
	Errors           []fieldError `json:"errors,omitempty"`            // invalid_request
	ViolatedPolicies []string     `json:"violated-policies,omitempty"` // quota_exceeded, and so is the quota
	*quotaForm
	Version int64    `json:"version,omitempty"` // version_conflict, webhook_version_conflict: of what is there now
	Receipt *receipt `json:"receipt,omitempty"` // of a decision

	scope      string        // that is missing: for WWW-Authenticate
	retryAfter time.Duration // of a 429
}

// fieldError says what is wrong with a field: its name and the detail make a sentence.
type fieldError struct {
	Field  string `json:"field"`
	Detail string `json:"detail"`
}

// newProblem returns a problem of the code. Without a detail it has the code's own.
func newProblem(of code, detail string) *problem {
	k := kinds[of]
	if detail == "" {
		detail = k.detail
	}
	return &problem{Type: typePrefix + string(of), Title: k.title, Status: k.status, Detail: detail, Code: of}
}

// Error returns code and detail.
func (p *problem) Error() string { return string(p.Code) + ": " + p.Detail }

// handleError answers a call with the problem that its error is, or stands for.
func (a *api) handleError(err error, c echo.Context) {
	if c.Response().Committed {
		return // all that fails after the answer began is writing it to a client that is gone
	}
	p := a.problemOf(err, c)
	header := c.Response().Header()
	header.Set("Cache-Control", "no-store")
	switch {
	case p.Status == nethttp.StatusUnauthorized, p.Code == codeScopeMissing:
		header.Set("Www-Authenticate", challenge(p))
	case p.Status == nethttp.StatusTooManyRequests:
		header.Set("Retry-After", strconv.FormatInt(seconds(p.retryAfter), 10))
	case p.Status == nethttp.StatusServiceUnavailable:
		header.Set("Retry-After", patienceOf(p.Code))
	}
	_ = c.Blob(p.Status, problemContentType, encode(p)) // as above
}

// problemOf returns the problem that an error is. What is none of ours is logged, and internal to the client.
func (a *api) problemOf(err error, c echo.Context) *problem {
	var own *problem
	if errors.As(err, &own) {
		return own
	}
	var routing *echo.HTTPError
	if errors.As(err, &routing) {
		switch routing.Code {
		case nethttp.StatusNotFound:
			return newProblem(codeNotFound, "")
		case nethttp.StatusMethodNotAllowed:
			return newProblem(codeMethodNotAllowed, "")
		}
	}
	if errors.Is(err, events.ErrUnavailable) && a.backend.Outdated() {
		return newProblem(codeNotReady, detailOutdated)
	}
	if errors.Is(err, events.ErrUnavailable) {
		return newProblem(codeLedgerUnavailable, "")
	}
	if errors.Is(err, context.Canceled) && c.Request().Context().Err() != nil {
		return newProblem(codeInterrupted, "") // the client is gone, or slower than the server waits
	}
	a.logFailure(c, err)
	return newProblem(codeInternal, "")
}

// patienceOf returns what Retry-After says of a 503.
func patienceOf(of code) string {
	if of == codeReplayUnavailable {
		return retryReplayAfter
	}
	return retryAfter
}

// challenge returns what WWW-Authenticate says of a 401, or of a token without the scope. Only a token that was sent can be
// an invalid one.
func challenge(p *problem) string {
	const realm = `Bearer realm="jobtally"`
	switch p.Code {
	case codeTokenMissing:
		return realm
	case codeScopeMissing:
		return realm + `, error="insufficient_scope", scope="` + p.scope + `"`
	}
	return realm + `, error="invalid_token"`
}
