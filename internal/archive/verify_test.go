package archive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"jobtally/internal/events"
)

// small is an archive with little in it of everything.
func small(t testing.TB) string {
	b := newBooks(t, 1)
	b.open("anna", day(october, 1), 2)
	b.open("bob", day(october, 1), 2)
	b.capture("bob", "https://example.com/b", day(october, 2))
	b.close(october)
	b.capture("anna", "https://example.com/a", day(november, 2))
	b.capture("bob", "https://example.com/b", day(november, 3))
	b.close(november)
	b.ask("bob", "erase", day(december, 1), &events.AccountEraseRequested{})
	return b.exported(november)
}

func isFound(t *testing.T, dir string) bool {
	t.Helper()
	found, err := verified(t, dir)
	return len(found) > 0 || err != nil
}

func TestVerifyFindsEveryChangedByteOfAnyFile(t *testing.T) {
	t.Parallel()
	dir := small(t)
	wantSound(t, dir)
	step := 1
	if testing.Short() {
		step = 17
	}
	for _, e := range must[[]os.DirEntry](t)(os.ReadDir(dir)) {
		path, text := filepath.Join(dir, e.Name()), read(t, dir, e.Name())
		for i := 0; i < len(text); i += step {
			changed := bytes.Clone(text)
			changed[i] ^= 1 << (i % 8)
			ok(t, os.WriteFile(path, changed, 0o600))
			if !isFound(t, dir) {
				t.Fatalf("%s: a change of byte %d, %q, is not found", e.Name(), i, text[i])
			}
		}
		for _, n := range []int{0, 1, len(text) / 2, len(text) - 1} {
			ok(t, os.WriteFile(path, text[:n], 0o600))
			if !isFound(t, dir) {
				t.Errorf("%s: that it has %d bytes of %d is not found", e.Name(), n, len(text))
			}
		}
		ok(t, os.WriteFile(path, append(bytes.Clone(text), '\n'), 0o600))
		if !isFound(t, dir) {
			t.Errorf("%s: that it is longer is not found", e.Name())
		}
		ok(t, os.Remove(path))
		if !isFound(t, dir) {
			t.Errorf("%s: that it is gone is not found", e.Name())
		}
		ok(t, os.WriteFile(path, text, 0o600))
	}
	for _, extra := range []string{"more", ".hidden", "pairs-1.jsonl.gz"} {
		ok(t, os.WriteFile(filepath.Join(dir, extra), nil, 0o600))
		if found := findings(t, dir); len(found) != 1 || found[0] != extra+": it is not in the manifest" {
			t.Errorf("%s: found %q", extra, found)
		}
		ok(t, os.Remove(filepath.Join(dir, extra)))
	}
	wantSound(t, dir)
}

// Whoever changes lines can also write the sums anew. What archived the month he cannot.
func TestVerifyFindsChangedLinesUnderNewSums(t *testing.T) {
	t.Parallel()
	for _, month := range []events.Month{october, november} {
		sound := threeMonths(t, 1).exported(month)
		if month == november {
			sound = small(t)
		}
		dir := copyOf(t, sound)
		for _, name := range []string{pairsName(0), accountsName(0), erasuresName(0)} {
			lines := unpacked(t, sound, name)
			for i := range lines {
				for what, changed := range changes(lines, i) {
					rewrite(t, dir, name, changed)
					if !isFound(t, dir) {
						t.Errorf("%s line %d: %s is not found", name, i+1, what)
					}
				}
			}
			rewrite(t, dir, name, lines)
			wantSound(t, dir)
		}
	}
}

