package http

import (
	"context"
	"time"

	"github.com/labstack/echo/v4"

	"jobtally/internal/events"
)

// Observer is told of every call. Functions that are nil are not called. They are called concurrently.
type Observer struct {
	// Began is told of a call once its route is known, which is empty where there is none, with the trace context that the
	// client sent if it is a valid one. It returns the context with which the call goes on.
	Began func(ctx context.Context, method, route, traceparent string) context.Context
	// Answered is told of the same call once it is answered. The position is that of the request that it recorded or asked
	// about, and zero for any other call.
	Answered func(ctx context.Context, method, route string, status int, took time.Duration, p events.Position)
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
	r := c.Request()
	a.observer.Answered(r.Context(), r.Method, c.Path(), c.Response().Status, time.Since(started), k.position)
}

// recorded notes the position that a call is about, for the log and for who observes.
func recorded(c echo.Context, p events.Position) { callOf(c).position = p }
