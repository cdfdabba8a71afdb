package capture

import (
	"encoding/base32"
	"fmt"
	"strings"
	"time"

	"jobtally/internal/events"
)

// Decide returns the sealed decision on a request, given the state that all requests before it left. It is a pure
// function and does not change the state: Fold does.
func Decide(s *State, r *events.Request) events.Decision {
	d := events.Decision{
		Position: r.Position, Account: r.Account, RequestID: r.ID, Time: r.Time, RequestDigest: r.Digest,
		Body: decide(s, r),
	}
	d.Seal(s.Previous(&d))
	return d
}

// Previous returns the digest of the link before a decision: that of its account's last decision, or of the last
// archived month. An account that is not open has no chain, and with an erasure one begins anew.
func (s *State) Previous(d *events.Decision) events.Digest {
	switch d.Body.(type) {
	case *events.MonthArchived:
		return s.Archive
	case *events.AccountErased:
		return events.Digest{}
	}
	if account := s.Accounts[d.Account]; account != nil {
		return account.Digest
	}
	return events.Digest{}
}

func decide(s *State, r *events.Request) events.DecisionBody {
	account := s.Accounts[r.Account]
	switch b := r.Body.(type) {
	case *events.Malformed:
		return refuse(r, events.ReasonMalformed, b.Reason)
	case *events.MonthCloseRequested:
		return s.decideClose(r, b)
	case *events.AccountEraseRequested:
		return s.decideErase()
	case *events.AccountOpenRequested:
		if account != nil {
			return refuse(r, events.ReasonAccountExists, "account "+r.Account+" is open already")
		}
		return &events.AccountOpened{Plan: b.Plan, Limit: b.Limit, Who: b.Who}
	}
	if account == nil {
		return refuse(r, events.ReasonAccountUnknown, "account "+r.Account+" was never opened")
	}
	switch b := r.Body.(type) {
	case *events.JobCaptureRequested:
		return decideCapture(account, r, b, CountsIn(b.Month, s.Archived))
	case *events.JobUpdateRequested:
		return decideUpdate(account, r, b)
	case *events.JobDeleteRequested:
		return decideDelete(account, r, b)
	case *events.PlanChangeRequested:
		return &events.PlanChanged{Plan: b.Plan, Limit: b.Limit, PreviousPlan: account.Plan, PreviousLimit: account.Limit, Who: b.Who}
	case *events.TokenIssueRequested:
		if _, known := account.Tokens[b.TokenID]; known {
			return refuse(r, events.ReasonTokenExists, "token "+b.TokenID+" was issued already")
		}
		return &events.TokenIssued{TokenID: b.TokenID, SecretHash: b.SecretHash, TokenTerms: b.TokenTerms, Who: b.Who}
	case *events.TokenRevokeRequested:
		if _, known := account.Tokens[b.TokenID]; !known {
			return refuse(r, events.ReasonTokenUnknown, "token "+b.TokenID+" was never issued")
		}
		return &events.TokenRevoked{TokenID: b.TokenID, Who: b.Who}
	}
	panic(fmt.Sprintf("capture: no rule for a %T", r.Body)) // DecodeRequest knows no other body
}

// decideClose archives months in order, and none that lasts.
func (s *State) decideClose(r *events.Request, b *events.MonthCloseRequested) events.DecisionBody {
	switch {
	case s.Archived != "" && b.Month != s.Archived.Next():
		return refuse(r, events.ReasonMonthNotNext, fmt.Sprintf("%s is archived, the month after it is the next", s.Archived))
	case r.Time.Before(b.Month.Next().Start()):
		return refuse(r, events.ReasonMonthNotOver, fmt.Sprintf("%s lasts until %s", b.Month, b.Month.Next().Start().Format(time.RFC3339)))
	case s.Closing == nil:
		return &events.MonthArchived{Month: b.Month}
	}
	return s.Closing
}

// decideErase erases what there is, be it nothing: the account is gone either way.
func (s *State) decideErase() events.DecisionBody {
	if s.Erasing == nil {
		return &events.AccountErased{Months: []events.ErasedMonth{}}
	}
	return s.Erasing
}

