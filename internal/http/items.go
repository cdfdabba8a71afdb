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
	batch, err := decodeObject(body, "a batch", jsonField{"jobs", func(raw json.RawMessage) string {
		if raw[0] != '[' {
			return "must be an array, not " + nameOfRaw(raw)
		}
		jobs = slices.Clone(raw)
		return ""
	}})
	if err != nil {
		return nil, err
	}
	if !batch.has("jobs") {
		batch.wrong("jobs", "is missing")
	}
	if err := batch.problem(); err != nil {
		return nil, err
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
	d := newJobDecoder(jobFields, fieldKey)
	d.within = "item"
	err = d.read(raw, func(i int, raw json.RawMessage) (wrong string) {
		if i < len(jobFields) {
			return d.field(i, raw)
		}
		if raw[0] == 'n' {
			return ""
		}
		if key, wrong = textOf(raw); wrong == "" {
			wrong = checkKey(key)
		}
		return wrong
	})
	if err != nil {
		return job, "", "", err
	}
	canonicalURL = d.complete()
	if len(d.errors) > 0 {
		return job, "", "", invalidFields(d.errors)
	}
	return d.job, canonicalURL, key, nil
}
