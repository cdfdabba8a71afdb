// Package contracttest holds tests to the contract of the HTTP API: every answer must be one that docs/openapi.yaml allows,
// and every request that is granted one that it describes.
package contracttest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"jobtally/docs"
	"jobtally/internal/contract"
)

// Checker knows the contract. It is safe for concurrent use.
type Checker struct {
	*contract.Contract
	Seen Seen

	mu       sync.Mutex
	compiler *jsonschema.Compiler
	compiled map[string]*jsonschema.Schema // by pointer
}

// Exchange is a call and its answer.
type Exchange struct {
	Request     *http.Request
	RequestBody []byte // nil where it is not known
	Status      int
	Header      http.Header
	Body        []byte
}

// New returns a checker of docs/openapi.yaml.
func New() (*Checker, error) {
	read, err := contract.Read(docs.OpenAPI)
	if err != nil {
		return nil, err
	}
	var document any
	if err := yaml.Unmarshal(docs.OpenAPI, &document); err != nil {
		return nil, err
	}
	text, err := json.Marshal(document)
	if err != nil {
		return nil, err
	}
	if document, err = jsonschema.UnmarshalJSON(bytes.NewReader(text)); err != nil {
		return nil, err
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.RegisterFormat(&jsonschema.Format{Name: "uri", Validate: validURL})
	compiler.AssertFormat()
	if err := compiler.AddResource(resource, document); err != nil {
		return nil, err
	}
	return &Checker{Contract: read, compiler: compiler, compiled: map[string]*jsonschema.Schema{}}, nil
}

const resource = "contract:openapi.yaml"

// validURL holds a text to no more than the contract says of URLs: which ones are taken is for the service to say.
func validURL(v any) error {
	text, isText := v.(string)
	text = strings.TrimSpace(text)
	if scheme, _, _ := strings.Cut(strings.ToLower(text), ":"); isText && scheme != "http" && scheme != "https" && text != "" {
		return fmt.Errorf("%q is no http or https URL", text)
	}
	return nil
}

// Check returns what in an exchange is not as the contract says, or nil.
func (c *Checker) Check(x *Exchange) error {
	if refusedByServer(x) {
		return nil
	}
	method, path := x.Request.Method, x.Request.URL.EscapedPath()
	o, known := c.Find(method, path)
	if o == nil {
		return c.checkElsewhere(x, known)
	}
	answer, documented := o.Answer(x.Status)
	if !documented {
		return fmt.Errorf("%s answers %d, which the contract does not know: %s", o.ID, x.Status, x.Body)
	}
	c.Seen.add(o, x)
	if err := c.checkAnswer(&answer, x); err != nil {
		return fmt.Errorf("%s answers %d: %w", o.ID, x.Status, err)
	}
	if x.Status < 400 {
		request := *x
		if o.InPart {
			request.RequestBody = nil
		}
		if err := c.CheckRequest(o, &request); err != nil {
			return fmt.Errorf("%s grants with %d what the contract does not allow: %w", o.ID, x.Status, err)
		}
	}
	return nil
}

// refusedByServer says whether a call was refused by the HTTP server, as what it does not understand, before it got to the API.
func refusedByServer(x *Exchange) bool {
	plain := x.Header.Get("Content-Type") == "" || strings.HasPrefix(x.Header.Get("Content-Type"), "text/plain")
	return x.Status/100 == 4 && plain && x.Header.Get("X-Request-Id") == ""
}

// checkElsewhere checks what is answered to a path or a method that the contract does not have.
func (c *Checker) checkElsewhere(x *Exchange, known bool) error {
	answer := &c.NotFound
	switch {
	case known && x.Request.Method == http.MethodOptions:
		if x.Status != http.StatusNoContent || x.Header.Get("Allow") == "" {
			return fmt.Errorf("OPTIONS is answered %d, Allow: %s", x.Status, x.Header.Get("Allow"))
		}
		return nil
	case known:
		answer = &c.MethodNotAllowed
	}
	if before, refused := c.Before[x.Status]; refused {
		answer = &before
	}
	if x.Status != answer.Status {
		return fmt.Errorf("%s %s is not in the contract, and is answered %d", x.Request.Method, x.Request.URL.Path, x.Status)
	}
	return c.checkAnswer(answer, x)
}

// everywhere are the headers that any answer may have, and the contract tells of at most in words.
var everywhere = []string{
	"Access-Control-Allow-Origin", "Access-Control-Expose-Headers", "Content-Length", "Content-Type", "Date", "Vary",
	"X-Content-Type-Options", "Content-Security-Policy", "Referrer-Policy", "Cross-Origin-Resource-Policy", "Strict-Transport-Security",
	"Accept-Patch", "Connection", "Transfer-Encoding",
}

func (c *Checker) checkAnswer(answer *contract.Answer, x *Exchange) error {
	for _, h := range answer.Headers {
		values, there := x.Header[http.CanonicalHeaderKey(h.Name)]
		if !there && h.Required {
			return fmt.Errorf("header %s is missing", h.Name)
		}
		for _, value := range values {
			if err := c.checkText(h.Schema, value); err != nil {
				return fmt.Errorf("header %s: %s: %w", h.Name, value, err)
			}
		}
	}
	for name := range x.Header {
		documented := slices.ContainsFunc(answer.Headers, func(h contract.Parameter) bool { return http.CanonicalHeaderKey(h.Name) == name })
		if !documented && !slices.Contains(everywhere, name) {
			return fmt.Errorf("the contract does not know header %s: %s", name, x.Header.Get(name))
		}
	}
	return c.checkBody(answer.Media, x)
}

func (c *Checker) checkBody(forms []contract.Media, x *Exchange) error {
	switch {
	case x.Request.Method == http.MethodHead:
		return nil
	case len(forms) == 0 && len(x.Body) > 0:
		return fmt.Errorf("there is a body: %s", x.Body)
	case len(forms) == 0:
		return nil
	}
	media, _, err := mime.ParseMediaType(x.Header.Get("Content-Type"))
	if err != nil {
		return err
	}
	i := slices.IndexFunc(forms, func(m contract.Media) bool { return m.Type == media })
	if i < 0 {
		return fmt.Errorf("the body is %s", media)
	}
	if !strings.HasSuffix(media, "json") {
		return nil
	}
	if err := c.CheckJSON(forms[i].Schema, x.Body); err != nil {
		return fmt.Errorf("%w\n%s", err, x.Body)
	}
	return nil
}

// CheckJSON checks a text against a schema of the contract.
func (c *Checker) CheckJSON(s *contract.Schema, text []byte) error {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err
	}
	return c.check(s, value)
}

// checkText checks a text of a header or a URL, where all values are written alike.
func (c *Checker) checkText(s *contract.Schema, text string) error {
	var value any = text
	if slices.Contains(s.Types, "integer") {
		value = json.Number(text)
	}
	return c.check(s, value)
}

func (c *Checker) check(s *contract.Schema, value any) error {
	c.mu.Lock()
	schema := c.compiled[s.Pointer]
	if schema == nil {
		var err error
		if schema, err = c.compiler.Compile(resource + "#" + s.Pointer); err != nil {
			c.mu.Unlock()
			return err
		}
		c.compiled[s.Pointer] = schema
	}
	c.mu.Unlock()
	return schema.Validate(value)
}
