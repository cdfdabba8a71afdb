package main

import (
	"cmp"
	"io"
	"strings"

	"jobtally/internal/replay"
)

// widthRows is how many rows a table looks at before it settles how wide its columns are. A wider value comes later to
// push the rest of its line aside.
const widthRows = 200

// tablePrinter writes aligned columns, the last of which takes what is left of the width.
type tablePrinter struct {
	w      io.Writer
	width  int
	rows   [][]string // that wait for the widths
	widths []int      // nil until they are settled
}

func (p *tablePrinter) print(pair *replay.Pair) error {
	f := factsOf(pair)
	row := []string{
		pair.Position.String(), cmp.Or(whenAsked(pair), "-"), cmp.Or(pair.Request.Account, "-"), plain(f.asked), f.outcome,
		f.usage(), plain(f.about()),
	}
	if p.widths != nil {
		return p.line(row)
	}
	if p.rows = append(p.rows, row); len(p.rows) < widthRows {
		return nil
	}
	return p.settle()
}

// settle settles the widths, and prints the rows that waited for them.
func (p *tablePrinter) settle() error {
	rows := append([][]string{{"POSITION", "TIME", "ACCOUNT", "ASKED", "OUTCOME", "USED", "ABOUT"}}, p.rows...)
	p.widths, p.rows = make([]int, len(rows[0])-1), nil
	for _, row := range rows {
		for i := range p.widths {
			p.widths[i] = max(p.widths[i], columns(row[i]))
		}
	}
	for _, row := range rows {
		if err := p.line(row); err != nil {
			return err
		}
	}
	return nil
}

func (p *tablePrinter) line(row []string) error {
	var b strings.Builder
	for i, width := range p.widths {
		b.WriteString(row[i])
		b.WriteString(strings.Repeat(" ", max(0, width-columns(row[i]))+2))
	}
	b.WriteString(row[len(row)-1])
	_, err := io.WriteString(p.w, strings.TrimRight(cut(b.String(), p.width), " ")+"\n")
	return err
}

func (p *tablePrinter) end() error {
	if p.widths != nil {
		return nil
	}
	return p.settle()
}
