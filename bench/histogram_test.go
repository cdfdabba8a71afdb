package main

import (
	"testing"
	"time"
)

func TestQuantilesAreWithinABucket(t *testing.T) {
	var h, half histogram
	const n = 100_000
	for i := 1; i <= n; i++ {
		into := &h
		if i%2 == 0 {
			into = &half
		}
		into.record(time.Duration(i) * time.Microsecond)
	}
	h.add(&half)
	for _, q := range []float64{0.001, 0.5, 0.9, 0.99, 0.999} {
		got, want := h.quantile(q), time.Duration(q*n)*time.Microsecond
		if diff := float64(got-want) / float64(want); diff < -0.02 || diff > 0.02 {
			t.Errorf("quantile %v is %v, want about %v", q, got, want)
		}
	}
}

func TestHistogramTakesEveryDuration(t *testing.T) {
	var h histogram
	for _, d := range []time.Duration{-1, 0, 63, 64, 65, 127, 128, time.Hour, 1 << 62} {
		h.record(d)
	}
	if h.total != 9 {
		t.Errorf("counted %d of 9", h.total)
	}
	if got := (&histogram{}).quantile(0.5); got != 0 {
		t.Errorf("an empty histogram has the median %v", got)
	}
}

func TestBucketsMeetWithoutAGap(t *testing.T) {
	for ns := uint64(1); ns < 1<<20; ns++ {
		if before, b := bucketOf(ns-1), bucketOf(ns); b != before && b != before+1 {
			t.Fatalf("%d ns is in bucket %d, %d ns in %d", ns-1, before, ns, b)
		}
	}
}
