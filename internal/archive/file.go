package archive

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"os"
	"path/filepath"

	"jobtally/internal/events"
)

// maxLine is the longest line that is read: a message of 1 MiB in base64 with its attributes is far shorter.
const maxLine = 8 << 20

func sha256Of(b []byte) events.Digest { return sha256.Sum256(b) }

// measured counts and digests what goes through it.
type measured struct {
	to   io.Writer
	hash hash.Hash
	size int64
}

func measure(to io.Writer) *measured { return &measured{to: to, hash: sha256.New()} }

// Write passes bytes on.
func (m *measured) Write(b []byte) (int, error) {
	n, err := m.to.Write(b)
	m.hash.Write(b[:n])
	m.size += int64(n)
	return n, err
}

func (m *measured) digest() (d events.Digest) {
	m.hash.Sum(d[:0])
	return d
}

// writer writes one file of an archive. After the first failure it does nothing more: close returns that.
type writer struct {
	name     string
	file     *os.File
	inner    *measured // what is on disk
	packed   *gzip.Writer
	outer    *measured // what was written
	buffered *bufio.Writer
	buffer   []byte // of the line that is being made
	lines    int64
	err      error
}

func create(dir, name string) (*writer, error) {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	w := &writer{name: name, file: f, inner: measure(f)}
	w.packed = gzip.NewWriter(w.inner)
	w.outer = measure(w.packed)
	w.buffered = bufio.NewWriterSize(w.outer, 64<<10)
	return w, nil
}

// line writes a line. It is the caller's again afterwards.
func (w *writer) line(line []byte) {
	if w.err == nil {
		_, w.err = w.buffered.Write(line)
	}
	if w.err == nil {
		w.err = w.buffered.WriteByte('\n')
	}
	w.lines++
}

// close puts the file on disk, and says what is in it.
func (w *writer) close() (File, error) {
	for _, step := range []func() error{w.buffered.Flush, w.packed.Close, w.file.Sync} {
		if w.err == nil {
			w.err = step()
		}
	}
	if err := w.file.Close(); w.err == nil {
		w.err = err
	}
	if w.err != nil {
		return File{}, fmt.Errorf("%s: %w", w.name, w.err)
	}
	return File{
		Name: w.name, Size: w.inner.size, SHA256: w.inner.digest(),
		Lines: w.lines, UncompressedSize: w.outer.size, UncompressedSHA256: w.outer.digest(),
	}, nil
}

// reading is a file of an archive as it is read. What it measures is complete once lines has yielded all.
type reading struct {
	file  *os.File
	outer *measured // what was read
	at    int64     // number of the line that was read last
}

// errIrregular is the error of what has the name of a file of an archive and is none.
var errIrregular = errors.New("no regular file")

// openRegular opens a file that is one. Anything else is not opened: that of a pipe waits for somebody to write into it.
func openRegular(dir, name string) (*os.File, error) {
	path := filepath.Join(dir, name)
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errIrregular
	}
	return os.Open(path)
}

func readFile(dir, name string) ([]byte, error) {
	f, err := openRegular(dir, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// open opens a file of an archive. The error is one of the file system, or errIrregular.
func open(dir, name string) (*reading, error) {
	f, err := openRegular(dir, name)
	if err != nil {
		return nil, err
	}
	return &reading{file: f, outer: measure(io.Discard)}, nil
}

// errDamaged is the error of a file that cannot be decompressed, or that has something that is no line.
var errDamaged = errors.New("damaged")

// lines yields the lines, each to be used before the next. The error, which ends it, is errDamaged, of the file system, or
// that of ctx. It closes the file.
func (r *reading) lines(ctx context.Context) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		defer r.file.Close()
		err := r.each(ctx, func(line []byte) bool { return yield(line, nil) })
		if err != nil {
			yield(nil, err)
		}
	}
}

func (r *reading) each(ctx context.Context, take func([]byte) bool) error {
	unpacked, err := gzip.NewReader(bufio.NewReaderSize(r.file, 64<<10))
	if err != nil {
		return r.failure(err)
	}
	scanner := bufio.NewScanner(io.TeeReader(unpacked, r.outer))
	scanner.Buffer(make([]byte, 64<<10), maxLine)
	scanner.Split(wholeLines)
	for scanner.Scan() {
		if r.at++; r.at%512 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if !take(scanner.Bytes()) {
			return nil
		}
	}
	return r.failure(scanner.Err())
}

// failure tells a damaged file from one that cannot be read.
func (r *reading) failure(err error) error {
	var path *os.PathError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &path):
		return err
	}
	return fmt.Errorf("%w after line %d: %w", errDamaged, r.at, err)
}

var errLine = errors.New("the last line has no end")

// wholeLines splits at newlines, keeps everything else, and refuses a last line without one.
func wholeLines(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return 0, nil, errLine
	}
	return 0, nil, nil
}
