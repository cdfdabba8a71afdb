package main

import (
	"math/bits"
	"time"
)

const (
	subBits    = 6 // 64 buckets for each power of two: a value is off by less than 1.6 %
	subBuckets = 1 << subBits
	powers     = 40 // up to 2^40 ns, 18 minutes, above every deadline of the bench
)

// histogram counts durations in buckets whose width grows with the value. The zero histogram is empty.
type histogram struct {
	counts [powers * subBuckets]uint32
	total  uint64
}

func bucketOf(ns uint64) int {
	if ns < subBuckets {
		return int(ns)
	}
	power := bits.Len64(ns) - 1 - subBits
	return min((power+1)*subBuckets+int(ns>>power)-subBuckets, powers*subBuckets-1)
}

// middle returns the value in the middle of a bucket.
func middle(bucket int) time.Duration {
	if bucket < subBuckets {
		return time.Duration(bucket)
	}
	power := bucket/subBuckets - 1
	low := uint64(bucket%subBuckets+subBuckets) << power
	return time.Duration(low + uint64(1)<<power/2)
}

func (h *histogram) record(d time.Duration) {
	h.counts[bucketOf(uint64(max(0, d)))]++
	h.total++
}

func (h *histogram) add(other *histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.total += other.total
}

// quantile returns the duration that a share q of all that was recorded does not exceed, and 0 if nothing was.
func (h *histogram) quantile(q float64) time.Duration {
	rank, seen := uint64(q*float64(h.total)), uint64(0)
	for i, n := range h.counts {
		if seen += uint64(n); seen > rank {
			return middle(i)
		}
	}
	return 0
}
