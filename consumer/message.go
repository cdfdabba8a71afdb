package consumer

import (
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"

	"jobtally/internal/events"
)

// What the metadata of a message say, beside its headers.
const (
	// MetadataPosition is the position of the decision, such as 0-1234: the name under which whoever keeps the checkpoint
	// remembers it.
	MetadataPosition = "position"
	// MetadataSequence is the number of the message in its stream, such as 1234: what After takes.
	MetadataSequence = "sequence"
	// MetadataDeliveries is how often the message was delivered, this time included: 1 the first time. With a Durable the
	// server counts, over all subscribers, and what was given back when one closed counts too.
	MetadataDeliveries = "delivery_count"
	// MetadataSubject is the subject of the message, such as jobs.0.acme.captured.
	MetadataSubject = "subject"
	// MetadataStream is the stream of the message, such as DECISIONS_0.
	MetadataStream = "stream"

	// The attributes of the CloudEvent are there under the names of their headers, with what was percent-encoded decoded. These are some of them.
	MetadataType    = "ce-type"
	MetadataAccount = "ce-account"
	MetadataTime    = "ce-time"
)

const headerID = "ce-id"

// newMessage returns a message as watermill knows it: its UUID is the event's id, its payload the event's data. Of a header with
// several values the first counts.
func newMessage(m *nats.Msg, meta *nats.MsgMetadata, deliveries int) *message.Message {
	msg := message.NewMessage("", m.Data)
	for name, values := range m.Header {
		if len(values) > 0 {
			msg.Metadata.Set(name, decoded(name, values[0]))
		}
	}
	sequence := strconv.FormatUint(meta.Sequence.Stream, 10)
	msg.Metadata.Set(MetadataSequence, sequence)
	msg.Metadata.Set(MetadataStream, meta.Stream)
	msg.Metadata.Set(MetadataSubject, m.Subject)
	msg.Metadata.Set(MetadataDeliveries, strconv.Itoa(deliveries))
	delete(msg.Metadata, MetadataPosition)
	if p, ok := partitionOf(meta.Stream); ok {
		msg.Metadata.Set(MetadataPosition, events.Position{Partition: p, Sequence: meta.Sequence.Stream}.String())
	}
	if msg.UUID = msg.Metadata.Get(headerID); msg.UUID == "" {
		msg.UUID = meta.Stream + "-" + sequence
	}
	return msg
}

// decoded returns the value of a header. Those of CloudEvents are percent-encoded; one that is not stays as it is.
func decoded(name, value string) string {
	if !strings.HasPrefix(name, "ce-") {
		return value
	}
	if text, err := url.PathUnescape(value); err == nil && utf8.ValidString(text) {
		return text
	}
	return value
}
