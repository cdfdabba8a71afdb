package projections

import (
	"bytes"
	"maps"
	"slices"
	"strings"

	"jobtally/internal/events"
)

// differing names the parts in which a recorded message is not the one that was made again, and returns the first of
// them both ways. Headers that begin with Nats- are the server's and the client library's: they are no part of it. A trace
// context is missing from what was appended again from a projection.
func differing(made, recorded events.Message) (parts []string, expected, found string) {
	if bare := events.WithoutTraceparent(recorded.Header); len(bare) == len(recorded.Header) {
		made.Header = events.WithoutTraceparent(made.Header)
	}
	differs := func(part, is, was string) {
		if len(parts) == 0 {
			expected, found = is, was
		}
		parts = append(parts, part)
	}
	if made.Subject != recorded.Subject {
		differs("subject", made.Subject, recorded.Subject)
	}
	if !bytes.Equal(made.Data, recorded.Data) {
		differs("data", string(made.Data), string(recorded.Data))
	}
	if sameHeader(made.Header, recorded.Header) {
		return parts, expected, found
	}
	names := map[string][]string{}
	maps.Copy(names, recorded.Header)
	maps.Copy(names, made.Header)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		is, was := made.Header[name], recorded.Header[name]
		if !slices.Equal(is, was) && !strings.HasPrefix(name, "Nats-") {
			differs(name, strings.Join(is, ", "), strings.Join(was, ", "))
		}
	}
	return parts, expected, found
}

// sameHeader is the quick way to find that nothing differs.
func sameHeader(made, recorded map[string][]string) bool {
	for name, values := range recorded {
		if !slices.Equal(values, made[name]) && !strings.HasPrefix(name, "Nats-") {
			return false
		}
	}
	for name := range made {
		if recorded[name] == nil {
			return false
		}
	}
	return true
}
