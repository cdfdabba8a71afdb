package contracttest

import (
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"jobtally/internal/contract"
)

// CheckRequest returns what in a request is not as the contract says, or nil. Headers that it does not know are fine.
func (c *Checker) CheckRequest(o *contract.Operation, x *Exchange) error {
	query, err := url.ParseQuery(x.Request.URL.RawQuery)
	if takesNoQuery(o) {
		query, err = nil, nil
	}
	if err != nil {
		return err
	}
	inPath := pathParameters(o.Path, x.Request.URL.EscapedPath())
	for _, p := range o.Parameters {
		var values []string
		switch p.In {
		case "query":
			values = query[p.Name]
			delete(query, p.Name)
		case "header":
			values = x.Request.Header[http.CanonicalHeaderKey(p.Name)]
		case "path":
			values = []string{inPath[p.Name]}
		}
		if err := c.checkParameter(p, values); err != nil {
			return fmt.Errorf("parameter %s: %w", p.Name, err)
		}
	}
	for name := range query {
		return fmt.Errorf("parameter %s is not in the contract", name)
	}
	return c.checkRequestBody(o, x)
}

// takesNoQuery says whether an operation ignores what is in a query.
func takesNoQuery(o *contract.Operation) bool {
	return o.Method == http.MethodGet && !slices.ContainsFunc(o.Parameters, func(p contract.Parameter) bool { return p.In == "query" })
}

func (c *Checker) checkParameter(p contract.Parameter, values []string) error {
	if len(values) == 0 && p.Required {
		return fmt.Errorf("it is missing")
	}
	schema := p.Schema
	if items := schema.Items(); items != nil {
		many := make([]any, len(values))
		for i, value := range values {
			many[i] = value
		}
		return c.check(schema, many)
	}
	if len(values) > 1 && p.In == "query" {
		return fmt.Errorf("it is there %d times", len(values))
	}
	for _, value := range values {
		if err := c.checkText(schema, value); err != nil {
			return err
		}
	}
	return nil
}

func (c *Checker) checkRequestBody(o *contract.Operation, x *Exchange) error {
	if len(o.Body) == 0 || x.RequestBody == nil {
		return nil
	}
	media, _, err := mime.ParseMediaType(x.Request.Header.Get("Content-Type"))
	if err != nil {
		return err
	}
	i := slices.IndexFunc(o.Body, func(m contract.Media) bool { return m.Type == media })
	if i < 0 {
		return fmt.Errorf("the body is %s", media)
	}
	if !strings.HasSuffix(media, "+json") && media != "application/json" {
		return nil
	}
	if err := c.CheckJSON(o.Body[i].Schema, x.RequestBody); err != nil {
		return fmt.Errorf("body: %w\n%.500s", err, x.RequestBody)
	}
	return nil
}

// pathParameters returns what a path has in the places of a template.
func pathParameters(template, path string) map[string]string {
	values := map[string]string{}
	given := strings.Split(path, "/")
	for i, part := range strings.Split(template, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			values[strings.TrimSuffix(name, "}")], _ = url.PathUnescape(given[i])
		}
	}
	return values
}
