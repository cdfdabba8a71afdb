package http

import (
	"bufio"
	"errors"
	"io"
	nethttp "net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"jobtally/internal/events"
	"jobtally/internal/feed"
)

// errGone is the error of a client that is gone, errStuck that of one that did not take what it was told in time.
var (
	errGone  = errors.New("the client is gone")
	errStuck = errors.New("the client takes nothing")
)

// gathered is how many bytes of events are written at once, where so many are there. A larger event is written as it is.
const gathered = 32 << 10

// gatherers are in the hands of those who write, so that a stream which waits has none.
var gatherers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, gathered) }}

// eventWriter writes events in the form of server-sent events. A client has so long to take what is written at once, and all the
// time in the world while nothing is: the time-outs of the server, which are for answers, do not hold.
type eventWriter struct {
	response *echo.Response
	timeOuts *nethttp.ResponseController
	patience time.Duration // how long a client has
	wanted   []string      // types; none are all
	headOnly bool
	begun    bool      // the head is written
	armed    time.Time // when it began to write what it writes
}

func newEventWriter(c echo.Context, wanted []string, patience time.Duration) *eventWriter {
	return &eventWriter{
		response: c.Response(), timeOuts: nethttp.NewResponseController(c.Response().Writer), patience: patience,
		wanted: wanted, headOnly: c.Request().Method == nethttp.MethodHead,
	}
}

// tell writes a batch, and first the head of the answer if it is the first. It returns how many events there were for the client.
func (w *eventWriter) tell(b feed.Batch) (told int, err error) {
	if !w.begun {
		w.begin()
	}
	if w.headOnly {
		return 0, w.flush(nil)
	}
	out := gatherers.Get().(*bufio.Writer)
	defer func() { out.Reset(nil); gatherers.Put(out) }()
	out.Reset(w)
	for _, e := range b.Events {
		if len(w.wanted) > 0 && !isWantedBy(w.wanted, e.Type) {
			continue
		}
		told++
		writeEvent(out, e)
	}
	if b.Beat {
		writeBeat(out, b.UpTo)
	}
	if told == 0 && !b.Beat {
		return 0, nil
	}
	return told, w.flush(out.Flush())
}

// Write gives the client its time for what is written now: one at the end of a slow line takes all of a batch, if not at once.
func (w *eventWriter) Write(p []byte) (int, error) {
	w.arm()
	return w.response.Write(p)
}

// begin writes the head, and says when to come back.
func (w *eventWriter) begin() {
	w.begun = true
	w.arm()
	_ = w.timeOuts.SetReadDeadline(time.Time{}) // when it passed the server would take the client for gone
	header := w.response.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Accel-Buffering", "no") // nginx would keep events until it has many
	w.response.WriteHeader(nethttp.StatusOK)
	if !w.headOnly {
		io.WriteString(w.response, "retry: "+strconv.FormatInt(retryEvents.Milliseconds(), 10)+"\n") // a failure is met again
	}
}

// writeEvent writes an event. That this fails is met again when everything is flushed.
func writeEvent(out *bufio.Writer, e *feed.Event) {
	out.WriteString("id: ")
	out.WriteString(e.Position.String())
	out.WriteString("\ndata: ")
	out.Write(e.JSON)
	out.WriteString("\n\n")
}

// writeBeat writes what tells a client nothing but that the stream is there, and up to where it was told: who comes back from
// there does not have what is not for it read again.
func writeBeat(out *bufio.Writer, upTo events.Position) {
	out.WriteString(":\nid: ")
	out.WriteString(upTo.String())
	out.WriteString("\n\n")
}

// comment says something to a person who looks on.
func (w *eventWriter) comment(text string) {
	_, err := io.WriteString(w, ": "+text+"\n\n")
	_ = w.flush(err) // the stream ends anyway
}

// arm gives the client its time from now on.
func (w *eventWriter) arm() {
	w.armed = time.Now()
	_ = w.timeOuts.SetWriteDeadline(w.armed.Add(w.patience)) // which not every writer of a test has
}

// flush sends what is written, and gives the client all the time in the world again.
func (w *eventWriter) flush(err error) error {
	if err == nil {
		err = w.timeOuts.Flush()
	}
	if err != nil {
		return w.failure()
	}
	_ = w.timeOuts.SetWriteDeadline(time.Time{})
	return nil
}

// failure returns what a failure to write says of the client: HTTP/2 does not tell a time-out from a client that left.
func (w *eventWriter) failure() error {
	if time.Since(w.armed) >= w.patience {
		return errStuck
	}
	return errGone
}

// close leaves the client its time to take the end of the answer, or none where it had that.
func (w *eventWriter) close(slow bool) {
	end := time.Now()
	if !slow {
		end = end.Add(w.patience)
	}
	_ = w.timeOuts.SetWriteDeadline(end)
}

// isWantedBy says whether a type of an event is one that a client wants.
func isWantedBy(wanted []string, ceType string) bool {
	return slices.ContainsFunc(wanted, func(w string) bool { return events.IsOfType(ceType, w) })
}
