package http

import (
	"errors"
	"fmt"
	nethttp "net/http"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// getQuota answers GET /api/jobs/quota: the count of the current month.
func (a *api) getQuota(c echo.Context) error {
	k := callOf(c)
	quota, err := a.quotaNow(c)
	if err != nil {
		return err
	}
	header := c.Response().Header()
	setRateLimit(header, quota, k.now)
	form := formOfQuota(quota)
	etag := quotaETag(form)
	header["Etag"] = []string{etag}
	if matchesETag(c.Request().Header["If-None-Match"], etag) {
		return c.NoContent(nethttp.StatusNotModified)
	}
	return c.Blob(nethttp.StatusOK, jsonContentType, form.appendTo(make([]byte, 0, 96)))
}

// currentMonth returns the month in which a capture of the call's account counts: that of the clock, unless it is archived,
// as by a clock that is ahead of this one.
func (a *api) currentMonth(k *call) events.Month {
	return a.backend.CountsIn(k.account, events.MonthOf(k.now))
}

// quotaNow returns the account's quota in the current month.
func (a *api) quotaNow(c echo.Context) (capture.Quota, error) {
	k := callOf(c)
	quota, err := a.backend.Quota(c.Request().Context(), k.account, a.currentMonth(k))
	if errors.Is(err, events.ErrNotFound) {
		return quota, newProblem(codeAccountUnknown, "")
	}
	if err != nil {
		return quota, fmt.Errorf("read the quota: %w", err)
	}
	return quota, nil
}

// quotaETag is strong: it holds everything from which the body is made.
func quotaETag(q *quotaForm) string {
	return `"` + strconv.FormatInt(q.Used, 10) + "." + strconv.FormatInt(q.Limit, 10) + "." + q.ResetDate + `"`
}

// matchesETag says whether If-None-Match header lines name the entity tag, by the weak comparison of RFC 9110.
func matchesETag(lines []string, etag string) bool {
	if len(lines) == 0 {
		return false
	}
	for _, item := range splitOutsideQuotes(strings.Join(lines, ","), ',') {
		item = strings.TrimSpace(item)
		if item == "*" || strings.TrimPrefix(item, "W/") == etag {
			return true
		}
	}
	return false
}
