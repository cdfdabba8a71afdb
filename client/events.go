package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Beginning is the position before the first.
const Beginning = "0-0"

// silence is for how long nothing comes on a stream that is taken for lost: the service says something each 15 seconds.
const silence = time.Minute

// Event is a decision on a job of the account, as a CloudEvent.
type Event struct {
	ID        string          `json:"id"` // its position: Events goes on from there
	Type      string          `json:"type"`
	Subject   string          `json:"subject,omitempty"` // the id of the job, where there is one
	Account   string          `json:"account"`
	Time      time.Time       `json:"time"`
	RequestID string          `json:"requestid,omitempty"` // the Idempotency-Key of what led to it
	Digest    string          `json:"digest"`
	Data      json.RawMessage `json:"data"` // of its type
}

// Events yields the events of the account after a position, such as the ID of the last event that the caller is done with, or
// Beginning; where that is empty, those from now on. It yields those of some types, with or without their version, or all
// where none are given: in order, each once. It waits for what is yet to come, and comes back by itself when the connection is lost,
// until ctx ends. The error is the context's, or that of a call that is of no use to make again: its *Problem, or that what
// answers is not jobtally.
func (c *Client) Events(ctx context.Context, after string, types ...string) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		s := following{c: c, told: after, query: url.Values{"type": types}, yield: yield}
		for attempt := 1; ; attempt++ {
			s.heard = false
			err := s.listen(ctx)
			if errors.Is(err, errEnough) {
				return
			}
			if ctx.Err() != nil {
				yield(Event{}, ctx.Err())
				return
			}
			if s.heard {
				attempt = 1
			}
			wait, worth := worthComingBack(err, attempt)
			if !worth {
				yield(Event{}, err)
				return
			}
			c.pause(ctx, wait) // what interrupts it ends the next attempt
		}
	}
}

// errEnough is the error of a caller who wants no more.
var errEnough = errors.New("enough")

// errForeign is the error of an answer that will not be another the next time.
var errForeign = errors.New("the answer is not that of jobtally")

// worthComingBack says whether to ask again for a stream that ended, and after which pause.
func worthComingBack(err error, attempt int) (wait time.Duration, worth bool) {
	const longest = 6 // doublings of the pause
	wait, _ = call{again: true}.worthTrying(errInterrupted, min(attempt, longest))
	var p *Problem
	if errors.As(err, &p) {
		worth = p.Status == http.StatusTooManyRequests || p.Status >= http.StatusInternalServerError
		return max(wait, p.RetryAfter), worth
	}
	return wait, !errors.Is(err, errForeign)
}

// following is an Events under way.
type following struct {
	c     *Client
	told  string // the position up to which everything was told; empty while that is not known
	query url.Values
	heard bool // something came on the connection that there is, or was
	yield func(Event, error) bool
}

// listen yields what one connection tells. Its error is never nil: a stream has no end of its own.
func (f *following) listen(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	request, err := f.c.request(ctx, call{method: http.MethodGet, path: "api/jobs/events", query: f.query}, nil)
	if err != nil {
		return fmt.Errorf("jobtally: %w", err)
	}
	request.Header.Set("Accept", "text/event-stream, application/problem+json")
	if f.told != "" {
		request.Header.Set("Last-Event-ID", f.told)
	}
	unbounded := *f.c.http
	unbounded.Timeout = 0 // of a whole answer
	watch := time.AfterFunc(silence, cancel)
	defer watch.Stop()
	answer, err := unbounded.Do(request)
	if err != nil {
		return fmt.Errorf("jobtally: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, maxAnswer)) // what of it is there
		return problemOf(answer, text)
	}
	if media, _, _ := mime.ParseMediaType(answer.Header.Get("Content-Type")); media != "text/event-stream" {
		return fmt.Errorf("jobtally: the events of %s: %w: it has Content-Type %q", request.URL.Host, errForeign, answer.Header.Get("Content-Type"))
	}
	return f.read(bufio.NewReader(answer.Body), func() { watch.Reset(silence) })
}

// read reads blocks of lines. What a block says holds once it is whole.
func (f *following) read(in *bufio.Reader, heard func()) error {
	var id, data string
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return fmt.Errorf("jobtally: the stream of events broke off: %w", err)
		}
		heard()
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch {
		case name == "id":
			id = value
		case name == "data":
			data = value
		case line == "\n":
			if err := f.tell(id, data); err != nil {
				return err
			}
			data = ""
		}
	}
}

func (f *following) tell(id, data string) error {
	f.heard = true
	if data != "" {
		var event Event
		if err := json.Unmarshal([]byte(data), &event); err != nil {
			return fmt.Errorf("jobtally: the event at %s: %w: %w", id, errForeign, err)
		}
		if !f.yield(event, nil) {
			return errEnough
		}
	}
	if id != "" {
		f.told = id
	}
	return nil
}
