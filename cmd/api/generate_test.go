package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"jobtally/internal/contract"
)

// generator makes values of schemas of the contract, good and bad ones.
type generator struct {
	*rand.Rand
	known map[string][]string // by the name of a schema: values that mean something to the service
	urls  int                 // how many URLs it draws from
}

func (g *generator) one(of []string) string { return of[g.IntN(len(of))] }

func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

// value returns a value that the schema allows, as far as its keywords are known here.
func (g *generator) value(s *contract.Schema) any {
	switch known := g.known[s.Name]; {
	case len(known) > 0:
		return g.one(known)
	case len(s.Enum) > 0:
		return s.Enum[g.IntN(len(s.Enum))]
	case g.chance(10):
		return g.example(s)
	}
	if choices := s.Choices(); len(choices) > 0 {
		return g.value(choices[g.IntN(len(choices))])
	}
	if len(s.Types) == 0 {
		return g.object(s)
	}
	switch s.Types[g.IntN(len(s.Types))] {
	case "object":
		return g.object(s)
	case "array":
		return g.array(s)
	case "integer":
		return g.integer(s)
	case "boolean":
		return g.chance(50)
	case "null":
		return nil
	}
	return g.text(s)
}

func (g *generator) example(s *contract.Schema) (value any) {
	_ = json.Unmarshal(s.Example(), &value)
	return value
}

func (g *generator) object(s *contract.Schema) any {
	object := map[string]any{}
	for _, p := range s.Properties() {
		if p.Required || g.chance(40) {
			object[p.Name] = g.value(p.Schema)
		}
	}
	return object
}

func (g *generator) array(s *contract.Schema) any {
	least, most := bound(s.MinItems, 0), bound(s.MaxItems, 5)
	n := g.length(int(least), int(most))
	array := make([]any, n)
	for i := range array {
		array[i] = g.value(s.Items())
	}
	return array
}

func (g *generator) integer(s *contract.Schema) any {
	least, most := bound(s.Minimum, -1<<40), bound(s.Maximum, 1<<40)
	switch g.IntN(4) {
	case 0:
		return least
	case 1:
		return most
	}
	return least + g.Int64N(most-least+1)
}

// length returns a length within bounds: mostly a small one, at times one of the bounds, and seldom one that takes long.
func (g *generator) length(least, most int) int {
	const short, long = 12, 512
	switch n := g.IntN(200); {
	case n == 0, n < short && most < long:
		return most
	case n < 2*short:
		return least
	}
	return least + g.IntN(min(most-least, short)+1)
}

var alphabets = []string{
	"abcdefghijklmnopqrstuvwxyz", "ABC xyz 0129-_.,;:!", "äöüßéñçøåλжшщ", "漢字かな교육", "😀🏳️‍🌈👩‍💻\u200d\u0301", "\t\n\r ab",
	`"\/{}[]<>&%$#'` + "`", "\u2028\u2029\ufeff\u00a0\u202e\ufffd\U0010ffff", "\u0085\u00a0\u1680\u2000\u200a\u202f\u205f\u3000 \t",
}

func (g *generator) text(s *contract.Schema) any {
	switch {
	case s.Format == "uri":
		return g.url()
	case s.Format == "date-time":
		return time.Now().Add(time.Duration(1+g.IntN(1e6)) * time.Second).UTC().Format(time.RFC3339)
	case s.Pattern != "" && s.MaxLength == "":
		return g.example(s)
	}
	letters := []rune(g.one(alphabets))
	text := make([]rune, g.length(int(bound(s.MinLength, 0)), int(bound(s.MaxLength, 40))))
	for i := range text {
		text[i] = letters[g.IntN(len(letters))]
	}
	return string(text)
}

func (g *generator) url() string {
	return fmt.Sprintf("https://%s.example.com/openings/%d%s", g.one([]string{"jobs", "careers", "www"}), g.IntN(g.urls), g.one([]string{"", "?utm_source=x", "#top", "/", "?b=2&a=1", "/%C3%A4%20b"}))
}

// bound reads a bound, or returns another.
func bound(text string, absent int64) int64 {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n
	}
	return absent
}

