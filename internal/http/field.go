package http

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// field is a field of a job as clients send it: a JSON string. Where it is optional, null, "" and leaving it out are
// the same.
type field struct {
	name     string
	at       func(*events.Job) *string
	required bool
	trim     bool   // white space around it means nothing
	absent   string // what an optional field is when it is not sent
	// check returns what is wrong with a text that is sent, or nothing: the rest of a sentence that the name begins.
	// The source URL has none: it is checked when its canonical form is made.
	check func(text string) string
}

// jobFields is every field, in the order in which errors are reported.
var jobFields = []field{
	{name: "source_url", at: func(j *events.Job) *string { return &j.SourceURL }, required: true, trim: true},
	{name: "title", at: func(j *events.Job) *string { return &j.Title }, required: true, trim: true, check: atMost(255)},
	{name: "company", at: func(j *events.Job) *string { return &j.Company }, required: true, trim: true, check: atMost(255)},
	{name: "location", at: func(j *events.Job) *string { return &j.Location }, trim: true, check: atMost(255)},
	{name: "description", at: func(j *events.Job) *string { return &j.Description }, check: atMost(100_000)},
	{name: "application_url", at: func(j *events.Job) *string { return &j.ApplicationURL }, trim: true, check: checkURL},
	{name: "job_type", at: func(j *events.Job) *string { return &j.JobType }, check: oneOf(events.JobTypes())},
	{name: "notes", at: func(j *events.Job) *string { return &j.Notes }, check: atMost(20_000)},
	{name: "status", at: func(j *events.Job) *string { return &j.Status }, check: oneOf(events.Statuses()),
		absent: events.Statuses()[0]},
	{name: "captured_via", at: func(j *events.Job) *string { return &j.CapturedVia }, check: oneOf(events.CapturedVia()),
		absent: events.CapturedVia()[0]},
}

// namesOf returns the names of fields.
func namesOf(fields []field) (names []string) {
	for i := range fields {
		names = append(names, fields[i].name)
	}
	return names
}

// set puts the text that was sent into the job, and returns what is wrong with it, or nothing.
func (f *field) set(job *events.Job, text string) (wrong string) {
	if c, found := controlCharacter(text); found {
		return fmt.Sprintf("must not contain the control character %U", c)
	}
	if f.trim {
		text = strings.TrimSpace(text)
	}
	if text == "" {
		if f.required {
			return "must not be blank"
		}
		text = f.absent
	} else if f.check != nil {
		wrong = f.check(text)
	}
	*f.at(job) = text
	return wrong
}

// controlCharacter finds the first control character of ASCII that is no tab, line feed or carriage return.
func controlCharacter(text string) (c rune, found bool) {
	for _, c := range []byte(text) {
		if (c < ' ' && c != '\t' && c != '\n' && c != '\r') || c == 0x7f {
			return rune(c), true
		}
	}
	return 0, false
}

func atMost(characters int) func(string) string {
	return func(text string) string {
		if len(text) <= characters {
			return ""
		}
		if n := utf8.RuneCountInString(text); n > characters {
			return fmt.Sprintf("must have at most %d characters, not %d", characters, n)
		}
		return ""
	}
}

func oneOf(allowed []string) func(string) string {
	return func(text string) string {
		if slices.Contains(allowed, text) {
			return ""
		}
		return "must be one of " + strings.Join(allowed, ", ")
	}
}

// checkURL holds every URL of a job to the rules of a source URL: http or https, absolute, without credentials.
func checkURL(text string) string {
	if _, err := capture.CanonicalSource(text); err != nil {
		return err.Error()
	}
	return ""
}

// payloadHash digests a job as it was asked for, which tells a retry from a reused key. A field that is not there
// adds nothing, so that fields to come leave the hashes of today as they are.
func payloadHash(job *events.Job) events.Digest {
	parts := make([][]byte, 0, 2*len(jobFields))
	for i := range jobFields {
		if text := *jobFields[i].at(job); text != "" {
			parts = append(parts, []byte(jobFields[i].name), []byte(text))
		}
	}
	return events.Hash(parts...)
}
