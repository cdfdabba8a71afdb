package events

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// withoutServers is a message without the headers that are the server's.
func withoutServers(m Message) Message {
	header := map[string][]string{}
	for name, values := range m.Header {
		if !isServers(name) {
			header[name] = values
		}
	}
	m.Header = header
	return m
}

// wantLegalEvent holds the line against the rules of CloudEvents 1.0 and of its JSON format.
func wantLegalEvent(t interface{ Fatalf(string, ...any) }, line []byte) {
	var members map[string]any
	numbers := json.NewDecoder(bytes.NewReader(line))
	numbers.UseNumber() // of any size
	if err := numbers.Decode(&members); err != nil || bytes.ContainsAny(line, "\n\r") {
		t.Fatalf("%s: %v", line, err)
	}
	for _, required := range []string{"id", "source", "type"} {
		if s, _ := members[required].(string); s == "" {
			t.Fatalf("%s: %s is missing", line, required)
		}
	}
	if members["specversion"] != "1.0" {
		t.Fatalf("%s: specversion", line)
	}
	for name, value := range members {
		if name == "data" || name == "data_base64" {
			continue
		}
		text, ok := value.(string)
		if !ok || !regexp.MustCompile(`^[a-z0-9]+$`).MatchString(name) || regexp.MustCompile(`[\x00-\x1f\x7f-\x{9f}]`).MatchString(text) {
			t.Fatalf("%s: %s", line, name)
		}
		switch name {
		case "time":
			if _, err := time.Parse(time.RFC3339, text); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
		case "source":
			if _, err := url.Parse(text); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
		case "subject", "datacontenttype":
			if text == "" {
				t.Fatalf("%s: %s is empty", line, name)
			}
		}
	}
	data, plain := members["data"]
	encoded, binary := members["data_base64"]
	if plain && (binary || data == nil || members["datacontenttype"] != "application/json") {
		t.Fatalf("%s: data", line)
	}
	if _, err := base64.StdEncoding.DecodeString(fmt.Sprint(encoded)); binary && err != nil {
		t.Fatalf("%s: %v", line, err)
	}
}

func wantRoundTrip(t interface{ Fatalf(string, ...any) }, m Message) []byte {
	line := m.AppendStructured(nil, fixturePartition)
	wantLegalEvent(t, line)
	got, partition, err := ParseStructured(line)
	want := withoutServers(m)
	if err != nil || partition != fixturePartition || got.Subject != want.Subject || got.Sequence != want.Sequence ||
		!bytes.Equal(got.Data, want.Data) || !maps.EqualFunc(got.Header, want.Header, slices.Equal) {
		t.Fatalf("%s\nreads as %+v, %v\nwant %+v", line, got, err, want)
	}
	return line
}

func TestStructuredFormOfEveryType(t *testing.T) {
	for _, f := range requestFixtures() {
		m := f.Message(fixturePartitions)
		m.Sequence = 77
		m.Header["Nats-Expected-Last-Sequence"] = []string{"76"}
		line := wantRoundTrip(t, m)
		if bytes.Contains(line, []byte("base64")) || bytes.Contains(line, []byte(typeWrapped)) || bytes.Contains(line, []byte("Nats-")) {
			t.Errorf("%s: %s", f.name, line)
		}
	}
	for _, f := range decisionFixtures() {
		line := wantRoundTrip(t, f.Decision.Message())
		if bytes.Contains(line, []byte("base64")) || bytes.Contains(line, []byte(typeWrapped)) {
			t.Errorf("%s: %s", f.name, line)
		}
	}
}

func TestStructuredFormIsSpelledInOneWay(t *testing.T) {
	m := requestFixtures()[0].Message(fixturePartitions)
	m.Sequence = 77
	line := string(wantRoundTrip(t, m))
	for _, other := range []string{
		" " + line, line + " ", strings.Replace(line, ",", ", ", 1), strings.Replace(line, `"1.0"`, `"1.\u0030"`, 1),
		strings.Replace(line, `"data":{`, `"data": {`, 1), strings.Replace(line, `"id"`, `"id":"x","id"`, 1), line[:len(line)-1], line + "}",
		strings.Replace(line, `"position":"6-77"`, `"position":"6-077"`, 1), strings.Replace(line, `"data":`, `"more":1,"data":`, 1), "", "{}", "null",
	} {
		if got, _, err := ParseStructured([]byte(other)); err == nil {
			t.Errorf("%s reads as %+v", other, got)
		}
	}
}