// changes are ways in which a line may be changed.
func changes(lines [][]byte, i int) map[string][][]byte {
	with := func(line []byte) [][]byte { return slices.Concat(lines[:i], [][]byte{line}, lines[i+1:]) }
	changes := map[string][][]byte{
		"that it is removed":     slices.Delete(slices.Clone(lines), i, i+1),
		"that it is there twice": slices.Insert(slices.Clone(lines), i, lines[i]),
		"that it is no line":     with([]byte("{}")),
		"a space":                with(bytes.Replace(lines[i], []byte(":"), []byte(": "), 1)),
	}
	if i%2 == 0 && i+1 < len(lines) {
		changes["that the pair is removed"] = slices.Delete(slices.Clone(lines), i, i+2)
		changes["that the pair is there twice"] = slices.Insert(slices.Clone(lines), i, lines[i], lines[i+1])
	}
	if i+1 < len(lines) {
		swapped := slices.Clone(lines)
		swapped[i], swapped[i+1] = swapped[i+1], swapped[i]
		changes["that it is swapped"] = swapped
	}
	// What no digest covers of a request is how its attributes are called, which the ledger does not prove either.
	for _, covered := range []string{`"id":"`, `"type":"`, `"time":"`, `"natssubject":"`, `"data":{"`, `"position":"0-`, `"digest":"`, `"requestid":"`, `"leaf":"`, `"account":"`, `"requests":`} {
		if at := bytes.Index(lines[i], []byte(covered)); at >= 0 {
			line := bytes.Clone(lines[i])
			c := &line[at+len(covered)]
			if *c++; *c == ':' || *c == 'g' {
				*c = '0'
			}
			changes["another "+covered] = with(line)
		}
	}
	return changes
}

func TestVerifySaysWhereItDiffers(t *testing.T) {
	t.Parallel()
	sound := threeMonths(t, 1).exported(october)
	lines := unpacked(t, sound, pairsName(0))
	at := slices.IndexFunc(lines, func(line []byte) bool {
		return bytes.Contains(line, []byte("accounts/anna")) && bytes.Contains(line, []byte("Engineer"))
	})
	for what, c := range map[string]struct {
		change func(lines [][]byte)
		want   string
	}{
		"a request": {
			func(lines [][]byte) { lines[at] = bytes.Replace(lines[at], []byte("Engineer"), []byte("Director"), 1) },
			"pairs-0.jsonl.gz:%d %s anna: the decision is not on this request: its request digest differs",
		},
		"a decision": {
			func(lines [][]byte) {
				lines[at+1] = bytes.Replace(lines[at+1], []byte("Engineer"), []byte("Director"), 1)
			},
			"pairs-0.jsonl.gz:%d %s anna: the decision does not follow from the one before it",
		},
	} {
		dir, changed := copyOf(t, sound), slices.Clone(lines)
		c.change(changed)
		rewrite(t, dir, pairsName(0), changed)
		m, _, err := events.ParseStructured(bytes.TrimSpace(lines[at]))
		ok(t, err)
		want := fmt.Sprintf(c.want, at+2, events.Position{Sequence: m.Sequence})
		if found := findings(t, dir); len(found) == 0 || found[0] != want {
			t.Errorf("%s: found\n%s\nwant\n%s", what, strings.Join(found, "\n"), want)
		}
	}
}

// Every value of the manifest is compared with something else, but for the name of the ledger, which is in no message,
// and the position of the month before: only the archive of that month can tell.
func TestVerifyFindsEditedManifestUnderNewSums(t *testing.T) {
	t.Parallel()
	sound := small(t)
	text := read(t, sound, manifestName)
	edited := 0
	for path, forged := range edits(t, text) {
		if path == ".ledger" || path == ".parts.0.previous.position" {
			continue
		}
		edited++
		dir := copyOf(t, sound)
		var m Manifest
		if json.Unmarshal(forged, &m) != nil {
			ok(t, os.WriteFile(filepath.Join(dir, manifestName), forged, 0o600))
		} else {
			forge(t, dir, &m)
		}
		if !isFound(t, dir) {
			t.Errorf("another %s is not found", path)
		}
	}
	if edited < 40 {
		t.Errorf("%d values were edited", edited)
	}
}

// edits are copies of a JSON text with one value changed in each.
func edits(t *testing.T, text []byte) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	var root any
	ok(t, json.Unmarshal(text, &root))
	var walk func(path string, value any, set func(any))
	walk = func(path string, value any, set func(any)) {
		save := func(changed any) {
			set(changed)
			all[path] = must[[]byte](t)(json.Marshal(root))
			set(value)
		}
		switch v := value.(type) {
		case map[string]any:
			for name := range v {
				walk(path+"."+name, v[name], func(changed any) { v[name] = changed })
			}
		case []any:
			for i := range v {
				walk(fmt.Sprint(path, ".", i), v[i], func(changed any) { v[i] = changed })
			}
		case float64:
			save(v + 1)
		case string:
			last := v[len(v)-1] ^ 1
			save(v[:len(v)-1] + string(last))
		default:
			t.Fatalf("%s is a %s", path, reflect.TypeOf(value))
		}
	}
	walk("", root, nil)
	return all
}

