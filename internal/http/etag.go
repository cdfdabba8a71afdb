package http

import (
	"errors"
	"fmt"
	nethttp "net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"jobtally/internal/events"
)

// jobETag is strong: a version of a job has one content.
func jobETag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

// ifVersion returns the version of a job that the call's If-Match asks for, 0 for any. One version is left to the decision.
// Of several, the one that the job has here is. The error is a problem, of a job that is not there among them.
func (a *api) ifVersion(c echo.Context, id string) (int64, error) {
	tags, any, err := parseIfMatch(c.Request().Header)
	if err != nil || any {
		return 0, err
	}
	versions := strongVersions(tags)
	if len(tags) == 1 && len(versions) == 1 {
		return versions[0], nil
	}
	job, err := a.job(c, id)
	if err != nil {
		return 0, err
	}
	if !slices.Contains(versions, job.Version) {
		return 0, versionConflict(job.Version)
	}
	return job.Version, nil
}

// versionConflict returns the problem of a change that is of other versions than the one that the job has.
func versionConflict(version int64) *problem {
	p := newProblem(codeVersionConflict, fmt.Sprintf("the job has version %d, which If-Match does not name; read it, and send the change again", version))
	p.Version = version
	return p
}

// conflictNow returns the problem of a change that was refused for its version, with the one that the job has by now.
func (a *api) conflictNow(c echo.Context, id string) (*problem, error) {
	job, err := a.backend.Job(c.Request().Context(), callOf(c).account, id)
	if errors.Is(err, events.ErrNotFound) {
		return newProblem(codeVersionConflict, "the job changed meanwhile, and was deleted since"), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read a job: %w", err)
	}
	return versionConflict(job.Version), nil
}

// parseIfMatch returns the entity tags of an If-Match header, or that any version will do, as without one.
func parseIfMatch(header nethttp.Header) (tags []string, any bool, err error) {
	lines, given := header["If-Match"]
	if !given {
		return nil, true, nil
	}
	list := strings.Trim(strings.Join(lines, ","), " \t")
	if list == "*" {
		return nil, true, nil
	}
	for _, item := range splitOutsideQuotes(list, ',') {
		item = strings.Trim(item, " \t")
		if item == "" {
			continue // RFC 9110 has lists with nothing between two commas
		}
		if !isETag(item) {
			return nil, false, newProblem(codeInvalidETag, "")
		}
		tags = append(tags, item)
	}
	if len(tags) == 0 {
		return nil, false, newProblem(codeInvalidETag, "")
	}
	return tags, false, nil
}

// isETag says whether a text is an entity tag of RFC 9110.
func isETag(s string) bool {
	s = strings.TrimPrefix(s, "W/")
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return false
	}
	for _, c := range []byte(s[1 : len(s)-1]) {
		if c <= ' ' || c == '"' || c == 0x7f {
			return false
		}
	}
	return true
}

// strongVersions returns the versions of jobs that are among some entity tags. A weak one is none: changes go by the strong
// comparison, in which it matches nothing.
func strongVersions(tags []string) (versions []int64) {
	for _, tag := range tags {
		version, err := strconv.ParseInt(strings.Trim(tag, `"`), 10, 64)
		if err == nil && version > 0 && tag == jobETag(version) {
			versions = append(versions, version)
		}
	}
	return versions
}
