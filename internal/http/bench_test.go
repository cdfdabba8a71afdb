package http

import (
	"context"
	"io"
	nethttp "net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"jobtally/internal/capture"
	"jobtally/internal/events"
	"jobtally/internal/token"
)

// discarded is a ResponseWriter that costs next to nothing, so that a benchmark measures who writes to it.
type discarded struct {
	header nethttp.Header
	status int
}

func (w *discarded) Header() nethttp.Header      { return w.header }
func (w *discarded) Write(b []byte) (int, error) { return len(b), nil }
func (w *discarded) WriteHeader(status int)      { w.status = status }

// serve measures a handler on one request after another.
func serve(b *testing.B, h nethttp.Handler, r *nethttp.Request, body string, status int) {
	b.Helper()
	b.ReportAllocs()
	content := strings.NewReader(body)
	r.Body = io.NopCloser(content)
	w := &discarded{header: nethttp.Header{}}
	for b.Loop() {
		content.Reset(body)
		clear(w.header)
		if h.ServeHTTP(w, r); w.status != status {
			b.Fatal(w.status)
		}
	}
}

// constant is a node that answers everything at once, and holds one token.
func constant(held token.Token) Backend {
	tokens := []capture.Token{{Account: "anna", SecretHash: held.Hash()}}
	position := events.Position{Sequence: 1234}
	var asked *events.Request
	return Backend{
		CaughtUp:   func() bool { return true },
		Partitions: 1,
		CountsIn:   func(_ string, month events.Month) events.Month { return month },
		Folded:     func(int) uint64 { return position.Sequence },
		Tokens:     func(context.Context, string) ([]capture.Token, error) { return tokens, nil },
		Quota: func(_ context.Context, _ string, month events.Month) (capture.Quota, error) {
			return capture.Quota{Month: month, Used: 15, Limit: 50}, nil
		},
		Append: func(_ context.Context, r *events.Request) (events.Position, error) {
			asked = r
			return position, nil
		},
		Await: func(context.Context, events.Position) (events.Decision, error) {
			body := asked.Body.(*events.JobCaptureRequested)
			return events.Decision{
				Position: position, Account: asked.Account, RequestID: asked.ID, Time: asked.Time,
				Body: &events.JobCaptured{
					JobID: "job_abcdefghijklmnopqrstuvwx", Job: body.Job, Count: events.Count{Month: body.Month, Used: 15, Limit: 50},
				},
			}, nil
		},
	}
}

// BenchmarkQuota measures what the API adds to the Backend's own time, next to what echo alone costs.
func BenchmarkQuota(b *testing.B) {
	held := token.New()
	bare := echo.New()
	bare.GET("/api/jobs/quota", func(c echo.Context) error {
		return c.JSON(nethttp.StatusOK, quotaForm{15, 50, 35, "2024-02-01"})
	})
	for name, h := range map[string]nethttp.Handler{"api": NewHandler(Config{Backend: constant(held)}), "bare echo": bare} {
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequest(nethttp.MethodGet, "/api/jobs/quota", nil)
			r.Header.Set("Authorization", "Bearer "+held.Reveal())
			serve(b, h, r, "", nethttp.StatusOK)
		})
	}
}

// benchJob is a job of the size that people capture.
const benchJob = `{"source_url":"https://jobs.example.com/postings/000001234?utm_source=feed","title":"Senior Go Engineer",` +
	`"company":"Example GmbH","location":"Berlin, Germany","description":"We build \"durable\" services.\nYou know Go & SQL – ` +
	`and like to say why. Remote within Europe, four days a week if you prefer.","job_type":"full_time"}`

// BenchmarkCapture measures what the API adds to append and decision.
func BenchmarkCapture(b *testing.B) {
	held := token.New()
	r := httptest.NewRequest(nethttp.MethodPost, "/api/jobs", nil)
	r.Header.Set("Authorization", "Bearer "+held.Reveal())
	r.Header.Set("Content-Type", "application/json")
	r.ContentLength = int64(len(benchJob))
	serve(b, NewHandler(Config{Backend: constant(held)}), r, benchJob, nethttp.StatusCreated)
}

func BenchmarkDecodeJob(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := decodeJob([]byte(benchJob)); err != nil {
			b.Fatal(err)
		}
	}
}
