package client_test

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"time"

	"jobtally/internal/contracttest"
)

// byContract returns an http.Client that fails the test when an exchange is not as the contract says.
func byContract(t *testing.T) *http.Client {
	t.Helper()
	checker, err := contracttest.New()
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Timeout: 3 * time.Minute, Transport: checked{t, checker}}
}

type checked struct {
	t       *testing.T
	checker *contracttest.Checker
}

// RoundTrip sends a request, and checks it with its answer.
func (c checked) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	x := contracttest.Exchange{Request: r, Status: answer.StatusCode, Header: answer.Header}
	if answer.Header.Get("Content-Type") != "text/event-stream" { // which has no end
		x.Body, err = io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil {
			return nil, err
		}
		answer.Body = io.NopCloser(bytes.NewReader(x.Body))
	}
	if r.GetBody != nil {
		if body, err := r.GetBody(); err == nil {
			x.RequestBody, _ = io.ReadAll(body)
		}
	}
	if err := c.checker.Check(&x); err != nil {
		c.t.Errorf("not by the contract: %v", err)
	}
	return answer, nil
}
