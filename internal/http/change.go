package http

import (
	nethttp "net/http"

	"github.com/labstack/echo/v4"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// patchJob answers PATCH /api/jobs/{id}: an update is appended, decided and answered as a capture is, and counts nothing.
func (a *api) patchJob(c echo.Context) error {
	c.Response().Header().Set("Accept-Patch", mergePatchContentType+", "+jsonContentType)
	return a.change(c, func(id string, version int64) (events.RequestBody, error) {
		body, _, err := readBodyOf(c, maxBodyBytes, mergePatchContentType, jsonContentType)
		if err != nil {
			return nil, err
		}
		changes, err := decodePatch(body)
		return &events.JobUpdateRequested{JobID: id, IfVersion: version, Changes: changes}, err
	})
}

// deleteJob answers DELETE /api/jobs/{id} likewise. What the job counted stays counted.
func (a *api) deleteJob(c echo.Context) error {
	return a.change(c, func(id string, version int64) (events.RequestBody, error) {
		return &events.JobDeleteRequested{JobID: id, IfVersion: version}, nil
	})
}

// change asks for a change of the job that the path names, on the condition of If-Match. A key that is sent names the request
// and no more: the condition is what makes sending it again safe.
func (a *api) change(c echo.Context, body func(id string, version int64) (events.RequestBody, error)) error {
	c.Response().Header().Add("Vary", "Prefer")
	if err := checkNoQuery(c.Request().URL); err != nil {
		return err
	}
	key, err := idempotencyKey(c.Request().Header)
	if err != nil {
		return err
	}
	id := c.Param("id")
	if !capture.IsJobID(id) { // no request could find it
		return newProblem(codeJobNotFound, "")
	}
	version, err := a.ifVersion(c, id)
	if err != nil {
		return err
	}
	requested, err := body(id, version)
	if err != nil {
		return err
	}
	k := callOf(c)
	return a.submit(c, &events.Request{Account: k.account, ID: key, Time: k.now, Body: requested}, func(d events.Decision) error {
		return a.writeChanged(c, id, d)
	})
}

// writeChanged answers the client that asked for the change of a job.
func (a *api) writeChanged(c echo.Context, id string, d events.Decision) error {
	said, err := a.answerTo(c, &d)
	if err != nil {
		return err
	}
	switch said.Outcome {
	case outcomeUpdated, outcomeDeleted:
		if b, updated := d.Body.(*events.JobUpdated); updated {
			c.Response().Header()["Etag"] = []string{jobETag(b.Version)}
		}
		return writeJSON(c, nethttp.StatusOK, said)
	}
	p := problemOfAnswer(said)
	if p.Code == codeVersionConflict {
		conflict, err := a.conflictNow(c, id)
		if err != nil {
			return err
		}
		p.Detail, p.Version = conflict.Detail, conflict.Version
	}
	return p
}
