package contract

import (
	"bytes"
	"encoding/json"

	"go.yaml.in/yaml/v3"
)

// Example returns a value that the schema allows, as JSON: the first of its examples, or one made of those of its parts.
func (s *Schema) Example() []byte {
	if s.example.found() {
		return s.example.json(nil)
	}
	if len(s.Enum) > 0 {
		text, _ := json.Marshal(s.Enum[0]) // it comes from a document that JSON can hold
		return text
	}
	if choices := s.Choices(); len(choices) > 0 {
		return choices[0].Example()
	}
	if items := s.Items(); items != nil {
		return append(append([]byte("["), items.Example()...), ']')
	}
	if properties := s.Properties(); len(properties) > 0 {
		return objectOf(properties)
	}
	return exampleOfType(s)
}

func objectOf(properties []Property) []byte {
	text := []byte("{")
	for i, p := range properties {
		if i > 0 {
			text = append(text, ',')
		}
		name, _ := json.Marshal(p.Name)
		text = append(append(append(text, name...), ':'), p.Schema.Example()...)
	}
	return append(text, '}')
}

func exampleOfType(s *Schema) []byte {
	if len(s.Types) == 0 {
		return []byte("null")
	}
	switch s.Types[0] {
	case "integer":
		return []byte("1")
	case "boolean":
		return []byte("true")
	case "object":
		return []byte("{}")
	}
	return []byte(`"…"`)
}

// json appends the value in this place as compact JSON, with members in their order.
func (n node) json(text []byte) []byte {
	switch n.Kind {
	case yaml.MappingNode:
		text = append(text, '{')
		for name, member := range n.members() {
			if text[len(text)-1] != '{' {
				text = append(text, ',')
			}
			quoted, _ := json.Marshal(name)
			text = member.json(append(append(text, quoted...), ':'))
		}
		return append(text, '}')
	case yaml.SequenceNode:
		text = append(text, '[')
		for i, item := range n.items() {
			if i > 0 {
				text = append(text, ',')
			}
			text = item.json(text)
		}
		return append(text, ']')
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(n.value()) // of a text, a number, a boolean or null
	return append(text, bytes.TrimSpace(b.Bytes())...)
}
