// Package archive keeps an archived month in files: it writes them from a ledger, proves them without one, and reads them
// again as a ledger is read. docs/archive-format.md describes the files.
//
// An archive is a directory, and whole: it gets its name when everything in it is on disk and was proved. Nothing of it
// changes ever after.
package archive

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"jobtally/internal/events"
)

const (
	format  = "jobtally-archive"
	version = 1

	manifestName = "manifest.json"
	sumsName     = "SHA256SUMS" // of all files but itself, as sha256sum writes and checks it
)

// Manifest says what is in an archive. Two exports of a month are the same bytes, unless an account was erased in between:
// so there is no time in it.
type Manifest struct {
	Format     string       `json:"format"`
	Version    int          `json:"version"`
	Ledger     string       `json:"ledger"`
	Partitions int          `json:"partitions"` // of the ledger
	Month      events.Month `json:"month"`
	Parts      []Part       `json:"parts"` // one for each partition that has something of the month
}

// Part is what a partition has of the month.
type Part struct {
	Partition int   `json:"partition"`
	Requests  int64 `json:"requests"`
	Decisions int64 `json:"decisions"`
	Erased    int64 `json:"erased"` // requests of the month that are not here, because their account was erased since

	// First and Last are the positions of the first pair and of the last, which is the one that archived the month.
	First events.Position `json:"first"`
	Last  events.Position `json:"last"`

	// Previous is the link of the chain of months from which Archived follows; nil for the first month that was archived.
	Previous *Link    `json:"previous"`
	Archived Archived `json:"archived"`

	Pairs    File `json:"pairs"`
	Accounts File `json:"accounts"`
	Erasures File `json:"erasures"`
}

// Link is a link of a partition's chain of months: the decision that archived one.
type Link struct {
	Month    events.Month    `json:"month"`
	Position events.Position `json:"position"`
	Digest   events.Digest   `json:"digest"`
}

// Archived is the decision that archived the month.
type Archived struct {
	Link
	Says events.MonthArchived `json:"says"`
}

// File is one file of a part: lines of JSON, compressed.
type File struct {
	Name   string        `json:"name"`
	Size   int64         `json:"size"`
	SHA256 events.Digest `json:"sha256"`

	Lines              int64         `json:"lines"`
	UncompressedSize   int64         `json:"uncompressed_size"`
	UncompressedSHA256 events.Digest `json:"uncompressed_sha256"`
}

// ErrNoArchive is the error of reading what is not an archive, or not wholly.
var ErrNoArchive = errors.New("not an archive")

func pairsName(partition int) string    { return fmt.Sprintf("pairs-%d.jsonl.gz", partition) }
func accountsName(partition int) string { return fmt.Sprintf("accounts-%d.jsonl.gz", partition) }
func erasuresName(partition int) string { return fmt.Sprintf("erasures-%d.jsonl.gz", partition) }

// files returns all files of the archive that the manifest describes.
func (m *Manifest) files() (files []File) {
	for _, p := range m.Parts {
		files = append(files, p.Pairs, p.Accounts, p.Erasures)
	}
	return files
}

// text is the manifest as it is written, which is the only way to write it.
func (m *Manifest) text() []byte {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("archive: a manifest that JSON cannot hold: %v", err)) // it is made of strings and numbers
	}
	return append(text, '\n')
}

// sums is the text of the file of sums, given the manifest as it was read.
func (m *Manifest) sums(manifest []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s  %s\n", sha256Of(manifest), manifestName)
	for _, f := range m.files() {
		fmt.Fprintf(&b, "%s  %s\n", f.SHA256, f.Name)
	}
	return b.Bytes()
}

// readManifest reads the manifest of a directory. The error is one line that says what to do about it.
func readManifest(dir string) (m Manifest, text []byte, err error) {
	info, err := os.Stat(dir)
	if err != nil {
		return m, nil, err
	}
	if !info.IsDir() {
		return m, nil, fmt.Errorf("%w: %s is a file; name the directory that was exported", ErrNoArchive, dir)
	}
	text, err = readFile(dir, manifestName)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return m, nil, fmt.Errorf("%w: %s has no %s; an export that was cut short is to be made again", ErrNoArchive, dir, manifestName)
	case errors.Is(err, errIrregular):
		return m, nil, fmt.Errorf("%w: %s in %s is %w; restore it from a copy", ErrNoArchive, manifestName, dir, err)
	case err != nil:
		return m, nil, err
	}
	return m, text, m.parse(dir, text)
}

func (m *Manifest) parse(dir string, text []byte) error {
	var head struct {
		Format  string `json:"format"`
		Version int    `json:"version"`
	}
	if err := json.Unmarshal(text, &head); err != nil || head.Format != format {
		return fmt.Errorf("%w: %s in %s is not that of a jobtally archive; restore it from a copy", ErrNoArchive, manifestName, dir)
	}
	if head.Version != version {
		return fmt.Errorf("%w of version %d, which this jobtally knows: %s is of version %d; read it with the jobtally that wrote it",
			ErrNoArchive, version, dir, head.Version)
	}
	strict := json.NewDecoder(bytes.NewReader(text))
	strict.DisallowUnknownFields()
	if err := strict.Decode(m); err != nil {
		return fmt.Errorf("%w: %s in %s cannot be read (%w); restore it from a copy", ErrNoArchive, manifestName, dir, err)
	}
	if err := m.valid(); err != nil {
		return fmt.Errorf("%w: %s in %s: %w; restore it from a copy", ErrNoArchive, manifestName, dir, err)
	}
	return nil
}

// valid returns an error for a manifest that no export writes, because nothing else could be made of it.
func (m *Manifest) valid() error {
	if _, err := events.ParseMonth(string(m.Month)); err != nil {
		return err
	}
	if m.Partitions < 1 || len(m.Parts) == 0 {
		return errors.New("it describes no partition")
	}
	if !slices.IsSortedFunc(m.Parts, func(a, b Part) int { return a.Partition - b.Partition }) {
		return errors.New("its partitions are out of order")
	}
	for i, p := range m.Parts {
		if p.Partition < 0 || p.Partition >= m.Partitions || i > 0 && m.Parts[i-1].Partition == p.Partition {
			return fmt.Errorf("partition %d has no place in it", p.Partition)
		}
		if p.Pairs.Name != pairsName(p.Partition) || p.Accounts.Name != accountsName(p.Partition) || p.Erasures.Name != erasuresName(p.Partition) {
			return fmt.Errorf("the files of partition %d are called otherwise", p.Partition)
		}
	}
	return nil
}
