package http

import (
	nethttp "net/http"
	"strings"

	"github.com/labstack/echo/v4"
)

// What a page of another origin may send and read. Clients prove themselves by a bearer token and never by a cookie,
// so every origin may call: "*" gives a page nothing that it has no token for.
var (
	anyOrigin      = []string{"*"}
	allowedHeaders = []string{strings.Join([]string{
		"Authorization", "Content-Type", "Idempotency-Key", "Prefer", "If-Match", "If-None-Match", "Ledger-Position", "X-Request-Id", "Traceparent", "Last-Event-ID",
	}, ", ")}
	exposedHeaders = []string{strings.Join([]string{
		"ETag", "Link", "Location", "Ledger-Position", "RateLimit", "RateLimit-Policy", "Retry-After", "Idempotent-Replayed",
		"Preference-Applied", "Idempotency-Key", "X-Request-Id",
	}, ", ")}
)

const preflightMaxAge = "7200" // the longest that browsers honour

// crossOrigin lets pages of any origin call and read, errors included, and answers preflights: those need no token.
// It is not echo's because that one cannot allow private networks, where a self-hosted jobtally lives.
func crossOrigin(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		header := c.Response().Header()
		header["Access-Control-Allow-Origin"] = anyOrigin
		header["Access-Control-Expose-Headers"] = exposedHeaders
		if c.Request().Method == nethttp.MethodOptions {
			preflight(c)
		}
		return next(c) // the router answers OPTIONS with the methods of the path, or with a 404
	}
}

// preflight adds what a browser asks for before it sends the call itself.
func preflight(c echo.Context) {
	asked, header := c.Request().Header, c.Response().Header()
	methods, known := c.Get(echo.ContextKeyHeaderAllow).(string)
	if asked.Get("Access-Control-Request-Method") == "" || !known {
		return
	}
	header.Set("Access-Control-Allow-Methods", methods)
	header["Access-Control-Allow-Headers"] = allowedHeaders
	header.Set("Access-Control-Max-Age", preflightMaxAge)
	if asked.Get("Access-Control-Request-Private-Network") == "true" {
		header.Set("Access-Control-Allow-Private-Network", "true")
	}
}
