package http

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"jobtally/internal/events"
	"jobtally/internal/feed"
)

const (
	eventsPath        = jobsPath + "/events"
	headerLastEventID = "Last-Event-Id"

	// beatEvery is how often a stream says that it is there, and its token is looked up again.
	beatEvery = 15 * time.Second
	// retryEvents is after how long a client comes back whose stream ended, unless it knows better.
	retryEvents = 3 * time.Second
	// takeTimeout is how long a client has to take what it is told.
	takeTimeout = 10 * time.Second
)

// getEvents answers GET /api/jobs/events: a stream of the account's events, which ends when the client leaves.
func (a *api) getEvents(c echo.Context) error {
	query, err := parametersAnd(c, "type", "after", "type")
	if err != nil {
		return err
	}
	wanted, err := wantedTypes(query["type"])
	if err != nil {
		return err
	}
	after, err := a.toldUpTo(c, query)
	if err != nil {
		return err
	}
	leave, err := a.limits.streaming(c)
	if err != nil {
		return err
	}
	defer leave()
	return a.stream(c, after, wanted)
}

// wantedTypes reads which types of events a client wants. None are all.
func wantedTypes(lists []string) (wanted []string, err error) {
	known := events.JobEventTypes()
	for _, list := range lists {
		for ceType := range strings.SplitSeq(list, ",") {
			ceType = strings.TrimSpace(ceType)
			if !isWanted(known, ceType) {
				return nil, invalidParameter("type", typeUnknown(ceType, known))
			}
			wanted = append(wanted, ceType)
		}
	}
	return wanted, nil
}

// isWanted says whether one of some types is what a type, with or without its version, means.
func isWanted(types []string, ceType string) bool {
	return slices.ContainsFunc(types, func(t string) bool { return events.IsOfType(t, ceType) })
}

func typeUnknown(ceType string, known []string) string {
	switch {
	case events.IsOfType(events.TypeQuotaThresholdReached, ceType):
		return ceType + " is for webhooks; here jobtally.job.captured tells in its threshold that 80 or 100 percent are reached"
	case isWanted(events.QuotaEventTypes(), ceType):
		return ceType + " is for webhooks only"
	}
	return notEventType(ceType, known)
}

// toldUpTo returns the position after which a client is to be told: the one that it was told last, or that it asks for, or where
// this node is. A client that comes back sends the first and repeats the second.
func (a *api) toldUpTo(c echo.Context, query url.Values) (events.Position, error) {
	p := callOf(c).partition
	told := events.Position{Partition: p, Sequence: a.backend.Folded(p)}
	if query.Has("after") {
		after, err := toldPosition("after", query.Get("after"), p)
		if err != nil {
			return after, err // also where the header goes before it: what is wrong is not passed over
		}
		told = after
	}
	switch ids := c.Request().Header[headerLastEventID]; {
	case len(ids) > 1:
		return events.Position{}, newProblem(codeInvalidPosition, "there is more than one Last-Event-ID header")
	case len(ids) == 1 && ids[0] != "": // an empty one is that of who was told nothing
		return toldPosition("Last-Event-ID", ids[0], p)
	}
	return told, nil
}

// toldPosition reads a position of an account's partition, or the beginning.
func toldPosition(name, text string, partition int) (events.Position, error) {
	if text == "0-0" || text == strconv.Itoa(partition)+"-0" {
		return events.Position{Partition: partition}, nil
	}
	p, err := events.ParsePosition(text)
	if err != nil {
		return p, newProblem(codeInvalidPosition, name+" looks like 0-1234, <partition>-<sequence>; 0-0 is the beginning")
	}
	if p.Partition != partition {
		return p, newProblem(codeInvalidPosition, fmt.Sprintf("%s is in partition %d, and everything of the account is in partition %d", name, p.Partition, partition))
	}
	return p, nil
}

