package events

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestDigestOfADecision pins what a link of the chain covers, against a second way of computing it.
func TestDigestOfADecision(t *testing.T) {
	d := Decision{
		Position: Position{6, 1234}, Account: "demo", RequestID: "a", Time: fixtureTime,
		RequestDigest: fixturePayload, Body: &TokenRevoked{TokenID: "tok_1"},
	}
	d.Seal(fixturePrevious)
	want := concatenatedDigest(string(fixturePrevious[:]), string(fixturePayload[:]), "6-1234", "demo", "a",
		"2026-11-30T23:59:59.999Z", "jobtally.token.revoked.v1", `{"token_id":"tok_1"}`)
	if d.Digest != want {
		t.Errorf("digest %s, want %s", d.Digest, want)
	}
}

func TestVerifyFindsEveryChangedByte(t *testing.T) {
	for _, f := range decisionFixtures() {
		if err := f.Verify(fixturePrevious); err != nil {
			t.Fatal(err)
		}
		for name, bytesOf := range map[string]func(d *Decision, previous *Digest) []byte{
			"data":            func(d *Decision, _ *Digest) []byte { return d.Data },
			"digest":          func(d *Decision, _ *Digest) []byte { return d.Digest[:] },
			"request digest":  func(d *Decision, _ *Digest) []byte { return d.RequestDigest[:] },
			"previous digest": func(_ *Decision, previous *Digest) []byte { return previous[:] },
		} {
			for i := range bytesOf(&f.Decision, &Digest{}) {
				for bit := range 8 {
					d, previous := f.Decision, fixturePrevious
					d.Data = append([]byte(nil), f.Data...)
					bytesOf(&d, &previous)[i] ^= 1 << bit
					if d.Verify(previous) == nil {
						t.Fatalf("%s: bit %d of byte %d of the %s changed, and nobody knows", f.name, bit, i, name)
					}
				}
			}
		}
	}
}

func TestVerifyFindsEveryChangedField(t *testing.T) {
	for name, change := range map[string]func(*Decision){
		"partition":      func(d *Decision) { d.Position.Partition++ },
		"sequence":       func(d *Decision) { d.Position.Sequence++ },
		"account":        func(d *Decision) { d.Account += "2" },
		"request id":     func(d *Decision) { d.RequestID += " " },
		"time":           func(d *Decision) { d.Time = d.Time.Add(1) },
		"type":           func(d *Decision) { d.Body = &TokenRevoked{} }, // over the same data
		"data shortened": func(d *Decision) { d.Data = d.Data[:len(d.Data)-1] },
		"data extended":  func(d *Decision) { d.Data = append(append([]byte(nil), d.Data...), ' ') },
		// The fields are told apart: what moves from one to the next is a change too.
		"account into request id": func(d *Decision) { d.Account, d.RequestID = "dem", "o"+d.RequestID },
	} {
		d := decisionFixtures()[0].Decision
		change(&d)
		err := d.Verify(fixturePrevious)
		if err == nil {
			t.Errorf("the %s changed, and nobody knows", name)
		} else if !strings.Contains(err.Error(), d.Position.String()) {
			t.Errorf("%v does not say where", err)
		}
	}
	d := decisionFixtures()[0].Decision
	d.Time = d.Time.In(time.FixedZone("elsewhere", 3600)) // the same instant
	if err := d.Verify(fixturePrevious); err != nil {
		t.Error(err)
	}
}

// unread are the headers that say again, for other consumers, what stands elsewhere. DecodeDecision does not read
// them and no digest covers them.
var unread = map[string]bool{
	headerSpecVersion: true, headerSource: true, headerSubject: true, headerContentType: true, headerSequence: true,
}

