package events

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestValidTraceparent(t *testing.T) {
	for s, want := range map[string]bool{
		traceparent:                  true,
		traceparent[:53] + "00":      true,
		"":                           false,
		traceparent + "-extra":       false,
		traceparent[:54]:             false,
		strings.ToUpper(traceparent): false,
		"01" + traceparent[2:]:       false,
		"ff" + traceparent[2:]:       false,
		traceparent[:54] + "\n":      false,
		strings.Replace(traceparent, "-", "_", 2):                     false,
		"00-" + strings.Repeat("0", 32) + traceparent[35:]:            false,
		traceparent[:36] + strings.Repeat("0", 16) + traceparent[52:]: false,
		strings.Replace(traceparent, "4bf9", "4bg9", 1):               false,
		strings.Repeat("0", 1<<20):                                    false,
	} {
		if ValidTraceparent(s) != want {
			t.Errorf("%.80q: want %t", s, want)
		}
	}
}

// A trace context goes with a message, changes no digest, and is not there where it is empty.
func TestTraceparentIsInNoDigest(t *testing.T) {
	for _, f := range requestFixtures() {
		bare := f.Message(fixturePartitions)
		traced := f.Request
		traced.Traceparent = traceparent
		m := traced.Message(fixturePartitions)
		m.Sequence = 7
		got, err := DecodeRequest(m, fixturePartition, fixturePartitions)
		if err != nil || got.Traceparent != traceparent || got.Digest != requestDigest(bare) {
			t.Errorf("%s: read as %q with digest %s, %v; want that of the bare one", f.name, got.Traceparent, got.Digest, err)
		}
		if bare.Header[headerTraceparent] != nil || len(m.Header) != len(bare.Header)+1 {
			t.Errorf("%s: headers %v, and without a trace %v", f.name, m.Header, bare.Header)
		}
	}
	for _, f := range decisionFixtures() {
		d := f.Decision
		d.Seal(Digest{})
		bare := d.Digest
		d.Traceparent = traceparent
		d.Seal(Digest{})
		got, err := DecodeDecision(d.Message(), d.Position.Partition)
		if err != nil || got.Traceparent != traceparent || got.Digest != bare || got.Verify(Digest{}) != nil {
			t.Errorf("%s: read as %q with digest %s, %v", f.name, got.Traceparent, got.Digest, err)
		}
	}
}

func TestWhatIsNoTraceparentIsIgnored(t *testing.T) {
	r, m := requestFixtureOf(t, TypeJobCaptureRequested)
	for _, values := range [][]string{{"x"}, {"\n"}, {}, {strings.Repeat("0", 4096)}, {"", traceparent}} {
		m.Header[headerTraceparent] = values
		if got, err := DecodeRequest(m, r.Position.Partition, fixturePartitions); err != nil || got.Traceparent != "" {
			t.Errorf("%.40q: %q, %v", values, got.Traceparent, err)
		}
	}
}

// The structured form has it as the extension that CloudEvents define; under the name of a header that nobody writes it is
// kept with all headers of a message that is none of ours.
func TestStructuredFormOfATrace(t *testing.T) {
	_, m := requestFixtureOf(t, TypeJobCaptureRequested)
	for header, wrapped := range map[string]bool{headerTraceparent: false, "ce-" + headerTraceparent: true} {
		m := m.clone()
		m.Sequence = 7
		m.Header[header] = []string{traceparent}
		line := m.AppendStructured(nil, 0)
		wantLegalEvent(t, line)
		if bytes.Contains(line, []byte(typeWrapped)) != wrapped ||
			bytes.Contains(line, []byte(`"traceparent":"`+traceparent+`"`)) == wrapped {
			t.Errorf("%s: %s", header, line)
		}
		back, _, err := ParseStructured(line)
		if err != nil || !slices.Equal(back.Header[header], m.Header[header]) || len(back.Header) != len(m.Header) {
			t.Errorf("%s: read back as %v, %v", header, back.Header, err)
		}
	}
}
