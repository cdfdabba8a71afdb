package http

import (
	"fmt"
	nethttp "net/http"
	"strings"

	"github.com/google/uuid"

	"jobtally/internal/token"
)

const (
	headerIdempotencyKey  = "Idempotency-Key"
	maxIdempotencyKeySize = 255
)

// idempotencyKey returns the key of a call: the client's, or a new one. A key is the string of RFC 8941, or the same
// text without quotes if it is plain enough: "abc" and abc are one key.
func idempotencyKey(header nethttp.Header) (string, error) {
	lines := header[headerIdempotencyKey]
	switch len(lines) {
	case 0:
		id, err := uuid.NewV7()
		return id.String(), err
	case 1:
		return parseIdempotencyKey(strings.Trim(lines[0], " \t"))
	}
	return "", newProblem(codeInvalidIdempotencyKey, "there is more than one Idempotency-Key header")
}

func parseIdempotencyKey(s string) (key string, err error) {
	if strings.HasPrefix(s, `"`) {
		key, err = unquoteKey(s)
	} else {
		key, err = s, checkBareKey(s)
	}
	if err != nil {
		return "", err
	}
	if key == "" || len(key) > maxIdempotencyKeySize {
		return "", newProblem(codeInvalidIdempotencyKey,
			fmt.Sprintf("a key has 1 to %d characters, not %d", maxIdempotencyKeySize, len(key)))
	}
	if token.Within(key) {
		return "", newProblem(codeInvalidIdempotencyKey, "there is a token in the key, and a key is recorded; send another key")
	}
	return key, nil
}

// unquoteKey reads a string of RFC 8941: printable ASCII between quotes, in which a backslash stands before a quote
// or a backslash. Nothing may follow: parameters mean nothing here.
func unquoteKey(s string) (string, error) {
	var key strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			if i != len(s)-1 {
				return "", newProblem(codeInvalidIdempotencyKey, "something follows the closing quote of the key")
			}
			return key.String(), nil
		case c < ' ' || c >= 0x7f:
			return "", newProblem(codeInvalidIdempotencyKey, "a key has printable ASCII characters only")
		case c == '\\':
			i++
			if i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", newProblem(codeInvalidIdempotencyKey, `a backslash in a key stands before " or \ only`)
			}
			fallthrough
		default:
			key.WriteByte(s[i])
		}
	}
	return "", newProblem(codeInvalidIdempotencyKey, "the closing quote of the key is missing")
}

func checkBareKey(s string) error {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`",;\`, c) >= 0 {
			return newProblem(codeInvalidIdempotencyKey,
				`a key without quotes has printable ASCII characters only, and no space, quote, comma, semicolon or backslash`)
		}
	}
	return nil
}

// keyEscapes is made once: that takes longer than to write a key.
var keyEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// quoteKey writes a key as the string of RFC 8941.
func quoteKey(key string) string { return `"` + keyEscapes.Replace(key) + `"` }
