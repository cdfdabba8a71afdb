package http

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/labstack/echo/v4"

	"jobtally/internal/events"
)

const (
	maxItems          = 100
	maxBatchBytes     = 4 << 20
	ndjsonContentType = "application/x-ndjson"
	fieldKey          = "idempotency_key"
)

// readItems returns the items of a batch as they were sent.
func readItems(c echo.Context) (items [][]byte, err error) {
	body, media, err := readBodyOf(c, maxBatchBytes, jsonContentType, ndjsonContentType)
	if err != nil {
		return nil, err
	}
	if media == ndjsonContentType {
		items = linesOf(body)
	} else if items, err = jobsOf(body); err != nil {
		return nil, err
	}
	if len(items) == 0 || len(items) > maxItems {
		return nil, newProblem(codeInvalidRequest, fmt.Sprintf("a batch has 1 to %d jobs", maxItems))
	}
	return items, nil
}

// linesOf returns the lines that are not blank: all, or more than a batch may have.
func linesOf(body []byte) (items [][]byte) {
	for line := range bytes.Lines(body) {
		if line = bytes.Trim(line, " \t\r\n"); len(line) > 0 && len(items) <= maxItems {
			items = append(items, line)
		}
	}
	return items
}

// jobsOf returns the elements of the one array that a batch is in JSON: all, or more than a batch may have.
func jobsOf(body []byte) (items [][]byte, err error) {
	var jobs json.RawMessage
	d := newJobDecoder()
	d.other = func(name string, raw json.RawMessage) bool {
		switch {
		case name != "jobs":
			d.wrong(name, "is not a field of a batch; its field is jobs")
		case jobs != nil:
			d.wrong(name, "is there more than once")
		case raw[0] != '[':
			d.wrong(name, "must be an array, not "+nameOfRaw(raw))
		default:
			jobs = slices.Clone(raw)
		}
		return true
	}
	if err := d.whole(body); err != nil {
		return nil, err
	}
	if jobs == nil && len(d.errors) == 0 {
		d.wrong("jobs", "is missing")
	}
	if len(d.errors) > 0 {
		return nil, invalidFields(d.errors)
	}
	in := json.NewDecoder(bytes.NewReader(jobs))
	for in.Token(); in.More() && len(items) <= maxItems; { // it was read once, and is JSON
		var item json.RawMessage
		if err := in.Decode(&item); err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return items, nil
}

// decodeItem reads a job of a batch as decodeJob does, and its key, if it has one.
func decodeItem(raw []byte) (job events.Job, canonicalURL, key string, err error) {
	if len(raw) > maxBodyBytes {
		return job, "", "", newProblem(codeBodyTooLarge, fmt.Sprintf("a job has at most %d bytes", maxBodyBytes))
	}
	d, sent := newJobDecoder(), false
	d.noun, d.names = "item", itemNames
	d.other = func(name string, raw json.RawMessage) bool {
		switch {
		case name != fieldKey:
			return false
		case sent:
			d.wrong(name, "is there more than once")
		case raw[0] == '"':
			key, _ = unquoteJSON(raw)
			if wrong := checkKey(key); wrong != "" {
				d.wrong(name, wrong)
			}
		case raw[0] != 'n':
			d.wrong(name, "must be a string, not "+nameOfRaw(raw))
		}
		sent = true
		return true
	}
	if err := d.whole(raw); err != nil {
		return job, "", "", err
	}
	canonicalURL = d.complete()
	if len(d.errors) > 0 {
		return job, "", "", invalidFields(d.errors)
	}
	return d.job, canonicalURL, key, nil
}

var itemNames = append(slices.Clip(jobFieldNames), fieldKey)
