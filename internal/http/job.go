package http

import (
	"errors"
	"fmt"
	nethttp "net/http"

	"github.com/labstack/echo/v4"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// getJob answers GET /api/jobs/{id}. Another account's job is as unknown as one that never was.
func (a *api) getJob(c echo.Context) error {
	job, err := a.job(c, c.Param("id"))
	if err != nil {
		return err
	}
	etag := jobETag(job.Version)
	c.Response().Header()["Etag"] = []string{etag}
	if matchesETag(c.Request().Header["If-None-Match"], etag) {
		return c.NoContent(nethttp.StatusNotModified)
	}
	return writeJSON(c, nethttp.StatusOK, formOfJob(job))
}

// job returns a job of the account, or the problem that there is none.
func (a *api) job(c echo.Context, id string) (capture.StoredJob, error) {
	job, err := a.backend.Job(c.Request().Context(), callOf(c).account, id)
	if errors.Is(err, events.ErrNotFound) {
		return job, newProblem(codeJobNotFound, "")
	}
	if err != nil {
		return job, fmt.Errorf("read a job: %w", err)
	}
	return job, nil
}
