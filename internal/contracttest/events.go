package contracttest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"jobtally/docs"
	"jobtally/internal/events"
)

// Events knows the contract of events: the schemas of docs/schemas. It is stricter than they are: a member that they do not
// know is a mistake in what this version writes, while consumers ignore it, for a later version may have added it.
type Events struct {
	schemas map[string]*jsonschema.Schema // by the name of the file without .json
}

// NewEvents returns a checker of docs/schemas.
func NewEvents() (*Events, error) {
	files, err := docs.Schemas.ReadDir("schemas")
	if err != nil {
		return nil, err
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.AssertFormat()
	e := &Events{schemas: map[string]*jsonschema.Schema{}}
	for _, file := range files {
		text, err := docs.Schemas.ReadFile(path.Join("schemas", file.Name()))
		if err != nil {
			return nil, err
		}
		schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file.Name(), err)
		}
		closeObjects(schema)
		if err := compiler.AddResource(file.Name(), schema); err != nil {
			return nil, err
		}
		if e.schemas[strings.TrimSuffix(file.Name(), ".json")], err = compiler.Compile(file.Name()); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// closeObjects makes every object of a schema refuse the members that it does not know.
func closeObjects(schema any) {
	switch s := schema.(type) {
	case map[string]any:
		if _, object := s["properties"].(map[string]any); object {
			s["additionalProperties"] = false
		}
		for _, part := range s {
			closeObjects(part)
		}
	case []any:
		for _, part := range s {
			closeObjects(part)
		}
	}
}

// CheckDecision returns what in a message of a stream of decisions, or in an event that comes of it for an account, is not as the
// contract says, or nil; and the types that it looked at.
func (e *Events) CheckDecision(m events.Message, partition int) (types []string, err error) {
	if err := e.CheckMessage(&m); err != nil {
		return nil, err
	}
	d, err := events.DecodeDecision(m, partition)
	if err != nil {
		return nil, err
	}
	types = []string{events.TypeOf(d.Body)}
	var told []events.Event
	if event, is := d.JobEvent(); is {
		told = append(told, event)
	}
	if event, is := d.QuotaEvent(cmp.Or(d.Account, "somebody")); is {
		told = append(told, event)
	}
	for _, event := range told {
		types = append(types, event.Type)
		if err := e.CheckEvent(event.AppendJSON(nil)); err != nil {
			return nil, err
		}
	}
	return types, nil
}

// CheckMessage returns what in a message of a stream of decisions is not as the contract says, or nil. Headers that are not
// of CloudEvents are JetStream's.
func (e *Events) CheckMessage(m *events.Message) error {
	headers := map[string]any{}
	for name, values := range m.Header {
		if !strings.HasPrefix(name, "ce-") && name != "traceparent" {
			continue
		}
		if len(values) != 1 {
			return fmt.Errorf("%s: header %s is there %d times", m.Subject, name, len(values))
		}
		headers[name] = values[0]
	}
	if err := e.schemas["headers"].Validate(headers); err != nil {
		return fmt.Errorf("%s: %w", m.Subject, err)
	}
	if err := e.checkData(headers["ce-type"].(string), m.Data); err != nil {
		return fmt.Errorf("%s: %w", m.Subject, err)
	}
	return nil
}

// CheckEvent returns what in an event, as webhooks and server-sent events have it, is not as the contract says, or nil.
func (e *Events) CheckEvent(text []byte) error {
	if err := validate(e.schemas["event"], text); err != nil {
		return fmt.Errorf("%w\n%s", err, text)
	}
	var event struct {
		Type string
		Data json.RawMessage
	}
	if err := json.Unmarshal(text, &event); err != nil {
		return err
	}
	return e.checkData(event.Type, event.Data)
}

func (e *Events) checkData(ceType string, data []byte) error {
	schema := e.schemas[ceType]
	if schema == nil {
		return fmt.Errorf("there is no schema of type %s", ceType)
	}
	if err := validate(schema, data); err != nil {
		return fmt.Errorf("data of %s: %w\n%s", ceType, err, data)
	}
	return nil
}

func validate(schema *jsonschema.Schema, text []byte) error {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err
	}
	return schema.Validate(value)
}
