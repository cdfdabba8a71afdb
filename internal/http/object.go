package http

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"jobtally/internal/token"
)

// object reads one JSON object. It goes on after an error in a member, so that a client hears of all at once, and is
// stricter than encoding/json, which takes names in any case, duplicate names, trailing data and text that is not Unicode.
type object struct {
	what   string       // it is, with its article
	within string       // what it is sent as: the body, or an item of it
	names  []string     // that its members may have
	sent   []bool       // which of them were there
	errors []fieldError // at most maxFieldErrors

	// explain returns what is wrong with a name that is not known, or nothing where there is no more to say than that.
	explain func(name string) string
}

func newObject(what string, names []string) object {
	return object{what: what, within: "body", names: names, sent: make([]bool, len(names)), explain: func(string) string { return "" }}
}

// read reads a body that is one object and nothing else, and has take look at each member, by the index of its name: it
// returns what is wrong with it, or nothing. The error ends the reading; what is wrong with members is in o.errors.
func (o *object) read(body []byte, take func(i int, raw json.RawMessage) (wrong string)) error {
	if !utf8.Valid(body) {
		return newProblem(codeInvalidRequest, "the "+o.within+" is not UTF-8")
	}
	in := json.NewDecoder(bytes.NewReader(body))
	start, err := in.Token()
	switch {
	case err == io.EOF:
		return newProblem(codeInvalidRequest, "the "+o.within+" is empty; send a JSON object")
	case err != nil:
		return notJSON(o.within, err)
	case start != json.Delim('{'):
		return newProblem(codeInvalidRequest, "the "+o.within+" must be a JSON object, not "+nameOf(start))
	}
	if err := o.members(in, take); err != nil {
		return err
	}
	if _, err := in.Token(); err != nil {
		return notJSON(o.within, err)
	}
	if _, err := in.Token(); err != io.EOF {
		return newProblem(codeInvalidRequest, "something follows the JSON object; send one object and nothing else")
	}
	return nil
}

func (o *object) members(in *json.Decoder, take func(int, json.RawMessage) string) error {
	var raw json.RawMessage
	for in.More() {
		name, err := in.Token()
		if err == nil {
			err = in.Decode(&raw)
		}
		if err != nil {
			return notJSON(o.within, err)
		}
		if o.member(name.(string), raw, take); len(o.errors) == maxFieldErrors {
			return invalidFields(o.errors)
		}
	}
	return nil
}

// member has take look at a member that is known and comes first under its name.
func (o *object) member(name string, raw json.RawMessage, take func(int, json.RawMessage) string) {
	i := slices.Index(o.names, name)
	switch why := o.explain(name); {
	case i < 0 && why != "":
		o.wrong(name, why)
		return
	case i < 0:
		o.wrong(name, "is not a field of "+o.what+"; "+suggestion(name, o.names))
		return
	case o.sent[i]:
		o.wrong(name, "is there more than once")
		return
	}
	o.sent[i] = true
	if wrong := take(i, raw); wrong != "" {
		o.wrong(name, wrong)
	}
}

// wrong notes an error.
func (o *object) wrong(name, detail string) {
	o.errors = append(o.errors, fieldError{Field: cut(name), Detail: detail})
}

// textOf returns what a JSON string holds, or what is wrong with it.
func textOf(raw json.RawMessage) (text, wrong string) {
	if raw[0] != '"' {
		return "", "must be a string, not " + nameOfRaw(raw)
	}
	text, ok := unquoteJSON(raw)
	if !ok {
		return "", `must not contain half of a surrogate pair, as \ud83d is without \ude00`
	}
	return text, ""
}

// jsonField is a field of an object that is read by decodeObject: take looks at its value, and returns what is wrong with
// it, or nothing.
type jsonField struct {
	name string
	take func(raw json.RawMessage) (wrong string)
}

// decodeObject reads a body that is an object of some fields. What is wrong with them is in the object, for there may be
// more to say.
func decodeObject(body []byte, what string, fields ...jsonField) (object, error) {
	names := make([]string, len(fields))
	for i := range fields {
		names[i] = fields[i].name
	}
	o := newObject(what, names)
	return o, o.read(body, func(i int, raw json.RawMessage) string { return fields[i].take(raw) })
}

// has says whether a field was there.
func (o *object) has(name string) bool { return o.sent[slices.Index(o.names, name)] }

// faulty says whether something is wrong with one of some fields.
func (o *object) faulty(names ...string) bool {
	return slices.ContainsFunc(o.errors, func(e fieldError) bool { return slices.Contains(names, e.Field) })
}

// problem returns the problem of what is wrong, or nil.
func (o *object) problem() error {
	if len(o.errors) == 0 {
		return nil
	}
	return invalidFields(o.errors)
}

// optionalText takes a string of at most so many characters, without white space around it. null is as good as nothing.
func optionalText(into *string, most int) func(json.RawMessage) string {
	return func(raw json.RawMessage) string {
		if raw[0] == 'n' {
			return ""
		}
		text, wrong := textOf(raw)
		if wrong != "" {
			return wrong
		}
		if c, found := controlCharacter(text); found {
			return fmt.Sprintf("must not contain the control character %U", c)
		}
		if token.Within(text) {
			return "must not have a token in it: everybody could read that"
		}
		*into = strings.TrimSpace(text)
		return atMost(most)(*into)
	}
}

// takeTexts takes the texts of an array, each of them once, of which another function says what is wrong. null is as good as
// none.
func takeTexts(into *[]string, wrongWith func(text string) string) func(json.RawMessage) string {
	return func(raw json.RawMessage) string {
		if kind := nameOfRaw(raw); kind != "an array" {
			if kind == "null" {
				return ""
			}
			return "must be an array of strings, not " + kind
		}
		var elements []json.RawMessage
		if err := json.Unmarshal(raw, &elements); err != nil {
			return "must be an array of strings"
		}
		for i, element := range elements {
			text, wrong := textOf(element)
			if wrong != "" {
				return fmt.Sprintf("must be an array of strings: element %d %s", i, wrong)
			}
			if wrong = wrongWith(text); wrong != "" {
				return wrong
			}
			if slices.Contains(*into, text) {
				return "must have " + text + " once"
			}
			*into = append(*into, text)
		}
		return ""
	}
}
