// Package token knows the form of jobtally's bearer tokens, jt_<id>_<secret><checksum>: an id of 12, a secret of 32
// and a checksum of 6 base62 characters. The checksum is the CRC-32 (IEEE) of everything before it, so that a typo is
// refused without a look-up, and so that a scanner for leaked secrets can tell a token from a look-alike.
package token

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"strings"

	"jobtally/internal/events"
)

const (
	prefix       = "jt_"
	idLength     = 12
	secretLength = 32
	sumLength    = 6
	length       = len(prefix) + idLength + len("_") + secretLength + sumLength

	alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// The reasons for which Parse refuses a text. They never repeat it: it may be a secret with a typo.
var (
	ErrForm     = errors.New("a token looks like jt_<id>_<secret>: 12 and 38 letters and digits")
	ErrLength   = fmt.Errorf("a token has %d characters: part of it is missing, or something was added", length)
	ErrChecksum = errors.New("the checksum of the token does not match: a character is wrong")
)

// Token is a bearer token. Whatever prints it prints its id only; Reveal alone tells the secret. The zero Token is
// not valid: New and Parse make tokens.
type Token struct {
	// text is a pointer because fmt ignores the methods of unexported fields: the token inside of another struct
	// is printed as an address.
	text *string
}

// New returns a token that nobody can guess.
func New() Token {
	body := prefix + random(idLength) + "_" + random(secretLength)
	text := body + checksum(body)
	return Token{&text}
}

// Parse reads a token's text. It looks at form and checksum only: whether the token was ever issued is for others
// to say. The error is ErrForm, ErrLength or ErrChecksum.
func Parse(s string) (Token, error) {
	switch {
	case !strings.HasPrefix(s, prefix):
		return Token{}, ErrForm
	case len(s) != length:
		return Token{}, ErrLength
	case !hasForm(s):
		return Token{}, ErrForm
	case checksum(s[:length-sumLength]) != s[length-sumLength:]:
		return Token{}, ErrChecksum
	}
	return Token{&s}, nil
}

// Within says whether a text has something of the form of a token in it, be its checksum right or wrong: a token with a
// typo tells the secret nearly as well.
func Within(text string) bool {
	for {
		at := strings.Index(text, prefix)
		if at < 0 || len(text) < at+length {
			return false
		}
		if hasForm(text[at : at+length]) {
			return true
		}
		text = text[at+len(prefix):]
	}
}

// ID returns the part of the token that names it. It is no secret.
func (t Token) ID() string { return (*t.text)[len(prefix) : len(prefix)+idLength] }

// Prefix returns what the text of the token with an id begins with.
func Prefix(id string) string { return prefix + id }

// LastFour returns the last characters of the token, by which its owner tells it from others. They are of the checksum.
func (t Token) LastFour() string { return (*t.text)[length-4:] }

// Reveal returns the text of the token, its secret included.
func (t Token) Reveal() string { return *t.text }

// Hash returns the SHA-256 of the token's whole text. The secret has 190 random bits: it needs no slow hash.
func (t Token) Hash() events.Digest { return sha256.Sum256([]byte(*t.text)) }

// Matches says, in a time that does not depend on the answer, whether hash is the token's Hash.
func (t Token) Matches(hash events.Digest) bool {
	own := t.Hash()
	return subtle.ConstantTimeCompare(own[:], hash[:]) == 1
}

// String returns the token without its secret.
func (t Token) String() string {
	if t.text == nil {
		return prefix + "…"
	}
	return prefix + t.ID() + "_…"
}

// Format prints what String returns, whatever the verb.
func (t Token) Format(f fmt.State, _ rune) { io.WriteString(f, t.String()) }

// LogValue returns what String returns.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// random returns n base62 characters, each as likely as any other: bytes that would make some likelier are dropped.
func random(n int) string {
	const usable = 256 - 256%len(alphabet)
	text := make([]byte, 0, n)
	var buffer [64]byte
	for len(text) < n {
		rand.Read(buffer[:]) // never fails
		for _, b := range buffer {
			if int(b) < usable && len(text) < n {
				text = append(text, alphabet[int(b)%len(alphabet)])
			}
		}
	}
	return string(text)
}

// checksum returns the CRC-32 of s in base62, padded with zeros.
func checksum(s string) string {
	var text [sumLength]byte
	sum := crc32.ChecksumIEEE([]byte(s))
	for i := sumLength - 1; i >= 0; i-- {
		text[i] = alphabet[sum%uint32(len(alphabet))]
		sum /= uint32(len(alphabet))
	}
	return string(text[:])
}

// hasForm looks at everything but prefix, length and checksum.
func hasForm(s string) bool {
	return s[len(prefix)+idLength] == '_' && isBase62(s[len(prefix):len(prefix)+idLength]) && isBase62(s[len(prefix)+idLength+1:])
}

func isBase62(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}