// decideCapture asks, in this order: was it asked before, is the job there, is there quota left in the month.
func decideCapture(account *Account, r *events.Request, b *events.JobCaptureRequested, month events.Month) events.DecisionBody {
	if first, known := account.First[r.ID]; known {
		if first.PayloadHash != b.PayloadHash {
			return refuse(r, events.ReasonIdempotencyKeyReused,
				fmt.Sprintf("the request id was used for another job at %s", first.Position))
		}
		return &events.JobCaptureRepeated{First: first.Position, Month: month}
	}
	quota := account.quota(month)
	source := events.Source{CanonicalURL: b.CanonicalURL, SourceRules: b.SourceRules, PayloadHash: b.PayloadHash}
	if id, known := account.Jobs[b.CanonicalURL]; known {
		return &events.JobCaptureDuplicated{JobID: id, SourceURL: b.Job.SourceURL, Source: source, Count: quota.count()}
	}
	if quota.exhausted() {
		return &events.JobCaptureRejected{
			Reason: events.ReasonQuotaExceeded, SourceURL: b.Job.SourceURL, Source: source, Count: quota.count(),
			ResetDate: quota.ResetDate(),
		}
	}
	quota.Used++
	return &events.JobCaptured{
		JobID: jobID(r), Job: b.Job, Source: source, Count: quota.count(), Threshold: quota.threshold(),
	}
}

// decideUpdate gives the job its next version, also when nothing differs: what was asked is on record either way.
func decideUpdate(account *Account, r *events.Request, b *events.JobUpdateRequested) events.DecisionBody {
	job, refused := account.tracked(r, b.JobID, b.IfVersion)
	if refused != nil {
		return refused
	}
	next, changed := *job.Content, []string{}
	for _, name := range events.EditableFields() {
		text, given := b.Changes[name]
		if field := next.Editable(name); given && *field != text {
			*field = text
			changed = append(changed, name)
		}
	}
	return &events.JobUpdated{JobID: b.JobID, Version: job.Version + 1, Job: next, CanonicalURL: job.CanonicalURL, Changed: changed}
}

func decideDelete(account *Account, r *events.Request, b *events.JobDeleteRequested) events.DecisionBody {
	job, refused := account.tracked(r, b.JobID, b.IfVersion)
	if refused != nil {
		return refused
	}
	return &events.JobDeleted{JobID: b.JobID, Version: job.Version + 1, CanonicalURL: job.CanonicalURL}
}

// tracked returns the job that a request is about, or why there is none of this version.
func (a *Account) tracked(r *events.Request, id string, version int64) (TrackedJob, events.DecisionBody) {
	job, known := a.Tracked[id]
	switch {
	case !known:
		return job, refuse(r, events.ReasonNotFound, "the account has no job "+id)
	case version != 0 && version != job.Version:
		return job, refuse(r, events.ReasonVersionConflict, fmt.Sprintf("the job has version %d, not %d", job.Version, version))
	}
	return job, nil
}

func (q Quota) count() events.Count {
	return events.Count{Month: q.Month, Used: q.Used, Limit: q.Limit}
}

func refuse(r *events.Request, reason, detail string) *events.RequestRefused {
	return &events.RequestRefused{Kind: events.KindOf(r.Body), Reason: reason, Detail: detail}
}

// IsJobID says whether a text has the form of a job's id.
func IsJobID(text string) bool {
	digits, ok := strings.CutPrefix(text, jobIDPrefix)
	return ok && len(digits) == jobIDDigits && strings.Trim(digits, "abcdefghijklmnopqrstuvwxyz234567") == ""
}

const (
	jobIDPrefix = "job_"
	jobIDDigits = 24 // of 15 bytes
)

// jobID derives a job's id from its request and position: the same at every replay, unique because the position
// is, and not to be guessed because the request digest covers a time and an id that only its sender knows.
func jobID(r *events.Request) string {
	digest := events.Hash([]byte("job"), r.Digest[:], []byte(r.Position.String()))
	return jobIDPrefix + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(digest[:15]))
}
