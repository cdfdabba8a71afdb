package main

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"jobtally/internal/events"
	"jobtally/internal/replay"
)

// jsonPrinter writes objects with something before the first, between any two, and after the last.
type jsonPrinter struct {
	w                      io.Writer
	before, between, after string
	begun                  bool
}

func (p *jsonPrinter) print(pair *replay.Pair) error {
	lead := p.between
	if !p.begun {
		p.begun, lead = true, p.before
	}
	state := ""
	if pair.Undecided() {
		state = `"undecided":true,`
	}
	_, err := fmt.Fprintf(p.w, `%s{"position":"%s","month":%s,"account":%s,%s"request":%s,"decision":%s}`, lead, pair.Position,
		orNull(string(pair.Month)), orNull(pair.Request.Account), state,
		cloudEvent(&pair.Asked, pair), cloudEvent(&pair.Decided, pair))
	return err
}

func (p *jsonPrinter) end() error {
	text := p.after
	switch {
	case !p.begun && p.before == "":
		return nil
	case !p.begun:
		text = "[]\n"
	}
	_, err := io.WriteString(p.w, text)
	return err
}

// cloudEvent writes a message in its structured form, in which a terminal obeys nothing. A void is null.
func cloudEvent(m *events.Message, of *replay.Pair) []byte {
	if m.Void() {
		return []byte("null")
	}
	return printable(m.AppendStructured(nil, of.Position.Partition))
}

// orNull writes a month or an account, in which nothing needs an escape.
func orNull(s string) string {
	if s == "" {
		return "null"
	}
	return `"` + s + `"`
}

// printable escapes in JSON what a terminal would obey. Below U+0080 that is done already, but for one.
func printable(text []byte) []byte {
	if !slices.ContainsFunc(text, func(c byte) bool { return c >= 0x7f }) {
		return text
	}
	var b bytes.Buffer
	for _, r := range string(text) {
		switch {
		case r < 0x7f || unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := (r-0x10000)>>10+0xd800, (r-0x10000)&0x3ff+0xdc00
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.Bytes()
}

// csvPrinter writes a line of values for each pair: RFC 4180, and fit to be opened as a spreadsheet.
type csvPrinter struct {
	w     *csv.Writer
	begun bool
}

func newCSV(w io.Writer) *csvPrinter {
	p := &csvPrinter{w: csv.NewWriter(w)}
	p.w.UseCRLF = true
	return p
}

// csvColumns never change their order; a new one comes last.
var csvColumns = [...]string{
	"position", "month", "time", "account", "request_id", "asked", "outcome", "used", "limit",
	"job_id", "title", "company", "source_url", "captured_via", "reason", "detail", "digest",
}

func (p *csvPrinter) print(pair *replay.Pair) error {
	if err := p.begin(); err != nil {
		return err
	}
	f := factsOf(pair)
	used, limit, digest := "", "", ""
	if f.count != nil {
		used, limit = strconv.FormatInt(f.count.Used, 10), strconv.FormatInt(f.count.Limit, 10)
	}
	if !pair.Undecided() {
		digest = pair.Decision.Digest.String()
	}
	return p.w.Write([]string{
		pair.Position.String(), string(pair.Month), whenAsked(pair), pair.Request.Account, cell(pair.Request.ID),
		cell(f.asked), f.outcome, used, limit, f.jobID, cell(f.job.Title), cell(f.job.Company), cell(f.job.SourceURL),
		cell(f.job.CapturedVia), f.reason, cell(f.detail), digest,
	})
}

func (p *csvPrinter) begin() error {
	if p.begun {
		return nil
	}
	p.begun = true
	return p.w.Write(csvColumns[:])
}

func (p *csvPrinter) end() error {
	if err := p.begin(); err != nil {
		return err
	}
	p.w.Flush()
	return p.w.Error()
}

// cell returns a text of somebody's so that no spreadsheet takes it for a formula, and no terminal obeys it.
func cell(s string) string {
	s = plain(s)
	if first, _ := utf8.DecodeRuneInString(s); strings.ContainsRune("=+-@＝＋－＠", first) && s != "" {
		return "'" + s
	}
	return s
}
