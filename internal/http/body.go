package http

import (
	"errors"
	"io"
	"mime"
	nethttp "net/http"
	"strings"

	"github.com/labstack/echo/v4"
)

const maxBodyBytes = 256 << 10

// readBody returns the JSON body of a call, at most maxBodyBytes of it.
func readBody(c echo.Context) ([]byte, error) {
	r := c.Request()
	if err := checkContent(r.Header); err != nil {
		return nil, err
	}
	if r.ContentLength > maxBodyBytes {
		return nil, newProblem(codeBodyTooLarge, "")
	}
	body, err := io.ReadAll(nethttp.MaxBytesReader(c.Response().Writer, r.Body, maxBodyBytes))
	var tooLarge *nethttp.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, newProblem(codeBodyTooLarge, "")
	}
	if err != nil {
		return nil, newProblem(codeInvalidRequest, "the body did not arrive in full")
	}
	return body, nil
}

// checkContent refuses a body that does not say it is JSON in UTF-8.
func checkContent(header nethttp.Header) error {
	const hint = "; send Content-Type: application/json"
	given := header.Get("Content-Type")
	if encoding := header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return newProblem(codeUnsupportedMediaType, "the body is compressed; send it as it is, without Content-Encoding")
	}
	if given == "application/json" {
		return nil
	}
	if given == "" {
		return newProblem(codeUnsupportedMediaType, "the Content-Type header is missing"+hint)
	}
	media, parameters, err := mime.ParseMediaType(given)
	switch {
	case err != nil:
		return newProblem(codeUnsupportedMediaType, "the Content-Type header cannot be read"+hint)
	case media == "application/x-www-form-urlencoded":
		return newProblem(codeUnsupportedMediaType,
			"the body is said to be a form, which is what curl -d says by itself; add -H 'Content-Type: application/json'")
	case media != "application/json":
		return newProblem(codeUnsupportedMediaType, "the body is said to be "+media+hint)
	case parameters["charset"] != "" && !strings.EqualFold(parameters["charset"], "utf-8"):
		return newProblem(codeUnsupportedMediaType, "the body is said to be in another charset than UTF-8"+hint)
	}
	return nil
}
