package http

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// quotaForm is a quota as clients see it, here and in every other answer.
type quotaForm struct {
	Used      int64  `json:"used"`
	Limit     int64  `json:"limit"`
	Remaining int64  `json:"remaining"`
	ResetDate string `json:"reset_date"`
}

// appendTo appends what encode writes: the quota is what clients read most.
func (q *quotaForm) appendTo(b []byte) []byte {
	b = strconv.AppendInt(append(b, `{"used":`...), q.Used, 10)
	b = strconv.AppendInt(append(b, `,"limit":`...), q.Limit, 10)
	b = strconv.AppendInt(append(b, `,"remaining":`...), q.Remaining, 10)
	b = append(append(b, `,"reset_date":"`...), q.ResetDate...)
	return append(b, `"}`...)
}

func formOfQuota(q capture.Quota) *quotaForm {
	return &quotaForm{Used: q.Used, Limit: q.Limit, Remaining: q.Remaining(), ResetDate: q.ResetDate()}
}

// jobForm is a job as clients see it. Optional fields without text are left out, and the id of one that is only tried.
type jobForm struct {
	ID string `json:"id,omitempty"`
	events.Job
	CapturedAt string `json:"captured_at"`
	UpdatedAt  string `json:"updated_at"`
	Version    int64  `json:"version"`
}

const timeLayout = "2006-01-02T15:04:05.000Z"

func formatTime(t time.Time) string { return t.UTC().Format(timeLayout) }

func formOfJob(job capture.StoredJob) *jobForm {
	return &jobForm{
		ID: job.ID, Job: job.Job, CapturedAt: formatTime(job.CapturedAt), UpdatedAt: formatTime(job.UpdatedAt), Version: job.Version,
	}
}

// receipt is the proof of a decision: where it stands, and the digest that links it to the account's earlier ones.
// The receipt of a pending request has no digest yet.
type receipt struct {
	Position events.Position `json:"position"`
	Digest   string          `json:"digest,omitempty"`
}

func receiptOf(d *events.Decision) receipt {
	return receipt{Position: d.Position, Digest: d.Digest.String()}
}

// encode writes compact JSON, without a newline and without the escaping that only HTML needs.
func encode(form any) []byte {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(form); err != nil {
		panic(fmt.Sprintf("http: a form that JSON cannot hold: %v", err)) // forms are made of strings and numbers
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

const jsonContentType = "application/json"

func writeJSON(c echo.Context, status int, form any) error {
	return writeBody(c, status, jsonContentType, encode(form))
}

// writeBody writes a body in one piece, with its length: net/http tells that of short bodies only.
func writeBody(c echo.Context, status int, contentType string, body []byte) error {
	c.Response().Header().Set(echo.HeaderContentLength, strconv.Itoa(len(body)))
	return c.Blob(status, contentType, body)
}

// seconds returns how many whole seconds cover d, and 0 when d is over.
func seconds(d time.Duration) int64 {
	return int64((max(0, d) + time.Second - 1) / time.Second)
}
