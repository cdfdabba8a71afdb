package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	nethttp "net/http"
	"time"

	"github.com/labstack/echo/v4"

	"jobtally/internal/capture"
	"jobtally/internal/events"
	"jobtally/internal/http"
	"jobtally/internal/node"
	"jobtally/internal/token"
)

// The kinds of baseline servers.
const (
	serveConstant = "constant"
	serveBare     = "bare"
)

// serveBaseline answers on a free port of loopback, which it logs as the service does, until ctx ends.
func serveBaseline(ctx context.Context, kind, held string, stderr io.Writer) error {
	server, err := constantServer(held)
	if kind == serveBare {
		server, err = bareServer(), nil
	}
	if err != nil {
		return err
	}
	return listenAndServe(ctx, server, func(addr string) {
		slog.New(slog.NewTextHandler(stderr, nil)).Info("listening", "addr", addr)
	})
}

// listenAndServe serves on a free port of loopback until ctx ends, and then answers what is in flight.
func listenAndServe(ctx context.Context, server *nethttp.Server, listening func(addr string)) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	listening(listener.Addr().String())
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	err = server.Shutdown(stopping)
	if ended := <-served; !errors.Is(ended, nethttp.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}

// constantServer is the API on a node that knows one token and answers everything at once.
func constantServer(held string) (*nethttp.Server, error) {
	t, err := token.Parse(held)
	if err != nil {
		return nil, err
	}
	tokens := []capture.Token{{Account: "bench-000000", SecretHash: t.Hash()}}
	return http.NewServer(http.Config{Backend: http.Backend{
		Partitions: 1,
		CountsIn:   func(_ string, month events.Month) events.Month { return month },
		Tokens:     func(context.Context, string) ([]capture.Token, error) { return tokens, nil },
		Quota: func(_ context.Context, _ string, month events.Month) (capture.Quota, error) {
			return capture.Quota{Month: month, Limit: 1_000_000}, nil
		},
		NoteUse:  func(string, time.Time) {},
		Folded:   func(int) uint64 { return 1 },
		CaughtUp: func() bool { return true },
		Ready:    func(context.Context) error { return nil },
		Webhooks: noWebhooks,
	}}), nil
}

// noWebhooks stands for the relay, which is not measured here.
func noWebhooks() (http.Webhooks, error) { return http.Webhooks{}, events.ErrUnavailable }

// bareServer has one handler, and nothing before it.
func bareServer() *nethttp.Server {
	e := echo.New()
	body := []byte(`{"used":0,"limit":1000000,"remaining":1000000,"reset_date":"2024-02-01"}`)
	e.GET("/api/jobs/quota", func(c echo.Context) error { return c.JSONBlob(nethttp.StatusOK, body) })
	e.GET("/readyz", func(c echo.Context) error { return c.JSONBlob(nethttp.StatusOK, []byte(`{"status":"ready"}`)) })
	return &nethttp.Server{Handler: e, ReadHeaderTimeout: stall}
}

// startInProcess wires the service as cmd/api does, within this process.
func startInProcess(ctx context.Context, dir string) (*service, error) {
	began := time.Now()
	n, err := node.Start(ctx, node.Config{Dir: dir, Decides: true, Log: quiet()})
	if err != nil {
		return nil, err
	}
	serving, cancel := context.WithCancel(ctx)
	addr, ended := make(chan string, 1), make(chan error, 1)
	server := http.NewServer(http.Config{Backend: http.Backend{
		Partitions: n.Ledger.Partitions, Append: n.Append, AppendAll: n.AppendAll, Try: n.Projection.Try,
		Jobs: n.Projection.Jobs, Lookup: n.Projection.Lookup, Await: n.Projection.Await, Decision: n.Projection.Decision,
		Requester: n.Requester, CountsIn: n.Projection.CountsIn, Quota: n.Projection.Quota, Job: n.Projection.Job, Tokens: n.Projection.Tokens, NoteUse: n.NoteUse,
		Folded: n.Projection.Folded, CaughtUp: n.CaughtUp, Outdated: n.Projection.Outdated, Events: n.Events, Ready: n.Ready,
		Webhooks: noWebhooks,
	}})
	go func() { ended <- listenAndServe(serving, server, func(a string) { addr <- a }) }()
	s := &service{stop: func() error { cancel(); return errors.Join(<-ended, n.Close()) }}
	select {
	case s.addr = <-addr:
	case err := <-ended:
		cancel()
		return nil, errors.Join(err, n.Close())
	}
	waiting, enough := context.WithTimeout(ctx, startTimeout)
	defer enough()
	if err := awaitReady(waiting, s.addr); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	s.ready = time.Since(began)
	return s, nil
}
