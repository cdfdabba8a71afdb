package capture

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"jobtally/internal/events"
)

func TestRemaining(t *testing.T) {
	for _, tt := range []struct{ used, limit, want int64 }{
		{0, 50, 50},
		{15, 50, 35},
		{50, 50, 0},
		{51, 50, 0}, // after a downgrade
		{7, 0, 0},
		{0, 0, 0},
		{0, Unlimited, Unlimited},
		{1000, Unlimited, Unlimited},
		{math.MaxInt64, 1, 0},
	} {
		q := Quota{Month: "2026-11", Used: tt.used, Limit: tt.limit}
		if got := q.Remaining(); got != tt.want {
			t.Errorf("%d of %d used: %d remaining, want %d", tt.used, tt.limit, got, tt.want)
		}
		if got, want := q.exhausted(), tt.want == 0; got != want {
			t.Errorf("%d of %d used: exhausted %t, want %t", tt.used, tt.limit, got, want)
		}
	}
}

func TestResetDate(t *testing.T) {
	for month, want := range map[events.Month]string{
		"2024-01": "2024-02-01",
		"2024-02": "2024-03-01", // of 29 days
		"2026-02": "2026-03-01", // of 28
		"2026-11": "2026-12-01",
		"2026-12": "2027-01-01",
		"9999-11": "9999-12-01",
		"9999-12": "10000-01-01",
	} {
		q := Quota{Month: month}
		if got := q.ResetDate(); got != want {
			t.Errorf("%s: reset on %s, want %s", month, got, want)
		}
		if reset := q.Reset(); reset.Location() != time.UTC || reset.Format("02 15:04:05.999999999") != "01 00:00:00" {
			t.Errorf("%s: reset at %s", month, reset)
		}
	}
}

// level returns the highest percentage of the limit, 0, 80 or 100, that so many captures reach.
func level(used, limit int64) int {
	share := 0.0
	if limit > 0 {
		share = float64(used) / float64(limit)
	}
	switch {
	case share >= 1:
		return 100
	case share >= 0.8:
		return 80
	}
	return 0
}

// TestThreshold: each percentage is reported by the one capture that reaches it, and the higher where one reaches both.
func TestThreshold(t *testing.T) {
	for limit := int64(1); limit <= 250; limit++ {
		for used := int64(1); used <= limit; used++ {
			want := 0
			if now := level(used, limit); now != level(used-1, limit) {
				want = now
			}
			if got := (Quota{Used: used, Limit: limit}).threshold(); got != want {
				t.Fatalf("capture %d of %d: threshold %d, want %d", used, limit, got, want)
			}
		}
	}
	for _, limit := range []int64{math.MaxInt64/100 + 1, math.MaxInt64/50 + 1, math.MaxInt64} { // a hundred times which is not a number
		if got := (Quota{Used: 1, Limit: limit}).threshold(); got != 0 {
			t.Errorf("capture 1 of %d: threshold %d, want none", limit, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		used := rapid.Int64Range(1, 1_000_000).Draw(t, "used")
		for _, limit := range []int64{Unlimited, rapid.Int64Range(2_000_000, math.MaxInt64).Draw(t, "limit")} {
			if got := (Quota{Used: used, Limit: limit}).threshold(); got != 0 {
				t.Fatalf("capture %d of %d: threshold %d, want none", used, limit, got)
			}
		}
	})
}
