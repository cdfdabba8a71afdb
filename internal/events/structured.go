package events

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// The structured form of a message: one CloudEvent in the JSON format, on one line. Whatever the message is, the event is a
// legal one, and the message is read back from it byte for byte, because digests cover the bytes.
//
// The attributes of the event are those of the message, and two more: its position and its NATS subject. A message that
// is no CloudEvent as this package writes them, for any writer can put what he likes into a stream, is wrapped in an
// event of its own type, which has all headers in one attribute. Headers that begin with Nats- are the server's and the
// client library's: they are no part of a message.
const (
	attributePosition = "position"
	attributeSubject  = "natssubject" // percent-encoded as header values are
	attributeHeader   = "natsheader"  // all headers of a wrapped message, in the form of a URL query

	typeWrapped   = "jobtally.message.v1"
	sourceWrapped = "/jobtally/ledger"
	contentType   = "application/json"
)

// contextAttributes are those of CloudEvents, in the order in which they are written.
var contextAttributes = [...]string{"specversion", "id", "source", "type", "subject", "time", "datacontenttype"}

// AppendStructured appends the structured form of message m of a partition to b.
func (m *Message) AppendStructured(b []byte, partition int) []byte {
	position := Position{Partition: partition, Sequence: m.Sequence}.String()
	attributes, extensions := m.attributes()
	if attributes == nil {
		attributes = map[string]string{
			"specversion": "1.0", "id": m.root() + "-" + position, "source": sourceWrapped, "type": typeWrapped,
			attributeHeader: m.queryHeader(),
		}
		extensions = []string{attributeHeader}
	}
	b = append(b, '{')
	for _, name := range contextAttributes {
		if value, ok := attributes[name]; ok {
			b = append(appendMember(b, name, value), ',')
		}
	}
	b = append(appendMember(b, attributePosition, position), ',')
	b = appendMember(b, attributeSubject, escape(m.Subject))
	for _, name := range extensions {
		b = appendMember(append(b, ','), name, attributes[name])
	}
	switch {
	case len(m.Data) == 0:
	case attributes["datacontenttype"] == contentType && embeds(m.Data):
		b = append(append(b, `,"data":`...), m.Data...)
	default:
		b = append(b, `,"data_base64":"`...)
		b = append(base64.StdEncoding.AppendEncode(b, m.Data), '"')
	}
	return append(b, '}')
}

// root is the first token of the subject, as far as it is a word.
func (m *Message) root() string {
	root, _, _ := strings.Cut(m.Subject, ".")
	if root == requestsSubject || root == jobsSubject || root == accountsSubject {
		return root
	}
	return "unknown"
}

func (m *Message) queryHeader() string {
	query := url.Values{}
	for name, values := range m.Header {
		if !isServers(name) {
			query[name] = values
		}
	}
	return query.Encode()
}

func isServers(header string) bool { return strings.HasPrefix(header, "Nats-") }

// attributes returns the attributes of a message that is a CloudEvent as this package writes them, and the names of the
// extensions among them in order; nothing of any other message.
func (m *Message) attributes() (attributes map[string]string, extensions []string) {
	attributes = make(map[string]string, len(m.Header)+1)
	for header, values := range m.Header {
		if isServers(header) {
			continue
		}
		name, ok := attributeOf(header)
		if !ok || !legalName(name) || len(values) != 1 {
			return nil, nil
		}
		value, err := unescape(values[0])
		if err != nil || escape(value) != values[0] || !legalString(value) {
			return nil, nil
		}
		attributes[name] = value
		if !slices.Contains(contextAttributes[:], name) {
			extensions = append(extensions, name)
		}
	}
	if !legalContext(attributes) {
		return nil, nil
	}
	slices.Sort(extensions)
	return attributes, extensions
}

// attributeOf returns the name of the attribute that a header is. The trace context has the name that the distributed
// tracing extension of CloudEvents gives it, and is a header of its own.
func attributeOf(header string) (name string, ok bool) {
	if header == headerTraceparent {
		return header, true
	}
	name, ok = strings.CutPrefix(header, "ce-")
	return name, ok && name != headerTraceparent
}

// legalName says whether an attribute of the message may have this name: one of CloudEvents, and none of ours.
func legalName(name string) bool {
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return name != "" && name != "data" && name != attributePosition && name != attributeSubject && name != attributeHeader
}

// legalString says whether CloudEvents allow a text: it has neither control characters nor noncharacters.
func legalString(s string) bool {
	for _, r := range s {
		if r < ' ' || r >= 0x7f && r <= 0x9f || r&0xfffe == 0xfffe || r >= 0xfdd0 && r <= 0xfdef {
			return false
		}
	}
	return utf8.ValidString(s)
}

