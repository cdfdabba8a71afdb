package consumer

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/ThreeDotsLabs/watermill/components/cqrs"
	"github.com/ThreeDotsLabs/watermill/message"

	"jobtally/internal/events"
)

// The decisions on jobs, which are what an account is told. Their fields are those of the JSON Schemas of their types, docs/schemas.
type (
	JobCaptured          = events.JobCaptured
	JobCaptureDuplicated = events.JobCaptureDuplicated
	JobCaptureRejected   = events.JobCaptureRejected
	JobCaptureRepeated   = events.JobCaptureRepeated
	JobUpdated           = events.JobUpdated
	JobDeleted           = events.JobDeleted
	RequestRefused       = events.RequestRefused
)

// The decisions on accounts, plans, tokens and months, which are an operator's business. Their fields are those of the JSON Schemas
// of their types, docs/schemas.
type (
	AccountOpened = events.AccountOpened
	AccountErased = events.AccountErased
	PlanChanged   = events.PlanChanged
	TokenIssued   = events.TokenIssued
	TokenRevoked  = events.TokenRevoked
	MonthArchived = events.MonthArchived
)

// What decisions are made of.
type (
	Job      = events.Job
	Count    = events.Count
	Source   = events.Source
	Totals   = events.Totals
	Month    = events.Month
	Position = events.Position
	Digest   = events.Digest
)

// The CloudEvents types of the decisions. The version is part of a type: a new version is another type.
const (
	TypeJobCaptured          = events.TypeJobCaptured
	TypeJobCaptureDuplicated = events.TypeJobCaptureDuplicated
	TypeJobCaptureRejected   = events.TypeJobCaptureRejected
	TypeJobCaptureRepeated   = events.TypeJobCaptureRepeated
	TypeJobUpdated           = events.TypeJobUpdated
	TypeJobDeleted           = events.TypeJobDeleted
	TypeRequestRefused       = events.TypeRequestRefused
	TypeAccountOpened        = events.TypeAccountOpened
	TypeAccountErased        = events.TypeAccountErased
	TypePlanChanged          = events.TypePlanChanged
	TypeTokenIssued          = events.TypeTokenIssued
	TypeTokenRevoked         = events.TypeTokenRevoked
	TypeMonthArchived        = events.TypeMonthArchived
)

// ParsePosition reads a position as the metadata and the API have it, such as 0-1234.
func ParsePosition(s string) (Position, error) { return events.ParsePosition(s) }

// PositionOf returns the position of a message.
func PositionOf(msg *message.Message) (Position, error) {
	return events.ParsePosition(msg.Metadata.Get(MetadataPosition))
}

// ErrUnknownType is the error of a message of a type, or a version of a type, that its handler does not know.
var ErrUnknownType = errors.New("unknown type")

// Expect returns a middleware that passes on messages of these CloudEvents types, and fails those of any other with ErrUnknownType: so
// no event of a newer version is taken for one that is known, or skipped. The types are those that the handlers know, whether they do
// anything with them or not. List them: a list that comes with a newer version of this package could have types that
// the handlers have not.
func Expect(types ...string) message.HandlerMiddleware {
	return func(h message.HandlerFunc) message.HandlerFunc {
		return func(msg *message.Message) ([]*message.Message, error) {
			if t := msg.Metadata.Get(MetadataType); !slices.Contains(types, t) {
				return nil, fmt.Errorf("%w %q at %s: update this consumer, and then let it have the message again",
					ErrUnknownType, t, msg.Metadata.Get(MetadataPosition))
			}
			return h(msg)
		}
	}
}

// Marshaler has the processors of watermill's cqrs component read decisions: a handler of *JobCaptured gets the messages
// of type jobtally.job.captured.v1, and no other version.
type Marshaler struct{}

var _ cqrs.CommandEventMarshaler = Marshaler{}

// Marshal returns an error: decisions are made by the ledger only.
func (Marshaler) Marshal(v any) (*message.Message, error) {
	return nil, fmt.Errorf("a consumer publishes no decisions, and %T is one", v)
}

// Unmarshal reads the data of a message into v, a pointer to one of the decisions. The error is ErrUnknownType where the message
// is of another type, or says what of the data cannot be read.
func (m Marshaler) Unmarshal(msg *message.Message, v any) error {
	if got, want := m.NameFromMessage(msg), m.Name(v); got != want {
		return fmt.Errorf("%w %q, which is not %s", ErrUnknownType, got, want)
	}
	if err := json.Unmarshal(msg.Payload, v); err != nil {
		return fmt.Errorf("data of the %s at %s: %w", m.Name(v), msg.Metadata.Get(MetadataPosition), err)
	}
	return nil
}

// Name returns the CloudEvents type of a decision, or the name of the Go type of anything else, which no message has.
func (Marshaler) Name(v any) string {
	if body, ok := v.(events.DecisionBody); ok {
		return events.TypeOf(body)
	}
	return cqrs.FullyQualifiedStructName(v)
}

// NameFromMessage returns the CloudEvents type of a message.
func (Marshaler) NameFromMessage(msg *message.Message) string { return msg.Metadata.Get(MetadataType) }
