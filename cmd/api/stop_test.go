package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"jobtally/internal/ledger"
)

var stopping = regexp.MustCompile(`msg="stopping: answering what is in flight"`)

// inflight is captures that the service has begun to read: it asked for their bodies, which are held back.
type inflight struct {
	release func()       // sends the bodies
	replies chan attempt // one for each
}

type attempt struct {
	reply
	err error
}

// hold sends n captures up to their bodies, and returns when the service waits for all of them.
func (s *service) hold(t *testing.T, n int) inflight {
	t.Helper()
	gate, asked := make(chan struct{}), make(chan struct{}, n)
	f := inflight{release: sync.OnceFunc(func() { close(gate) }), replies: make(chan attempt, n)}
	t.Cleanup(f.release)
	trace := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{Got100Continue: func() { asked <- struct{}{} }})
	for i := range n {
		body := &heldBody{gate, strings.NewReader(jobAt(jobURL(i)))}
		request, err := http.NewRequestWithContext(trace, http.MethodPost, s.url+"/api/jobs", body)
		if err != nil {
			t.Fatal(err)
		}
		request.ContentLength = int64(body.Len())
		for name, value := range map[string]string{
			"Authorization": "Bearer " + s.token, "Content-Type": "application/json", "Expect": "100-continue",
		} {
			request.Header.Set(name, value)
		}
		go func() {
			r, err := s.exchange(request)
			f.replies <- attempt{r, err}
		}()
	}
	for range n {
		select {
		case <-asked:
		case early := <-f.replies:
			t.Fatalf("answered before the body was sent: %d %s, %v", early.status, early.body, early.err)
		case <-time.After(patience):
			t.Fatal("the service does not ask for the bodies")
		}
	}
	return f
}

// heldBody is a body that is sent once the gate is open.
type heldBody struct {
	gate chan struct{}
	*strings.Reader
}

func (b *heldBody) Read(p []byte) (int, error) {
	<-b.gate
	return b.Reader.Read(p)
}

func (b *heldBody) WriteTo(w io.Writer) (int64, error) {
	<-b.gate
	return b.Reader.WriteTo(w)
}

func TestCtrlCAnswersTheCapturesInFlightAndExits0(t *testing.T) {
	t.Parallel()
	for name, startOn := range map[string]func(*testing.T, string) *service{
		"in this process": func(t *testing.T, data string) *service { return start(t, data, midNovember, "--plans", "free=30") },
		"the binary":      func(t *testing.T, data string) *service { return startBinary(t, data, "--plans", "free=30") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data := t.TempDir()
			s := startOn(t, data)
			f := s.hold(t, 50)
			s.interrupt()
			s.wait(t, &s.stderr, stopping)
			f.release()
			var jobs []string
			refused := 0
			for range 50 {
				switch r := <-f.replies; {
				case r.err != nil:
					t.Errorf("a capture in flight got no answer: %v", r.err)
				case r.status == http.StatusCreated:
					jobs = append(jobs, r.Job.ID)
				default:
					r.wantsProblem(t, http.StatusForbidden, "quota_exceeded")
					refused++
				}
			}
			if len(jobs) != 30 || refused != 20 {
				t.Errorf("%d captured, %d refused; want 30 and 20", len(jobs), refused)
			}
			if err := s.end(t); err != nil {
				t.Errorf("the service ended with %v\n%s", err, s.stderr.String())
			}
			if _, err := s.call(http.MethodGet, "/livez", nil); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("a stopped service: %v", err)
			}
			s = startOn(t, data)
			for _, id := range jobs {
				s.get(t, "/api/jobs/"+id).wants(t, http.StatusOK)
			}
			if r := s.get(t, "/api/jobs/quota"); r.Used != 30 {
				t.Errorf("quota %s", r.body)
			}
		})
	}
}

func TestWhoWaitsForAPositionIsAnsweredWhenTheServiceStops(t *testing.T) {
	t.Parallel()
	const waiting = 10
	begun := make(chan struct{}, waiting+10)
	s := start(t, t.TempDir(), func() time.Time { begun <- struct{}{}; return midNovember() })
	for len(begun) > 0 {
		<-begun // of the first start
	}
	replies := make(chan attempt, waiting)
	for range waiting {
		go func() {
			r, err := s.call(http.MethodGet, "/api/jobs/quota", nil, "Ledger-Position: 0-999999")
			replies <- attempt{r, err}
		}()
	}
	for range waiting {
		<-begun // each call reads the clock once, first
	}
	s.interrupt()
	for range waiting {
		r := <-replies
		if r.err != nil {
			t.Fatal(r.err)
		}
		r.wantsProblem(t, http.StatusServiceUnavailable, "interrupted")
		if r.header.Get("Retry-After") == "" {
			t.Error("a 503 without Retry-After")
		}
	}
	if err := s.end(t); err != nil {
		t.Error(err)
	}
}

// TestItHasStoppedWhenItSaysSo: whoever reads that can start the service again, though an attempt at a webhook may hold up
// a stop for seconds.
func TestItHasStoppedWhenItSaysSo(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	ctx, interrupt := context.WithCancel(t.Context())
	said, has := false, false
	log := onWrite(func(line string) {
		switch {
		case strings.Contains(line, "msg=listening"):
			interrupt()
		case strings.Contains(line, "msg=stopped"):
			locked, err := ledger.Locked(data)
			said, has = true, !locked && err == nil
		}
	})
	if err := serve(ctx, serviceFlags(data), io.Discard, log, time.Now); err != nil {
		t.Fatal(err)
	}
	if !said || !has {
		t.Errorf("said that it stopped: %v, had stopped: %v", said, has)
	}
}

type onWrite func(line string)

func (w onWrite) Write(p []byte) (int, error) {
	w(string(p))
	return len(p), nil
}

// TestAttemptsAreStoppedWhileRequestsAreAnswered holds back a capture until the relay ends: who hangs here and who hangs there are
// waited for together.
func TestAttemptsAreStoppedWhileRequestsAreAnswered(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember, "--log-level", "debug")
	f := s.hold(t, 1)
	s.interrupt()
	s.wait(t, &s.stderr, regexp.MustCompile(`msg="Waiting for messages"`)) // of the relay's router: those under way
	f.release()
	if r := <-f.replies; r.err != nil || r.status != http.StatusCreated {
		t.Errorf("the capture in flight: %d, %v", r.status, r.err)
	}
	if err := s.end(t); err != nil {
		t.Error(err)
	}
}

func TestSIGTERMStopsLikeCtrlC(t *testing.T) {
	t.Parallel()
	s := startBinary(t, t.TempDir())
	s.capture(t, jobURL(1)).wants(t, http.StatusCreated)
	s.http.CloseIdleConnections()
	s.process.Signal(syscall.SIGTERM)
	if err := s.end(t); err != nil {
		t.Errorf("%v\n%s", err, s.stderr.String())
	}
}

func TestASecondCtrlCEndsTheProcessAtOnce(t *testing.T) {
	t.Parallel()
	s := startBinary(t, t.TempDir())
	s.hold(t, 1)
	s.interrupt()
	s.wait(t, &s.stderr, stopping)
	for again := time.Tick(20 * time.Millisecond); !s.hasEnded(); <-again {
		s.process.Signal(os.Interrupt) // the very next moment is too early to be a second one
	}
	if err := s.end(t); err == nil || err.Error() != "signal: interrupt" {
		t.Errorf("ended with %v", err)
	}
}
