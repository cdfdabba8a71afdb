package http

import (
	"errors"
	"fmt"
	"io"
	"mime"
	nethttp "net/http"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"
)

const maxBodyBytes = 256 << 10

// readBody returns the JSON body of a call, at most maxBodyBytes of it.
func readBody(c echo.Context) ([]byte, error) {
	body, _, err := readBodyOf(c, maxBodyBytes, jsonContentType)
	return body, err
}

// readBodyOf returns the body of a call, at most so many bytes of it, and which of some media types it is said to be.
func readBodyOf(c echo.Context, most int64, accepted ...string) (body []byte, media string, err error) {
	r := c.Request()
	if media, err = checkContent(r.Header, accepted...); err != nil {
		return nil, "", err
	}
	if r.ContentLength > most {
		return nil, "", bodyTooLarge(most)
	}
	body, err = io.ReadAll(nethttp.MaxBytesReader(c.Response().Writer, r.Body, most))
	var tooLarge *nethttp.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, "", bodyTooLarge(most)
	}
	if err != nil {
		return nil, "", newProblem(codeInvalidRequest, "the body did not arrive in full")
	}
	return body, media, nil
}

func bodyTooLarge(most int64) *problem {
	return newProblem(codeBodyTooLarge, fmt.Sprintf("a body has at most %d bytes", most))
}

// checkContent returns which of some media types a body is said to be, the first of which is the one that is told to whoever
// says another. It refuses a body that is not said to be one of them, in UTF-8.
func checkContent(header nethttp.Header, accepted ...string) (media string, err error) {
	hint := "; send Content-Type: " + accepted[0]
	given := header.Get("Content-Type")
	if encoding := header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return "", newProblem(codeUnsupportedMediaType, "the body is compressed; send it as it is, without Content-Encoding")
	}
	if given == accepted[0] {
		return given, nil
	}
	if given == "" {
		return "", newProblem(codeUnsupportedMediaType, "the Content-Type header is missing"+hint)
	}
	media, parameters, err := mime.ParseMediaType(given)
	switch {
	case err != nil:
		return "", newProblem(codeUnsupportedMediaType, "the Content-Type header cannot be read"+hint)
	case media == "application/x-www-form-urlencoded":
		return "", newProblem(codeUnsupportedMediaType,
			"the body is said to be a form, which is what curl -d says by itself; add -H 'Content-Type: "+accepted[0]+"'")
	case !slices.Contains(accepted, media):
		return "", newProblem(codeUnsupportedMediaType, "the body is said to be "+media+hint)
	case parameters["charset"] != "" && !strings.EqualFold(parameters["charset"], "utf-8"):
		return "", newProblem(codeUnsupportedMediaType, "the body is said to be in another charset than UTF-8"+hint)
	}
	return media, nil
}
