package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"jobtally/internal/node"
)

// text is the report for people.
func (r *statusReport) text() string {
	var b strings.Builder
	labels := r.labels()
	for i, l := range r.Ledgers {
		if i > 0 {
			b.WriteString("\n")
		}
		if l.err != nil {
			fmt.Fprintf(&b, "cannot be reached: %v, trying\n", l.err)
			continue
		}
		writeLedger(&b, l.Status, labels)
	}
	r.writeComparisons(&b, labels)
	return b.String()
}

// labels gives each node a letter, by its data directory, where there are several.
func (r *statusReport) labels() map[string]string {
	labels := map[string]string{}
	for i, dir := range r.nodes {
		if len(r.nodes) > 1 {
			labels[dir] = string(rune('A' + i%26))
		}
	}
	return labels
}

func writeLedger(b *strings.Builder, s *node.Status, labels map[string]string) {
	var requests, decisions uint64
	for _, p := range s.Partitions {
		requests, decisions = requests+p.RequestBytes, decisions+p.DecisionBytes
	}
	fmt.Fprintf(b, "ledger %s, partitions: %d, requests: %s, decisions: %s\n", s.Ledger, len(s.Partitions), bytesText(requests), bytesText(decisions))
	for _, n := range s.Nodes {
		fmt.Fprintln(b, nodeLine(&n, labels))
	}
	b.WriteString("\n")
	writeTable(b, s, labels)
	writeReasons(b, s, labels)
}

// nodeLine says whether a node runs, and how large its projection is.
func nodeLine(n *node.NodeStatus, labels map[string]string) string {
	line := fmt.Sprintf("no node runs on %s", n.Data)
	if n.Running {
		line = fmt.Sprintf("a node runs on %s", n.Data)
	}
	if label := labels[n.Data]; label != "" {
		line = label + ": " + line
	}
	if n.SchemaVersion == 0 {
		return line + "; it has no " + node.ProjectionFile
	}
	line += fmt.Sprintf("; %s: %s, -wal: %s", node.ProjectionFile, bytesText(n.ProjectionBytes), bytesText(n.WALBytes))
	if n.Erasing {
		line += "; it still has what was erased, until nobody reads there"
	}
	if !n.Current {
		line += fmt.Sprintf("; it has schema version %d: only the jobtally that wrote it can read it", n.SchemaVersion)
	}
	return line
}

func writeTable(b *strings.Builder, s *node.Status, labels map[string]string) {
	table := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	head := []string{"PARTITION", "REQUESTS", "UNDECIDED", "DECISIONS", "ARCHIVED"}
	for _, n := range s.Nodes {
		prefix := labels[n.Data]
		if prefix != "" {
			prefix += ":"
		}
		head = append(head, prefix+"FOLDED", prefix+"UNFOLDED", prefix+"DIGEST")
	}
	fmt.Fprintln(table, strings.Join(head, "\t"))
	for i, p := range s.Partitions {
		row := []string{
			fmt.Sprint(p.Partition), fmt.Sprint(p.Requests), lag(p.Undecided, p.UndecidedSeconds), fmt.Sprint(p.Decisions), cmp.Or(p.ArchivedMonth, "-"),
		}
		for _, n := range s.Nodes {
			row = append(row, foldCells(&n, i)...)
		}
		fmt.Fprintln(table, strings.Join(row, "\t"))
	}
	table.Flush() // into memory
}

func foldCells(n *node.NodeStatus, partition int) []string {
	if len(n.Partitions) == 0 {
		return []string{"-", "-", "-"}
	}
	fold := n.Partitions[partition]
	digest := "-"
	if fold.Folded > 0 {
		digest = fmt.Sprintf("%.8s", fold.Digest)
	}
	return []string{fmt.Sprint(fold.Folded), lag(fold.Unfolded, fold.UnfoldedSeconds), digest}
}

// lag is a number of what waits, and for how long the oldest does.
func lag(events uint64, seconds float64) string {
	if events == 0 {
		return "0"
	}
	return fmt.Sprintf("%d (%s)", events, time.Duration(seconds*float64(time.Second)).Round(time.Second))
}

// writeReasons says why partitions make no progress. What nodes say of themselves goes before what looking tells.
func writeReasons(b *strings.Builder, s *node.Status, labels map[string]string) {
	var reasons []string
	for i, p := range s.Partitions {
		told := false
		for _, n := range s.Nodes {
			if len(n.Partitions) == 0 || n.Partitions[i].Failure == "" {
				continue
			}
			fold, since, on := n.Partitions[i], "", ""
			if fold.FailingSince != nil {
				since, told = " since "+fold.FailingSince.Format(time.RFC3339), true
			}
			if label := labels[n.Data]; label != "" {
				on = " on " + label
			}
			reasons = append(reasons, fmt.Sprintf("partition %d makes no progress%s%s: %s", p.Partition, on, since, fold.Failure))
		}
		if p.Stuck != "" && !told {
			reasons = append(reasons, fmt.Sprintf("partition %d is stuck: %s", p.Partition, p.Stuck))
		}
	}
	if len(reasons) > 0 {
		fmt.Fprintf(b, "\n%s\n", strings.Join(reasons, "\n"))
	}
}

// writeComparisons says where nodes hold the same.
func (r *statusReport) writeComparisons(b *strings.Builder, labels map[string]string) {
	names := func(dirs []string) string {
		letters := make([]string, len(dirs))
		for i, dir := range dirs {
			letters[i] = labels[dir]
		}
		slices.Sort(letters)
		return strings.Join(letters, " and ")
	}
	for _, c := range r.Comparisons {
		fmt.Fprintf(b, "\n%s:", names(c.Nodes))
		separator := " "
		for _, group := range []struct {
			partitions []int
			says       string
		}{
			{c.Differ, "THE DIGESTS DIFFER in %s: run `projector audit` with each"},
			{c.Agree, "the digests agree in %s"},
			{c.Apart, "they are at different positions and cannot be compared now in %s"},
		} {
			if len(group.partitions) > 0 {
				fmt.Fprintf(b, separator+group.says, list(group.partitions))
				separator = "; "
			}
		}
		b.WriteString("\n")
	}
	ledgers := map[string]bool{}
	for _, l := range r.Ledgers {
		if l.Status != nil {
			ledgers[l.Ledger] = true
		}
	}
	if len(ledgers) > 1 {
		b.WriteString("\nthese are different ledgers: their nodes have nothing to compare\n")
	}
}

// list names partitions, those in a row by the first and the last.
func list(partitions []int) string {
	var rows []string
	for i := 0; i < len(partitions); {
		first, last := partitions[i], partitions[i]
		for i++; i < len(partitions) && partitions[i] == last+1; i++ {
			last++
		}
		row := fmt.Sprint(first)
		if last > first {
			row += fmt.Sprintf(" to %d", last)
		}
		rows = append(rows, row)
	}
	if len(partitions) == 1 {
		return "partition " + rows[0]
	}
	return "partitions " + strings.Join(rows, ", ")
}

func bytesText[N int64 | uint64](n N) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	size, units := float64(n)/unit, []string{"KiB", "MiB", "GiB", "TiB"}
	for size >= unit && len(units) > 1 {
		size, units = size/unit, units[1:]
	}
	return fmt.Sprintf("%.1f %s", size, units[0])
}
