package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/events"
	"jobtally/internal/token"
)

// The postings of the bench: each has a serial number in its URL and is else the same, some 500 bytes of JSON.
const (
	serialDigits = 12
	urlPrefix    = "https://jobs.example.com/openings/"
	description  = "You build and run the services that our customers depend on, together with six colleagues. " +
		"You know one language of the server side well, have kept a database alive on a bad day, and write so that others can follow. " +
		"Remote within three hours of Berlin."
)

func posting(serial int) events.Job {
	return events.Job{
		SourceURL: fmt.Sprintf("%s%0*d", urlPrefix, serialDigits, serial),
		Title:     "Senior Software Engineer", Company: "Example Systems", Location: "Berlin, Germany",
		Description: description, JobType: "full_time", Status: "saved", CapturedVia: "api",
	}
}

// account is one that the bench opened, and the token by which it is let in.
type account struct {
	name  string
	token token.Token
}

func newAccount(i int) account {
	return account{name: fmt.Sprintf("bench-%06d", i), token: token.New()}
}

// captureRequest returns what the API makes of a capture: the same fields, as many bytes.
func captureRequest(of string, serial int, job events.Job, now time.Time) (*events.Request, error) {
	canonical, err := capture.CanonicalSource(job.SourceURL)
	if err != nil {
		return nil, err
	}
	// An id in the form of a UUID, as the API makes it where the client sends no Idempotency-Key.
	id := fmt.Sprintf("019a0000-0000-7000-8000-%012d", serial)
	return newRequest(of, id, now, &events.JobCaptureRequested{
		Month: events.MonthOf(now), Job: job, CanonicalURL: canonical, SourceRules: capture.SourceRules,
		PayloadHash: events.Hash([]byte(job.SourceURL)),
	}), nil
}

func newRequest(of, id string, now time.Time, body events.RequestBody) *events.Request {
	return &events.Request{Account: of, ID: id, Time: now.UTC().Truncate(time.Millisecond), Body: body}
}

// form is an HTTP request with places for a token and, where it is a capture, a serial number.
type form struct {
	text          []byte
	token, serial int // offsets; 0 where there is no such place
}

var (
	tokenPlace  = strings.Repeat("t", len(token.New().Reveal()))
	serialPlace = strings.Repeat("9", serialDigits)
)

func newForm(head, body string) form {
	text := head + "Host: 127.0.0.1\r\nAuthorization: Bearer " + tokenPlace + "\r\n"
	if body != "" {
		text += fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	text += "\r\n" + body
	return form{text: []byte(text), token: strings.Index(text, tokenPlace), serial: max(0, strings.Index(text, serialPlace))}
}

// captureForm is POST /api/jobs.
func captureForm() (form, error) {
	job := posting(0)
	job.SourceURL = urlPrefix + serialPlace
	body, err := json.Marshal(job)
	return newForm("POST /api/jobs HTTP/1.1\r\n", string(body)), err
}

// quotaForm is GET /api/jobs/quota, on the condition that the answer has another entity tag if one is given.
func quotaForm(etag string) form {
	head := "GET /api/jobs/quota HTTP/1.1\r\n"
	if etag != "" {
		head += "If-None-Match: " + etag + "\r\n"
	}
	return newForm(head, "")
}

// copy returns a form that one connection can fill.
func (f form) copy() form {
	f.text = bytes.Clone(f.text)
	return f
}

// fill returns the request for a token and a serial number. It is valid until the next fill.
func (f form) fill(token string, serial int) []byte {
	copy(f.text[f.token:], token)
	if f.serial > 0 {
		for i := f.serial + serialDigits - 1; i >= f.serial; i-- {
			f.text[i] = byte('0' + serial%10)
			serial /= 10
		}
	}
	return f.text
}
