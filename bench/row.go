package main

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"time"
)

// row is one line of the table: something measured, and the baseline it is held against.
type row struct {
	name     string // by which --rows chooses it
	what     string
	against  string // what the baseline is; empty where there is none
	unit     string
	goal     goal
	measure  func(context.Context) (sample, error)
	baseline func(context.Context) (sample, error) // nil where there is none
}

// sample is what one run measured. The latencies are 0 where there is none.
type sample struct {
	value    float64 // in the unit of the row
	p50, p99 time.Duration
}

// goal is what a row aims at. A bound that is 0 is none.
type goal struct {
	leastRatio, mostRatio, leastValue, mostValue float64
}

// measured is what came of a row: the medians of its runs.
type measured struct {
	row
	result, base sample
	ratio        float64 // of the runs, each to the baseline just before it; so that a drift of the machine cancels out
	least, most  float64 // of the values of the runs
}

// run measures a row so many times, the baseline before each of them.
func (r row) run(ctx context.Context, runs int, say func(string, ...any)) (m measured, err error) {
	var results, bases []sample
	for i := range runs {
		var base, result sample
		if r.baseline != nil {
			if base, err = r.baseline(ctx); err != nil {
				return m, fmt.Errorf("%s, baseline: %w", r.name, err)
			}
			bases = append(bases, base)
		}
		if result, err = r.measure(ctx); err != nil {
			return m, fmt.Errorf("%s: %w", r.name, err)
		}
		results = append(results, result)
		say("%-14s run %d: %s, baseline %s", r.name, i+1, r.format(result.value), r.format(base.value))
	}
	m = measured{row: r, result: median(results), base: median(bases)}
	if r.baseline != nil {
		pairs := make([]sample, runs)
		for i := range pairs {
			pairs[i].value = results[i].value / bases[i].value
		}
		m.ratio = median(pairs).value
	}
	byValue := func(a, b sample) int { return cmp.Compare(a.value, b.value) }
	m.least, m.most = slices.MinFunc(results, byValue).value, slices.MaxFunc(results, byValue).value
	return m, nil
}

// median returns the median of each figure by itself, and of an even number the lower one.
func median(samples []sample) (m sample) {
	if len(samples) == 0 {
		return m
	}
	m.value = medianOf(samples, func(s sample) float64 { return s.value })
	m.p50 = medianOf(samples, func(s sample) time.Duration { return s.p50 })
	m.p99 = medianOf(samples, func(s sample) time.Duration { return s.p99 })
	return m
}

func medianOf[T cmp.Ordered](samples []sample, figure func(sample) T) T {
	figures := make([]T, len(samples))
	for i, s := range samples {
		figures[i] = figure(s)
	}
	slices.Sort(figures)
	return figures[(len(figures)-1)/2]
}

// rows returns every row whose name the expression matches.
func (s *suite) rows(chosen *regexp.Regexp) (rows []row) {
	all := slices.Concat(s.captureRows(), s.clusterRows(), s.quotaRows(), s.ledgerRows(), s.fullRows(), s.trackerRows(), s.streamRows())
	for _, r := range all {
		if chosen.MatchString(r.name) {
			rows = append(rows, r)
		}
	}
	return rows
}

// misses returns a sentence for each aim that is missed.
func (m measured) misses() (sentences []string) {
	miss := func(what string, is, aim float64, format func(float64) string, bound string) {
		sentences = append(sentences, fmt.Sprintf("%s: the %s is %s, the aim is %s %s: missed by %.0f %%.",
			m.what, what, format(is), bound, format(aim), 100*max(is/aim-1, 1-is/aim)))
	}
	number := func(v float64) string { return fmt.Sprintf("%.2f", v) }
	if g := m.goal; m.baseline != nil {
		if g.leastRatio > 0 && m.ratio < g.leastRatio {
			miss("ratio", m.ratio, g.leastRatio, number, "at least")
		}
		if g.mostRatio > 0 && m.ratio > g.mostRatio {
			miss("ratio", m.ratio, g.mostRatio, number, "at most")
		}
	}
	if g := m.goal; g.leastValue > 0 && m.result.value < g.leastValue {
		miss("value", m.result.value, g.leastValue, m.format, "at least")
	}
	if g := m.goal; g.mostValue > 0 && m.result.value > g.mostValue {
		miss("value", m.result.value, g.mostValue, m.format, "at most")
	}
	return sentences
}