// replaceByPipe puts something in the place of a file that nobody can read to its end.
func replaceByPipe(t *testing.T, dir, name string) {
	t.Helper()
	path := filepath.Join(dir, name)
	ok(t, errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)))
}

// What is no file is not opened: a pipe would be waited for, and a link leads out of the archive.
func TestVerifyOpensFilesOnly(t *testing.T) {
	t.Parallel()
	sound := small(t)
	others := map[string]func(dir, name string){
		"a pipe": func(dir, name string) { replaceByPipe(t, dir, name) },
		"a link": func(dir, name string) {
			path := filepath.Join(dir, name)
			ok(t, errors.Join(os.Remove(path), os.Symlink(filepath.Join(sound, name), path)))
		},
		"a directory": func(dir, name string) {
			path := filepath.Join(dir, name)
			ok(t, errors.Join(os.Remove(path), os.Mkdir(path, 0o700)))
		},
	}
	for what, put := range others {
		for _, name := range []string{sumsName, pairsName(0), accountsName(0), erasuresName(0)} {
			dir := copyOf(t, sound)
			put(dir, name)
			var found []string
			v := Verification{Report: func(d Difference) { found = append(found, d.String()) }, Progress: func(int64, int64) {}, most: 1}
			must[Summary](t)(v.Run(t.Context(), dir))
			if !slices.Contains(found, name+": it is no regular file") {
				t.Errorf("%s called %s: found %q", what, name, found)
			}
		}
	}
	dir := copyOf(t, sound)
	ok(t, syscall.Mkfifo(filepath.Join(dir, "more"), 0o600))
	if found := findings(t, dir); !slices.Equal(found, []string{"more: it is not in the manifest"}) {
		t.Errorf("found %q", found)
	}
}

func TestWhatIsNoArchive(t *testing.T) {
	t.Parallel()
	sound := small(t)
	edited := func(change func(dir string)) string {
		dir := copyOf(t, sound)
		change(dir)
		return dir
	}
	manifest := func(text string) func(string) {
		return func(dir string) { ok(t, os.WriteFile(filepath.Join(dir, manifestName), []byte(text), 0o600)) }
	}
	for dir, says := range map[string]string{
		filepath.Join(sound, manifestName): "is a file; name the directory that was exported",
		filepath.Join(sound, "missing"):    "no such file or directory",
		t.TempDir():                        "has no manifest.json; an export that was cut short is to be made again",
		edited(manifest("junk")):           "is not that of a jobtally archive; restore it from a copy",
		edited(manifest(`{"format":"jobtally-archive","version":2}`)):                                "is of version 2; read it with the jobtally that wrote it",
		edited(manifest(`{"format":"jobtally-archive","version":1,"x":1}`)):                          "cannot be read",
		edited(manifest(`{"format":"jobtally-archive","version":1,"month":"2026-10","parts":[]}`)):   "it describes no partition",
		edited(func(dir string) { ok(t, os.Remove(filepath.Join(dir, manifestName))) }):              "has no manifest.json",
		edited(func(dir string) { replaceByPipe(t, dir, manifestName) }):                             "is no regular file; restore it from a copy",
		edited(func(dir string) { ok(t, os.Mkdir(filepath.Join(dir, manifestName+".d"), 0o700)) }):   "",
		edited(func(dir string) { ok(t, os.Rename(filepath.Join(dir, sumsName), dir+"/manifest")) }): "",
	} {
		found, err := verified(t, dir)
		if says == "" {
			if len(found) == 0 || err != nil {
				t.Errorf("%s: %q, %v", dir, found, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", dir, err, says)
		}
		if _, opened := Open(dir); opened == nil || opened.Error() != err.Error() {
			t.Errorf("opened: %v, verified: %v", opened, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	long := threeMonths(t, 1)
	for i := range 600 {
		long.capture("bob", fmt.Sprint("https://example.com/more/", i), day("2027-01", 3))
	}
	long.close("2027-01")
	export := long.export("2027-01")
	export.Now = day("2027-02", 3)
	dir := filepath.Join(t.TempDir(), "january")
	must[Summary](t)(export.Run(t.Context(), dir))
	if _, err := (Verification{Report: func(Difference) {}, Progress: func(int64, int64) {}}).Run(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
