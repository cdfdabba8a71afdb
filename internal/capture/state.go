// Package capture is the pure core of jobtally: what is decided on a request, given the requests before it, and
// under which key a job posting is known. Nothing in it has a clock, does I/O, draws random numbers or fails.
package capture

import "jobtally/internal/events"

// State is what Decide knows: the accounts of a partition as the decisions so far left them. It may hold only the
// part that a batch of requests needs; what is absent from it has not happened.
type State struct {
	Accounts map[string]*Account // the open ones

	// Archived is the last month that is archived, empty before the first, and Archive the digest of the decision that
	// archived it: the last link of the chain of months.
	Archived events.Month
	Archive  events.Digest

	// What closing a month, or erasing an account, is to say; nil where there is nothing. Whoever loads the state adds it
	// up from all decisions before the request, which is therefore decided alone. Fold does not keep it up to date.
	Closing *events.MonthArchived
	Erasing *events.AccountErased
}

// Account is the consistency boundary: no decision looks beyond one.
type Account struct {
	Plan   string
	Limit  int64                  // captures a month, or Unlimited
	Digest events.Digest          // of its last decision
	Used   map[events.Month]int64 // captured jobs by month
	Jobs   map[string]string      // canonical URL -> job id
	First  map[string]FirstAnswer // request id -> what was decided when it came first
	Tokens map[string]bool        // token id -> accepted; false once revoked

	Tracked map[string]TrackedJob // job id -> the job as it is
}

// TrackedJob is what a change of a job goes by.
type TrackedJob struct {
	Version      int64
	CanonicalURL string
	Content      *events.Job // not to be changed
}

// FirstAnswer is what the account remembers of a capture request for ever.
type FirstAnswer struct {
	Position    events.Position
	PayloadHash events.Digest
}

// NewState returns the state before the first request.
func NewState() *State { return &State{Accounts: map[string]*Account{}} }

// NewAccount returns an account without history.
func NewAccount(plan string, limit int64) *Account {
	return &Account{
		Plan: plan, Limit: limit,
		Used:   map[events.Month]int64{},
		Jobs:   map[string]string{},
		First:  map[string]FirstAnswer{},
		Tokens: map[string]bool{},

		Tracked: map[string]TrackedJob{},
	}
}

// CountsIn returns the month in which something of a month counts: that month, unless it is archived, and then the
// first open one.
func CountsIn(month, archived events.Month) events.Month {
	if archived == "" || month > archived {
		return month
	}
	return archived.Next()
}

// quota returns the account's count in a month.
func (a *Account) quota(month events.Month) Quota {
	return Quota{Month: month, Used: a.Used[month], Limit: a.Limit}
}

// Fold takes a decision into the state. It consults no rules: what is decided is decided.
func (s *State) Fold(d *events.Decision) {
	switch b := d.Body.(type) {
	case *events.MonthArchived:
		s.Archived, s.Archive = b.Month, d.Digest
	case *events.AccountOpened:
		s.Accounts[d.Account] = NewAccount(b.Plan, b.Limit)
	case *events.AccountErased:
		delete(s.Accounts, d.Account)
	}
	account := s.Accounts[d.Account]
	if account == nil {
		return // a refusal for an account that is not open: there is nothing it could change
	}
	account.Digest = d.Digest
	account.fold(d)
}

func (a *Account) fold(d *events.Decision) {
	switch b := d.Body.(type) {
	case *events.JobCaptured:
		a.Used[b.Month]++
		a.Jobs[b.CanonicalURL] = b.JobID
		a.Tracked[b.JobID] = TrackedJob{Version: 1, CanonicalURL: b.CanonicalURL, Content: &b.Job}
		a.First[d.RequestID] = FirstAnswer{d.Position, b.PayloadHash}
	case *events.JobCaptureDuplicated:
		a.First[d.RequestID] = FirstAnswer{d.Position, b.PayloadHash}
	case *events.JobCaptureRejected:
		a.First[d.RequestID] = FirstAnswer{d.Position, b.PayloadHash}
	case *events.JobUpdated:
		a.Tracked[b.JobID] = TrackedJob{Version: b.Version, CanonicalURL: b.CanonicalURL, Content: &b.Job}
	case *events.JobDeleted:
		delete(a.Tracked, b.JobID)
		delete(a.Jobs, b.CanonicalURL)
	case *events.PlanChanged:
		a.Plan, a.Limit = b.Plan, b.Limit
	case *events.TokenIssued:
		a.Tokens[b.TokenID] = true
	case *events.TokenRevoked:
		a.Tokens[b.TokenID] = false
	}
}
