package http

import (
	"encoding/base64"
	"errors"
	"fmt"
	nethttp "net/http"
	"net/url"
	"strconv"

	"github.com/labstack/echo/v4"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

const (
	historyPath   = "/api/jobs/quota/history"
	defaultMonths = 12
	maxMonths     = 100
)

// archivedCacheControl is of an archived month, which never changes. A cache may keep it for an hour and no longer, for
// its account may be erased; and for nobody but the holder of the token, for the path is the same for all accounts.
const archivedCacheControl = "private, max-age=3600, immutable"

// getHistory answers GET /api/jobs/quota/history: a page of the account's months, the latest first.
func (a *api) getHistory(c echo.Context) error {
	k := callOf(c)
	before, limit, err := historyPage(c)
	if err != nil {
		return err
	}
	current, first := a.currentMonth(k), before == ""
	if first {
		before = current.Next()
	}
	months, err := a.backend.Months(c.Request().Context(), k.account, current, before, limit+1)
	if err != nil {
		return fmt.Errorf("read the months: %w", err)
	}
	if first && len(months) == 0 {
		return newProblem(codeAccountUnknown, "")
	}
	if len(months) > limit {
		months = months[:limit]
		c.Response().Header().Set("Link", nextLink(months[limit-1].Month, limit))
	}
	page := historyForm{Months: []monthForm{}}
	for i := range months {
		page.Months = append(page.Months, formOfMonth(&months[i], current))
	}
	return writeTagged(c, encode(page))
}

// historyPage reads where a page begins, before a month or nowhere, and how many months it has.
func historyPage(c echo.Context) (before events.Month, limit int, err error) {
	query, err := parameters(c, "cursor", "limit")
	if err != nil {
		return "", 0, err
	}
	if limit, err = pageLimit(query, defaultMonths, maxMonths); err != nil {
		return "", 0, err
	}
	if query.Has("cursor") {
		if before, err = parseCursor(query.Get("cursor")); err != nil {
			return "", 0, invalidParameter("cursor", notACursor)
		}
	}
	return before, limit, nil
}

// A cursor is opaque to clients: it is the last month of a page. So what a page begins with does not depend on what
// became of the months before it.
var cursorEncoding = base64.RawURLEncoding.Strict()

const notACursor = "must be one that a Link header gave"

func parseCursor(cursor string) (events.Month, error) {
	text, err := cursorEncoding.DecodeString(cursor)
	if err != nil {
		return "", err
	}
	return events.ParseMonth(string(text))
}

// nextLink returns the Link (RFC 8288) to the page after a month.
func nextLink(last events.Month, limit int) string {
	query := url.Values{"cursor": {cursorEncoding.EncodeToString([]byte(last))}, "limit": {strconv.Itoa(limit)}}
	return "<" + historyPath + "?" + query.Encode() + `>; rel="next"`
}

// getMonth answers GET /api/jobs/quota/history/{month}, from the projection or, with source=ledger, also from the ledger.
func (a *api) getMonth(c echo.Context) error {
	month, err := events.ParseMonth(c.Param("month"))
	if err != nil {
		return newProblem(codeInvalidMonth, "")
	}
	query, err := parameters(c, "source")
	if err != nil {
		return err
	}
	if query.Has("source") {
		if query.Get("source") != "ledger" {
			return invalidParameter("source", "must be ledger, or left out")
		}
		return a.replayMonth(c, month)
	}
	m, err := a.month(c, month)
	if err != nil {
		return err
	}
	if header := c.Response().Header(); m.Archive != nil {
		header.Set("Cache-Control", archivedCacheControl)
		header.Add("Vary", "Authorization")
	}
	return writeTagged(c, encode(detailsOf(&m, a.currentMonth(callOf(c)))))
}

// month reads a month of the account, which must lie between its first and the current one.
func (a *api) month(c echo.Context, month events.Month) (m capture.AccountMonth, err error) {
	k := callOf(c)
	current := a.currentMonth(k)
	m, err = a.backend.Month(c.Request().Context(), k.account, month, current)
	if errors.Is(err, events.ErrNotFound) {
		return m, newProblem(codeAccountUnknown, "")
	}
	if err != nil {
		return m, fmt.Errorf("read the month %s: %w", month, err)
	}
	if first := min(m.Begun, current); month < first || month > current {
		return m, newProblem(codeMonthNotFound, fmt.Sprintf("the account's months are %s to %s", first, current))
	}
	return m, nil
}

// writeTagged writes JSON as writeTaggedAs does.
func writeTagged(c echo.Context, body []byte) error { return writeTaggedAs(c, jsonContentType, body) }

// writeTaggedAs writes a body with a strong ETag, which is made of all of it, or says that the client has it already.
func writeTaggedAs(c echo.Context, contentType string, body []byte) error {
	const enough = 32
	etag := `"` + events.Hash(body).String()[:enough] + `"`
	c.Response().Header().Set("Etag", etag)
	if matchesETag(c.Request().Header["If-None-Match"], etag) {
		return c.NoContent(nethttp.StatusNotModified)
	}
	return writeBody(c, nethttp.StatusOK, contentType, body)
}
