package http

import (
	"errors"
	"fmt"

	"github.com/labstack/echo/v4"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// The outcomes of a capture as clients see them.
const (
	outcomePending   = "pending"
	outcomeCaptured  = "captured"
	outcomeDuplicate = "duplicate"
	outcomeRejected  = "rejected"
	outcomeRefused   = "refused"
)

// answer is what a client is told about a capture. It is made from the decision alone, plus the job that a duplicate
// names, so that a decision has one answer whenever it is asked for.
type answer struct {
	Outcome string     `json:"outcome"`
	Reason  string     `json:"reason,omitempty"` // of rejected and refused
	Detail  string     `json:"detail,omitempty"` // of refused
	Job     *jobForm   `json:"job,omitempty"`    // of captured and duplicate
	Quota   *quotaForm `json:"quota,omitempty"`  // of all but refused: as the decision left it
	Receipt receipt    `json:"receipt"`
}

// errNoCapture is the error of a decision that is not about a capture.
var errNoCapture = errors.New("the decision is not about a capture")

// answerTo returns the answer that the decision on a capture stands for, which must not be a repetition.
func (a *api) answerTo(c echo.Context, d *events.Decision) (*answer, error) {
	switch b := d.Body.(type) {
	case *events.JobCaptured:
		job := capture.StoredJob{ID: b.JobID, CapturedAt: d.Time, UpdatedAt: d.Time, Version: 1, Job: b.Job}
		return &answer{Outcome: outcomeCaptured, Job: formOfJob(job), Quota: formOfCount(b.Count), Receipt: receiptOf(d)}, nil
	case *events.JobCaptureDuplicated:
		job, err := a.backend.Job(c.Request().Context(), d.Account, b.JobID)
		if err != nil {
			return nil, fmt.Errorf("read the job of the duplicate at %s: %w", d.Position, err)
		}
		return &answer{Outcome: outcomeDuplicate, Job: formOfJob(job), Quota: formOfCount(b.Count), Receipt: receiptOf(d)}, nil
	case *events.JobCaptureRejected:
		return &answer{Outcome: outcomeRejected, Reason: b.Reason, Quota: formOfCount(b.Count), Receipt: receiptOf(d)}, nil
	case *events.RequestRefused:
		if b.Kind == events.KindOf(&events.JobCaptureRequested{}) {
			return &answer{Outcome: outcomeRefused, Reason: b.Reason, Detail: b.Detail, Receipt: receiptOf(d)}, nil
		}
	}
	return nil, errNoCapture
}

// first returns the decision whose answer a repeated capture gets, or the decision itself.
func (a *api) first(c echo.Context, d events.Decision) (first events.Decision, repeated bool, err error) {
	b, repeated := d.Body.(*events.JobCaptureRepeated)
	if !repeated {
		return d, false, nil
	}
	first, err = a.backend.Decision(c.Request().Context(), b.First)
	if err != nil {
		return first, true, fmt.Errorf("read the decision at %s, which %s repeats: %w", b.First, d.Position, err)
	}
	return first, true, nil
}

// quotaAfter returns the quota as the decision on a capture left it, if it says.
func quotaAfter(d *events.Decision) (q capture.Quota, ok bool) {
	switch b := d.Body.(type) {
	case *events.JobCaptured:
		return quotaOf(b.Count), true
	case *events.JobCaptureDuplicated:
		return quotaOf(b.Count), true
	case *events.JobCaptureRejected:
		return quotaOf(b.Count), true
	}
	return capture.Quota{}, false
}

func quotaOf(count events.Count) capture.Quota {
	return capture.Quota{Month: count.Month, Used: count.Used, Limit: count.Limit}
}

func formOfCount(count events.Count) *quotaForm { return formOfQuota(quotaOf(count)) }

// problemOfAnswer returns the problem that a rejected or refused capture is to the client that sent it.
func problemOfAnswer(said *answer) *problem {
	var p *problem
	if said.Outcome == outcomeRejected {
		p = newProblem(codeQuotaExceeded, fmt.Sprintf("%d captures are used of %d a month; the count starts at 0 again on %s, 00:00 UTC",
			said.Quota.Used, said.Quota.Limit, said.Quota.ResetDate))
		p.ViolatedPolicies = []string{"captures"}
		p.quotaForm = said.Quota
	} else {
		p = refusal(said)
	}
	p.Receipt = &said.Receipt
	p.Instance = capturePath(said.Receipt.Position)
	return p
}

// refusal returns the problem of a refused capture. A reason that captures do not have is not the client's fault.
func refusal(said *answer) *problem {
	switch said.Reason {
	case events.ReasonIdempotencyKeyReused:
		return newProblem(codeIdempotencyKeyReused, "")
	case events.ReasonAccountUnknown:
		return newProblem(codeAccountUnknown, "")
	case events.ReasonMalformed:
		return newProblem(codeMalformed, said.Detail)
	}
	return newProblem(codeRequestRefused, said.Detail)
}

func capturePath(p events.Position) string { return "/api/jobs/captures/" + p.String() }

func jobPath(id string) string { return "/api/jobs/" + id }
