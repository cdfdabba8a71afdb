package http

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"jobtally/internal/near"
)

// parameters reads the query of a call. A parameter that the call does not know, or that is there twice, is refused as
// such a field of a body is: a misspelt one would be ignored in silence.
func parameters(c echo.Context, known ...string) (url.Values, error) {
	return parametersAnd(c, "", known...)
}

// parametersAnd reads a query in which one parameter may be there more than once.
func parametersAnd(c echo.Context, repeatable string, known ...string) (url.Values, error) {
	query, err := url.ParseQuery(c.Request().URL.RawQuery)
	if err != nil {
		return nil, newProblem(codeInvalidRequest, "the query of the URL cannot be read")
	}
	var wrong []fieldError
	for name, values := range query {
		switch {
		case !slices.Contains(known, name):
			wrong = append(wrong, fieldError{cut(name), "is not a parameter of this call; " + suggestedParameter(name, known)})
		case len(values) > 1 && name != repeatable:
			wrong = append(wrong, fieldError{name, "is there more than once"})
		}
	}
	if len(wrong) == 0 {
		return query, nil
	}
	slices.SortFunc(wrong, func(a, b fieldError) int { return strings.Compare(a.Field, b.Field) })
	return nil, invalidFields(wrong[:min(len(wrong), maxFieldErrors)])
}

// pageLimit returns how many elements a page has.
func pageLimit(query url.Values, byDefault, most int) (int, error) {
	if !query.Has("limit") {
		return byDefault, nil
	}
	limit, err := strconv.Atoi(query.Get("limit"))
	if err != nil || limit < 1 || limit > most {
		return 0, invalidParameter("limit", fmt.Sprintf("must be a whole number from 1 to %d", most))
	}
	return limit, nil
}

// isTrue returns what a parameter says that is true, or false as it is by default.
func isTrue(query url.Values, name string) (bool, error) {
	switch text := query.Get(name); {
	case !query.Has(name) || text == "false":
		return false, nil
	case text == "true":
		return true, nil
	}
	return false, invalidParameter(name, "must be true or false")
}

func suggestedParameter(name string, known []string) string {
	if best := near.Name(name, known); best != "" {
		return "did you mean " + best + "?"
	}
	return "what it takes is " + strings.Join(known, ", ")
}

// invalidParameter returns the problem of a parameter whose value is not right.
func invalidParameter(name, detail string) *problem {
	return invalidFields([]fieldError{{name, detail}})
}
