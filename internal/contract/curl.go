package contract

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
)

// curl returns a command line that calls the operation with the examples of its required parameters and of its body.
func curl(o *Operation) string {
	path, query := o.Path, url.Values{}
	for _, p := range o.Parameters {
		switch {
		case p.In == "path":
			path = strings.ReplaceAll(path, "{"+p.Name+"}", plainExample(p.Schema))
		case p.In == "query" && p.Required:
			query.Add(p.Name, plainExample(p.Schema))
		}
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	command := "curl -s "
	if o.isStream() {
		command = "curl -sN " // what comes is printed at once
	}
	if o.Method != "GET" && (o.Method != "POST" || len(o.Body) == 0) {
		command += "-X " + o.Method + " "
	}
	lines := []string{command + word("$URL"+path)}
	if !o.Open {
		lines = append(lines, `-H "Authorization: Bearer $TOKEN"`)
	}
	if len(o.Body) > 0 {
		lines = append(lines, "-H 'Content-Type: "+o.Body[0].Type+"'", "-d "+quoted(string(o.Body[0].Schema.Example())))
	}
	return strings.Join(lines, " \\\n  ")
}

// isStream says whether an answer goes on until the client leaves.
func (o *Operation) isStream() bool {
	a, _ := o.Answer(200)
	return slices.ContainsFunc(a.Media, func(m Media) bool { return m.Type == "text/event-stream" })
}

// word returns a part of a command line in which the shell replaces variables.
func word(text string) string {
	return `"` + strings.NewReplacer(`"`, `\"`, "`", "\\`").Replace(text) + `"`
}

// quoted returns a part of a command line that the shell leaves as it is.
func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// plainExample returns an example of a parameter as it stands in a URL; of several values the first.
func plainExample(s *Schema) string {
	if items := s.Items(); items != nil {
		return plainExample(items)
	}
	var text string
	example := s.Example()
	if json.Unmarshal(example, &text) != nil {
		return string(example)
	}
	return text
}
