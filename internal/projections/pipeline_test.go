package projections

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"testing"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// recording is an AppendDecisions that says what it was asked to record, and then waits to be let go.
type recording struct {
	asked chan []string // the outcomes
	goOn  chan struct{}
}

func (r *recording) wrap(record func(context.Context, int, uint64, []events.Message) error) func(context.Context, int, uint64, []events.Message) error {
	return func(ctx context.Context, p int, after uint64, m []events.Message) error {
		outcomes := []string{}
		for i := range m {
			outcomes = append(outcomes, m[i].Header["ce-type"][0])
		}
		select {
		case r.asked <- outcomes:
		case <-ctx.Done():
			return ctx.Err()
		}
		select {
		case <-r.goOn:
			return record(ctx, p, after, m)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// newRecording holds appends up until the test ends or lets one go.
func newRecording() *recording {
	return &recording{asked: make(chan []string), goOn: make(chan struct{})}
}

func (r *recording) wantAsked(t *testing.T, want ...string) {
	t.Helper()
	select {
	case got := <-r.asked:
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("records %q, want %q", got, want)
		}
	case <-within(t).Done():
		t.Fatalf("%q were never to be recorded", want)
	}
}

// While nothing can be folded, what comes is decided as if everything before it were, and recorded.
func TestDecidesAndRecordsWhileFoldingIsHeldUp(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	db, seam := h.open(t, "a"), h.seam()
	held := newRecording()
	seam.AppendDecisions = held.wrap(seam.AppendDecisions)
	run(t, db, seam, true)
	opened := h.append(t, "demo", "open", openWith(1))
	held.wantAsked(t, events.TypeAccountOpened)
	held.goOn <- struct{}{}
	await(t, db, opened)

	db.mu.Lock() // as an Apply does that takes long
	letGo := sync.OnceFunc(db.mu.Unlock)
	defer letGo()
	var last events.Position
	for _, step := range []struct{ id, url, want string }{ // each waits in another place: as many fit
		{"1", "https://example.com/1", events.TypeJobCaptured},
		{"1", "https://example.com/1", events.TypeJobCaptureRepeated},
		{"2", "https://example.com/1", events.TypeJobCaptureDuplicated},
		{"3", "https://example.com/3", events.TypeJobCaptureRejected},
	} {
		last = h.append(t, "demo", step.id, captureOf(november, step.url))
		held.wantAsked(t, step.want)
		held.goOn <- struct{}{}
	}
	if at := db.Folded(0); at != opened.Sequence {
		t.Fatalf("folded up to %d", at)
	}
	letGo()
	await(t, db, last)
	h.audit(t, db)
}

// While an append takes long, what comes is decided, up to a bound, and recorded in one go afterwards. What is being
// recorded is not folded, and stopping waits for nothing.
func TestDecidesWhileRecordingIsHeldUp(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	db, seam := h.open(t, "a"), h.seam()
	held, decided, read := newRecording(), make(chan struct{}, 100), seam.Read
	seam.AppendDecisions = held.wrap(seam.AppendDecisions)
	seam.Read = func(ctx context.Context, stream events.Stream, p int, after uint64) iter.Seq2[[]events.Message, error] {
		return func(yield func([]events.Message, error) bool) {
			for batch, err := range read(ctx, stream, p, after) {
				if !yield(batch, err) {
					return
				}
				decided <- struct{}{} // it asks for more
			}
		}
	}
	r := run(t, db, seam, true)
	last := h.append(t, "demo", "open", openWith(1))
	held.wantAsked(t, events.TypeAccountOpened)
	<-decided
	for i := range ahead {
		last = h.append(t, "demo", fmt.Sprint(i), captureOf(november, fmt.Sprintf("https://example.com/%d", i)))
		<-decided
	}
	if at := db.Folded(0); at != 0 {
		t.Fatalf("folded up to %d what is not recorded yet", at)
	}
	held.goOn <- struct{}{}
	held.wantAsked(t, events.TypeJobCaptured, events.TypeJobCaptureRejected)
	held.goOn <- struct{}{}
	await(t, db, last)
	h.audit(t, db)

	h.append(t, "demo", "more", captureOf(november, "https://example.com/more"))
	held.wantAsked(t, events.TypeJobCaptureRejected)
	r.stop(t) // in the middle of an append
	run(t, db, h.seam(), true)
	await(t, db, h.past(t, "after"))
	h.audit(t, db)
}

// A batch may be committed between two statements of a Load. Its decisions count once all the same: thousands of times
// one is folded just then.
func TestLoadSeesOnePosition(t *testing.T) {
	t.Parallel()
	const n = 2000
	requests := []*events.Request{request("demo", "open", openWith(-1))}
	for i := range n {
		url := fmt.Sprintf("https://example.com/%d", i/2) // each asked for twice: captured, then duplicated
		requests = append(requests, request("demo", fmt.Sprint(i), captureOf(november, url)))
	}
	decoded, db := recorded(t, requests...), newDB(t)
	p := NewProjector(db, Ledger{Partitions: 1}, 0, true, quiet())
	folding, folded := make(chan []events.Decision, ahead), make(chan error, 1)
	go func() { folded <- p.foldRecorded(folding) }()
	var flight inFlight
	state := capture.NewState()
	for i := range decoded {
		decisions := must[[]events.Decision](t)(p.decideBatch(within(t), decoded[i:i+1], &flight))
		want := capture.Decide(state, &decoded[i])
		state.Fold(&want)
		if difference := differ(want.Message(), decisions[0].Message()); difference != "" {
			t.Fatalf("decision %d: %s", i+1, difference)
		}
		if n := len(flight.batches); n > 200 { // some wait, and many may be folded at once; but not all there ever were
			t.Fatalf("%d batches are in flight", n)
		}
		folding <- decisions
	}
	close(folding)
	ok(t, <-folded)
}
