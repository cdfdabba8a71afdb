package capture

import (
	"time"

	"jobtally/internal/events"
)

// StoredJob is a job in an account's tracker.
type StoredJob struct {
	ID         string
	CapturedAt time.Time // of the request that captured it, UTC
	events.Job
}

// Token is an issued token as it is looked up: the secret itself is known to nobody but its holder.
type Token struct {
	Account    string
	SecretHash events.Digest // SHA-256 of the whole token
	Admin      bool          // whether it has events.ScopeAdmin
	Revoked    bool
}
