package http

import (
	"context"
	"time"

	"github.com/labstack/echo/v4"

	"jobtally/internal/events"
	"jobtally/internal/feed"
)

// Observer is told of every call. Functions that are nil are not called. They are called concurrently.
type Observer struct {
	// Began is told of a call once its route is known, which is empty where there is none, with the trace context that the
	// client sent if it is a valid one. It returns the context with which the call goes on.
	Began func(ctx context.Context, method, route, traceparent string) context.Context
	// Answered is told of the same call once it is answered. The position is that of the request that it recorded or asked
	// about, and zero for any other call.
	Answered func(ctx context.Context, method, route string, status int, took time.Duration, p events.Position)
	// Streams is told of streams of events. Such a call took as long as it was until its stream began.
	Streams StreamObserver
}

// StreamObserver is told of streams of events. Functions that are nil are not called. They are called concurrently.
type StreamObserver struct {
	// Began and Ended are told of each, and Ended why it ended.
	Began func()
	Ended func(why feed.End)
	// Told is told how many events a client was told at once.
	Told func(events int)
}

const headerTraceparent = "Traceparent"

// began tells that a call began.
func (a *api) began(c echo.Context) {
	if a.observer.Began == nil {
		return
	}
	r := c.Request()
	traceparent := r.Header.Get(headerTraceparent)
	if !events.ValidTraceparent(traceparent) {
		traceparent = ""
	}
	before := r.Context()
	if ctx := a.observer.Began(before, r.Method, c.Path(), traceparent); ctx != before {
		c.SetRequest(r.WithContext(ctx))
	}
}

// answered tells that a call ended: with an answer, or broken off in the middle of one.
func (a *api) answered(c echo.Context, k *call, started time.Time) {
	if a.observer.Answered == nil {
		return
	}
	r, took := c.Request(), time.Since(started)
	if !k.began.IsZero() {
		took = k.began.Sub(started)
	}
	a.observer.Answered(r.Context(), r.Method, c.Path(), c.Response().Status, took, k.position)
}

// recorded notes the position that a call is about, for the log and for who observes.
func recorded(c echo.Context, p events.Position) { callOf(c).position = p }
