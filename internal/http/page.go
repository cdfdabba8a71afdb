package http

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"
)

// The entries of a page of accounts, or of tokens.
const (
	defaultEntries = 50
	maxEntries     = 100
)

// readPage reads where a page of a list begins, after an entry or at the first, and how many entries it has. A cursor is of
// one list alone.
func readPage(c echo.Context, list string) (after string, limit int, err error) {
	query, err := parameters(c, "cursor", "limit")
	if err != nil {
		return "", 0, err
	}
	if limit, err = pageLimit(query, defaultEntries, maxEntries); err != nil {
		return "", 0, err
	}
	if query.Has("cursor") {
		text, err := cursorEncoding.DecodeString(query.Get("cursor"))
		after, of := strings.CutPrefix(string(text), list+" ")
		if err != nil || !of {
			return "", 0, invalidParameter("cursor", "must be one that a Link header of this list gave")
		}
		return after, limit, nil
	}
	return "", limit, nil
}

// tellNext sets the Link (RFC 8288) to the page after an entry.
func tellNext(c echo.Context, list, last string, limit int) {
	query := url.Values{"cursor": {cursorEncoding.EncodeToString([]byte(list + " " + last))}, "limit": {strconv.Itoa(limit)}}
	c.Response().Header().Set("Link", "<"+list+"?"+query.Encode()+`>; rel="next"`)
}
