package token_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"jobtally/internal/token"
)

// known is a token whose checksum was computed elsewhere: the form is a promise to everyone who holds a token.
const known = "jt_AAAAAAAAAAAA_bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb17fF0Q"

const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

func TestParse(t *testing.T) {
	tests := []struct {
		name, text string
		want       error
	}{
		{"valid", known, nil},
		{"empty", "", token.ErrForm},
		{"other prefix", "gh" + known[2:], token.ErrForm},
		{"prefix in upper case", "JT_" + known[3:], token.ErrForm},
		{"short", known[:len(known)-1], token.ErrLength},
		{"long", known + "0", token.ErrLength},
		{"space behind", known + " ", token.ErrLength},
		{"no separator", strings.Replace(known, "A_", "AA", 1), token.ErrForm},
		{"hyphen in the id", strings.Replace(known, "AA_", "A-_", 1), token.ErrForm},
		{"underscore in the secret", strings.Replace(known, "bb1", "b_1", 1), token.ErrForm},
		{"letter outside ASCII", strings.Replace(known, "bbb1", "bä1", 1), token.ErrForm},
		{"other secret", strings.Replace(known, "bb1", "bc1", 1), token.ErrChecksum},
		{"other checksum", known[:len(known)-1] + "K", token.ErrChecksum},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := token.Parse(tt.text)
			if !errors.Is(err, tt.want) {
				t.Fatalf("Parse: error %v, want %v", err, tt.want)
			}
			if err == nil && (got.Reveal() != tt.text || got.ID() != "AAAAAAAAAAAA") {
				t.Errorf("Parse: %q with id %q", got.Reveal(), got.ID())
			}
			if err != nil && tt.text != "" && strings.Contains(err.Error(), tt.text) {
				t.Errorf("the error repeats the token: %v", err)
			}
		})
	}
}

func TestWithin(t *testing.T) {
	for text, want := range map[string]bool{
		known: true, "key-" + known + "-1": true, "jt_jt_" + known: true, known + known: true,
		known[:20] + "c" + known[21:]: true, // the checksum is wrong
		"":                            false, "jt_": false, known[1:]: false, known[:len(known)-1]: false,
		strings.Replace(known, "A_", "AA", 1): false, strings.Replace(known, "bb1", "b-1", 1): false,
		"JT" + known[2:]: false, strings.Repeat("jt_", 10_000): false,
	} {
		if got := token.Within(text); got != want {
			t.Errorf("Within(%.80q): %v, want %v", text, got, want)
		}
	}
}

func TestNewIsParsed(t *testing.T) {
	seen := map[string]bool{}
	for range 10_000 {
		made := token.New()
		if seen[made.Reveal()] || seen[made.ID()] {
			t.Fatalf("%v was made twice", made)
		}
		seen[made.Reveal()], seen[made.ID()] = true, true
		parsed, err := token.Parse(made.Reveal())
		if err != nil || parsed.ID() != made.ID() || parsed.Hash() != made.Hash() {
			t.Fatalf("%v is not what was parsed: %v, %v", made, parsed, err)
		}
	}
}

func TestNewUsesEveryCharacterAlike(t *testing.T) {
	counts := map[rune]int{}
	const tokens = 5_000
	for range tokens {
		text := token.New().Reveal()
		for _, c := range text[16:48] {
			counts[c]++
		}
	}
	const mean = tokens * 32 / 62 // 2580, standard deviation about 50: a modulo bias would add 25 % to eight characters
	for _, c := range alphabet {
		if n := counts[c]; n < mean-350 || n > mean+350 {
			t.Errorf("%q was drawn %d times, want about %d", c, n, mean)
		}
	}
}

func TestChecksumCatchesEveryChange(t *testing.T) {
	text := token.New().Reveal()
	for i := range len(text) {
		for _, c := range []byte(alphabet + "_-") {
			changed := []byte(text)
			changed[i] = c
			if _, err := token.Parse(string(changed)); err == nil && c != text[i] {
				t.Errorf("character %d may be %q as well", i, c)
			}
		}
	}
}

func TestChecksumCatchesEveryTransposition(t *testing.T) {
	text := token.New().Reveal()
	for i := range len(text) {
		for j := i + 1; j < len(text); j++ {
			swapped := []byte(text)
			swapped[i], swapped[j] = swapped[j], swapped[i]
			if _, err := token.Parse(string(swapped)); err == nil && text[i] != text[j] {
				t.Errorf("characters %d and %d may change places", i, j)
			}
		}
	}
}

func TestMatches(t *testing.T) {
	a, b := token.New(), token.New()
	if !a.Matches(a.Hash()) {
		t.Error("a token does not match its own hash")
	}
	if a.Matches(b.Hash()) {
		t.Error("a token matches the hash of another")
	}
}

func TestNothingPrintsTheSecret(t *testing.T) {
	made := token.New()
	secret := made.Reveal()[16:]
	nested := struct{ t token.Token }{made}
	var printed bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&printed, verb+"\n", made)
		fmt.Fprintf(&printed, verb+"\n", nested)
		fmt.Fprintf(&printed, verb+"\n", &made)
	}
	fmt.Fprintln(&printed, made.String(), made)
	slog.New(slog.NewTextHandler(&printed, nil)).Info("text", "token", made, "nested", nested)
	slog.New(slog.NewJSONHandler(&printed, nil)).Info("json", "token", made, "nested", nested)
	if err := json.NewEncoder(&printed).Encode(map[string]any{"token": made}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(printed.String(), secret[:8]) || strings.Contains(printed.String(), fmt.Sprintf("%x", secret[:8])) {
		t.Errorf("the secret was printed:\n%s", printed.String())
	}
	if want := "jt_" + made.ID() + "_…"; made.String() != want {
		t.Errorf("String: %q, want %q", made.String(), want)
	}
	if got := fmt.Sprint(token.Token{}); got != "jt_…" {
		t.Errorf("the zero token prints %q", got)
	}
}
