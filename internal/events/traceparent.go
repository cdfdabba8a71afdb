package events

// headerTraceparent is the W3C trace context of a message: in which trace, and under which span, it was appended. It is
// for who watches the service, proves nothing, and is in no digest: a decision that is appended again has none.
const headerTraceparent = "traceparent"

// traceparentLength is that of version 00: 00-<32 digits of the trace>-<16 digits of the span>-<2 digits of flags>.
const traceparentLength = 55

// ValidTraceparent says whether a text is a W3C traceparent of version 00: fit for a header, and of a bounded length.
func ValidTraceparent(s string) bool {
	if len(s) != traceparentLength || s[:3] != "00-" || s[35] != '-' || s[52] != '-' {
		return false
	}
	trace, span, flags := s[3:35], s[36:52], s[53:]
	return hexadecimal(trace) && hexadecimal(span) && hexadecimal(flags) && !zero(trace) && !zero(span)
}

// hexadecimal says whether a text has lower-case digits only.
func hexadecimal(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func zero(s string) bool {
	for _, c := range []byte(s) {
		if c != '0' {
			return false
		}
	}
	return true
}

// traceparentOf returns the trace context of a message, or nothing: whatever else any writer put there is ignored.
func traceparentOf(m Message) string {
	if s := header(m, headerTraceparent); ValidTraceparent(s) {
		return s
	}
	return ""
}

// setTraceparent adds the header, unless there is none.
func (m *Message) setTraceparent(traceparent string) {
	if traceparent != "" {
		m.Header[headerTraceparent] = []string{traceparent}
	}
}

// WithoutTraceparent returns the header of a message without its trace context, which may be missing. The header itself
// does not change.
func WithoutTraceparent(header map[string][]string) map[string][]string {
	if header[headerTraceparent] == nil {
		return header
	}
	rest := make(map[string][]string, len(header))
	for name, values := range header {
		if name != headerTraceparent {
			rest[name] = values
		}
	}
	return rest
}
