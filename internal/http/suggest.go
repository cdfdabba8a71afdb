package http

import (
	"fmt"
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

// notEventType says of a text that it is no type of event, and which it was probably meant to be, or which there are.
func notEventType(text string, known []string) string {
	if best := near.Type(text, known); best != "" {
		return fmt.Sprintf("has %q, which is no type of event; did you mean %s?", cut(text), best)
	}
	return fmt.Sprintf("has %q, which is no type of event; they are %s, each also without its version", cut(text), strings.Join(known, ", "))
}
