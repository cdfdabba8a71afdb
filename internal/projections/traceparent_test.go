package projections

import (
	"testing"

	"jobtally/internal/events"
)

const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// A decision has the trace context of its request. One that was appended again from a projection has none, which is no
// difference; one that its request had not is.
func TestAuditMissesNoTraceparent(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.append(t, "demo", "open", openWith(5))
	traced := request("demo", "traced", captureOf(november, "https://example.com/1"))
	traced.Traceparent = traceparent
	last := must[events.Position](t)(h.Append(within(t), traced))
	h.decideAll(t, "a", last)
	recorded := h.read(t, events.Decisions, last.Sequence)
	if got := must[events.Decision](t)(events.DecodeDecision(recorded[1], 0)).Traceparent; got != traceparent {
		t.Errorf("the decision has the trace context %q, its request %q", got, traceparent)
	}
	found, _ := h.findings(t, nil)
	wantFindings(t, found)

	without := copyMessages(recorded)
	without[1].Header = events.WithoutTraceparent(without[1].Header)
	h.rewrite(t, events.Decisions, without)
	found, _ = h.findings(t, nil)
	wantFindings(t, found)

	other := copyMessages(recorded)
	other[0].Header["traceparent"] = []string{traceparent}
	other[1].Header["traceparent"] = []string{traceparent[:53] + "00"}
	h.rewrite(t, events.Decisions, other)
	found, _ = h.findings(t, nil)
	wantFindings(t, found, "0-1 demo decision: traceparent", "0-2 demo decision: traceparent")
}

// What is lost of the decisions is appended again from the rows: without a trace context, and to the same digest.
func TestLostDecisionsComeBackWithoutTheirTrace(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.append(t, "demo", "open", openWith(5))
	traced := request("demo", "traced", captureOf(november, "https://example.com/1"))
	traced.Traceparent = traceparent
	last := must[events.Position](t)(h.Append(within(t), traced))
	h.decideAll(t, "a", last)
	before := must[events.Decision](t)(events.DecodeDecision(h.read(t, events.Decisions, 2)[1], 0))
	h.keep(t, events.Decisions, 1)
	db := h.open(t, "a")
	r := run(t, db, h.seam(), true)
	after := must[events.Decision](t)(events.DecodeDecision(h.read(t, events.Decisions, 2)[1], 0))
	r.stop(t)
	if after.Traceparent != "" || after.Digest != before.Digest {
		t.Errorf("appended again with %q and digest %s, want none and %s", after.Traceparent, after.Digest, before.Digest)
	}
	ok(t, db.Close())
	found, _ := h.findings(t, nil)
	wantFindings(t, found)
}
