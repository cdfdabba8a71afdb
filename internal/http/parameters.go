package http

import (
	"net/url"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"
)

// parameters reads the query of a call. A parameter that the call does not know, or that is there twice, is refused as
// such a field of a body is: a misspelt one would be ignored in silence.
func parameters(c echo.Context, known ...string) (url.Values, error) {
	query, err := url.ParseQuery(c.Request().URL.RawQuery)
	if err != nil {
		return nil, newProblem(codeInvalidRequest, "the query of the URL cannot be read")
	}
	var wrong []fieldError
	for name, values := range query {
		if !slices.Contains(known, name) {
			wrong = append(wrong, fieldError{cut(name), "is not a parameter of this call; " + suggestedParameter(name, known)})
		} else if len(values) > 1 {
			wrong = append(wrong, fieldError{name, "is there more than once"})
		}
	}
	if len(wrong) == 0 {
		return query, nil
	}
	slices.SortFunc(wrong, func(a, b fieldError) int { return strings.Compare(a.Field, b.Field) })
	return nil, invalidFields(wrong[:min(len(wrong), maxFieldErrors)])
}

func suggestedParameter(name string, known []string) string {
	if best := nearest(name, known); best != "" {
		return "did you mean " + best + "?"
	}
	return "what it takes is " + strings.Join(known, ", ")
}

// invalidParameter returns the problem of a parameter whose value is not right.
func invalidParameter(name, detail string) *problem {
	return invalidFields([]fieldError{{name, detail}})
}
