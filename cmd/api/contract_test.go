package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"testing"

	"jobtally/internal/contracttest"
	"jobtally/internal/events"
	"jobtally/internal/ledger"
	"jobtally/internal/node"
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

// theEvents is what every decision of these tests is held to, and each event that comes of one.
var theEvents = sync.OnceValue(func() *contracttest.Events {
	c, err := contracttest.NewEvents()
	if err != nil {
		panic(err)
	}
	return c
})

// typesSeen are the types of decisions and events that were checked.
var typesSeen sync.Map

// checkEvents fails the test when a decision that the running service has in its ledger is not as the contract says. A
// service whose ledger is on another server, or cannot be read because that is what the test is about, has none to check.
func (s *service) checkEvents(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	url, err := ledger.EmbeddedURL(s.data)
	if err != nil {
		return
	}
	o, err := node.Dial(ctx, node.Config{NATS: url, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return
	}
	defer o.Close()
	types, err := theEvents().CheckLedger(ctx, o.Ledger, o.Ledger.Partitions)
	if err != nil {
		t.Errorf("not by the contract of events: %v", err)
	}
	for _, ceType := range types {
		typesSeen.Store(ceType, true)
	}
}

// unseen returns the types of decisions and events that no test had.
func unseen() (types []string) {
	for _, ceType := range slices.Concat(events.DecisionTypes(), events.QuotaEventTypes()) {
		if _, seen := typesSeen.Load(ceType); !seen {
			types = append(types, ceType)
		}
	}
	return types
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
