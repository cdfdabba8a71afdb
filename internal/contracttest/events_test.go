package contracttest

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"jobtally/docs"
	"jobtally/internal/events"
)

func eventChecker(t *testing.T) *Events {
	t.Helper()
	e, err := NewEvents()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// goldenOf reads the golden files of package events: what was ever sent in version 1, which no file of docs may contradict.
func goldenOf(t *testing.T, folder string) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("..", "events", "testdata", folder, "*"))
	if err != nil || len(paths) == 0 {
		t.Fatal("no golden files", err)
	}
	files := map[string][]byte{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))] = text
	}
	return files
}

// goldenDecisions returns the golden messages of decisions.
func goldenDecisions(t *testing.T) map[string]*events.Message {
	t.Helper()
	decisions := map[string]*events.Message{}
	for name, text := range goldenOf(t, "golden") {
		if strings.Contains(name, "_requested.") {
			continue
		}
		head, body, _ := strings.Cut(string(text), "\n\n")
		lines := strings.Split(head, "\n")
		m := &events.Message{Subject: lines[0], Header: map[string][]string{}, Data: []byte(body)}
		for _, line := range lines[1:] {
			header, value, _ := strings.Cut(line, ":")
			m.Header[header] = []string{strings.TrimPrefix(value, " ")}
		}
		decisions[name] = m
	}
	return decisions
}