// strange are texts that stand where something else is expected.
var strange = []string{
	"", " ", "0", "-1", "1.5", "1e3", "99999999999999999999", "null", "true", "[]", "{}", "nothing", "*", `"`, `"open`, "a,b", ";", "\\",
	"../../etc/passwd", "%00", "%", "\x00", "\x7f", "é", "\xff\xfe", "🙂", "2026-13", "2026-00", "0-0", "1-1", "0-99999999999999999999", "0--1",
	"W/\"1\"", "\"1\", \"2\"", "\"999\"", "javascript:alert(1)", "http://", "https://user:pass@example.com/", "https://example.com:99999/",
	"job_aaaaaaaaaaaaaaaaaaaaaaaa", "free", "custom", strings.Repeat("a", 300), strings.Repeat("漢", 2100), "' OR 1=1 --", "<script>", "MjAyNi0xMw",
}

// strangeJSON are values that stand where another one is expected.
var strangeJSON = []string{
	"null", "true", "0", "-1", "7", "1.5", "1e400", "-9223372036854775809", "123456789012345678901234567890", `""`, `" "`, `"x"`, "[]", "{}", "[[]]",
	`{"a":1}`, `"\u0000"`, `"\ud83d"`, `"\uDE00"`, `"\u200b"`, `["jobs:read","jobs:read"]`, `["root"]`, `"1970-01-01T00:00:00Z"`, `"2026-11-22"`,
	`"ftp://example.com/"`, `"https://example.com/ a"`, `"` + strings.Repeat("a", 256) + `"`, `"` + strings.Repeat("ж", 20001) + `"`,
}

// spoil returns a JSON text with something changed in it: a value, or the text itself.
func (g *generator) spoil(value any) []byte {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	if g.chance(60) {
		return g.spoilValue(value)
	}
	return g.spoilText(text)
}

// spoilValue puts a strange value into a place of an object, or takes a member out, or adds one.
func (g *generator) spoilValue(value any) []byte {
	object, isObject := value.(map[string]any)
	if !isObject || len(object) == 0 {
		return []byte(g.one(strangeJSON))
	}
	names := make([]string, 0, len(object))
	for name := range object {
		names = append(names, name)
	}
	slices.Sort(names)
	parts, chosen, what := []string{}, g.IntN(len(names)), g.IntN(6)
	for i, name := range names {
		text, _ := json.Marshal(object[name])
		key, _ := json.Marshal(name)
		member := string(key) + ":" + string(text)
		if i == chosen {
			switch what {
			case 0:
				continue
			case 1:
				member += "," + member
			case 2:
				member = fmt.Sprintf("%q:%s", g.one([]string{"id", "Title", "sourceUrl", "", "__proto__", "versión", strings.Repeat("k", 200)}), text)
			case 3:
				member = string(key) + ":" + string(g.spoilNested(object[name]))
			default:
				member = string(key) + ":" + g.one(strangeJSON)
			}
		}
		parts = append(parts, member)
	}
	return []byte("{" + strings.Join(parts, ",") + "}")
}

func (g *generator) spoilNested(value any) []byte {
	array, isArray := value.([]any)
	if !isArray || len(array) == 0 {
		return g.spoilValue(value)
	}
	parts := make([]string, len(array))
	for i, item := range array {
		text, _ := json.Marshal(item)
		parts[i] = string(text)
	}
	i := g.IntN(len(parts))
	parts[i] = string(g.spoilValue(array[i]))
	return []byte("[" + strings.Join(parts, ",") + "]")
}

func (g *generator) spoilText(text []byte) []byte {
	switch g.IntN(9) {
	case 0:
		return text[:g.IntN(len(text)+1)]
	case 1:
		return append(slices.Clone(text), g.one([]string{"x", "{}", ",", "\x00", " null"})...)
	case 2:
		return append([]byte(g.one([]string{"\ufeff", "\xff", "\x1f\x8b", "//", "["})), text...)
	case 3:
		return []byte(strings.Repeat(g.one([]string{"[", `{"jobs":`, `{"title":`}), 1+g.IntN(20_000)))
	case 4:
		deep := 1 + g.IntN(5_000)
		return []byte(`{"title":` + strings.Repeat("[", deep) + strings.Repeat("]", deep) + "}")
	case 5:
		return slices.Concat([]byte(" \n\t"), text, []byte("\r\n "))
	case 6:
		return []byte(`{"notes":"` + strings.Repeat("n", 1<<g.IntN(19)) + `"}`)
	case 7:
		return nil
	}
	if len(text) > 0 {
		text = slices.Clone(text)
		text[g.IntN(len(text))] ^= byte(1 + g.IntN(255))
	}
	return text
}
