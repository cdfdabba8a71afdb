package main

import (
	"strings"
	"testing"

	"jobtally/internal/token"
)

// What operators write is read by administrators over HTTP, and refused where those could not have written it.
func TestTextsOfOperators(t *testing.T) {
	for text, ok := range map[string]bool{
		"": true, "invoice 17": true, "erste\tZeile\nzweite Zeile – ✓": true, strings.Repeat("ü", 100): true,
		strings.Repeat("u", 101): false, "\x1b[2J": false, "a\x00b": false, "a\u0085b": false, "\xff": false,
		"lost " + token.New().Reveal(): false,
	} {
		if err := checkText("--name", text, 100); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
	if err := (reasonFlag{Reason: "\x1b[2J"}).Validate(); err == nil || !strings.HasPrefix(err.Error(), "--reason has at most 500 characters") {
		t.Error(err)
	}
}
