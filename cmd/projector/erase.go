package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"

	"jobtally/internal/cli"
	"jobtally/internal/events"
	"jobtally/internal/node"
)

// eraseCmd is told what to erase, and that nobody is to be asked, by the command line only: a variable may be left of
// something else.
type eraseCmd struct {
	Account string `required:"" env:"-" placeholder:"NAME" help:"Account to erase."`
	Yes     bool   `env:"-" help:"Do not ask for the name of the account to be typed. Needed where there is no terminal."`
	access
}

// Run erases the account, and returns once nothing of it is left in the ledger. For one that is erased already it finishes
// what was cut short.
func (c *eraseCmd) Run(s *session) (err error) {
	if err := events.ValidAccount(c.Account); err != nil {
		return fmt.Errorf("%w: %w", cli.ErrUsage, err)
	}
	if !c.Yes && !asks(s.stdin) {
		return fmt.Errorf("%w: there is no terminal to ask on: give --yes", cli.ErrUsage)
	}
	o, err := c.dial(s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	erasure, err := o.Erasure(s.ctx, c.Account)
	if err != nil {
		return err
	}
	if !c.Yes && !erasure.Again {
		question := fmt.Sprintf("Everything of account %s will be gone for good. Type its name to go on: ", c.Account)
		if err := s.confirm(question, c.Account, "that is not its name: nothing was erased"); err != nil {
			return err
		}
	}
	return c.erase(s, erasure)
}

func (c *eraseCmd) erase(s *session, erasure *node.Erasure) error {
	d, err := erasure.Decide(s.ctx, &events.Request{
		Account: c.Account, ID: uuid.NewString(), Time: time.Now().UTC(), Body: &events.AccountEraseRequested{},
	})
	if err != nil {
		return err
	}
	when := ""
	if erasure.Again {
		when = " already"
	}
	erased := d.Body.(*events.AccountErased)
	fmt.Fprintf(s.stdout, "account %s is erased at %s%s; its requests: %d\n", c.Account, d.Position, when, erased.Requests)
	report := &removalReport{}
	if watched(s.stderr) {
		report.progress = s.stderr
	}
	err = erasure.Remove(s.ctx, &d, report.show)
	report.clear()
	if err != nil {
		return fmt.Errorf("%w; the command run again finishes it, or says that it is done", err)
	}
	_, err = fmt.Fprintf(s.stdout, "nothing of it is left in the ledger but its name in the record of the erasure, and these counts: %s\n", counts(erased.Months))
	return err
}

// counts says what stays of the months of an erased account.
func counts(months []events.ErasedMonth) string {
	if len(months) == 0 {
		return "none"
	}
	texts := make([]string, len(months))
	for i, m := range months {
		texts[i] = fmt.Sprintf("%s %d captured, %d duplicated, %d rejected", m.Month, m.Captured, m.Duplicated, m.Rejected)
	}
	return strings.Join(texts, "; ")
}

// confirm asks the operator something, and has what it is about typed to go on. The error says what was not done instead.
func (s *session) confirm(question, expected, instead string) error {
	fmt.Fprint(s.stderr, question)
	typed := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(s.stdin).ReadString('\n')
		typed <- strings.TrimSpace(line)
	}()
	select {
	case text := <-typed:
		if text != expected {
			return errors.New(instead)
		}
		return nil
	case <-s.ctx.Done():
		fmt.Fprintln(s.stderr)
		return s.ctx.Err()
	}
}

// removalReport shows how far a removal is, on a line that is written over.
type removalReport struct {
	progress io.Writer // nil where nobody watches
	shown    time.Time
}

func (r *removalReport) show(removed, total int) {
	if r.progress != nil && time.Since(r.shown) >= progressEvery {
		r.shown = time.Now()
		fmt.Fprintf(r.progress, "\r%d of %d messages removed\x1b[K", removed, total)
	}
}

func (r *removalReport) clear() {
	if !r.shown.IsZero() {
		fmt.Fprint(r.progress, "\r\x1b[K")
	}
}

// asks says whether somebody can be asked.
func asks(r io.Reader) bool {
	f, ok := r.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}