// TestGoldenEventsAreByTheContract proves that what version 1 ever sent is by the schemas of today, and, as these are closed
// here, that no member was taken out of them.
func TestGoldenEventsAreByTheContract(t *testing.T) {
	e := eventChecker(t)
	for name, m := range goldenDecisions(t) {
		m.Sequence = 1234
		if types, err := e.CheckDecision(*m, 6); err != nil || !strings.HasPrefix(name, types[0]) {
			t.Errorf("%s: %q, %v", name, types, err)
		}
	}
	for name, text := range goldenOf(t, "events") {
		if err := e.CheckEvent(text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestEveryMemberIsInAGoldenFile proves that no schema promises what was never written.
func TestEveryMemberIsInAGoldenFile(t *testing.T) {
	data := map[string][]map[string]any{}
	for _, m := range goldenDecisions(t) {
		ceType := m.Header["ce-type"][0]
		data[ceType] = append(data[ceType], object(t, m.Data))
	}
	for _, text := range goldenOf(t, "events") {
		event := object(t, text)
		data["event"] = append(data["event"], event)
		data[event["type"].(string)] = append(data[event["type"].(string)], event["data"].(map[string]any))
	}
	for name, text := range schemaFiles(t) {
		if name == "headers" {
			continue // a trace is in none: it is in no digest
		}
		written := map[string]bool{}
		for _, example := range data[name] {
			members(example, written)
		}
		for _, member := range properties(object(t, text), map[string]bool{}) {
			if !written[member] {
				t.Errorf("%s: no golden file has %s", name, member)
			}
		}
	}
}

func object(t *testing.T, text []byte) (o map[string]any) {
	t.Helper()
	if err := json.Unmarshal(text, &o); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return o
}

// members gathers the names of all members in a value.
func members(value any, into map[string]bool) {
	switch v := value.(type) {
	case map[string]any:
		for name, member := range v {
			into[name] = true
			members(member, into)
		}
	case []any:
		for _, element := range v {
			members(element, into)
		}
	}
}

// properties returns the names of all properties in a schema.
func properties(schema any, found map[string]bool) []string {
	if s, ok := schema.(map[string]any); ok {
		if named, ok := s["properties"].(map[string]any); ok {
			for name := range named {
				found[name] = true
			}
		}
		for _, part := range s {
			properties(part, found)
		}
	}
	return slices.Sorted(maps.Keys(found))
}

func schemaFiles(t *testing.T) map[string][]byte {
	t.Helper()
	entries, err := docs.Schemas.ReadDir("schemas")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, entry := range entries {
		text, err := docs.Schemas.ReadFile("schemas/" + entry.Name())
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimSuffix(entry.Name(), ".json")] = text
	}
	return files
}

// TestSharedPartsAreTheSame: each schema is a file of its own that any tool reads, and has its own copy of what others have too.
func TestSharedPartsAreTheSame(t *testing.T) {
	parts := map[string]any{}
	for name, text := range schemaFiles(t) {
		defs, _ := object(t, text)["$defs"].(map[string]any)
		for part, schema := range defs {
			if before, there := parts[part]; there && !reflect.DeepEqual(before, schema) {
				t.Errorf("%s has another %s than the other schemas", name, part)
			}
			parts[part] = schema
			if !bytes.Contains(text, []byte(`"#/$defs/`+part+`"`)) {
				t.Errorf("%s has %s, and uses it nowhere", name, part)
			}
		}
	}
}

// TestEveryPropertyIsDescribed: a property says what it is, and in which unit.
func TestEveryPropertyIsDescribed(t *testing.T) {
	for name, text := range schemaFiles(t) {
		schema := object(t, text)
		if schema["title"] != name {
			t.Errorf("%s is called %v", name, schema["title"])
		}
		defs, _ := schema["$defs"].(map[string]any)
		var check func(path string, part any)
		check = func(path string, part any) {
			s, ok := part.(map[string]any)
			if !ok {
				return
			}
			named, _ := s["properties"].(map[string]any)
			for property, p := range named {
				described := p.(map[string]any)
				if ref, ok := described["$ref"].(string); ok {
					described, _ = defs[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any)
				}
				if description, _ := described["description"].(string); description == "" {
					t.Errorf("%s: %s%s is not described", name, path, property)
				}
				check(path+property+".", p)
			}
		}
		check("", schema)
		for part, s := range defs {
			check(part+".", s)
		}
	}
}

// TestCheckFindsWrongEvents shows that an event that is not by the contract is called so.
func TestCheckFindsWrongEvents(t *testing.T) {
	e := eventChecker(t)
	captured := goldenDecisions(t)[events.TypeJobCaptured]
	for want, change := range map[string]func(m *events.Message){
		"":                                   func(*events.Message) {},
		"additional properties 'left'":       replaceData(`"used":40`, `"used":40,"left":1`),
		"missing property 'used'":            replaceData(`"used":40,`, ``),
		"got string, want integer":           replaceData(`"used":40`, `"used":"40"`),
		"value must be one of 80, 100":       replaceData(`"threshold":80`, `"threshold":90`),
		"additional properties 'salary'":     replaceData(`"job_type":`, `"salary":1,"job_type":`),
		"does not match pattern '^[0-9]{4}-": replaceData(`"month":"2026-11"`, `"month":"2026-13"`),
		"missing property 'ce-digest'":       func(m *events.Message) { delete(m.Header, "ce-digest") },
		"additional properties 'ce-digset'":  func(m *events.Message) { m.Header["ce-digset"] = m.Header["ce-digest"] },
		"header ce-id is there 2 times":      func(m *events.Message) { m.Header["ce-id"] = []string{"6-1", "6-1"} },
		"there is no schema of type":         func(m *events.Message) { m.Header["ce-type"] = []string{"jobtally.job.captured.v2"} },
		"is not valid date-time":             func(m *events.Message) { m.Header["ce-time"] = []string{"2026-11-30"} },
	} {
		m := &events.Message{Subject: captured.Subject, Header: maps.Clone(captured.Header), Data: captured.Data}
		change(m)
		if err := e.CheckMessage(m); (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
	event := goldenOf(t, "events")[events.TypeQuotaReset]
	for want, text := range map[string]string{
		"missing property 'account'":       strings.Replace(string(event), `"account":"demo",`, "", 1),
		"additional properties 'sequence'": strings.Replace(string(event), `"account":`, `"sequence":"1","account":`, 1),
		"missing property 'archived'":      strings.Replace(string(event), `,"archived":"2026-11"`, "", 1),
	} {
		if err := e.CheckEvent([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
}

func replaceData(before, after string) func(*events.Message) {
	return func(m *events.Message) { m.Data = bytes.Replace(m.Data, []byte(before), []byte(after), 1) }
}

// webhookTest is what only webhooks are sent, when an account tests one.
const webhookTest = "jobtally.webhook.test.v1"

// asyncAPI is what the tests look at of docs/asyncapi.yaml.
type asyncAPI struct {
	Channels map[string]struct {
		Address    string
		Parameters map[string]struct{ Enum []string }
		Messages   map[string]reference
	}
	Operations map[string]struct {
		Channel  reference
		Messages []reference
	}
	Components struct{ Messages map[string]asyncMessage }
}

type reference struct {
	Ref string `yaml:"$ref"`
}

type asyncMessage struct {
	Name    string
	Payload struct {
		Ref   string `yaml:"$ref"`
		AllOf []struct {
			Ref        string `yaml:"$ref"`
			Properties struct {
				Type struct{ Const string }
				Data struct {
					Ref string `yaml:"$ref"`
				}
			}
		} `yaml:"allOf"`
	}
	Examples []struct {
		Name             string
		Headers, Payload map[string]any
	}
}

// schemas returns the names of the schema files that the payload refers to.
func (m *asyncMessage) schemas() (names []string) {
	refs := []string{m.Payload.Ref}
	for _, part := range m.Payload.AllOf {
		refs = append(refs, part.Ref, part.Properties.Data.Ref)
	}
	for _, ref := range refs {
		if ref != "" {
			names = append(names, strings.TrimSuffix(strings.TrimPrefix(ref, "./schemas/"), ".json"))
		}
	}
	return names
}

func readAsyncAPI(t *testing.T) (a asyncAPI) {
	t.Helper()
	if err := yaml.Unmarshal(docs.AsyncAPI, &a); err != nil {
		t.Fatal(err)
	}
	return a
}

// TestAsyncAPIHasTheMessagesThatThereAre: the messages are the types that the code knows, each with the schema of its type, in
// the channels under whose subjects it comes.
func TestAsyncAPIHasTheMessagesThatThereAre(t *testing.T) {
	a := readAsyncAPI(t)
	sent := slices.Concat(events.JobEventTypes(), events.QuotaEventTypes(), []string{webhookTest})
	byRoot := map[string][]string{}
	outcomes := map[string][]string{}
	for _, m := range goldenDecisions(t) {
		tokens := strings.Split(m.Subject, ".")
		byRoot[tokens[0]] = append(byRoot[tokens[0]], m.Header["ce-type"][0])
		outcomes[tokens[0]] = append(outcomes[tokens[0]], tokens[3])
	}
	for channel, want := range map[string][]string{
		"jobDecisions": byRoot["jobs"], "accountDecisions": byRoot["accounts"], "jobEvents": events.JobEventTypes(), "webhooks": sent,
	} {
		var names []string
		for key, ref := range a.Channels[channel].Messages {
			m, there := a.Components.Messages[strings.TrimPrefix(ref.Ref, "#/components/messages/")]
			if !there || !strings.HasSuffix(ref.Ref, "/"+key) {
				t.Errorf("channel %s has %s, which is %s", channel, key, ref.Ref)
			}
			names = append(names, m.Name)
		}
		if got, want := unique(names), unique(want); !slices.Equal(got, want) {
			t.Errorf("channel %s has\n%q\nwant\n%q", channel, got, want)
		}
	}
	for name, operation := range a.Operations { // lists what it sends by the keys of its channel, and leaves none out
		channel := strings.TrimPrefix(operation.Channel.Ref, "#/channels/")
		var listed []string
		for _, ref := range operation.Messages {
			listed = append(listed, strings.TrimPrefix(ref.Ref, operation.Channel.Ref+"/messages/"))
		}
		if got, want := unique(listed), slices.Sorted(maps.Keys(a.Channels[channel].Messages)); !slices.Equal(got, want) {
			t.Errorf("operation %s has\n%q\nwant\n%q", name, got, want)
		}
	}
	for channel, stream := range map[string]string{"jobDecisions": "jobs", "accountDecisions": "accounts"} {
		c := a.Channels[channel]
		if c.Address != stream+".{partition}.{account}.{outcome}" || !slices.Contains(events.Decisions.Subjects(0), stream+".0.>") {
			t.Errorf("channel %s has address %s", channel, c.Address)
		}
		if got, want := unique(c.Parameters["outcome"].Enum), unique(outcomes[stream]); !slices.Equal(got, want) {
			t.Errorf("channel %s has outcomes\n%q\nwant\n%q", channel, got, want)
		}
	}
	if got, want := names(t, a, false), unique(events.DecisionTypes()); !slices.Equal(got, want) {
		t.Errorf("decisions\n%q\nwant\n%q", got, want)
	}
	if got, want := names(t, a, true), unique(sent); !slices.Equal(got, want) {
		t.Errorf("events\n%q\nwant\n%q", got, want)
	}
	for _, ceType := range events.DecisionTypes() {
		if _, err := events.DecodeBody(ceType, []byte("{}")); errors.Is(err, events.ErrUnknownType) {
			t.Errorf("%s is no decision that can be read", ceType)
		}
	}
}

// names returns the names of the messages, of decisions or in the structured form, and checks what these refer to.
func names(t *testing.T, a asyncAPI, structured bool) (names []string) {
	t.Helper()
	for key, m := range a.Components.Messages {
		if strings.HasSuffix(key, "Event") != structured {
			continue
		}
		names = append(names, m.Name)
		want := []string{m.Name}
		if structured {
			want = []string{"event", m.Name}
			if m.Payload.AllOf[1].Properties.Type.Const != m.Name {
				t.Errorf("message %s has another type", key)
			}
		}
		if got := m.schemas(); !slices.Equal(got, want) {
			t.Errorf("message %s refers to %q, want %q", key, got, want)
		}
	}
	return unique(names)
}

func unique(list []string) []string { return slices.Compact(slices.Sorted(slices.Values(list))) }

// TestEverySchemaIsUsed: by a message, or, that of the headers, by all decisions.
func TestEverySchemaIsUsed(t *testing.T) {
	used := map[string]bool{"headers": bytes.Contains(docs.AsyncAPI, []byte("$ref: ./schemas/headers.json"))}
	for _, m := range readAsyncAPI(t).Components.Messages {
		for _, name := range m.schemas() {
			used[name] = true
		}
	}
	files := schemaFiles(t)
	for name := range files {
		if !used[name] {
			t.Errorf("docs/schemas/%s.json is used by nothing", name)
		}
	}
	for name := range used {
		if files[name] == nil {
			t.Errorf("docs/schemas/%s.json is not there", name)
		}
	}
}

// TestExamplesAreTheGoldenFiles: what docs/asyncapi.yaml shows is what was sent, and all of that.
func TestExamplesAreTheGoldenFiles(t *testing.T) {
	decisions, structured := goldenDecisions(t), goldenOf(t, "events")
	for key, m := range readAsyncAPI(t).Components.Messages {
		for _, example := range m.Examples {
			name := key + " " + example.Name
			if strings.HasSuffix(key, "Event") {
				if !reflect.DeepEqual(object(t, marshal(t, example.Payload)), object(t, structured[example.Name])) {
					t.Errorf("%s is not the golden file", name)
				}
				delete(structured, example.Name)
				continue
			}
			golden, there := decisions[example.Name]
			if !there {
				t.Errorf("%s has no golden file", name)
				continue
			}
			headers := map[string]any{}
			for header, values := range golden.Header {
				headers[header] = values[0]
			}
			if !reflect.DeepEqual(example.Headers, headers) || !reflect.DeepEqual(object(t, marshal(t, example.Payload)), object(t, golden.Data)) {
				t.Errorf("%s is not the golden file", name)
			}
			delete(decisions, example.Name)
		}
	}
	if len(decisions)+len(structured) > 0 {
		t.Errorf("no example has %q %q", slices.Sorted(maps.Keys(decisions)), slices.Sorted(maps.Keys(structured)))
	}
}

func marshal(t *testing.T, value any) []byte {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestExamplesOfThePage: what docs/EVENTS.md shows is in the golden files, and it tells of each type.
func TestExamplesOfThePage(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "EVENTS.md"))
	if err != nil {
		t.Fatal(err)
	}
	var golden []string
	for _, folder := range []string{"golden", "events"} {
		for _, text := range goldenOf(t, folder) {
			golden = append(golden, string(text))
		}
	}
	var section string
	shown := map[string]bool{}
	for block := range strings.SplitSeq(string(page), "```") {
		for _, heading := range regexp.MustCompile(`(?m)^##+ (.*)$`).FindAllStringSubmatch(block, -1) {
			section = heading[1]
		}
		example, is := strings.CutPrefix(block, "json\n")
		if !is {
			continue
		}
		example = strings.TrimSuffix(example, "\n")
		if !slices.ContainsFunc(golden, func(text string) bool {
			return strings.Contains(text, example) && (!strings.HasPrefix(section, "jobtally.") || strings.Contains(text, section))
		}) {
			t.Errorf("no golden file has %s", example)
			continue
		}
		shown[section] = true
	}
	for _, ceType := range slices.Concat(events.DecisionTypes(), events.QuotaEventTypes()) {
		if !shown[ceType] {
			t.Errorf("there is no example of %s", ceType)
		}
	}
}

// TestSchemasHaveTheMembersThatAreWritten compares schemas with the types that are encoded: a member is required unless it may
// be left out.
func TestSchemasHaveTheMembersThatAreWritten(t *testing.T) {
	written := map[string]any{
		events.TypeQuotaThresholdReached: events.QuotaThresholdReached{}, events.TypeQuotaReset: events.QuotaReset{},
	}
	for _, ceType := range events.DecisionTypes() {
		body, err := events.DecodeBody(ceType, []byte("{}"))
		if err != nil {
			t.Fatal(err)
		}
		written[ceType] = reflect.ValueOf(body).Elem().Interface()
	}
	files := schemaFiles(t)
	for ceType, body := range written {
		schema := object(t, files[ceType])
		wantsMembers(t, ceType, schema, reflect.TypeOf(body))
		defs, _ := schema["$defs"].(map[string]any)
		for part, is := range map[string]any{"job": events.Job{}, "erasedMonth": events.ErasedMonth{}} {
			if s, there := defs[part].(map[string]any); there {
				wantsMembers(t, ceType+" "+part, s, reflect.TypeOf(is))
			}
		}
	}
}

func wantsMembers(t *testing.T, name string, schema map[string]any, of reflect.Type) {
	t.Helper()
	var all, required []string
	for _, field := range reflect.VisibleFields(of) {
		member, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		if member == "" {
			continue // an embedded struct, whose fields are visible too
		}
		all = append(all, member)
		if options == "" {
			required = append(required, member)
		}
	}
	var says []string
	for _, member := range schema["required"].([]any) {
		says = append(says, member.(string))
	}
	if got, want := slices.Sorted(maps.Keys(schema["properties"].(map[string]any))), unique(all); !slices.Equal(got, want) {
		t.Errorf("%s has %q, want %q", name, got, want)
	}
	if got, want := unique(says), unique(required); !slices.Equal(got, want) {
		t.Errorf("%s requires %q, want %q", name, got, want)
	}
}
