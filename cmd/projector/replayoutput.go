package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// defaultWidth is how many columns a table has where no terminal says.
	defaultWidth = 120
	outputBuffer = 64 << 10
)

// output is where a replay is written to: standard output, or a file that has its name when it is complete.
type output struct {
	*bufio.Writer
	width    int
	progress *progress

	name string   // of the file, or empty
	file *os.File // under another name, until it is committed; then nil
}

// openOutput refuses a file that exists. Progress is shown where somebody watches, and does not get between the output and
// a program that reads it.
func openOutput(s *session, name string) (o *output, err error) {
	o = &output{width: defaultWidth, progress: &progress{began: time.Now()}}
	if name == "-" {
		if width, ok := terminalWidth(s.stdout); ok {
			o.width = width
			o.progress.watch(s.stderr)
		}
		o.Writer = bufio.NewWriterSize(o.progress.aside(s.stdout), outputBuffer)
		return o, nil
	}
	o.name = name
	if err := o.absent(); err != nil {
		return nil, err
	}
	if o.file, err = os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*"); err != nil {
		return nil, fmt.Errorf("--to %s: %w", name, errors.Unwrap(err)) // without the name that it has until then
	}
	o.progress.watch(s.stderr)
	o.Writer = bufio.NewWriterSize(o.file, outputBuffer)
	return o, nil
}

func (o *output) absent() error {
	switch _, err := os.Lstat(o.name); {
	case err == nil:
		return usage("%s exists, and is not overwritten: name another file, or remove it", o.name)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	default:
		return err
	}
}

// commit writes what is buffered. A file is then synced, and gets its name: before, there is none of that name.
func (o *output) commit() error {
	if err := o.Flush(); err != nil || o.file == nil {
		return err
	}
	if err := o.file.Sync(); err != nil {
		return err
	}
	if err := o.absent(); err != nil {
		return err
	}
	file := o.file
	o.file = nil
	return errors.Join(file.Close(), os.Rename(file.Name(), o.name))
}

// discard removes the file unless it was committed.
func (o *output) discard() error {
	o.progress.clear()
	if o.file == nil {
		return nil
	}
	return errors.Join(o.file.Close(), os.Remove(o.file.Name()))
}

// unfinished says what is to be thought of the output of a replay that was cut short.
func (o *output) unfinished() string {
	if o.name == "" {
		return "what was printed is not all"
	}
	return o.name + " was not written"
}

func terminalWidth(w io.Writer) (int, bool) {
	f, ok := w.(*os.File)
	if !ok {
		return 0, false
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, false
	}
	if size.Col == 0 {
		return defaultWidth, true
	}
	return int(size.Col), true
}

// progress shows how far a replay is, on a line that is written over.
type progress struct {
	w           io.Writer // nil where nobody watches
	began       time.Time
	shown       time.Time // zero while nothing is
	total, done uint64    // positions
}

// watch shows the progress on a terminal, and nowhere else.
func (p *progress) watch(w io.Writer) {
	if _, ok := terminalWidth(w); ok {
		p.w = w
	}
}

// show shows it, not too often.
func (p *progress) show(done uint64, messages int64) {
	if p.w == nil || time.Since(p.shown) < progressEvery {
		return
	}
	p.shown = time.Now()
	passed := time.Since(p.began).Seconds()
	left := passed / float64(max(done, 1)) * float64(p.total-min(done, p.total))
	fmt.Fprintf(p.w, "\r%3d %% of %d positions, %d messages read, %.0f/s, %.0f s left\x1b[K",
		100*done/max(p.total, 1), p.total, messages, float64(messages)/passed, left)
}

func (p *progress) clear() {
	if p.w != nil && !p.shown.IsZero() {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = time.Time{}
	}
}

// aside returns a writer to the same terminal, before whose lines the progress steps aside.
func (p *progress) aside(w io.Writer) io.Writer {
	if p.w == nil {
		return w
	}
	return writerFunc(func(b []byte) (int, error) { p.clear(); return w.Write(b) })
}

type writerFunc func([]byte) (int, error)

// Write calls the function.
func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
