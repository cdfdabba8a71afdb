package http

import (
	"context"
	"errors"
	"fmt"
	nethttp "net/http"

	"github.com/labstack/echo/v4"

	"jobtally/internal/events"
)

// batch is the captures of one call.
type batch struct {
	results  []*result         // one for each item, in order; nil until it is known
	requests []*events.Request // of the items that are valid
	places   []int             // of these among the items
}

type batchForm struct {
	DryRun  bool       `json:"dry_run,omitempty"`
	Results []*result  `json:"results"`
	Quota   *quotaForm `json:"quota"` // now
}

// postBatch answers POST /api/jobs/batch: what is valid is appended as one group, and each item is answered as if it had come
// alone, in its order. With dry_run they are only tried.
func (a *api) postBatch(c echo.Context) error {
	c.Response().Header().Add("Vary", "Prefer")
	dry, err := dryRun(c)
	if err != nil {
		return err
	}
	leave, err := a.limits.room(c)
	if err != nil {
		return err
	}
	defer leave()
	b, err := readBatch(c)
	if err != nil {
		return err
	}
	if len(b.requests) > 0 {
		if err := a.capture(c, b, dry); err != nil {
			return err
		}
	}
	a.tellPosition(c)
	quota, err := a.quotaNow(c)
	if err != nil {
		return err
	}
	setRateLimit(c.Response().Header(), quota, callOf(c).now)
	return writeJSON(c, nethttp.StatusOK, &batchForm{DryRun: dry, Results: b.results, Quota: formOfQuota(quota)})
}

// capture finds out what becomes of the valid items of a batch.
func (a *api) capture(c echo.Context, b *batch, dry bool) (err error) {
	var results []*result
	if dry {
		results, err = a.try(c, b.requests)
	} else {
		results, err = a.submitAll(c, b.requests)
	}
	if errors.Is(err, events.ErrNotFound) { // as of submit
		return newProblem(codeAccountUnknown, "")
	}
	if err != nil {
		return err
	}
	for i, r := range results {
		r.Key = b.requests[i].ID
		b.results[b.places[i]] = r
	}
	return nil
}

// submitAll appends requests and returns the result of each. They are awaited together, as long as the client wants to wait.
func (a *api) submitAll(c echo.Context, requests []*events.Request) (results []*result, err error) {
	if err := a.recordable(c); err != nil {
		return nil, err
	}
	positions, errs := a.backend.AppendAll(c.Request().Context(), requests)
	prefer := parsePrefer(c.Request().Header["Prefer"])
	patience := prefer.patience(captureWait)
	ctx, cancel := context.WithTimeout(c.Request().Context(), patience)
	defer cancel()
	pending := false
	for i, position := range positions {
		r := a.notAppended(c, errs[i])
		if r == nil && patience > 0 {
			if r, err = a.awaited(ctx, c, requests[i], position); err != nil {
				return nil, err
			}
		}
		if r == nil {
			pending = true
			r = &result{Status: nethttp.StatusAccepted, Outcome: outcomePending, Receipt: &receipt{Position: position}}
		}
		results = append(results, r)
	}
	prefer.apply(c.Response().Header(), pending)
	return results, nil
}

// notAppended returns the result of a request that was not appended, or may not have been; or nil.
func (a *api) notAppended(c echo.Context, err error) *result {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, events.ErrUnknownOutcome):
		return resultOfProblem(outcomeUnknown, a.problemOf(a.appendFailed(c, err), c))
	}
	return resultOfProblem(outcomeUnavailable, a.problemOf(a.appendFailed(c, err), c))
}

// awaited returns the result of an appended request, or nil when it is not decided before ctx ends.
func (a *api) awaited(ctx context.Context, c echo.Context, request *events.Request, position events.Position) (*result, error) {
	decision, folded, err := a.decisionWithin(ctx, c, position)
	if err != nil || !folded {
		return nil, err
	}
	if !isOn(&decision, request) {
		return a.notAppended(c, onAnotherRequest(position)), nil
	}
	return a.decided(c, decision)
}

// readBatch reads and checks the whole call. The error is of the batch as a whole: an item that is not valid has its result.
func readBatch(c echo.Context) (*batch, error) {
	key, err := batchKey(c.Request().Header)
	if err != nil {
		return nil, err
	}
	items, err := readItems(c)
	if err != nil {
		return nil, err
	}
	c.Response().Header().Set(headerIdempotencyKey, quoteKey(key))
	callOf(c).cost = len(items) - 1
	b := &batch{results: make([]*result, len(items))}
	for i, raw := range items {
		job, canonical, own, err := decodeItem(raw)
		if err != nil {
			b.results[i] = resultOfProblem(outcomeInvalid, err.(*problem))
			continue
		}
		if own == "" {
			own = fmt.Sprintf("%s.%d", key, i)
		}
		b.requests = append(b.requests, captureOf(callOf(c), own, job, canonical))
		b.places = append(b.places, i)
	}
	return b, nil
}

// batchKey returns the key of a batch, from which its items have theirs that bring none.
func batchKey(header nethttp.Header) (string, error) {
	const longest = maxIdempotencyKeySize - len(".99")
	key, err := idempotencyKey(header)
	if err == nil && len(key) > longest {
		return "", newProblem(codeInvalidIdempotencyKey,
			fmt.Sprintf("the key of a batch has at most %d characters, not %d: those of its jobs begin with it", longest, len(key)))
	}
	return key, err
}
