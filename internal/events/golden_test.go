package events

import (
	"bytes"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// A golden file is what the ledgers out there hold. It is never edited: a new form is a new version of the type.
var update = flag.Bool("update", false, "write the golden files that are missing; one that exists stays as it is")

func goldenPath(name string) string { return filepath.Join("testdata", "golden", name+".txt") }

// readGolden returns the golden file of a message, after writing it if it is missing and -update is given.
func readGolden(t *testing.T, name string, m Message) []byte {
	t.Helper()
	golden, err := os.ReadFile(goldenPath(name))
	if !errors.Is(err, fs.ErrNotExist) || !*update {
		if err != nil {
			t.Fatal(err)
		}
		return golden
	}
	file, err := os.OpenFile(goldenPath(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.Write(m.text()); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	return m.text()
}

func TestGoldenRequests(t *testing.T) {
	for _, f := range requestFixtures() {
		t.Run(f.name, func(t *testing.T) {
			golden := readGolden(t, f.name, f.Message(fixturePartitions))
			if got := f.Message(fixturePartitions).text(); !bytes.Equal(got, golden) {
				t.Errorf("written\n%s\nwant\n%s", got, golden)
			}
			m := parseText(t, golden)
			m.Sequence = f.Position.Sequence
			got, err := DecodeRequest(m, fixturePartition, fixturePartitions)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, f.Request) {
				t.Errorf("read\n%+v\nwant\n%+v", got, f.Request)
			}
		})
	}
}

func TestGoldenDecisions(t *testing.T) {
	for _, f := range decisionFixtures() {
		t.Run(f.name, func(t *testing.T) {
			golden := readGolden(t, f.name, f.Message())
			if got := f.Message().text(); !bytes.Equal(got, golden) {
				t.Errorf("written\n%s\nwant\n%s", got, golden)
			}
			m := parseText(t, golden)
			m.Sequence = f.Position.Sequence
			got, err := DecodeDecision(m, fixturePartition)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, f.Decision) {
				t.Errorf("read\n%+v\nwant\n%+v", got, f.Decision)
			}
			if err := got.Verify(fixturePrevious); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestGoldenFilesAreAllOfTheTypes fails when a type has no golden file, or a file no type: a type that was ever
// written is read for ever.
func TestGoldenFilesAreAllOfTheTypes(t *testing.T) {
	want := []string{
		"jobtally.account.erase_requested.v1", "jobtally.account.erased.v1",
		"jobtally.account.open_requested.v1", "jobtally.account.opened.v1",
		"jobtally.job.capture_duplicated.v1", "jobtally.job.capture_rejected.v1", "jobtally.job.capture_repeated.v1",
		"jobtally.job.capture_requested.v1", "jobtally.job.capture_requested.v1.bare",
		"jobtally.job.captured.v1", "jobtally.job.captured.v1.bare",
		"jobtally.month.archived.v1", "jobtally.month.close_requested.v1",
		"jobtally.plan.change_requested.v1", "jobtally.plan.changed.v1",
		"jobtally.request.refused.v1", "jobtally.request.refused.v1.job",
		"jobtally.token.issue_requested.v1", "jobtally.token.issue_requested.v1.admin",
		"jobtally.token.issued.v1", "jobtally.token.issued.v1.admin",
		"jobtally.token.revoke_requested.v1", "jobtally.token.revoked.v1",
		"jobtally.job.update_requested.v1", "jobtally.job.update_requested.v1.any", "jobtally.job.updated.v1", "jobtally.job.updated.v1.nothing",
		"jobtally.job.delete_requested.v1", "jobtally.job.delete_requested.v1.any", "jobtally.job.deleted.v1",
		"jobtally.account.open_requested.v1.who", "jobtally.account.opened.v1.who",
		"jobtally.plan.change_requested.v1.who", "jobtally.plan.changed.v1.who",
		"jobtally.token.issue_requested.v1.terms", "jobtally.token.issued.v1.terms",
		"jobtally.token.revoke_requested.v1.who", "jobtally.token.revoked.v1.who",
	}
	entries, err := os.ReadDir(filepath.Dir(goldenPath("")))
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, entry := range entries {
		files = append(files, strings.TrimSuffix(entry.Name(), ".txt"))
	}
	slices.Sort(want)
	slices.Sort(files)
	if !slices.Equal(files, want) {
		t.Errorf("golden files\n%q\nwant\n%q", files, want)
	}
	for _, name := range files {
		ceType, _, _ := strings.Cut(name, ".v1")
		ceType += ".v1"
		if newRequestBody(ceType) == nil && newDecisionBody(ceType) == nil {
			t.Errorf("%s is a type no longer known", ceType)
		}
	}
}

// TestGoldenDigestOfARequest pins what a request's digest covers: a retry's answer is proved by it.
func TestGoldenDigestOfARequest(t *testing.T) {
	_, m := requestFixtureOf(t, TypeAccountOpenRequested)
	want := concatenatedDigest(
		"requests.6.demo.account_open", "retry%20me:%2050%20%25%20of%20%22Gr%C3%BC%C3%9Fe%22", "jobtally.account.open_requested.v1",
		"2026-11-30T23:59:59.999Z", `{"plan":"free","limit":50}`)
	r, err := DecodeRequest(m, fixturePartition, fixturePartitions)
	if err != nil {
		t.Fatal(err)
	}
	if r.Digest != want {
		t.Errorf("digest %s, want %s", r.Digest, want)
	}
}