// legalContext says whether the attributes of CloudEvents are there and have values that they may have.
func legalContext(attributes map[string]string) bool {
	for _, name := range contextAttributes {
		if value, ok := attributes[name]; value == "" && (ok || name != "subject") {
			return false
		}
	}
	_, err := url.Parse(attributes["source"])
	at, errTime := parseTime(attributes["time"])
	return err == nil && errTime == nil && formatTime(at) == attributes["time"] &&
		attributes["specversion"] == "1.0" && attributes["datacontenttype"] == contentType
}

// embeds says whether data can stand in the line as it is: JSON without white space around its tokens. It must not be
// null, for that says to many readers that there is no data.
func embeds(data []byte) bool {
	if !utf8.Valid(data) || string(data) == "null" {
		return false
	}
	compact := bytes.NewBuffer(make([]byte, 0, len(data)))
	return json.Compact(compact, data) == nil && bytes.Equal(compact.Bytes(), data)
}

func appendMember(b []byte, name, value string) []byte {
	b = append(append(append(b, '"'), name...), `":`...)
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == '"' || r == '\\' || r >= utf8.RuneSelf }) {
		return append(b, encode(value)...)
	}
	return append(append(append(b, '"'), value...), '"')
}

var errStructured = errors.New("not a message in its structured form")

// ParseStructured reads what AppendStructured writes, and no other spelling of it. The data of the message may stand in the
// line: who keeps it longer than that clones it.
func ParseStructured(line []byte) (m Message, partition int, err error) {
	attributes, data, err := splitMembers(line)
	if err != nil {
		return m, 0, err
	}
	position, err := ParsePosition(attributes[attributePosition])
	if err != nil {
		return m, 0, fmt.Errorf("%w: position: %w", errStructured, err)
	}
	m = Message{Sequence: position.Sequence, Data: data}
	if m.Subject, err = unescapeBytes(attributes[attributeSubject]); err != nil || m.Subject == "" {
		return m, 0, fmt.Errorf("%w: %s", errStructured, attributeSubject)
	}
	if encoded, ok := attributes["data_base64"]; ok {
		if m.Data, err = base64.StdEncoding.DecodeString(encoded); err != nil {
			return m, 0, fmt.Errorf("%w: data_base64", errStructured)
		}
	}
	if m.Header, err = headerOf(attributes); err != nil {
		return m, 0, err
	}
	if !bytes.Equal(m.AppendStructured(make([]byte, 0, len(line)), position.Partition), line) {
		return m, 0, fmt.Errorf("%w: it is spelled in another way", errStructured)
	}
	return m, position.Partition, nil
}

func headerOf(attributes map[string]string) (map[string][]string, error) {
	if query, wrapped := attributes[attributeHeader]; wrapped {
		header, err := url.ParseQuery(query)
		if err != nil {
			return nil, fmt.Errorf("%w: %s", errStructured, attributeHeader)
		}
		return header, nil
	}
	header := make(map[string][]string, len(attributes))
	for name, value := range attributes {
		header["ce-"+name] = []string{escape(value)}
	}
	if value, traced := header["ce-"+headerTraceparent]; traced {
		header[headerTraceparent] = value
	}
	maps.DeleteFunc(header, func(name string, _ []string) bool {
		return name == "ce-"+attributePosition || name == "ce-"+attributeSubject || name == "ce-data_base64" || name == "ce-"+headerTraceparent
	})
	return header, nil
}

// splitMembers splits a line into its members: texts all of them, but for the last if that is the data, which is what
// stands there.
func splitMembers(line []byte) (attributes map[string]string, data []byte, err error) {
	attributes = make(map[string]string, 16)
	rest, ok := bytes.CutPrefix(line, []byte("{"))
	for ok {
		var name, value string
		if name, rest, ok = cutText(rest); !ok {
			break
		}
		if rest, ok = bytes.CutPrefix(rest, []byte(":")); !ok {
			break
		}
		if name == "data" {
			data, ok = bytes.CutSuffix(rest, []byte("}"))
			break
		}
		if value, rest, ok = cutText(rest); !ok {
			break
		}
		attributes[name] = value
		if string(rest) == "}" {
			return attributes, nil, nil
		}
		rest, ok = bytes.CutPrefix(rest, []byte(","))
	}
	if !ok {
		return nil, nil, errStructured
	}
	return attributes, data, nil
}

// cutText reads a JSON text at the beginning of b.
func cutText(b []byte) (text string, rest []byte, ok bool) {
	if len(b) == 0 || b[0] != '"' {
		return "", nil, false
	}
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			token := b[:i+1]
			if !bytes.ContainsRune(token, '\\') {
				return string(token[1:i]), b[i+1:], true
			}
			return text, b[i+1:], json.Unmarshal(token, &text) == nil
		}
	}
	return "", nil, false
}
