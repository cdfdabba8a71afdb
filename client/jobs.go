package client

import (
	"context"
	"crypto/rand"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Outcome is what became of a capture.
type Outcome string

// The outcomes.
const (
	Captured    Outcome = "captured"
	Duplicate   Outcome = "duplicate" // the posting was in the tracker; nothing was counted
	Rejected    Outcome = "rejected"  // the quota of the month is used up
	Refused     Outcome = "refused"   // Detail says why
	Repeated    Outcome = "repeated"  // of a dry run: the key was used before, and would get the first answer again
	Pending     Outcome = "pending"   // recorded; what is decided comes later, under Receipt.Position
	Updated     Outcome = "updated"
	Deleted     Outcome = "deleted"
	Revoked     Outcome = "revoked"     // of a token
	Erased      Outcome = "erased"      // of an account
	Invalid     Outcome = "invalid"     // an item of a batch that was not recorded
	Unavailable Outcome = "unavailable" // as well: to be sent again
	Unknown     Outcome = "unknown"     // an item that may have been recorded: to be sent again under its key
)

// NewJob is a job to be captured. SourceURL, Title and Company are needed. The service has the bounds and the values.
type NewJob struct {
	SourceURL      string `json:"source_url"`
	Title          string `json:"title"`
	Company        string `json:"company"`
	Location       string `json:"location,omitempty"`
	Description    string `json:"description,omitempty"`
	ApplicationURL string `json:"application_url,omitempty"`
	JobType        string `json:"job_type,omitempty"`
	Notes          string `json:"notes,omitempty"`
	Status         string `json:"status,omitempty"`       // saved, unless given
	CapturedVia    string `json:"captured_via,omitempty"` // api, unless given
}

// Job is a job in the tracker.
type Job struct {
	ID string `json:"id"`
	NewJob
	CapturedAt time.Time `json:"captured_at"`
	UpdatedAt  time.Time `json:"updated_at"`
	Version    int64     `json:"version"` // 1 as it was captured, and one more with each change
}

// Quota is a month's count. Limit and Remaining are -1 where it is unlimited.
type Quota struct {
	Used      int64  `json:"used"`
	Limit     int64  `json:"limit"`
	Remaining int64  `json:"remaining"`
	ResetDate string `json:"reset_date"` // the day, UTC, from which on the count starts at 0 again
}

// Receipt proves an answer: where its decision stands in the ledger, and its link in the account's chain. That of a pending
// request has no digest yet.
type Receipt struct {
	Position string `json:"position"`
	Digest   string `json:"digest,omitempty"`
}

// Capture is what became of a capture.
type Capture struct {
	Outcome Outcome  `json:"outcome"`
	Reason  string   `json:"reason,omitempty"` // of rejected and refused
	Detail  string   `json:"detail,omitempty"` // of refused
	Job     *Job     `json:"job,omitempty"`    // of captured and duplicate; nil where the job was deleted since
	Quota   *Quota   `json:"quota,omitempty"`
	Receipt *Receipt `json:"receipt,omitempty"` // nil of a dry run

	IdempotencyKey string `json:"-"` // under which it was sent
	Replayed       bool   `json:"-"` // it was sent before: this is the first answer again
}

// CaptureOption says how a capture is sent.
type CaptureOption func(*call)

// Key sends a capture under an idempotency key of the caller's, which keeps it for a later attempt: after a restart, say. The
// client makes one for each capture otherwise.
func Key(key string) CaptureOption {
	return func(k *call) { k.header.Set("Idempotency-Key", quoted(key)) }
}

// DryRun has the service say what would become of the capture, and record nothing.
func DryRun() CaptureOption { return func(k *call) { k.query.Set("dry_run", "true") } }

// Async has the service answer as soon as the capture is recorded: its outcome is Pending, mostly.
func Async() CaptureOption { return func(k *call) { k.header.Set("Prefer", "respond-async") } }

func quoted(key string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(key) + `"`
}

// Capture captures a job. A duplicate is no error. The error is a *Problem with QuotaExceeded when the month is used up.
func (c *Client) Capture(ctx context.Context, job NewJob, options ...CaptureOption) (*Capture, error) {
	captured := &Capture{}
	k := call{method: http.MethodPost, path: "api/jobs", header: http.Header{}, query: url.Values{}, body: job, into: captured, again: true}
	Key(rand.Text())(&k)
	for _, option := range options {
		option(&k)
	}
	header, err := c.do(ctx, k)
	if err != nil {
		return nil, err
	}
	captured.IdempotencyKey = k.header.Get("Idempotency-Key")
	captured.Replayed = header.Get("Idempotent-Replayed") == "true"
	return captured, nil
}

// CaptureAt returns what became of a capture, by the position of its receipt.
func (c *Client) CaptureAt(ctx context.Context, position string) (*Capture, error) {
	return get[Capture](ctx, c, call{path: "api/jobs/captures/" + url.PathEscape(position)})
}

// BatchJob is an item of a batch.
type BatchJob struct {
	NewJob
	IdempotencyKey string `json:"idempotency_key,omitempty"` // one is made of the key of the batch where it is empty
}

// BatchResult is what became of an item.
type BatchResult struct {
	Status int `json:"status"` // as of a capture that is sent alone
	Capture
	Key     string   `json:"idempotency_key,omitempty"`
	Problem *Problem `json:"problem,omitempty"` // where the item was not captured, and is no duplicate
}

// Batch is what became of a batch.
type Batch struct {
	Results []BatchResult `json:"results"` // in the order of the items
	Quota   *Quota        `json:"quota"`   // after all of them
}

// CaptureBatch captures up to 100 jobs, each as if it was sent alone, in order: the first that fit into the quota.
func (c *Client) CaptureBatch(ctx context.Context, jobs []BatchJob, options ...CaptureOption) (*Batch, error) {
	batch := &Batch{}
	k := call{
		method: http.MethodPost, path: "api/jobs/batch", header: http.Header{}, query: url.Values{},
		body: map[string]any{"jobs": jobs}, into: batch, again: true,
	}
	Key(rand.Text())(&k)
	for _, option := range options {
		option(&k)
	}
	if _, err := c.do(ctx, k); err != nil {
		return nil, err
	}
	return batch, nil
}

// Quota returns the quota of the month.
func (c *Client) Quota(ctx context.Context) (*Quota, error) {
	return get[Quota](ctx, c, call{path: "api/jobs/quota"})
}

// Job returns a job of the tracker.
func (c *Client) Job(ctx context.Context, id string) (*Job, error) {
	return get[Job](ctx, c, call{path: jobPath(id)})
}

func jobPath(id string) string { return "api/jobs/" + url.PathEscape(id) }

// JobQuery selects jobs. A field without a value selects nothing.
type JobQuery struct {
	Status      string
	Company     string
	CapturedVia string
	Month       string // 2026-11: that the jobs count in
	Text        string // words, each of which begins one of title, company or description
	Sort        string // newest, or updated; newest unless given
	PageSize    int    // jobs that are asked for at a time; the service's default where it is 0
}

func (q JobQuery) values() url.Values {
	values := url.Values{}
	for name, value := range map[string]string{
		"status": q.Status, "company": q.Company, "captured_via": q.CapturedVia, "month": q.Month, "q": q.Text, "sort": q.Sort,
	} {
		if value != "" {
			values.Set(name, value)
		}
	}
	if q.PageSize > 0 {
		values.Set("limit", strconv.Itoa(q.PageSize))
	}
	return values
}

// Jobs yields the jobs of the tracker, page by page. An error ends it.
func (c *Client) Jobs(ctx context.Context, q JobQuery) iter.Seq2[Job, error] {
	return list(ctx, c, call{path: "api/jobs", query: q.values()}, func(page struct{ Jobs []Job }) []Job { return page.Jobs })
}

// Change has the new text of fields of a job, by their JSON names, such as status. An optional one without text is removed.
type Change map[string]string

// UpdateJob changes a job. With a version other than 0 it changes that one only: the error is a *Problem with
// VersionConflict when the job has another by now.
func (c *Client) UpdateJob(ctx context.Context, id string, change Change, version int64) (*Capture, error) {
	patch := map[string]any{}
	for name, text := range change {
		patch[name] = text
		if text == "" {
			patch[name] = nil
		}
	}
	k := call{method: http.MethodPatch, path: jobPath(id), header: ifMatch(version), body: patch}
	k.header.Set("Content-Type", "application/merge-patch+json")
	return c.change(ctx, k)
}

// DeleteJob takes a job out of the tracker. What it counted stays counted. The version is as of UpdateJob.
func (c *Client) DeleteJob(ctx context.Context, id string, version int64) (*Capture, error) {
	return c.change(ctx, call{method: http.MethodDelete, path: jobPath(id), header: ifMatch(version)})
}

func (c *Client) change(ctx context.Context, k call) (*Capture, error) {
	changed := &Capture{}
	k.into = changed
	if _, err := c.do(ctx, k); err != nil {
		return nil, err
	}
	return changed, nil
}

func ifMatch(version int64) http.Header {
	header := http.Header{}
	if version != 0 {
		header.Set("If-Match", fmt.Sprintf("%q", strconv.FormatInt(version, 10)))
	}
	return header
}

// Known says whether a posting is in the tracker.
type Known struct {
	SourceURL string `json:"source_url"`
	Found     bool   `json:"found"`
	Job       *Job   `json:"job,omitempty"`
}

// Lookup says which of up to 100 postings are in the tracker, in their order; the jobs have no Description and Notes. It costs nothing.
func (c *Client) Lookup(ctx context.Context, sourceURLs ...string) ([]Known, error) {
	var answer struct{ Results []Known }
	_, err := c.do(ctx, call{method: http.MethodGet, path: "api/jobs/lookup", query: url.Values{"source_url": sourceURLs}, into: &answer, again: true})
	return answer.Results, err
}
