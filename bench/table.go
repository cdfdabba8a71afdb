package main

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"text/tabwriter"
	"time"
)

// format writes a value in the unit of the row.
func (r row) format(value float64) string {
	switch {
	case value == 0:
		return "–"
	case value < 10:
		return fmt.Sprintf("%.2f %s", value, r.unit)
	case value < 1000:
		return fmt.Sprintf("%.0f %s", value, r.unit)
	}
	n := int(math.Round(value))
	if n < 1_000_000 {
		return fmt.Sprintf("%d,%03d %s", n/1000, n%1000, r.unit)
	}
	return fmt.Sprintf("%d,%03d,%03d %s", n/1_000_000, n/1000%1000, n%1000, r.unit)
}

func (g goal) text(r row) string {
	var parts []string
	add := func(bound float64, text string) {
		if bound > 0 {
			parts = append(parts, text)
		}
	}
	add(g.leastRatio, fmt.Sprintf("≥ %g", g.leastRatio))
	add(g.mostRatio, fmt.Sprintf("≤ %g", g.mostRatio))
	add(g.leastValue, "≥ "+r.format(g.leastValue))
	add(g.mostValue, "≤ "+r.format(g.mostValue))
	if len(parts) == 0 {
		return "–"
	}
	return strings.Join(parts, ", ")
}

var columns = []string{"row", "measured", "least to most of the runs", "p50 / p99", "baseline", "ratio", "aim", ""}

// cells returns the line of a row.
func (m measured) cells() []string {
	base, ratio, verdict := "–", "–", "met"
	if m.baseline != nil {
		base, ratio = m.format(m.base.value), fmt.Sprintf("%.2f", m.ratio)
	}
	if len(m.misses()) > 0 {
		verdict = "missed"
	} else if m.goal == (goal{}) {
		verdict = ""
	}
	spread := strings.TrimSuffix(m.format(m.least), " "+m.unit) + " to " + strings.TrimSuffix(m.format(m.most), " "+m.unit)
	return []string{m.what, m.format(m.result.value), spread, latencies(m.result), base, ratio, m.goal.text(m.row), verdict}
}

func latencies(s sample) string {
	if s.p50 == 0 {
		return "–"
	}
	return duration(s.p50) + " / " + duration(s.p99)
}

func duration(d time.Duration) string {
	if d < 10*time.Millisecond {
		return fmt.Sprintf("%.2f ms", d.Seconds()*1000)
	}
	return fmt.Sprintf("%.0f ms", d.Seconds()*1000)
}

// plainTable is the table for a terminal.
func plainTable(rows []measured) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(columns, "\t"))
	for _, m := range rows {
		fmt.Fprintln(w, strings.Join(m.cells(), "\t"))
	}
	w.Flush() // a strings.Builder takes everything
	for _, sentence := range missed(rows) {
		fmt.Fprintln(&b, sentence)
	}
	return b.String()
}

func missed(rows []measured) (sentences []string) {
	for _, m := range rows {
		sentences = append(sentences, m.misses()...)
	}
	return sentences
}

// report is the document that holds the table.
type report struct {
	machine machine
	size    sizes
	caveats []string // why the figures are not those of a whole run
	rows    []measured
	failed  []error // of the rows that could not be measured
	others  float64 // share of the processors that others used meanwhile
}

// quietness says whether the figures are those of a machine that had nothing else to do.
func (r report) quietness() string {
	const quiet = 0.05
	text := fmt.Sprintf("Other processes and the kernel's threads used %.0f %% of the processors meanwhile", 100*r.others)
	if r.others > quiet {
		text += ": the machine was not quiet, and the figures are worse than it could do, the baselines among them"
	}
	return text + "."
}

const method = `The service is the real binary of cmd/api, a process of its own on loopback, with the default settings: one partition,
and an fsync before every answer. The generator shares the machine with it. It is a closed loop: each connection sends its
next request once it has read the answer to the last one, and the histogram has every request sent after the warm-up,
however long it took. Baseline and measurement take turns; values are medians of the runs, and so is the ratio, of each
run to the baseline just before it. Every answer is checked for its status, and after a load of distinct captures the quota of every account is
compared with the captures that were answered 201.
`

// markdown writes the document.
func (r report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Benchmark results\n\nWritten by `make bench`. %s.\n\n", r.machine)
	fmt.Fprintf(&b, "Runs: %d; a load lasts %s after %s of warm-up. %s\n\n", r.size.runs, r.size.window, r.size.warmup, r.quietness())
	for _, caveat := range r.caveats {
		fmt.Fprintf(&b, "**%s**\n\n", caveat)
	}
	fmt.Fprintf(&b, "| %s |\n|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	for _, m := range r.rows {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(m.cells(), " | "))
	}
	b.WriteString("\n## Missed aims\n\n")
	sentences := missed(r.rows)
	if len(sentences) == 0 {
		b.WriteString("None.\n")
	}
	for _, sentence := range sentences {
		fmt.Fprintf(&b, "- %s\n", sentence)
	}
	if len(r.failed) > 0 {
		fmt.Fprintf(&b, "\n## Failed rows\n\n```\n%v\n```\n", errors.Join(r.failed...))
	}
	b.WriteString("\n## How it was measured\n\n" + method + "\nThe baselines:\n\n")
	for _, m := range r.rows {
		if m.against != "" {
			fmt.Fprintf(&b, "- %s: %s.\n", m.what, m.against)
		}
	}
	return b.String()
}
