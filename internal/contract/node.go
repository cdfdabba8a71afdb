package contract

import (
	"iter"
	"strings"

	"go.yaml.in/yaml/v3"
)

// node is a place in the document. One that is not there has no members and no text.
type node struct {
	*yaml.Node
	pointer string // as in RFC 6901
}

func at(root *yaml.Node) node { return node{Node: root} }

func (n node) found() bool { return n.Node != nil }

// members yields the members of a mapping, in their order.
func (n node) members() iter.Seq2[string, node] {
	return func(yield func(string, node) bool) {
		if n.Node == nil || n.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i < len(n.Content); i += 2 {
			name := n.Content[i].Value
			if !yield(name, node{n.Content[i+1], n.pointer + "/" + escaped.Replace(name)}) {
				return
			}
		}
	}
}

var escaped = strings.NewReplacer("~", "~0", "/", "~1")

func (n node) member(name string) node {
	for found, member := range n.members() {
		if found == name {
			return member
		}
	}
	return node{}
}

// items returns the items of a sequence.
func (n node) items() (items []node) {
	if n.Node == nil || n.Kind != yaml.SequenceNode {
		return nil
	}
	for i, item := range n.Content {
		items = append(items, node{item, n.pointer + "/" + itoa(i)})
	}
	return items
}

// text returns the text of a member.
func (n node) text(name string) string {
	if member := n.member(name); member.found() {
		return strings.TrimSpace(member.Value)
	}
	return ""
}

// value returns what JSON has in this place.
func (n node) value() (v any) {
	if n.Node != nil {
		_ = n.Decode(&v) // the document was parsed: what it has can be decoded
	}
	return v
}

// resolve returns the node that a reference names, or the node itself.
func (c *Contract) resolve(n node) node {
	reference := n.text("$ref")
	if reference == "" {
		return n
	}
	found := at(c.root)
	for _, part := range strings.Split(strings.TrimPrefix(reference, "#/"), "/") {
		found = found.member(strings.NewReplacer("~1", "/", "~0", "~").Replace(part))
	}
	return found
}
