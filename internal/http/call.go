package http

import (
	"crypto/rand"
	"log/slog"
	nethttp "net/http"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/labstack/echo/v4"

	"jobtally/internal/capture"
	"jobtally/internal/events"
	"jobtally/internal/token"
)

// call is what is known of one HTTP request besides what echo knows. The handlers of a call share it.
type call struct {
	now time.Time // the one clock reading: UTC, whole milliseconds
	id  string    // the X-Request-Id

	address netip.Addr // where it comes from

	// Set once it is known: whose call it is, by which token, and the partition of the account that it is about, which is the caller's own
	// but for an administrator's call.
	account   string
	token     capture.Token
	accepted  time.Time // when the token was; measures a duration only
	partition int

	position events.Position // of the request that it recorded, or asks about; zero for any other call

	began  time.Time // when an answer began that is a stream of events; measures a duration only
	logged string    // the failure that the log was told last

	// Where the call is under way, for the limits; nil where there are none for it.
	byAddress *visitor[netip.Addr]
	byToken   *visitor[events.Digest]
	cost      int // that limits charge for the call, in requests beyond itself
}

const callKey = "call"

func callOf(c echo.Context) *call { return c.Get(callKey).(*call) }

const (
	headerRequestID    = "X-Request-Id"
	maxRequestIDLength = 128
)

// edge is the outermost middleware: it reads the clock, names the call, answers errors and panics, and logs.
func (a *api) edge(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		started := time.Now() // measures the duration only
		k := &call{now: a.now().UTC().Truncate(time.Millisecond), id: requestID(c.Request().Header)}
		k.address = a.limits.proxies.clientAddress(c.Request())
		c.Set(callKey, k)
		header := c.Response().Header()
		secure(header, c.Request().TLS != nil)
		header.Set(headerRequestID, k.id)
		a.began(c)
		defer a.answered(c, k, started)
		if err := a.guard(next, c); err != nil {
			c.Error(err)
		}
		a.logAnswer(c, k, started)
		return nil
	}
}

// guard calls next and turns a panic into an error. A panic after the answer has begun breaks the connection off,
// for the client must not take half an answer for a whole one.
func (a *api) guard(next echo.HandlerFunc, c echo.Context) (err error) {
	defer func() {
		cause := recover()
		if cause == nil {
			return
		}
		if cause == nethttp.ErrAbortHandler {
			panic(cause)
		}
		a.log.LogAttrs(c.Request().Context(), slog.LevelError, "a handler panicked", append(callOf(c).attributes(c),
			slog.Any("panic", cause), slog.String("stack", string(debug.Stack())))...)
		if c.Response().Committed {
			panic(nethttp.ErrAbortHandler)
		}
		err = newProblem(codeInternal, "")
	}()
	return next(c)
}

// logAnswer logs one line for a call. It has no header, no query and no body: nothing in it is secret. The address of the
// client is in lines of level DEBUG only.
func (a *api) logAnswer(c echo.Context, k *call, started time.Time) {
	level, status := slog.LevelDebug, c.Response().Status
	if status >= nethttp.StatusInternalServerError && status != nethttp.StatusServiceUnavailable {
		level = slog.LevelWarn
	}
	ctx := c.Request().Context()
	if !a.log.Enabled(ctx, level) {
		return
	}
	attributes := append(k.attributes(c), slog.Int("status", status), slog.Duration("duration", time.Since(started)))
	if level == slog.LevelDebug {
		attributes = append(attributes, slog.String("address", k.address.String()))
	}
	a.log.LogAttrs(ctx, level, "answered", attributes...)
}

// logFailure logs an error that the client is not told.
func (a *api) logFailure(c echo.Context, err error) {
	k := callOf(c)
	if k.logged == err.Error() {
		return // what fails a batch fails each of its items
	}
	k.logged = err.Error()
	a.log.LogAttrs(c.Request().Context(), slog.LevelError, "a call failed", append(k.attributes(c), slog.String("error", err.Error()))...)
}

// attributes say in the log which call a line is about: with the position, where it has one.
func (k *call) attributes(c echo.Context) []slog.Attr {
	attributes := make([]slog.Attr, 0, 8)
	attributes = append(attributes, slog.String("method", c.Request().Method), slog.String("route", c.Path()),
		slog.String("account", k.account), slog.String("request_id", k.id))
	if k.position != (events.Position{}) {
		attributes = append(attributes, slog.String("position", k.position.String()))
	}
	return attributes
}

// requestID returns the client's X-Request-Id if it is short and plain, and no token, or else a new one.
func requestID(header nethttp.Header) string {
	id := header.Get(headerRequestID)
	if id == "" || len(id) > maxRequestIDLength || token.Within(id) {
		return rand.Text()
	}
	for _, c := range []byte(id) {
		if c <= ' ' || c >= 0x7f {
			return rand.Text()
		}
	}
	return id
}
