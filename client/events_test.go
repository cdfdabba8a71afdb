package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"jobtally/client"
)

// TestEventsComeBackByThemselves has the connection cut after each event, and a proxy answer that there is no service.
func TestEventsComeBackByThemselves(t *testing.T) {
	t.Parallel()
	s := start(t)
	target, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	calls, cut := 0, func() {}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		mu.Lock()
		calls++
		away := calls%3 == 0
		cut = cancel
		mu.Unlock()
		if away {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		forward := httputil.NewSingleHostReverseProxy(target)
		forward.FlushInterval = -1
		forward.ServeHTTP(w, r.WithContext(ctx))
	}))
	t.Cleanup(proxy.Close)
	c, direct := s.client(t, proxy.URL, client.HTTP(http.DefaultClient)), s.client(t, s.url)
	var want, got []string
	capture := func() {
		want = append(want, must[*client.Capture](t)(direct.Capture(t.Context(), job(len(want)))).Receipt.Position)
	}
	capture()
	for event, err := range c.Events(t.Context(), client.Beginning) {
		if err != nil {
			t.Fatal(err)
		}
		var data struct{ Job client.NewJob }
		if err := json.Unmarshal(event.Data, &data); err != nil || event.Type != "jobtally.job.captured.v1" || event.Subject == "" || event.Digest == "" {
			t.Errorf("%+v, %v", event, err)
		}
		if got = append(got, event.ID); len(got) == 6 {
			break
		}
		mu.Lock()
		cut()
		mu.Unlock()
		capture()
	}
	if !slices.Equal(got, want) {
		t.Errorf("told %v, want %v", got, want)
	}
	if calls < 6 {
		t.Errorf("it called %d times", calls)
	}
}

func TestEventsOfATypeAndTheirEnd(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := s.client(t, s.url)
	id := must[*client.Capture](t)(c.Capture(t.Context(), job(1))).Job.ID
	if _, err := c.DeleteJob(t.Context(), id, 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for event, err := range c.Events(ctx, client.Beginning, "jobtally.job.deleted") {
		if ctx.Err() != nil {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("it ends with %v", err)
			}
			continue
		}
		if err != nil || event.Subject != id {
			t.Errorf("%+v, %v", event, err)
		}
		cancel()
	}
	for _, err := range c.Events(t.Context(), "7-1") {
		var p *client.Problem
		if !errors.As(err, &p) || p.Code != "invalid_position" {
			t.Errorf("a position of another partition: %v", err)
		}
	}
}

// TestEventsOfWhatIsNoServiceEnd: to ask again and again in silence would tell nobody that the address is wrong.
func TestEventsOfWhatIsNoServiceEnd(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]struct{ media, text string }{
		"a page":             {"text/html", "<p>Welcome</p>\n"},
		"events that differ": {"text/event-stream", "id: 0-1\ndata: hello\n\n"},
	} {
		t.Run(name, func(t *testing.T) {
			other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", answer.media)
				io.WriteString(w, answer.text)
			}))
			defer other.Close()
			c := must[*client.Client](t)(client.New(other.URL, "token"))
			for event, err := range c.Events(t.Context(), client.Beginning) {
				if err == nil || !strings.Contains(err.Error(), "is not that of jobtally") {
					t.Errorf("%+v, %v", event, err)
				}
			}
		})
	}
}
