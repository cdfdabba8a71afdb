package http

import (
	"math"
	nethttp "net/http"
	"strconv"
	"strings"
	"time"
)

// maxWait is the longest that a call waits for a decision, whatever it prefers.
const maxWait = 30 * time.Second

// preferences is what a Prefer header (RFC 7240) asks for that we know how to do.
type preferences struct {
	async bool          // respond-async: do not wait for the decision
	waits bool          // wait was given
	wait  time.Duration // how long, at most maxWait
}

// patience returns how long to wait for a decision, given how long a call waits that prefers nothing.
func (p preferences) patience(byDefault time.Duration) time.Duration {
	switch {
	case p.waits:
		return p.wait
	case p.async:
		return 0
	}
	return byDefault
}

// apply tells which preferences the answer honours: wait if it was given, and respond-async if the answer is pending.
func (p preferences) apply(header nethttp.Header, pending bool) {
	var applied []string
	if p.async && pending {
		applied = append(applied, "respond-async")
	}
	if p.waits {
		applied = append(applied, "wait="+strconv.FormatInt(seconds(p.wait), 10))
	}
	if len(applied) > 0 {
		header.Set("Preference-Applied", strings.Join(applied, ", "))
	}
}

// parsePrefer reads the Prefer header lines. As the RFC asks, a preference that is not known or not understood is
// ignored, and of one given twice the first counts.
func parsePrefer(lines []string) (p preferences) {
	if len(lines) == 0 {
		return p
	}
	seen := map[string]bool{}
	for _, item := range splitOutsideQuotes(strings.Join(lines, ","), ',') {
		preference := splitOutsideQuotes(item, ';')[0] // the parameters behind mean nothing to us
		name, value, _ := strings.Cut(preference, "=")
		name = strings.ToLower(strings.TrimSpace(name))
		if seen[name] {
			continue
		}
		seen[name] = true
		value = unquoteWord(strings.TrimSpace(value))
		switch name {
		case "respond-async":
			p.async = value == ""
		case "wait":
			p.wait, p.waits = parseWait(value)
		}
	}
	return p
}

// parseWait reads a number of seconds. One too large to count is as good as the maximum.
func parseWait(value string) (wait time.Duration, ok bool) {
	if value == "" || strings.Trim(value, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseUint(value, 10, 31)
	if err != nil {
		n = math.MaxInt32
	}
	return min(time.Duration(n)*time.Second, maxWait), true
}

// splitOutsideQuotes cuts a header value at a separator that stands in no quoted string.
func splitOutsideQuotes(s string, separator byte) []string {
	var parts []string
	quoted, start := false, 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++
		case c == separator && !quoted:
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:])
}

// unquoteWord returns what a quoted string holds, or a token as it is.
func unquoteWord(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	return strings.ReplaceAll(s[1:len(s)-1], `\`, "")
}
