package http

import (
	"errors"
	"fmt"
	nethttp "net/http"

	"github.com/labstack/echo/v4"

	"jobtally/internal/events"
)

// getJob answers GET /api/jobs/{id}. Another account's job is as unknown as one that never was.
func (a *api) getJob(c echo.Context) error {
	job, err := a.backend.Job(c.Request().Context(), callOf(c).account, c.Param("id"))
	if errors.Is(err, events.ErrNotFound) {
		return newProblem(codeJobNotFound, "")
	}
	if err != nil {
		return fmt.Errorf("read a job: %w", err)
	}
	return writeJSON(c, nethttp.StatusOK, formOfJob(job))
}
