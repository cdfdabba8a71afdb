package http

import (
	nethttp "net/http"
	"slices"

	"github.com/labstack/echo/v4"

	"jobtally/internal/events"
)

// The outcomes that there are only beside others, in a result.
const (
	outcomeInvalid     = "invalid"
	outcomeUnavailable = "unavailable"
	outcomeUnknown     = "unknown"
	outcomeRepeated    = "repeated"
)

// result is what became of a capture that is not the answer of its own: one of a batch, or one that was only tried. The status
// and the problem are those of the answer that it would be.
type result struct {
	DryRun  bool       `json:"dry_run,omitempty"`
	Status  int        `json:"status"`
	Outcome string     `json:"outcome"`
	Key     string     `json:"idempotency_key,omitempty"`
	Job     *jobForm   `json:"job,omitempty"`
	Quota   *quotaForm `json:"quota,omitempty"`
	Receipt *receipt   `json:"receipt,omitempty"`
	Problem *problem   `json:"problem,omitempty"`
}

// resultOf returns the result that an answer to a capture is.
func resultOf(said *answer) *result {
	r := &result{Outcome: said.Outcome, Job: said.Job, Quota: said.Quota, Receipt: &said.Receipt}
	switch said.Outcome {
	case outcomeCaptured:
		r.Status = nethttp.StatusCreated
	case outcomeDuplicate:
		r.Status = nethttp.StatusOK
	default:
		r.Problem = problemOfAnswer(said)
		r.Status = r.Problem.Status
	}
	return r
}

func resultOfProblem(outcome string, p *problem) *result {
	return &result{Status: p.Status, Outcome: outcome, Problem: p}
}

// decided returns the result of a capture that was decided. A repetition has the first one.
func (a *api) decided(c echo.Context, d events.Decision) (*result, error) {
	d, _, err := a.first(c, d)
	if err != nil {
		return nil, a.unlessErased(c, err)
	}
	said, err := a.answerTo(c, &d)
	if err != nil {
		return nil, err
	}
	return resultOf(said), nil
}

// paramDryRun asks for what would be decided, and for nothing to be recorded.
const paramDryRun = "dry_run"

// dryRun reads the query of a capture.
func dryRun(c echo.Context) (bool, error) {
	if c.Request().URL.RawQuery == "" {
		return false, nil
	}
	query, err := parameters(c, paramDryRun)
	if err != nil {
		return false, err
	}
	return isTrue(query, paramDryRun)
}

// tryCapture answers a capture that is only tried.
func (a *api) tryCapture(c echo.Context, request *events.Request) error {
	results, err := a.try(c, []*events.Request{request})
	if err != nil {
		return err
	}
	results[0].DryRun = true
	return writeJSON(c, nethttp.StatusOK, results[0])
}

// try returns what would become of captures, in order, if they were the next. A job that would be captured has no id, and
// nothing a receipt. What was asked before is repeated, with the rest of the first answer.
func (a *api) try(c echo.Context, requests []*events.Request) (results []*result, err error) {
	decisions, err := a.backend.Try(c.Request().Context(), requests)
	if err != nil {
		return nil, err
	}
	for i := range decisions {
		r, err := a.tried(c, decisions[:i+1])
		if err != nil {
			return nil, err
		}
		results = append(results, r)
	}
	return results, nil
}

// tried returns the result of the last of some decisions that are not recorded.
func (a *api) tried(c echo.Context, decisions []events.Decision) (*result, error) {
	d, fresh := decisions[len(decisions)-1], true
	repetition, repeated := d.Body.(*events.JobCaptureRepeated)
	if repeated {
		first := slices.IndexFunc(decisions, func(d events.Decision) bool { return d.Position == repetition.First })
		if fresh = first >= 0; fresh {
			d = decisions[first]
		}
	}
	r, err := a.decided(c, d)
	if err != nil {
		return nil, err
	}
	r.Receipt = nil
	if r.Problem != nil {
		r.Problem.Receipt, r.Problem.Instance = nil, ""
	}
	if fresh && r.Outcome == outcomeCaptured {
		r.Job.ID = ""
	}
	if repeated {
		r.Outcome = outcomeRepeated
	}
	return r, nil
}
