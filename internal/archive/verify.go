package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"jobtally/internal/events"
)

// Verification proves an archive, from its files alone.
type Verification struct {
	// Report takes each difference as it is found.
	Report func(Difference)
	// Progress takes how many of the requests were verified.
	Progress func(done, all int64)

	most int // accounts at once; 0 is mostAccounts
}

// Difference is something that is not as it was exported, or does not follow from what is before it. Line, Position and
// Account are those that it is about, as far as it is about one.
type Difference struct {
	File     string          `json:"file"`
	Line     int64           `json:"line,omitempty"`
	Position events.Position `json:"position,omitzero"`
	Account  string          `json:"account,omitempty"`
	What     string          `json:"what"`
	Expected string          `json:"expected,omitempty"`
	Found    string          `json:"found,omitempty"`
}

// String is the difference in one line.
func (d *Difference) String() string {
	text := d.File
	if d.Line > 0 {
		text += fmt.Sprintf(":%d", d.Line)
	}
	if d.Position.Sequence > 0 {
		text += " " + d.Position.String()
	}
	if d.Account != "" {
		text += " " + d.Account
	}
	return text + ": " + d.What
}

// Summary says what was verified.
type Summary struct {
	Ledger      string        `json:"ledger"`
	Month       events.Month  `json:"month"`
	Manifest    events.Digest `json:"manifest"` // SHA-256 of the manifest, which has those of all other files
	Parts       []Part        `json:"-"`        // of the manifest
	Pairs       int64         `json:"pairs"`
	Accounts    int64         `json:"accounts"`
	Erased      int64         `json:"erased"`
	Bytes       int64         `json:"bytes"`
	Differences int64         `json:"differences"`
}

// Run verifies the archive in a directory. An error says that it cannot be read, not what is wrong with it: that goes to
// Report.
func (v Verification) Run(ctx context.Context, dir string) (Summary, error) {
	m, text, err := readManifest(dir)
	if err != nil {
		return Summary{}, err
	}
	r := &verifier{
		Verification: v, dir: dir, manifest: m,
		sum: Summary{Ledger: m.Ledger, Month: m.Month, Manifest: sha256Of(text), Parts: m.Parts},
	}
	r.most = cmp.Or(v.most, mostAccounts)
	for _, p := range m.Parts {
		r.all += p.Requests
	}
	if !slices.Equal(m.text(), text) {
		r.report(Difference{File: manifestName, What: "it is spelled as no export spells it"})
	}
	err = r.run(ctx, text)
	return r.sum, err
}

// verifier is a verification at work.
type verifier struct {
	Verification
	dir      string
	manifest Manifest
	sum      Summary
	all      int64 // requests
}

func (v *verifier) report(d Difference) {
	v.sum.Differences++
	v.Report(d)
}

// differs reports what is not as it should be, if it is not.
func (v *verifier) differs(d Difference, expected, found any) {
	d.Expected, d.Found = fmt.Sprint(expected), fmt.Sprint(found)
	if d.Expected != d.Found {
		v.report(d)
	}
}

func (v *verifier) run(ctx context.Context, manifest []byte) error {
	if err := v.verifySums(manifest); err != nil {
		return err
	}
	if err := v.verifyNames(); err != nil {
		return err
	}
	for i := range v.manifest.Parts {
		p := newPartVerifier(v, &v.manifest.Parts[i])
		if err := p.run(ctx); err != nil {
			return err
		}
	}
	return nil
}

// verifySums compares the file of sums with the manifest, which it covers too.
func (v *verifier) verifySums(manifest []byte) error {
	sums, err := readFile(v.dir, sumsName)
	if err != nil {
		return v.unreadable(sumsName, err)
	}
	v.differs(Difference{File: sumsName, What: "it has not the sums of the manifest, and of the files in it"},
		string(v.manifest.sums(manifest)), string(sums))
	return nil
}

// unreadable reports a file that is not there, or that is none. Any other error is one.
func (v *verifier) unreadable(name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		v.report(Difference{File: name, What: "the file is missing"})
		return nil
	case errors.Is(err, errIrregular):
		v.report(Difference{File: name, What: "it is " + errIrregular.Error()})
		return nil
	}
	return err
}

// verifyNames reports what is in the directory and not in the manifest. What is missing is reported when it is read.
func (v *verifier) verifyNames() error {
	entries, err := os.ReadDir(v.dir)
	if err != nil {
		return err
	}
	known := []string{manifestName, sumsName}
	for _, f := range v.manifest.files() {
		known = append(known, f.Name)
	}
	for _, e := range entries {
		if !slices.Contains(known, e.Name()) {
			v.report(Difference{File: e.Name(), What: "it is not in the manifest"})
		}
	}
	return nil
}

// read reads the lines of a file, and compares the file with what the manifest says about it. A file that is missing or
// damaged is not whole.
func (v *verifier) read(ctx context.Context, want File, take func(at int64, line []byte) (more bool)) (whole bool, err error) {
	f, err := open(v.dir, want.Name)
	if err != nil {
		return false, v.unreadable(want.Name, err)
	}
	size, digest, err := v.sumFile(want.Name)
	if err != nil {
		return false, errors.Join(err, f.file.Close())
	}
	v.sum.Bytes += size
	v.differs(Difference{File: want.Name, What: "size"}, want.Size, size)
	v.differs(Difference{File: want.Name, What: "sha256"}, want.SHA256, digest)
	for line, err := range f.lines(ctx) {
		if errors.Is(err, errDamaged) {
			v.report(Difference{File: want.Name, Line: f.at, What: err.Error()})
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if !take(f.at, line) {
			return false, nil
		}
	}
	v.differs(Difference{File: want.Name, What: "lines"}, want.Lines, f.at)
	v.differs(Difference{File: want.Name, What: "uncompressed size"}, want.UncompressedSize, f.outer.size)
	v.differs(Difference{File: want.Name, What: "uncompressed sha256"}, want.UncompressedSHA256, f.outer.digest())
	return true, nil
}

func (v *verifier) sumFile(name string) (size int64, digest events.Digest, err error) {
	f, err := openRegular(v.dir, name)
	if err != nil {
		return 0, digest, err
	}
	defer f.Close()
	sum := measure(io.Discard)
	_, err = io.Copy(sum, f)
	return sum.size, sum.digest(), err
}
