package main

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"sync"
	"testing"

	"jobtally/internal/contracttest"
)

// theContract is what every exchange of these tests is held to.
var theContract = sync.OnceValue(func() *contracttest.Checker {
	c, err := contracttest.New()
	if err != nil {
		panic(err)
	}
	return c
})

// byContract is a transport that fails the test when an exchange is not as the contract says.
type byContract struct {
	t *testing.T
	*http.Transport
}

// RoundTrip sends a request, and checks it with its answer.
func (b byContract) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := b.Transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	var text []byte
	if !isStream(answer) {
		text, err = io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil {
			return nil, err
		}
		answer.Body = io.NopCloser(bytes.NewReader(text))
	}
	x := contracttest.Exchange{Request: r, Status: answer.StatusCode, Header: answer.Header, Body: text}
	if r.GetBody != nil {
		if body, err := r.GetBody(); err == nil {
			x.RequestBody, _ = io.ReadAll(body)
		}
	}
	if err := theContract().Check(&x); err != nil {
		b.t.Errorf("not by the contract: %v", err)
	}
	return answer, nil
}

// isStream says whether an answer has no end.
func isStream(answer *http.Response) bool {
	return answer.Header.Get("Content-Type") == "text/event-stream"
}

// readAnswer reads the body of an answer, and of one without an end what comes up to the first beat.
func readAnswer(answer *http.Response) ([]byte, error) {
	if !isStream(answer) || answer.Request.Method == http.MethodHead {
		return io.ReadAll(answer.Body)
	}
	var text []byte
	for in := bufio.NewReader(answer.Body); ; {
		line, err := in.ReadBytes('\n')
		if text = append(text, line...); err != nil || string(line) == ":\n" {
			return text, err
		}
	}
}
