package http

import (
	"context"
	nethttp "net/http"
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v4"

	"jobtally/internal/capture"
	"jobtally/internal/events"
	"jobtally/internal/token"
)

// BenchmarkQuota measures what the API adds to the Backend's own time, next to what echo alone costs.
func BenchmarkQuota(b *testing.B) {
	held := token.New()
	handler := NewHandler(Config{Backend: Backend{
		CaughtUp:   func() bool { return true },
		Partitions: 1,
		Folded:     func(int) uint64 { return 1234 },
		Tokens: func(context.Context, string) ([]capture.Token, error) {
			return []capture.Token{{Account: "anna", SecretHash: held.Hash()}}, nil
		},
		Quota: func(_ context.Context, _ string, month events.Month) (capture.Quota, error) {
			return capture.Quota{Month: month, Used: 15, Limit: 50}, nil
		},
	}})
	bare := echo.New()
	bare.GET("/api/jobs/quota", func(c echo.Context) error {
		return c.JSON(nethttp.StatusOK, quotaForm{15, 50, 35, "2024-02-01"})
	})
	for name, h := range map[string]nethttp.Handler{"api": handler, "bare echo": bare} {
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequest(nethttp.MethodGet, "/api/jobs/quota", nil)
			r.Header.Set("Authorization", "Bearer "+held.Reveal())
			b.ReportAllocs()
			for b.Loop() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				if w.Code != nethttp.StatusOK {
					b.Fatal(w.Code)
				}
			}
		})
	}
}
