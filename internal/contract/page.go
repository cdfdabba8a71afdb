package contract

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

//go:embed page.html
var pageTemplate string

//go:embed page.css
var pageStyle string

// Page returns the contract as one HTML page that loads nothing and runs no script, and the Content-Security-Policy
// under which it works.
func (c *Contract) Page() (html []byte, policy string, err error) {
	page, err := template.New("page").Funcs(template.FuncMap{
		"prose":       prose,
		"words":       words,
		"json":        indented,
		"kind":        kind,
		"bounds":      bounds,
		"curl":        curl,
		"isProblem":   isProblem,
		"status":      http.StatusText,
		"lower":       strings.ToLower,
		"operations":  func(tag string) []*Operation { return tagged(c.Operations, tag) },
		"webhooks":    func(tag string) []*Operation { return tagged(c.Webhooks, tag) },
		"plain":       func() []*Schema { return c.named(false) },
		"problems":    func() []*Schema { return c.named(true) },
		"codes":       codes,
		"constant":    constant,
		"style":       func() template.CSS { return template.CSS(pageStyle) },
		"alternative": alternatives,
	}).Parse(pageTemplate)
	if err != nil {
		return nil, "", fmt.Errorf("the template of the page: %w", err)
	}
	var b bytes.Buffer
	if err := page.Execute(&b, c); err != nil {
		return nil, "", fmt.Errorf("make the page: %w", err)
	}
	digest := sha256.Sum256([]byte(pageStyle))
	policy = "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(digest[:]) +
		"'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	return b.Bytes(), policy, nil
}

// tagged returns those of some operations that have a tag.
func tagged(all []*Operation, tag string) (operations []*Operation) {
	for _, o := range all {
		if o.Tag == tag {
			operations = append(operations, o)
		}
	}
	return operations
}

// named returns the schemas that are problems, or those that are none.
func (c *Contract) named(problems bool) (schemas []*Schema) {
	for _, s := range c.Schemas {
		if isProblem(s) == problems {
			schemas = append(schemas, s)
		}
	}
	return schemas
}

// isProblem says whether a schema is that of the problems of a code.
func isProblem(s *Schema) bool {
	return strings.HasPrefix(s.Name, "Problem") && s.Name != "Problem"
}

// constant returns the one value that a member of an object may have.
func constant(s *Schema, member string) any {
	for _, p := range s.Properties() {
		if p.Name == member && len(p.Schema.Enum) == 1 {
			return p.Schema.Enum[0]
		}
	}
	return ""
}

// codes returns the problems of an answer.
func codes(a Answer) (problems []*Schema) {
	for _, m := range a.Media {
		for _, s := range alternatives(m.Schema) {
			if isProblem(s) {
				problems = append(problems, s)
			}
		}
	}
	return problems
}

// alternatives returns the choices of a schema, or the schema itself.
func alternatives(s *Schema) []*Schema {
	if choices := s.Choices(); len(choices) > 0 && s.Name == "" {
		return choices
	}
	return []*Schema{s}
}

// The marks of a description: `code` and **strong**.
var (
	code   = regexp.MustCompile("`([^`]+)`")
	strong = regexp.MustCompile(`\*\*([^*]+)\*\*`)
)

// words returns a description as a line of HTML.
func words(text string) template.HTML {
	escaped := template.HTMLEscapeString(text)
	escaped = code.ReplaceAllString(escaped, "<code>$1</code>")
	return template.HTML(strong.ReplaceAllString(escaped, "<strong>$1</strong>"))
}

// prose returns a description as paragraphs.
func prose(text string) template.HTML {
	var b strings.Builder
	for paragraph := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		if paragraph != "" {
			fmt.Fprintf(&b, "<p>%s</p>\n", words(paragraph))
		}
	}
	return template.HTML(b.String())
}

// indented returns an example for people to read. One of a text is the text itself.
func indented(s *Schema) string {
	example := s.Example()
	var text string
	if json.Unmarshal(example, &text) == nil {
		return strings.TrimSuffix(text, "\n")
	}
	var b bytes.Buffer
	if json.Indent(&b, example, "", "  ") != nil {
		return string(example)
	}
	return b.String()
}

// kind says in a word or two what a value is.
func kind(s *Schema) string {
	kinds := slices.DeleteFunc(slices.Clone(s.Types), func(t string) bool { return t == "null" })
	word := strings.Join(kinds, " or ")
	if items := s.Items(); items != nil {
		word = "array of " + items.Name
		if items.Name == "" {
			word = "array of " + kind(items)
		}
	}
	if word == "" && len(s.Properties()) > 0 {
		word = "object"
	}
	if s.Format == "date" || s.Format == "date-time" || s.Format == "uri" {
		word = map[string]string{"date": "date", "date-time": "time", "uri": "URL"}[s.Format]
	}
	if len(kinds) < len(s.Types) {
		word += ", or null"
	}
	return word
}

// bounds says what a value is limited to.
func bounds(s *Schema) (bounds []string) {
	between := func(low, high, unit string) {
		switch {
		case low != "" && high != "":
			bounds = append(bounds, low+" to "+high+unit)
		case low != "":
			bounds = append(bounds, "at least "+low+unit)
		case high != "":
			bounds = append(bounds, "at most "+high+unit)
		}
	}
	between(s.Minimum, s.Maximum, "")
	between(s.MinLength, s.MaxLength, " characters")
	between(s.MinItems, s.MaxItems, " items")
	var words []string
	for _, v := range s.Enum {
		if v != nil && v != "" {
			words = append(words, fmt.Sprint(v))
		}
	}
	if len(words) > 0 {
		bounds = append(bounds, strings.Join(words, ", "))
	}
	if s.Default != nil {
		bounds = append(bounds, fmt.Sprintf("default %v", s.Default))
	}
	return bounds
}
