package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	nethttp "net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestNobodyWorksOnACallOnceTheServiceIsStopped has a call of which half the body comes go on for a moment after its connection
// is closed: what it works on is closed next.
func TestNobodyWorksOnACallOnceTheServiceIsStopped(t *testing.T) {
	t.Parallel()
	begun, stopped := make(chan struct{}), make(chan struct{})
	server := &nethttp.Server{Handler: nethttp.HandlerFunc(func(_ nethttp.ResponseWriter, r *nethttp.Request) {
		close(begun)
		if _, err := io.ReadAll(r.Body); err == nil {
			t.Error("the whole body came")
		}
		select {
		case <-stopped:
			t.Error("the service stopped, and the call goes on")
		case <-time.After(200 * time.Millisecond):
		}
	})}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	go func() {
		<-begun
		interrupt()
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf"); err != nil {
		t.Fatal(err)
	}
	if err := answer(ctx, listener, server, nil, slog.New(slog.DiscardHandler)); err != nil {
		t.Error(err)
	}
	close(stopped)
}

// TestNothingIsSaidOfCatchingUpOnceItIsStopped stops it while it says that it has caught up.
func TestNothingIsSaidOfCatchingUpOnceItIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		saying, stopped, caughtUp := make(chan struct{}), make(chan struct{}), make(chan struct{})
		log := onWrite(func(line string) {
			if !strings.Contains(line, `msg="caught up"`) {
				return
			}
			close(saying)
			select {
			case <-stopped:
				t.Error("it is stopped, and goes on")
			case <-time.After(time.Second):
			}
		})
		stop := catchUp(t.Context(), func(ctx context.Context) error {
			select {
			case <-caughtUp:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}, slog.New(slog.NewTextHandler(log, nil)))
		close(caughtUp)
		<-saying
		stop()
		close(stopped)
		synctest.Wait()
	})
}

// TestAListenerThatFailsEndsTheService, and what is being answered.
func TestAListenerThatFailsEndsTheService(t *testing.T) {
	broken := errors.New("broken")
	err := answer(t.Context(), failing{broken}, &nethttp.Server{Handler: nethttp.NotFoundHandler()}, nil, slog.New(slog.DiscardHandler))
	if !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

type failing struct{ err error }

func (f failing) Accept() (net.Conn, error) { return nil, f.err }
func (failing) Close() error                { return nil }
func (failing) Addr() net.Addr              { return &net.TCPAddr{} }
