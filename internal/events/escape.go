package events

import (
	"errors"
	"strings"
	"unicode/utf8"
)

const upperHex = "0123456789ABCDEF"

// escape writes a header value as the CloudEvents bindings ask: space, double quote, percent and everything outside
// U+0021 to U+007E as percent-encoded UTF-8.
func escape(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r < utf8.RuneSelf && mustEscape(byte(r)) || r >= utf8.RuneSelf }) {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; mustEscape(c) {
			b.WriteByte('%')
			b.WriteByte(upperHex[c>>4])
			b.WriteByte(upperHex[c&15])
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func mustEscape(c byte) bool { return c <= ' ' || c >= 0x7f || c == '"' || c == '%' }

var errEscape = errors.New("not percent-encoded UTF-8")

// unescape reads what escape writes. Like any decoder of the binding it refuses what is not UTF-8.
func unescape(s string) (string, error) {
	s, err := unescapeBytes(s)
	if err != nil {
		return "", err
	}
	return validUTF8(s)
}

// unescapeBytes reads what escape writes, of whatever bytes.
func unescapeBytes(s string) (string, error) {
	if !strings.Contains(s, "%") {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", errEscape
		}
		high, low := unhex(s[i+1]), unhex(s[i+2])
		if high < 0 || low < 0 {
			return "", errEscape
		}
		b.WriteByte(byte(high<<4 | low))
		i += 2
	}
	return b.String(), nil
}

func validUTF8(s string) (string, error) {
	if !utf8.ValidString(s) {
		return "", errEscape
	}
	return s, nil
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}
