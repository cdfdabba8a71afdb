package http

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"jobtally/internal/events"
)

const maxTokenName = 100 // characters

// decodeNewToken reads the body of POST /api/admin/accounts/{account}/tokens.
func decodeNewToken(body []byte, now time.Time) (terms events.TokenTerms, err error) {
	o, err := decodeObject(body, "a token",
		jsonField{"name", optionalText(&terms.Name, maxTokenName)},
		jsonField{"scopes", takeScopes(&terms.Scopes)},
		jsonField{"expires_at", takeExpiry(&terms.ExpiresAt, now)},
	)
	if err != nil {
		return terms, err
	}
	return terms, o.problem()
}

// takeScopes takes scopes, each of them once.
func takeScopes(into *[]string) func(json.RawMessage) string {
	return takeTexts(into, func(scope string) string {
		if !slices.Contains(events.Scopes(), scope) {
			return fmt.Sprintf("must be out of %s: there is no %q", strings.Join(events.Scopes(), ", "), cut(scope))
		}
		return ""
	})
}

// takeExpiry takes an instant that lies in the future, in whole milliseconds.
func takeExpiry(into *time.Time, now time.Time) func(json.RawMessage) string {
	return func(raw json.RawMessage) string {
		if raw[0] == 'n' {
			return ""
		}
		text, wrong := textOf(raw)
		if wrong != "" {
			return wrong
		}
		at, err := time.Parse(time.RFC3339, text)
		at = at.UTC().Truncate(time.Millisecond)
		switch {
		case err != nil || at.Year() > 9999: // to which an offset can lead
			return "must be a time such as 2027-01-01T00:00:00Z"
		case !at.After(now):
			return "must be in the future"
		}
		*into = at
		return ""
	}
}
