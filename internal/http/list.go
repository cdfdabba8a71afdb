package http

import (
	"encoding/binary"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

const (
	jobsPath    = "/api/jobs"
	defaultJobs = 50
	maxJobs     = 100

	maxQueryLength = 200 // characters of q
	maxQueryWords  = 16
)

// sortUpdated puts the jobs first that changed last. The other order, which is the usual one, goes by their captures.
const (
	sortNewest  = "newest"
	sortUpdated = "updated"
)

// listParameters are those of GET /api/jobs. All but the first two say which jobs there are, and in which order.
var listParameters = []string{"cursor", "limit", "sort", "status", "company", "captured_via", "month", "q"}

type jobsForm struct {
	Jobs []*jobForm `json:"jobs"`
}

// getJobs answers GET /api/jobs: a page of the account's jobs.
func (a *api) getJobs(c echo.Context) error {
	account := callOf(c).account
	query, err := parameters(c, listParameters...)
	if err != nil {
		return err
	}
	asked, err := jobQuery(account, query)
	if err != nil {
		return err
	}
	page, err := a.backend.Jobs(c.Request().Context(), account, asked)
	if err != nil {
		return fmt.Errorf("read jobs: %w", err)
	}
	if page.Next != 0 {
		query.Set("cursor", jobCursor(account, query, page.Next))
		c.Response().Header().Set("Link", "<"+jobsPath+"?"+query.Encode()+`>; rel="next"`)
	}
	form := jobsForm{Jobs: make([]*jobForm, 0, len(page.Jobs))}
	for _, job := range page.Jobs {
		form.Jobs = append(form.Jobs, formOfJob(job))
	}
	return writeTagged(c, encode(&form))
}

// jobQuery reads which jobs a call asks for. The error lists every parameter that is not right.
func jobQuery(account string, query url.Values) (q capture.JobQuery, err error) {
	var wrong []fieldError
	check := func(name, detail string) {
		if query.Has(name) && detail != "" {
			wrong = append(wrong, fieldError{name, detail})
		}
	}
	if q.Limit, err = pageLimit(query, defaultJobs, maxJobs); err != nil {
		wrong = append(wrong, err.(*problem).Errors...)
	}
	check("sort", oneOf([]string{sortNewest, sortUpdated})(query.Get("sort")))
	check("status", oneOf(events.Statuses())(query.Get("status")))
	check("company", checkFilter(query.Get("company"), 255))
	check("captured_via", oneOf(events.CapturedVia())(query.Get("captured_via")))
	if _, err := events.ParseMonth(query.Get("month")); err != nil {
		check("month", "must look like 2026-11")
	}
	check("q", checkText(query.Get("q")))
	q.Status, q.Company, q.CapturedVia = query.Get("status"), query.Get("company"), query.Get("captured_via")
	q.Month, q.Text, q.Updated = events.Month(query.Get("month")), query.Get("q"), query.Get("sort") == sortUpdated
	if query.Has("cursor") {
		var ok bool
		if q.Before, ok = parseJobCursor(account, query); !ok {
			check("cursor", "must be one that a Link header gave, for the same sort and filters")
		}
	}
	if len(wrong) > 0 {
		return q, invalidFields(wrong)
	}
	return q, nil
}

// checkFilter returns what is wrong with the text of a filter, as a check of a field does.
func checkFilter(text string, most int) string {
	switch {
	case !utf8.ValidString(text):
		return "must be UTF-8"
	case strings.TrimSpace(text) == "":
		return "must not be blank"
	}
	return atMost(most)(text)
}

// checkText returns what is wrong with the words to search for. The limits bound the work; what a word is, the search knows.
func checkText(text string) string {
	if wrong := checkFilter(text, maxQueryLength); wrong != "" {
		return wrong
	}
	words := strings.FieldsFunc(text, func(c rune) bool { return !unicode.IsLetter(c) && !unicode.IsDigit(c) && !unicode.IsMark(c) })
	if len(words) > maxQueryWords {
		return fmt.Sprintf("must have at most %d words, not %d", maxQueryWords, len(words))
	}
	return ""
}

// A cursor of jobs is where the page ends, behind a digest of whose it is and of what was asked for: the pages of one question
// fit together, those of two do not.
func jobCursor(account string, query url.Values, next uint64) string {
	return cursorEncoding.EncodeToString(binary.BigEndian.AppendUint64(digestOfQuery(account, query), next))
}

// parseJobCursor returns where the page begins, if the cursor is one of these parameters.
func parseJobCursor(account string, query url.Values) (before uint64, ok bool) {
	cursor, err := cursorEncoding.DecodeString(query.Get("cursor"))
	digest := digestOfQuery(account, query)
	if err != nil || len(cursor) != len(digest)+8 || !slices.Equal(cursor[:len(digest)], digest) {
		return 0, false
	}
	before = binary.BigEndian.Uint64(cursor[len(digest):])
	return before, before > 0 && before <= maxSequence
}

const maxSequence = 1<<63 - 1

// digestOfQuery digests what tells two questions apart. The usual order is one, said or not.
func digestOfQuery(account string, query url.Values) []byte {
	const enough = 8
	parts := [][]byte{[]byte("jobs"), []byte(account), []byte(strconv.FormatBool(query.Get("sort") == sortUpdated))}
	for _, name := range listParameters[3:] {
		parts = append(parts, []byte(query.Get(name)))
	}
	digest := events.Hash(parts...)
	return digest[:enough]
}