// TestNoChangedByteIsBelieved changes each byte of each header of a message in three ways. The decision is then refused, or
// does not follow, or is the very same: 2026-11-30T23:59:59.999Z may be written with a comma.
func TestNoChangedByteIsBelieved(t *testing.T) {
	for _, f := range decisionFixtures() {
		m := f.Message()
		for key, values := range m.Header {
			value, found := values[0], 0
			if value == "" {
				continue // of a decision of no account: no byte of it can change
			}
			for i := range len(value) {
				for _, mask := range []byte{0x01, 0x20, 0x80} {
					changed := []byte(value)
					changed[i] ^= mask
					if isFound(t, &f, m, key, string(changed)) {
						found++
					}
				}
			}
			if unread[key] != (found == 0) {
				t.Errorf("%s: of %d changes to %s %d are found", f.name, 3*len(value), key, found)
			}
			delete(m.Header, key)
			if d, err := DecodeDecision(m, fixturePartition); unread[key] != (err == nil && d.Verify(fixturePrevious) == nil) {
				t.Errorf("%s: without %s: %v", f.name, key, err)
			}
			m.Header[key] = values
		}
	}
}

// isFound says whether a header's change is found, and fails if it is neither found nor without effect.
func isFound(t *testing.T, f *decisionFixture, m Message, key, value string) bool {
	t.Helper()
	m = m.clone()
	m.Header[key] = []string{value}
	d, err := DecodeDecision(m, fixturePartition)
	if err != nil || d.Verify(fixturePrevious) != nil {
		return true
	}
	if !reflect.DeepEqual(d, f.Decision) {
		t.Fatalf("%s: %s %q is believed:\n%+v", f.name, key, value, d)
	}
	return false
}

func TestDecisionsThatCannotBeRead(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Message)
		reason string
	}{
		{"another sequence", func(m *Message) { m.Sequence++ }, `decision 6-1235: its ce-id is "6-1234"`},
		{"another ce-id", set(headerID, "6-1235"), `decision 6-1234: its ce-id is "6-1235"`},
		{"another partition", set(headerID, "7-1234"), `decision 6-1234: its ce-id is "7-1234"`},
		{"ce-id spelt otherwise", set(headerID, "6-01234"), `decision 6-1234: its ce-id is "6-01234"`},
		{"no ce-id", without(headerID), `decision 6-1234: its ce-id is ""`},
		{"no headers", func(m *Message) { m.Header = nil }, `decision 6-1234: its ce-id is ""`},
		{"bytes in ce-requestid", set(headerRequestID, "%FF"), "decision 6-1234: ce-requestid: not percent-encoded UTF-8"},
		{"no ce-time", without(headerTime), "decision 6-1234: ce-time"},
		{"year 10000", set(headerTime, "9999-12-31T23:59:59-00:01"), "decision 6-1234: ce-time"},
		{"no ce-digest", without(headerDigest), "decision 6-1234: ce-digest: not a digest"},
		{"half a ce-digest", set(headerDigest, "00"), "decision 6-1234: ce-digest: not a digest"},
		{"no ce-requestdigest", without(headerRequestDigest), "decision 6-1234: ce-requestdigest: not a digest"},
		{"no data", dataOf(""), "decision 6-1234: data of jobtally.job.captured.v1: unexpected end of JSON input"},
		{"bad month", replace(`"2026-11"`, `"2026-13"`), "decision 6-1234: data of jobtally.job.captured.v1: "},
	} {
		m := decisionFixtures()[0].Message().clone()
		tt.change(&m)
		_, err := DecodeDecision(m, fixturePartition)
		if err == nil || !strings.HasPrefix(err.Error(), tt.reason) || errors.Is(err, ErrUnknownType) {
			t.Errorf("%s: error %v, want %s", tt.name, err, tt.reason)
		}
	}
	if _, err := DecodeDecision(decisionFixtures()[0].Message(), fixturePartition+1); err == nil {
		t.Error("a decision is read as one of another partition")
	}
	if _, err := DecodeBody(TypeJobCaptureRepeated, []byte(`{"first":"0-0","month":"2026-11"}`)); err == nil {
		t.Error("position 0-0 is read as that of a first answer")
	}
}