// Whatever is in a stream becomes a legal event, from which it is read back.
func TestStructuredFormOfAnyMessage(t *testing.T) {
	own := requestFixtures()[0].Message(fixturePartitions)
	rapid.Check(t, func(t *rapid.T) {
		m := Message{Subject: own.Subject, Header: maps.Clone(own.Header), Data: own.Data, Sequence: 1 + rapid.Uint64Range(0, 1<<40).Draw(t, "sequence")}
		anything := rapid.OneOf(rapid.String(), rapid.StringN(0, 3, -1), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }),
			rapid.SampledFrom([]string{"", "a b", "a%20b", "%zz", "%C3%BC", "%c3%bc", "ü", "2026-11-30T24:00:00Z", "1.0", "\u0085", "\ufffe", "~", "+&=;"}))
		names := slices.Collect(maps.Keys(own.Header))
		slices.Sort(names)
		names = append(names, "ce-more", "ce-Data", "ce-data", "ce-position", "ce-natssubject", "ce-natsheader", "ce-", "Nats-Msg-Id", "traceparent", "x y")
		for range rapid.IntRange(0, 3).Draw(t, "changes") {
			name := rapid.OneOf(rapid.SampledFrom(names), anything).Draw(t, "header")
			switch rapid.IntRange(0, 2).Draw(t, "change") {
			case 0:
				delete(m.Header, name)
			case 1:
				m.Header[name] = []string{anything.Draw(t, "value")}
			case 2:
				m.Header[name] = rapid.SliceOfN(anything, 1, 3).Draw(t, "values")
			}
		}
		switch rapid.IntRange(0, 3).Draw(t, "data") {
		case 0:
			m.Data = rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")
		case 1:
			m.Data = []byte(rapid.SampledFrom([]string{"", "null", "1", `"x"`, "{}", "{ }", "[1e400]", "{\"a\":\"\xff\"}", `{"a":1,"a":2}`, "{\n}", `{"a":"<&>\u2028` + "\u2028" + `"}`}).Draw(t, "json"))
		}
		if rapid.IntRange(0, 3).Draw(t, "subject?") == 0 {
			m.Subject = "requests.6." + anything.Draw(t, "subject")
		}
		wantRoundTrip(t, m)
	})
}

// What a message is worth in a digest is what its structured form is worth.
func TestStructuredFormKeepsTheDigest(t *testing.T) {
	for _, m := range []Message{
		{Subject: "requests.6.demo.job_capture", Data: []byte("{"), Sequence: 1},
		{Subject: "requests.6.demo.job_capture", Header: map[string][]string{"ce-id": {"x%ZZ"}, "ce-type": {""}}, Sequence: 2},
		{Subject: "requests.6.demo", Header: map[string][]string{"ce-id": {"x"}}, Data: []byte{0, 0xff}, Sequence: 3},
	} {
		got, _, err := ParseStructured(wantRoundTrip(t, m))
		asked, _ := DecodeRequest(m, fixturePartition, fixturePartitions)
		again, _ := DecodeRequest(got, fixturePartition, fixturePartitions)
		if err != nil || !reflect.DeepEqual(asked, again) {
			t.Errorf("%+v, want %+v", again, asked)
		}
	}
}

func FuzzParseStructured(f *testing.F) {
	for _, r := range requestFixtures() {
		m := r.Message(fixturePartitions)
		m.Sequence = 1
		f.Add(m.AppendStructured(nil, fixturePartition))
	}
	m := Message{Subject: "requests.6", Sequence: 1, Data: []byte("x")}
	f.Add(m.AppendStructured(nil, fixturePartition))
	f.Fuzz(func(t *testing.T, line []byte) {
		if m, partition, err := ParseStructured(line); err == nil && !bytes.Equal(m.AppendStructured(nil, partition), line) {
			t.Errorf("%q reads, and is written as another", line)
		}
	})
}
