package contract

import (
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Schema is what a value may be. A reference is what it refers to, with a description of its own where it has one.
type Schema struct {
	Name        string // of a component
	Pointer     string // where it stands in the document (RFC 6901)
	Description string
	Types       []string // what JSON calls it; none where anything may be
	Format      string
	Pattern     string
	Enum        []any // a constant is one of one
	Default     any
	Minimum     string // the bound as it is written; "" for none. Likewise the others.
	Maximum     string
	MinLength   string
	MaxLength   string
	MinItems    string
	MaxItems    string
	Required    []string

	example    node // the first of its examples
	properties func() []Property
	items      func() *Schema
	choices    func() []*Schema
}

// Property is a member of an object.
type Property struct {
	Name     string
	Required bool
	Schema   *Schema
}

const components = "#/components/schemas/"

func (c *Contract) schema(n node) *Schema {
	if !n.found() {
		return nil
	}
	described := n.text("description")
	n = c.resolve(n)
	s := &Schema{Pointer: n.pointer, Description: described}
	s.Name, _ = strings.CutPrefix("#"+n.pointer, components)
	if strings.Contains(s.Name, "/") || strings.HasPrefix(s.Name, "#") {
		s.Name = ""
	}
	if described == "" {
		s.Description = n.text("description")
	}
	s.Format, s.Pattern = n.text("format"), n.text("pattern")
	s.Minimum, s.Maximum = n.text("minimum"), n.text("maximum")
	s.MinLength, s.MaxLength = n.text("minLength"), n.text("maxLength")
	s.MinItems, s.MaxItems = n.text("minItems"), n.text("maxItems")
	s.Default = n.member("default").value()
	s.Types = texts(n.member("type"))
	s.Enum = values(n.member("enum"))
	if constant := n.member("const"); constant.found() {
		s.Enum = []any{constant.value()}
	}
	if examples := n.member("examples").items(); len(examples) > 0 {
		s.example = examples[0]
	}
	s.Required = texts(n.member("required"))
	for _, part := range n.member("allOf").items() {
		s.Required = append(s.Required, c.schema(part).Required...)
	}
	s.properties = sync.OnceValue(func() []Property { return c.properties(n) })
	s.items = sync.OnceValue(func() *Schema { return c.schema(n.member("items")) })
	s.choices = sync.OnceValue(func() []*Schema { return c.choices(n) })
	return s
}

// Properties returns the members of an object, those that it has from others (allOf) first.
func (s *Schema) Properties() []Property { return s.properties() }

// Items returns what an array has, or nil.
func (s *Schema) Items() *Schema { return s.items() }

// Choices returns the schemas of which a value has one; none where there is no choice. Alternatives that are only about
// which members are required are no choice.
func (s *Schema) Choices() []*Schema { return s.choices() }

func (c *Contract) choices(n node) (choices []*Schema) {
	for _, choice := range append(n.member("oneOf").items(), n.member("anyOf").items()...) {
		s := c.schema(choice)
		if s.Name != "" || len(s.Types) > 0 || len(s.Properties()) > 0 {
			choices = append(choices, s)
		}
	}
	return choices
}

func (c *Contract) properties(n node) (properties []Property) {
	for _, part := range n.member("allOf").items() {
		properties = append(properties, c.properties(c.resolve(part))...)
	}
	for name, member := range n.member("properties").members() {
		p := Property{Name: name, Schema: c.schema(member)}
		if i := slices.IndexFunc(properties, func(p Property) bool { return p.Name == name }); i >= 0 {
			properties[i] = p
		} else {
			properties = append(properties, p)
		}
	}
	required := texts(n.member("required"))
	for i := range properties {
		properties[i].Required = properties[i].Required || slices.Contains(required, properties[i].Name)
	}
	return properties
}

// texts returns a text, or the texts of a sequence.
func texts(n node) (texts []string) {
	if !n.found() {
		return nil
	}
	if n.Value != "" {
		return []string{n.Value}
	}
	for _, item := range n.items() {
		texts = append(texts, item.Value)
	}
	return texts
}

func values(n node) (values []any) {
	for _, item := range n.items() {
		values = append(values, item.value())
	}
	return values
}

func itoa(n int) string { return strconv.Itoa(n) }
