package capture

import (
	"slices"
	"time"

	"jobtally/internal/events"
)

// StoredJob is a job in an account's tracker.
type StoredJob struct {
	ID         string
	CapturedAt time.Time // of the request that captured it, UTC
	UpdatedAt  time.Time // of the request that changed it last, or captured it
	Version    int64     // 1 as it was captured, and one more with each change
	events.Job
}

// JobQuery asks for a page of an account's jobs. A field without a value asks for nothing.
type JobQuery struct {
	Status      string
	Company     string // in any case, and with any white space around it
	CapturedVia string
	Month       events.Month // that the job counts in
	Text        string       // words, each of which begins a word of title, company or the first 20,000 characters of description
	Updated     bool         // the jobs that changed last come first, and not those that were captured last
	Before      uint64       // the Next of the page before
	Limit       int          // jobs that a page has at most, positive; fewer where they are long
}

// JobPage is a page of an account's jobs.
type JobPage struct {
	Jobs []StoredJob
	Next uint64 // by which the page after it is asked for; 0 when this is the last
}

// StoredAccount is an account that is open.
type StoredAccount struct {
	Name, Plan string
	Limit      int64 // captures a month, or Unlimited
	OpenedAt   time.Time

	// The decision that set the plan: opening the account, or changing it.
	PlanPosition events.Position
	PlanAt       time.Time
	PlanSetBy    events.Who
}

// Token is an issued token as it is looked up: the secret itself is known to nobody but its holder.
type Token struct {
	ID         string
	Account    string
	SecretHash events.Digest // SHA-256 of the whole token
	IssuedAt   time.Time
	events.TokenTerms
	Revoked bool
}

// Has says whether the token may be used for a scope.
func (t *Token) Has(scope string) bool {
	if slices.Contains(t.Scopes, scope) {
		return true
	}
	return scope != events.ScopeAdmin && !slices.Contains(t.Scopes, events.ScopeJobsRead) && !slices.Contains(t.Scopes, events.ScopeJobsWrite)
}

// Granted returns every scope that the token has, whether it was named or not.
func (t *Token) Granted() []string {
	return slices.DeleteFunc(events.Scopes(), func(scope string) bool { return !t.Has(scope) })
}

// The statuses of a token.
const (
	TokenActive  = "active"
	TokenExpired = "expired"
	TokenRevoked = "revoked"
)

// Status returns what has become of the token by an instant: whoever revoked it has the last word.
func (t *Token) Status(at time.Time) string {
	switch {
	case t.Revoked:
		return TokenRevoked
	case t.Expired(at):
		return TokenExpired
	}
	return TokenActive
}

// Expired says whether the token is accepted no longer at an instant, because of its age.
func (t *Token) Expired(at time.Time) bool { return !t.ExpiresAt.IsZero() && !at.Before(t.ExpiresAt) }
