package capture

import (
	"errors"
	"slices"
	"strings"
	"unicode/utf8"
)

// SourceRules is the version of the rules by which CanonicalSource decides that two URLs are one job.
// Every request carries the version and the canonical URL it led to, so that later rules rewrite nothing
// that was already decided. Any change of a result, a tracking parameter added included, is a new version.
const SourceRules = 1

// MaxSourceBytes is the longest source URL that is accepted, before and after canonicalisation.
const MaxSourceBytes = 2048

// The reasons for which CanonicalSource refuses a URL. Their messages complete a sentence that begins
// with the name of the field, and are fit to be shown to an API client.
var (
	ErrSourceLength   = errors.New("must be at most 2048 bytes, counted with its characters percent-encoded")
	ErrSourceText     = errors.New("must be valid UTF-8 without spaces or control characters inside")
	ErrSourceScheme   = errors.New("must be an absolute http or https URL, as in https://example.com/jobs/1")
	ErrSourceUserInfo = errors.New("must not contain a user name or password")
	ErrSourceHost     = errors.New("must name a host by its domain name or IPv4 address")
	ErrSourcePort     = errors.New("must have a port between 1 and 65535, or none")
)

// CanonicalSource returns the canonical form of a source URL: the key under which one account knows one
// job. Variants of one posting's URL share a canonical form; two postings never do. Where the two aims
// disagree the second wins: a job counted twice can be deleted, a job that was refused as a duplicate of
// another is lost.
//
// The general rules: white space around the URL is trimmed; scheme and host are lower-case; http on its
// default port becomes https; default ports and the host's trailing dot are dropped; dot segments are
// resolved; one trailing slash of the path is dropped; percent-encoding is normalised as far as RFC 3986
// calls two spellings equivalent; tracking parameters are dropped and the others sorted, with their
// multiplicity; the fragment is dropped unless it says which page or posting is meant. The case of path
// and query is kept. Where a host's own rule knows what identifies a posting there, that alone remains.
// A host outside ASCII keeps its spelling: without IDNA tables it is not known to equal its xn-- form.
//
// The result is itself an absolute http or https URL that CanonicalSource accepts and returns unchanged.
// An error is one of the ErrSource values: the URL is refused when it is not an absolute http or https
// URL, names no host, carries credentials, a bad port, spaces or control characters, or is longer than
// MaxSourceBytes, either as given or in its canonical form.
func CanonicalSource(raw string) (string, error) {
	raw = strings.TrimSpace(raw)
	if len(raw) > MaxSourceBytes {
		return "", ErrSourceLength
	}
	u, err := parseSource(raw)
	if err != nil {
		return "", err
	}
	canonical, ok := u.posting()
	if !ok {
		canonical = u.String()
	}
	if len(canonical) > MaxSourceBytes {
		return "", ErrSourceLength
	}
	return canonical, nil
}

// sourceURL is a source URL after the general rules. Its parts need no further escaping.
type sourceURL struct {
	scheme   string   // "https", or "http" with a port that is not its default
	host     string   // lower-case, without trailing dot
	port     string   // decimal, "" for the default port of the scheme
	path     string   // begins with "/"; ends with a single "/" only when it is the root
	query    []string // "name=value" or "name", sorted, without tracking parameters
	fragment string   // "" unless it identifies a page
}

// String returns the URL with its parts put together.
func (u sourceURL) String() string {
	var b strings.Builder
	b.Grow(256) // most URLs fit
	b.WriteString(u.scheme)
	b.WriteString("://")
	b.WriteString(u.host)
	if u.port != "" {
		b.WriteByte(':')
		b.WriteString(u.port)
	}
	b.WriteString(u.path)
	for i, param := range u.query {
		if i == 0 {
			b.WriteByte('?')
		} else {
			b.WriteByte('&')
		}
		b.WriteString(param)
	}
	if u.fragment != "" {
		b.WriteByte('#')
		b.WriteString(u.fragment)
	}
	return b.String()
}

// segments returns the path's segments, none for the root.
func (u sourceURL) segments() []string {
	if u.path == "/" {
		return nil
	}
	return strings.Split(u.path[1:], "/")
}

// param returns the value of the named query parameter. It is "" and not ok when the parameter is absent,
// or present with several values that differ.
func (u sourceURL) param(name string) (value string, ok bool) {
	i := slices.IndexFunc(u.query, func(param string) bool { return paramName(param) == name })
	if i < 0 {
		return "", false
	}
	_, value, _ = strings.Cut(u.query[i], "=")
	if !u.agrees(name, value) {
		return "", false
	}
	return value, true
}

// agrees reports whether the named query parameter, wherever it is present, has this value.
func (u sourceURL) agrees(name, value string) bool {
	return !slices.ContainsFunc(u.query, func(param string) bool {
		n, v, _ := strings.Cut(param, "=")
		return n == name && v != value
	})
}

// parseSource reads a URL by the general rules. It does not use net/url, whose decoded paths lose the
// difference between "/" and "%2F", and which refuses a path with a lone "%" that every browser opens.
func parseSource(raw string) (sourceURL, error) {
	if !utf8.ValidString(raw) || strings.ContainsFunc(raw, isSpaceOrControl) {
		return sourceURL{}, ErrSourceText
	}
	scheme, rest, ok := strings.Cut(raw, "://")
	scheme = lowerASCII(scheme)
	if !ok || scheme != "http" && scheme != "https" {
		return sourceURL{}, ErrSourceScheme
	}
	rest, fragment, _ := strings.Cut(rest, "#")
	rest, query, _ := strings.Cut(rest, "?")
	authority, path := rest, ""
	if slash := strings.IndexByte(rest, '/'); slash >= 0 {
		authority, path = rest[:slash], rest[slash:]
	}
	u := sourceURL{path: cleanPath(path), query: cleanQuery(query), fragment: cleanFragment(fragment)}
	var err error
	u.scheme, u.host, u.port, err = cleanAuthority(scheme, authority)
	return u, err
}

// isSpaceOrControl reports whether r is an ASCII space or control character. Others are percent-encoded.
func isSpaceOrControl(r rune) bool { return r <= ' ' || r == 0x7f }
