// Package webhook holds what jobtally knows of webhooks, which accounts register to be told of their events: the endpoint, the
// record of a delivery, and the rules for both. Delivering is the business of internal/relay.
package webhook

import (
	"errors"
	"fmt"
	"time"

	"jobtally/internal/events"
)

// MaxPerAccount is the number of endpoints that an account may have.
const MaxPerAccount = 10

// For how long a secret signs after its rotation: unless said otherwise, and at most.
const (
	KeepSecret     = 24 * time.Hour
	KeepSecretMost = 7 * 24 * time.Hour
)

// State says whether an endpoint is sent events, and if not, why.
type State string

// The states of an endpoint. Whatever it is, no event is lost: one that is enabled again goes on where it stopped.
const (
	Enabled  State = "enabled"
	Disabled State = "disabled" // by its account
	Gone     State = "gone"     // it answered 410
	Failing  State = "failing"  // nothing reached it for days
	// Unreadable is the state of one that this version cannot read, as of a newer one. Of it no more is known than ID, Account,
	// the partition of After, when it was written, and Version.
	Unreadable State = "unreadable"
)

// Endpoint is a URL that is sent the events of an account, one after the other in the order of their positions.
type Endpoint struct {
	ID          string
	Account     string
	URL         string
	Types       []string // of events, as events.IsOfType takes them; none means all
	Description string
	State       State
	StateSince  time.Time
	CreatedAt   time.Time
	After       events.Position // as it was when the endpoint was registered: only what comes behind it is sent
	Secrets     []Secret        // the first is the current one; each signs what is sent
	Version     uint64          // changes with each change, for If-Match
}

// MayBeSent returns why an endpoint is sent no events, or nil: ErrUnreadable, or ErrNotEnabled with its state.
func (e *Endpoint) MayBeSent() error {
	switch e.State {
	case Enabled:
		return nil
	case Unreadable:
		return ErrUnreadable
	}
	return fmt.Errorf("%w: it is %s since %s", ErrNotEnabled, e.State, e.StateSince.UTC().Format(time.RFC3339))
}

// Secret is a key that deliveries are signed with, as Standard Webhooks write it: whsec_ and base64 of 32 bytes.
type Secret struct {
	Value     string
	ExpiresAt time.Time // zero for the current one
}

// Progress says how far the delivery of an endpoint's events is.
type Progress struct {
	Pending             uint64          // decisions of its account that it was not sent yet, those of types that it does not want included
	Delivered           events.Position // the last that is done with: accepted, not wanted, or put into the poison queue
	Attempts            int             // at the event that is being delivered
	ConsecutiveFailures int             // since the endpoint last accepted anything
	FailingSince        time.Time       // zero unless it fails
	NextAttempt         time.Time       // zero unless it waits for one
	LastSuccess         time.Time       // zero if there was none
	Open                bool            // the circuit is open: one attempt at a time, far apart, until one succeeds
	Poisoned            uint64          // events in the poison queue
	Waits               string          // for what, in words, where that is not the endpoint: a decision that this version cannot read
}

// Change is what is to change of an endpoint; what is nil stays.
type Change struct {
	URL         *string
	Types       *[]string
	Description *string
	Enabled     *bool
}

// Cause says what a delivery was made for.
type Cause string

// The causes of deliveries.
const (
	ByEvent     Cause = "event"     // the event came, or its time to be tried again
	ByTest      Cause = "test"      // its account asked for a test
	ByRedrive   Cause = "redrive"   // an operator took it out of the poison queue
	ByRedeliver Cause = "redeliver" // an operator had it sent once more
)

// Outcome says what became of a delivery.
type Outcome string

// The outcomes of deliveries.
const (
	Accepted Outcome = "accepted" // the endpoint answered 2xx
	Failed   Outcome = "failed"   // it is tried again
	Poisoned Outcome = "poisoned" // it was the last attempt: the event is in the poison queue
)

// Delivery is the record of one attempt to deliver an event.
type Delivery struct {
	Sequence    uint64 // in the log of deliveries: the cursor
	MessageID   string // the webhook-id: of one event always the same
	Position    events.Position
	Type        string
	Cause       Cause
	Attempt     int // from 1
	At          time.Time
	Duration    time.Duration
	Status      int    // of the HTTP answer, or 0 where there was none
	Error       string // in words, where it was not accepted
	Outcome     Outcome
	NextAttempt time.Time // zero where there is none
}

var (
	// ErrTooMany is the error of registering more than MaxPerAccount endpoints.
	ErrTooMany = errors.New("the account has as many webhooks as it may have")
	// ErrVersion is the error of a change of another version of an endpoint than the one that is there.
	ErrVersion = errors.New("the webhook was changed meanwhile")
	// ErrNotEnabled is the error of sending events to an endpoint whose state is another than Enabled.
	ErrNotEnabled = errors.New("the webhook is not enabled")
	// ErrUnreadable is the error of what cannot be done with an endpoint whose state is Unreadable.
	ErrUnreadable = errors.New("the webhook is stored in a form that this version cannot read: a newer one wrote it, or a person")
)

// URLError says what is wrong with the URL of an endpoint, in words for whoever gave it.
type URLError struct{ Reason string }

// Error returns the reason.
func (e *URLError) Error() string { return e.Reason }