// stream tells the events after a position until the client leaves, is cut off, or may be told no more.
func (a *api) stream(c echo.Context, after events.Position, wanted []string) error {
	ctx, cancel := context.WithCancel(c.Request().Context())
	defer cancel()
	defer context.AfterFunc(a.stopping, cancel)()
	ticker := time.NewTicker(a.beatEvery)
	defer ticker.Stop()
	w, err := newEventWriter(c, wanted, a.takeTimeout), context.Canceled
	for batch, failed := range a.backend.Events(ctx, callOf(c).account, after, ticker.C) {
		if err = failed; err == nil {
			err = a.tell(c, w, batch)
		}
		if err != nil || w.headOnly {
			break
		}
	}
	if !w.begun {
		c.Response().Header().Del(headerLedgerPosition) // which the answer to who has no token has not
		return problemOfStream(err)
	}
	a.streamEnded(c, w, err)
	return nil
}

// tell tells a client a batch, once it is known that it still may be told.
func (a *api) tell(c echo.Context, w *eventWriter, batch feed.Batch) error {
	if batch.Beat {
		if err := a.accepted(c, a.now()); err != nil {
			return err
		}
	}
	if !w.begun {
		a.streamBegan(c)
	}
	told, err := w.tell(batch)
	if a.observer.Streams.Told != nil && told > 0 {
		a.observer.Streams.Told(told)
	}
	return err
}

// problemOfStream returns the problem of a stream that did not begin.
func problemOfStream(err error) error {
	var beyond *feed.BeyondError
	var pruned *feed.PrunedError
	switch {
	case errors.As(err, &beyond):
		return newProblem(codeInvalidPosition, fmt.Sprintf("there is no %s: the ledger ends at %s. "+
			"The position is of another service, or the ledger was put back to an older state since: begin anew at a position that there is, or at 0-0", beyond.Position, beyond.Head))
	case errors.As(err, &pruned):
		return newProblem(codePositionPruned, detailPruned(pruned))
	case errors.Is(err, feed.ErrNotReached):
		return newProblem(codePositionNotReached, "this node has not folded the position after which events are asked for")
	case errors.Is(err, feed.ErrErased):
		return newProblem(codeTokenUnknown, "")
	case errors.Is(err, feed.ErrClosed):
		return newProblem(codeInterrupted, "")
	}
	return err
}

func detailPruned(pruned *feed.PrunedError) string {
	where := "ask the operator for the archives of the months before"
	if pruned.Month != "" {
		where = fmt.Sprintf("what comes next is in the archive of %s, which the operator has", pruned.Month)
	}
	before := events.Position{Partition: pruned.First.Partition, Sequence: pruned.First.Sequence - 1}
	return fmt.Sprintf("the ledger has decisions from %s on: %s; after=%s begins with what is there", pruned.First, where, before)
}

// streamBegan tells that a stream began: that is how long the call took, which may go on for days.
func (a *api) streamBegan(c echo.Context) {
	callOf(c).began = time.Now()
	if a.observer.Streams.Began != nil {
		a.observer.Streams.Began()
	}
}

// streamEnded says why a stream ended, to who observes, and to who looks on at the client.
func (a *api) streamEnded(c echo.Context, w *eventWriter, err error) {
	why := a.reasonOf(c, err)
	if a.observer.Streams.Ended != nil {
		a.observer.Streams.Ended(why)
	}
	if why == feed.EndedRefused {
		w.comment("the token is accepted no longer")
	}
	w.close(why == feed.EndedSlow)
}

func (a *api) reasonOf(c echo.Context, err error) feed.End {
	var refused *problem
	switch {
	case err == nil, errors.Is(err, errGone), errors.Is(err, feed.ErrClosed), errors.Is(err, context.Canceled):
		return feed.EndedLeft
	case errors.Is(err, errStuck):
		return feed.EndedSlow
	case errors.As(err, &refused), errors.Is(err, feed.ErrErased):
		return feed.EndedRefused
	case !errors.Is(err, events.ErrUnavailable):
		a.logFailure(c, err)
	}
	return feed.EndedFailed
}
