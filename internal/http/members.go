package http

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// members reads the members of a JSON object whose values are strings and nulls. Whatever else comes is left.
type members struct {
	rest []byte
}

// member reads a name and its value, as it stands there.
func (m *members) member() (name string, raw []byte, ok bool) {
	name, ok = unquoteJSON(m.value())
	if !ok || !m.take(':') {
		return "", nil, false
	}
	raw = m.value()
	return name, raw, len(raw) > 0
}

// take reads past c if it is next, after white space.
func (m *members) take(c byte) bool {
	m.skipSpace()
	if len(m.rest) == 0 || m.rest[0] != c {
		return false
	}
	m.rest = m.rest[1:]
	return true
}

// value reads a string, in its quotes, or null: or nothing, if neither is next.
func (m *members) value() (raw []byte) {
	m.skipSpace()
	n := 0
	if len(m.rest) > 0 && m.rest[0] == '"' {
		n = quotedLength(m.rest)
	} else if bytes.HasPrefix(m.rest, []byte("null")) {
		n = len("null")
	}
	raw, m.rest = m.rest[:n], m.rest[n:]
	return raw
}

// end says whether nothing but white space is left.
func (m *members) end() bool {
	m.skipSpace()
	return len(m.rest) == 0
}

func (m *members) skipSpace() {
	i := 0
	for i < len(m.rest) && (m.rest[i] == ' ' || m.rest[i] == '\n' || m.rest[i] == '\r' || m.rest[i] == '\t') {
		i++
	}
	m.rest = m.rest[i:]
}

// quotedLength returns the length of the string that s begins with, quotes included, or 0 when it does not end or has
// a control character. Escapes are not looked into.
func quotedLength(s []byte) int {
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return i + 1
		case c == '\\':
			i++
		case c < ' ':
			return 0
		}
	}
	return 0
}

// unquoteJSON returns the text of a JSON string in its quotes. It is not ok when raw is none, or has an escape that is
// none, such as half of a surrogate pair, for which encoding/json would put another character.
func unquoteJSON(raw []byte) (text string, ok bool) {
	if len(raw) < 2 || raw[0] != '"' {
		return "", false
	}
	raw = raw[1 : len(raw)-1]
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw), true
	}
	unescaped := make([]byte, 0, len(raw))
	for {
		n := bytes.IndexByte(raw, '\\')
		if n < 0 {
			return string(append(unescaped, raw...)), true
		}
		c, length := unescape(raw[n:])
		if length == 0 {
			return "", false
		}
		unescaped = utf8.AppendRune(append(unescaped, raw[:n]...), c)
		raw = raw[n+length:]
	}
}

// unescape returns the character of the escape that s begins with, and the length of the escape: 0 when it is none.
func unescape(s []byte) (c rune, length int) {
	const letters, meanings = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
	if len(s) < 2 {
		return 0, 0
	}
	if i := strings.IndexByte(letters, s[1]); i >= 0 {
		return rune(meanings[i]), 2
	}
	c, ok := hexEscape(s)
	switch {
	case !ok:
		return 0, 0
	case !utf16.IsSurrogate(c):
		return c, 6
	}
	low, _ := hexEscape(s[6:])
	if c = utf16.DecodeRune(c, low); c == utf8.RuneError {
		return 0, 0
	}
	return c, 12
}

// hexEscape returns the number of the escape \uXXXX that s begins with.
func hexEscape(s []byte) (c rune, ok bool) {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(s[2:6]), 16, 16)
	return rune(n), err == nil
}
