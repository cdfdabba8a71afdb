package http

import (
	nethttp "net/http"
	"net/url"
	"strings"

	"github.com/labstack/echo/v4"

	"jobtally/internal/token"
)

// What browsers are told of every answer. An answer is data: it is no page, loads nothing, goes into no frame, and what it
// says it is it is. Pages of any origin may read it by CORS; nothing may embed it without asking.
var (
	noSniff         = []string{"nosniff"}
	noContent       = []string{"default-src 'none'; frame-ancestors 'none'"}
	noReferrer      = []string{"no-referrer"}
	sameOrigin      = []string{"same-origin"}
	strictTransport = []string{"max-age=31536000"} // a year, and this host only
)

// secure sets these, and under TLS that the host is not to be called without it any more.
func secure(header nethttp.Header, underTLS bool) {
	header["X-Content-Type-Options"] = noSniff
	header["Content-Security-Policy"] = noContent
	header["Referrer-Policy"] = noReferrer
	header["Cross-Origin-Resource-Policy"] = sameOrigin
	if underTLS {
		header["Strict-Transport-Security"] = strictTransport
	}
}

// tokenFree refuses a call that has a token in its URL, where it would be told back, and logged by those in between.
func tokenFree(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if tokenInURL(c.Request().URL) {
			return newProblem(codeInvalidRequest, "there is a token in the URL, where logs keep it: revoke it, and send "+
				"tokens as Authorization: Bearer <token> only")
		}
		return next(c)
	}
}

// tokenInURL says whether there is a token in the path or the query, written plainly or escaped.
func tokenInURL(u *url.URL) bool {
	if token.Within(u.Path) || token.Within(u.RawQuery) {
		return true
	}
	if !strings.Contains(u.RawQuery, "%") {
		return false
	}
	plain, err := url.QueryUnescape(u.RawQuery)
	return err == nil && token.Within(plain)
}
