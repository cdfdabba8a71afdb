package http

import (
	"fmt"
	nethttp "net/http"

	"github.com/labstack/echo/v4"

	"jobtally/internal/capture"
)

const (
	maxLookups     = 100
	paramSourceURL = "source_url"
)

type lookupForm struct {
	Results []foundForm `json:"results"`
}

// foundForm says whether a posting is in the tracker, under the URL by which it was asked for.
type foundForm struct {
	SourceURL string   `json:"source_url"`
	Found     bool     `json:"found"`
	Job       *jobForm `json:"job,omitempty"` // without its description and notes
}

// getLookup answers GET /api/jobs/lookup: which of some postings are in the tracker, in any spelling. It costs nothing.
func (a *api) getLookup(c echo.Context) error {
	query, err := parametersAnd(c, paramSourceURL, paramSourceURL)
	if err != nil {
		return err
	}
	urls := query[paramSourceURL]
	canonical, err := canonicalSources(urls)
	if err != nil {
		return err
	}
	jobs, err := a.backend.Lookup(c.Request().Context(), callOf(c).account, canonical)
	if err != nil {
		return fmt.Errorf("look up jobs: %w", err)
	}
	form := lookupForm{Results: make([]foundForm, len(urls))}
	for i, url := range urls {
		form.Results[i].SourceURL = url
		if job, found := jobs[canonical[i]]; found {
			job.Description, job.Notes = "", "" // of a hundred jobs these are up to 40 MB, and nobody asked for them
			form.Results[i].Found, form.Results[i].Job = true, formOfJob(job)
		}
	}
	return writeJSON(c, nethttp.StatusOK, &form)
}

// canonicalSources returns the canonical form of each URL. The error names every one that is none, by its place.
func canonicalSources(urls []string) (canonical []string, err error) {
	switch {
	case len(urls) == 0:
		return nil, invalidParameter(paramSourceURL, "is missing")
	case len(urls) > maxLookups:
		return nil, invalidParameter(paramSourceURL, fmt.Sprintf("is there %d times; %d are looked up at once", len(urls), maxLookups))
	}
	var wrong []fieldError
	for i, url := range urls {
		source, err := capture.CanonicalSource(url)
		if err != nil {
			wrong = append(wrong, fieldError{paramSourceURL, fmt.Sprintf("at index %d %s", i, err)})
		}
		canonical = append(canonical, source)
	}
	if len(wrong) > 0 {
		return nil, invalidFields(wrong[:min(len(wrong), maxFieldErrors)])
	}
	return canonical, nil
}
