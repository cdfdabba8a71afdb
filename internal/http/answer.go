package http

import (
	"errors"
	"fmt"
	"slices"

	"github.com/labstack/echo/v4"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// The outcomes of captures and changes as clients see them.
const (
	outcomePending   = "pending"
	outcomeCaptured  = "captured"
	outcomeDuplicate = "duplicate"
	outcomeRejected  = "rejected"
	outcomeRefused   = "refused"
	outcomeUpdated   = "updated"
	outcomeDeleted   = "deleted"
)

// answer is what a client is told about a capture, or about the change of a job. It is made from the decision alone, plus
// what the tracker has of the job that a duplicate or an update names, so that a decision has one answer whenever it is asked
// for, but that a duplicate shows the job as it is by then. A job that was deleted since is left out.
type answer struct {
	Outcome string     `json:"outcome"`
	Reason  string     `json:"reason,omitempty"` // of rejected and refused
	Detail  string     `json:"detail,omitempty"` // of refused
	ID      string     `json:"id,omitempty"`     // of deleted: that of the job
	Job     *jobForm   `json:"job,omitempty"`    // of captured, duplicate and updated
	Quota   *quotaForm `json:"quota,omitempty"`  // of captured, duplicate and rejected: as the decision left it
	Receipt receipt    `json:"receipt"`
}

// errNoCapture is the error of a decision that is neither about a capture nor about a job.
var errNoCapture = errors.New("the decision is not about a capture")

// answerTo returns the answer that the decision on a capture or a change stands for, which must not be a repetition.
func (a *api) answerTo(c echo.Context, d *events.Decision) (said *answer, err error) {
	said = &answer{Receipt: receiptOf(d)}
	switch b := d.Body.(type) {
	case *events.JobCaptured:
		job := capture.StoredJob{ID: b.JobID, CapturedAt: d.Time, UpdatedAt: d.Time, Version: 1, Job: b.Job}
		said.Outcome, said.Job, said.Quota = outcomeCaptured, formOfJob(job), formOfCount(b.Count)
	case *events.JobCaptureDuplicated:
		said.Outcome, said.Quota = outcomeDuplicate, formOfCount(b.Count)
		said.Job, err = a.jobNow(c, b.JobID)
	case *events.JobCaptureRejected:
		said.Outcome, said.Reason, said.Quota = outcomeRejected, b.Reason, formOfCount(b.Count)
	case *events.JobUpdated:
		said.Outcome = outcomeUpdated
		said.Job, err = a.jobNow(c, b.JobID)
		if said.Job != nil {
			said.Job.Job, said.Job.Version, said.Job.UpdatedAt = b.Job, b.Version, formatTime(d.Time)
		}
	case *events.JobDeleted:
		said.Outcome, said.ID = outcomeDeleted, b.JobID
	case *events.RequestRefused:
		if !slices.Contains(jobKinds, b.Kind) {
			return nil, errNoCapture
		}
		said.Outcome, said.Reason, said.Detail = outcomeRefused, b.Reason, b.Detail
	default:
		return nil, errNoCapture
	}
	return said, err
}

// jobKinds are the requests of which clients are told what became of them.
var jobKinds = []string{
	events.KindOf(&events.JobCaptureRequested{}), events.KindOf(&events.JobUpdateRequested{}), events.KindOf(&events.JobDeleteRequested{}),
}

// jobNow returns a job that a decision names as it is now, or nil when it was deleted since. The error is a problem when that
// is because the account was erased.
func (a *api) jobNow(c echo.Context, id string) (*jobForm, error) {
	job, err := a.backend.Job(c.Request().Context(), callOf(c).account, id)
	if errors.Is(err, events.ErrNotFound) {
		_, err = a.quotaNow(c)
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("read a job: %w", err)
	}
	return formOfJob(job), nil
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

// problemOfAnswer returns the problem that a rejected or refused request is to the client that sent it.
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

// refusal returns the problem of a refused request. A reason that captures and changes do not have is not the client's fault.
func refusal(said *answer) *problem {
	switch said.Reason {
	case events.ReasonIdempotencyKeyReused:
		return newProblem(codeIdempotencyKeyReused, "")
	case events.ReasonAccountUnknown:
		return newProblem(codeAccountUnknown, "")
	case events.ReasonMalformed:
		return newProblem(codeMalformed, said.Detail)
	case events.ReasonNotFound:
		return newProblem(codeJobNotFound, "")
	case events.ReasonVersionConflict:
		return newProblem(codeVersionConflict, said.Detail)
	}
	return newProblem(codeRequestRefused, said.Detail)
}

func capturePath(p events.Position) string { return "/api/jobs/captures/" + p.String() }

func jobPath(id string) string { return "/api/jobs/" + id }
