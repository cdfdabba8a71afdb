package http

import (
	"strings"

	"jobtally/internal/near"
)

// suggestion helps a client that sent a field which is not known: it names the near one, or all of them.
func suggestion(name string, known []string) string {
	if best := near.Name(name, known); best != "" {
		return "did you mean " + best + "?"
	}
	return "its fields are " + strings.Join(known, ", ")
}
