package events

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/bits"
	"strings"
)

// Digest is a SHA-256 value, written as 64 lower-case hexadecimal digits.
type Digest [sha256.Size]byte

var errDigest = errors.New("not a digest: it has 64 lower-case hexadecimal digits")

// Hash digests the parts one after another, each preceded by its length in eight big-endian bytes, so that no two
// different lists of parts have the same input.
func Hash(parts ...[]byte) Digest {
	h := sha256.New()
	var length [8]byte
	for _, part := range parts {
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		h.Write(length[:])
		h.Write(part)
	}
	var d Digest
	h.Sum(d[:0])
	return d
}

// ParseDigest reads the form that String writes, and no other spelling of it: upper-case digits are an error.
func ParseDigest(s string) (d Digest, err error) {
	if len(s) != hex.EncodedLen(len(d)) || strings.ContainsAny(s, "ABCDEF") {
		return Digest{}, errDigest
	}
	if _, err := hex.Decode(d[:], []byte(s)); err != nil {
		return Digest{}, errDigest
	}
	return d, nil
}

// Plus returns the sum of two digests modulo 2^256. Sums tell whether two sets of digests are the same, in whatever
// order they were gathered, and what was added can be taken out again with Minus.
func (d Digest) Plus(other Digest) Digest {
	carry := uint64(0)
	for i := len(d) - 8; i >= 0; i -= 8 {
		var sum uint64
		sum, carry = bits.Add64(binary.BigEndian.Uint64(d[i:]), binary.BigEndian.Uint64(other[i:]), carry)
		binary.BigEndian.PutUint64(d[i:], sum)
	}
	return d
}

// Minus is the reverse of Plus.
func (d Digest) Minus(other Digest) Digest {
	borrow := uint64(0)
	for i := len(d) - 8; i >= 0; i -= 8 {
		var difference uint64
		difference, borrow = bits.Sub64(binary.BigEndian.Uint64(d[i:]), binary.BigEndian.Uint64(other[i:]), borrow)
		binary.BigEndian.PutUint64(d[i:], difference)
	}
	return d
}

// String returns the digest in hexadecimal.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText writes the digest as String does.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads a digest as ParseDigest does.
func (d *Digest) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDigest(string(text))
	return err
}
