package http

import (
	"context"
	"errors"
	"fmt"
	nethttp "net/http"
	"net/url"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// captureWait is how long a capture waits for its decision when its client prefers nothing.
const captureWait = 10 * time.Second

// postCapture answers POST /api/jobs: the request is appended, and answered once this node has folded its decision,
// or as pending when that takes longer than the client wants to wait. With dry_run it is only tried.
func (a *api) postCapture(c echo.Context) error {
	c.Response().Header().Add("Vary", "Prefer")
	dry, err := dryRun(c)
	if err != nil {
		return err
	}
	request, err := captureRequest(c)
	if err != nil {
		return err
	}
	if dry {
		return a.tryCapture(c, request)
	}
	return a.submit(c, request, func(d events.Decision) error { return a.writeDecided(c, d) })
}

// submit appends a request of the caller's, and has its decision written; or answers that it is pending.
func (a *api) submit(c echo.Context, request *events.Request, write func(events.Decision) error) error {
	header := c.Response().Header()
	header.Set(headerIdempotencyKey, quoteKey(request.ID))
	r, err := a.record(c, request)
	if err != nil {
		return err
	}
	if r.decision == nil {
		header.Set("Location", capturePath(r.position))
		return r.pending(c)
	}
	return write(*r.decision)
}

// isOn says whether a decision is on a request.
func isOn(d *events.Decision, r *events.Request) bool {
	return d.Account == r.Account && d.RequestID == r.ID
}

// onAnotherRequest is the error of a ledger that gave away a position that was taken. Whoever's decision is there, it is not
// for this client.
func onAnotherRequest(p events.Position) error {
	return fmt.Errorf("%w: decision %s is on another request", events.ErrUnknownOutcome, p)
}

// captureRequest reads and checks the key and the body of a call.
func captureRequest(c echo.Context) (*events.Request, error) {
	id, err := idempotencyKey(c.Request().Header)
	if err != nil {
		return nil, err
	}
	body, err := readBody(c)
	if err != nil {
		return nil, err
	}
	job, canonical, err := decodeJob(body)
	if err != nil {
		return nil, err
	}
	return captureOf(callOf(c), id, job, canonical), nil
}

// captureOf returns the request of a call to capture a job.
func captureOf(k *call, id string, job events.Job, canonicalURL string) *events.Request {
	return &events.Request{Account: k.account, ID: id, Time: k.now, Body: &events.JobCaptureRequested{
		Month:        events.MonthOf(k.now),
		Job:          job,
		CanonicalURL: canonicalURL,
		SourceRules:  capture.SourceRules,
		PayloadHash:  payloadHash(&job),
	}}
}

// checkNoQuery refuses what a change does not know: to ignore a parameter could record what was not meant to be.
func checkNoQuery(u *url.URL) error {
	if u.RawQuery == "" {
		return nil
	}
	names := make([]string, 0, 1)
	for name := range u.Query() {
		names = append(names, name)
	}
	slices.Sort(names)
	return newProblem(codeInvalidRequest, fmt.Sprintf("this call has no query parameters, but %q was sent", names))
}

// appendFailed returns what a client is told about an append that failed. The log has the cause of an unknown outcome;
// that the ledger takes no requests is told there once, by whoever found out, and not for each of them; nor is it told of
// clients that left, or anybody could fill the log.
func (a *api) appendFailed(c echo.Context, err error) error {
	err = fmt.Errorf("append a request: %w", err)
	if errors.Is(err, events.ErrUnknownOutcome) {
		if c.Request().Context().Err() == nil {
			a.logFailure(c, err)
		}
		return newProblem(codeOutcomeUnknown, "")
	}
	return err
}

// decision waits for the decision on an appended request. Whatever ends the wait, the request stands: when the
// decision is not there, the answer is that it is pending. The error is events.ErrNotFound for what was erased since.
func (a *api) decision(c echo.Context, p events.Position, patience time.Duration) (d events.Decision, folded bool, err error) {
	if patience == 0 {
		return d, false, nil
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), patience)
	defer cancel()
	return a.decisionWithin(ctx, c, p)
}

// decisionWithin waits likewise, until ctx ends.
func (a *api) decisionWithin(ctx context.Context, c echo.Context, p events.Position) (d events.Decision, folded bool, err error) {
	d, err = a.backend.Await(ctx, p)
	if errors.Is(err, events.ErrNotFound) {
		return d, false, err
	}
	if err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		a.logFailure(c, fmt.Errorf("await the decision at %s: %w", p, err))
	}
	return d, err == nil, nil
}

func writePending(c echo.Context, status int, p events.Position) error {
	c.Response().Header().Set("Retry-After", retryAfter)
	return writeJSON(c, status, &answer{Outcome: outcomePending, Receipt: receipt{Position: p}})
}

// writeDecided answers the client that sent the capture. A repetition gets the first answer, byte for byte; only
// its RateLimit fields are of now.
func (a *api) writeDecided(c echo.Context, d events.Decision) error {
	d, repeated, err := a.first(c, d)
	if err != nil {
		return a.unlessErased(c, err)
	}
	said, err := a.answerTo(c, &d)
	if err != nil {
		return fmt.Errorf("answer the decision at %s: %w", d.Position, err)
	}
	if err := a.setCaptureHeader(c, &d, repeated); err != nil {
		return err
	}
	if said.Job != nil {
		c.Response().Header().Set("Location", jobPath(said.Job.ID))
	}
	switch said.Outcome {
	case outcomeCaptured:
		c.Response().Header()["Etag"] = []string{jobETag(said.Job.Version)}
		return writeJSON(c, nethttp.StatusCreated, said)
	case outcomeDuplicate:
		return writeJSON(c, nethttp.StatusOK, said)
	}
	return problemOfAnswer(said)
}

// unlessErased returns the error of a decision that refers to what is not there, or the problem that its account was erased
// meanwhile.
func (a *api) unlessErased(c echo.Context, err error) error {
	if errors.Is(err, events.ErrNotFound) {
		if _, gone := a.quotaNow(c); gone != nil {
			return gone
		}
	}
	return err
}

func (a *api) setCaptureHeader(c echo.Context, d *events.Decision, repeated bool) (err error) {
	header := c.Response().Header()
	quota, counts := quotaAfter(d)
	if repeated {
		header.Set("Idempotent-Replayed", "true")
		if quota, err = a.quotaNow(c); err != nil {
			return err
		}
	}
	if counts {
		setRateLimit(header, quota, callOf(c).now)
	}
	return nil
}
