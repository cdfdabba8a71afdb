// Package client is a client of the jobtally API.
//
//	c, err := client.New("http://127.0.0.1:8080", token)
//	captured, err := c.Capture(ctx, client.NewJob{SourceURL: "https://…", Title: "Gopher", Company: "Example"})
//	switch {
//	case errors.Is(err, client.QuotaExceeded): // and captured is nil
//	case err == nil && captured.Outcome == client.Duplicate:
//	}
//
// Calls are tried again where that is safe: a capture carries an Idempotency-Key, the same at each attempt, so that it counts
// once however often it is sent. What the service answers with a problem document is a *Problem, and errors.Is tells its Code.
// A read after a write shows it, on whichever node it arrives.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// DefaultAttempts is how often a call is tried at most, unless Attempts says otherwise.
	DefaultAttempts = 4
	// defaultTimeout bounds an attempt. It exceeds the longest that the service waits for a decision by itself.
	defaultTimeout = 30 * time.Second

	maxAnswer = 64 << 20 // bytes
)

// Client calls the API of one service as one account. It is safe for concurrent use.
type Client struct {
	base     *url.URL
	token    string
	http     *http.Client
	attempts int
	pause    func(ctx context.Context, d time.Duration) error

	written atomic.Pointer[string] // the Ledger-Position of the last write; nil before the first
}

// Option changes how a client works.
type Option func(*Client)

// HTTP has calls made by an http.Client. Its Timeout bounds each attempt.
func HTTP(h *http.Client) Option { return func(c *Client) { c.http = h } }

// Attempts sets how often a call is tried at most; 1 tries nothing again.
func Attempts(n int) Option { return func(c *Client) { c.attempts = max(1, n) } }

// New returns a client of the service at a URL such as https://jobs.example.com. The error tells what is wrong with the URL.
func New(baseURL, token string, options ...Option) (*Client, error) {
	base, err := url.Parse(baseURL)
	if err != nil {
		return nil, fmt.Errorf("jobtally: %w", err)
	}
	if base.Scheme != "http" && base.Scheme != "https" || base.Host == "" {
		return nil, fmt.Errorf("jobtally: %q is not the URL of a service, such as https://jobs.example.com", base.Redacted())
	}
	c := &Client{base: base, token: token, http: &http.Client{Timeout: defaultTimeout}, attempts: DefaultAttempts, pause: pause}
	for _, option := range options {
		option(c)
	}
	return c, nil
}

// call is one call of the API, whatever the number of attempts.
type call struct {
	method, path string
	query        url.Values
	header       http.Header
	body         any // JSON, or nil
	into         any // what the answer is read into, or nil

	again bool // trying again is safe also where it is not known whether the service did it
	admin bool // it is about another account, whose positions have nothing to do with those of this one
}

// do makes a call, and returns the header of the answer.
func (c *Client) do(ctx context.Context, k call) (http.Header, error) {
	var body []byte
	if k.body != nil {
		var err error
		if body, err = json.Marshal(k.body); err != nil {
			return nil, fmt.Errorf("jobtally: %w", err)
		}
	}
	for attempt := 1; ; attempt++ {
		header, err := c.attempt(ctx, k, body)
		if err == nil {
			return header, nil
		}
		wait, worth := k.worthTrying(err, attempt)
		if !worth || attempt >= c.attempts || ctx.Err() != nil {
			return header, err
		}
		if c.pause(ctx, wait) != nil {
			return header, err
		}
	}
}

func (c *Client) attempt(ctx context.Context, k call, body []byte) (http.Header, error) {
	request, err := c.request(ctx, k, body)
	if err != nil {
		return nil, fmt.Errorf("jobtally: %w", err)
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return nil, fmt.Errorf("jobtally: %w", err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("jobtally: %s %s: the answer broke off: %w", k.method, k.path, err)
	}
	if answer.StatusCode >= http.StatusBadRequest {
		return answer.Header, problemOf(answer, text)
	}
	if position := answer.Header.Get("Ledger-Position"); position != "" && !k.admin && k.method != http.MethodGet {
		c.written.Store(&position)
	}
	if k.into == nil {
		return answer.Header, nil
	}
	if err := json.Unmarshal(text, k.into); err != nil {
		return answer.Header, fmt.Errorf("jobtally: %s %s: the answer is not that of jobtally: %w", k.method, k.path, err)
	}
	return answer.Header, nil
}

func (c *Client) request(ctx context.Context, k call, body []byte) (*http.Request, error) {
	target := c.base.JoinPath(k.path)
	target.RawQuery = k.query.Encode()
	request, err := http.NewRequestWithContext(ctx, k.method, target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if k.header != nil {
		request.Header = k.header.Clone()
	}
	request.Header.Set("Authorization", "Bearer "+c.token)
	request.Header.Set("Accept", "application/json, application/problem+json")
	if k.body != nil && request.Header.Get("Content-Type") == "" {
		request.Header.Set("Content-Type", "application/json")
	}
	if position := c.written.Load(); position != nil && !k.admin {
		request.Header.Set("Ledger-Position", *position)
	}
	return request, nil
}

// problemOf returns the problem of an answer. One that is no problem document is of something between, such as a proxy.
func problemOf(answer *http.Response, text []byte) *Problem {
	p := &Problem{}
	media, _, _ := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	if media != "application/problem+json" || json.Unmarshal(text, p) != nil {
		*p = Problem{Title: http.StatusText(answer.StatusCode), Detail: strings.TrimSpace(string(text[:min(len(text), 200)]))}
	}
	p.Status = answer.StatusCode
	p.RequestID = answer.Header.Get("X-Request-Id")
	p.RetryAfter = retryAfter(answer.Header, time.Now())
	return p
}

// errInterrupted is what ends the wait for another attempt.
var errInterrupted = errors.New("interrupted")

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return errInterrupted
	}
}
