// Package contract reads the contract of the HTTP API, docs/openapi.yaml, and makes a page of it. It knows as much of
// OpenAPI as that document uses.
package contract

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Contract is a document of OpenAPI 3.1.
type Contract struct {
	Title, Version, Summary, Description string
	Tags                                 []Tag
	Operations                           []*Operation // in the order of the document
	Webhooks                             []*Operation // what receivers are sent; the path is a name
	Schemas                              []*Schema    // of the components, likewise
	// NotFound and MethodNotAllowed are answered to what is no operation.
	NotFound, MethodNotAllowed Answer
	// Before are the answers by status that any call may get before it is looked at, on any path.
	Before map[int]Answer

	root *yaml.Node
}

// Tag is what operations are grouped by.
type Tag struct{ Name, Description string }

// Operation is a method of a path.
type Operation struct {
	ID, Method, Path     string // the method in capitals, the path with {parameters}
	Tag                  string
	Summary, Description string
	Open                 bool     // needs no token
	Scopes               []string // that the token needs
	Parameters           []Parameter
	Body                 []Media // the forms of its body; none where it has no body
	BodyDescription      string
	InPart               bool // is granted also where parts of its body are not valid
	Answers              []Answer
}

// Parameter is a parameter of a path, a query or a header; or a header of an answer.
type Parameter struct {
	Name, In, Description string
	Required              bool
	Schema                *Schema
}

// Answer is what an operation may answer with one status, or a receiver with those of a range.
type Answer struct {
	Status      int    // 0 of a range
	Range       string // the status as it is written: 201, 2XX, default
	Description string
	Headers     []Parameter
	Media       []Media
}

// Media is a form of a body.
type Media struct {
	Type   string // as application/json
	Schema *Schema
}

// Read reads a document. An error says where it is not as expected.
func Read(text []byte) (*Contract, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, fmt.Errorf("read the contract: %w", err)
	}
	c := &Contract{root: document.Content[0]}
	top := at(c.root)
	info := top.member("info")
	c.Title, c.Version = info.text("title"), info.text("version")
	c.Summary, c.Description = info.text("summary"), info.text("description")
	for _, tag := range top.member("tags").items() {
		c.Tags = append(c.Tags, Tag{tag.text("name"), tag.text("description")})
	}
	for path, item := range top.member("paths").members() {
		for method, operation := range item.members() {
			c.Operations = append(c.Operations, c.operation(strings.ToUpper(method), path, operation))
		}
	}
	for name, item := range top.member("webhooks").members() {
		for method, operation := range item.members() {
			c.Webhooks = append(c.Webhooks, c.operation(strings.ToUpper(method), name, operation))
		}
	}
	for _, schema := range top.member("components").member("schemas").members() {
		c.Schemas = append(c.Schemas, c.schema(schema))
	}
	c.NotFound = c.answer("404", top.member("x-not-found"))
	c.MethodNotAllowed = c.answer("405", top.member("x-method-not-allowed"))
	c.Before = map[int]Answer{}
	for status, answer := range top.member("x-before").members() {
		a := c.answer(status, answer)
		c.Before[a.Status] = a
	}
	return c, nil
}

func (c *Contract) operation(method, path string, n node) *Operation {
	o := &Operation{
		ID: n.text("operationId"), Method: method, Path: path, Summary: n.text("summary"), Description: n.text("description"),
	}
	for _, tag := range n.member("tags").items() {
		o.Tag = tag.Value
	}
	if security := n.member("security"); security.found() {
		o.Open = len(security.items()) == 0
		for _, choice := range security.items() {
			for _, scope := range choice.member("bearer").items() {
				o.Scopes = append(o.Scopes, scope.Value)
			}
		}
	}
	for _, parameter := range n.member("parameters").items() {
		p := c.resolve(parameter)
		o.Parameters = append(o.Parameters, c.parameter(p.text("name"), p))
	}
	body := c.resolve(n.member("requestBody"))
	o.Body, o.BodyDescription = c.media(body.member("content")), body.text("description")
	o.InPart = body.text("x-granted-in-part") == "true"
	for status, answer := range n.member("responses").members() {
		o.Answers = append(o.Answers, c.answer(status, answer))
	}
	return o
}

func (c *Contract) parameter(name string, n node) Parameter {
	return Parameter{
		Name: name, In: n.text("in"), Description: n.text("description"), Required: n.text("required") == "true",
		Schema: c.schema(n.member("schema")),
	}
}

func (c *Contract) answer(status string, n node) Answer {
	n = c.resolve(n)
	number, _ := strconv.Atoi(status)
	a := Answer{Status: number, Range: status, Description: n.text("description"), Media: c.media(n.member("content"))}
	for name, header := range n.member("headers").members() {
		a.Headers = append(a.Headers, c.parameter(name, c.resolve(header)))
	}
	return a
}

func (c *Contract) media(n node) (forms []Media) {
	for name, media := range n.members() {
		forms = append(forms, Media{name, c.schema(media.member("schema"))})
	}
	return forms
}

// Answer returns what the operation may answer with a status.
func (o *Operation) Answer(status int) (a Answer, known bool) {
	i := slices.IndexFunc(o.Answers, func(a Answer) bool { return a.Status == status })
	if i < 0 {
		return a, false
	}
	return o.Answers[i], true
}

// Find returns the operation of a method and a path, as a URL has it; of several the one whose path has the fewest
// parameters. HEAD is that of GET. Without one, known says whether the path has others.
func (c *Contract) Find(method, path string) (o *Operation, known bool) {
	if method == "HEAD" {
		method = "GET"
	}
	most := -1
	for _, candidate := range c.Operations {
		literal, ok := matches(candidate.Path, path)
		known = known || ok
		if ok && candidate.Method == method && literal > most {
			o, most = candidate, literal
		}
	}
	return o, known
}

// matches says whether a path is one of a template, and how many of its parts stand in the template as they are.
func matches(template, path string) (literal int, ok bool) {
	parts, given := strings.Split(template, "/"), strings.Split(path, "/")
	if len(parts) != len(given) {
		return 0, false
	}
	for i, part := range parts {
		switch {
		case part == given[i]:
			literal++
		case !strings.HasPrefix(part, "{") || given[i] == "":
			return 0, false
		}
	}
	return literal, true
}
