package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"jobtally/internal/events"
)

// nothing hears of the progress.
func nothing(int, int) {}

// secret is in the request and in the decision of an account under a number.
func secret(account string, n uint64) string { return fmt.Sprintf("secret-%s-%d-", account, n) }

// record appends a request of each account in order, each of so many bytes, and the decisions on them. Those of one account
// that stand behind each other are appended together.
func record(t *testing.T, l *Ledger, size int, accounts ...string) {
	t.Helper()
	before, ctx := heads(t, l), within(t)
	decisions := make([]events.Message, len(accounts))
	var group []*events.Request
	for i, account := range accounts {
		n := before.Requests + uint64(i) + 1
		r := request(secret(account, n) + strings.Repeat("x", 8))
		r.Account = account
		r.Body.(*events.JobCaptureRequested).Job.Description = strings.Repeat("x", size)
		decisions[i] = events.Message{
			Subject: "jobs.0." + account + ".captured", Data: []byte(secret(account, n) + strings.Repeat("x", size)),
		}
		if group = append(group, r); len(group) < maxGroup && i+1 < len(accounts) && accounts[i+1] == account {
			continue
		}
		at, errs := l.AppendAll(ctx, group)
		if err := errors.Join(errs...); err != nil || at[len(at)-1].Sequence != n {
			t.Fatalf("requests up to %d have positions up to %s: %v", n, at[len(at)-1], err)
		}
		group = nil
	}
	if err := l.AppendDecisions(ctx, 0, before.Decisions, decisions); err != nil {
		t.Fatal(err)
	}
}

// decideErasure appends the request that erases an account and its decision, and returns their number.
func decideErasure(t *testing.T, l *Ledger, account string, requests int) uint64 {
	t.Helper()
	r := request("erase-" + account + fmt.Sprint(requests))
	r.Account, r.Body = account, &events.AccountEraseRequested{}
	at := must[events.Position](t)(l.Append(within(t), r))
	d := events.Decision{
		Position: at, Account: account, RequestID: r.ID, Time: r.Time, Body: &events.AccountErased{Requests: int64(requests)},
	}
	d.Seal(events.Digest{})
	if err := l.AppendDecisions(within(t), 0, at.Sequence-1, []events.Message{d.Message()}); err != nil {
		t.Fatal(err)
	}
	return at.Sequence
}

func repeat(n int, accounts ...string) []string { return slices.Repeat(accounts, n) }

// finds returns the files below a directory in which a text stands, as it is or compressed.
func finds(t *testing.T, dir, text string) (files []string) {
	t.Helper()
	eachFile(t, dir, func(path string, content []byte) {
		if bytes.Contains(content, []byte(text)) {
			files = append(files, path)
		}
	})
	return files
}

// eachFile goes through the files below a directory of a server that may run: it replaces files meanwhile.
func eachFile(t *testing.T, dir string, do func(path string, content []byte)) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			return nil
		}
		var content []byte
		if err == nil {
			content, err = os.ReadFile(filepath.Join(dir, path))
		}
		if errors.Is(err, fs.ErrNotExist) && path != "." {
			return nil
		}
		if err == nil {
			do(path, content)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func wantNothingLeft(t *testing.T, dir, account string) {
	t.Helper()
	if files := finds(t, dir, "secret-"+account); len(files) > 0 {
		t.Fatalf("what %s had is still in %v", account, files)
	}
}

// wantErased reads both streams up to a number, and wants voids under the numbers of an account, and nobody else's.
func wantErased(t *testing.T, l *Ledger, account string, accounts []string) {
	t.Helper()
	for _, stream := range []events.Stream{events.Requests, events.Decisions} {
		messages := read(t, l, stream, 0, uint64(len(accounts)))[:len(accounts)]
		wantSequences(t, messages, 1, uint64(len(accounts)))
		for i, m := range messages {
			if m.Void() != (accounts[i] == account) {
				t.Fatalf("%s: message %d of %s: void %v", stream, m.Sequence, accounts[i], m.Void())
			}
			if want := secret(accounts[i], m.Sequence); !m.Void() && !bytes.Contains(m.Data, []byte(want)) {
				t.Fatalf("%s: message %d has not %s", stream, m.Sequence, want)
			}
		}
	}
}

// wantNoHalves reads both streams up to a number, and wants none of an account's messages after the first void of it.
func wantNoHalves(t *testing.T, l *Ledger, account string, accounts []string) {
	t.Helper()
	for _, stream := range []events.Stream{events.Requests, events.Decisions} {
		messages := read(t, l, stream, 0, uint64(len(accounts)))[:len(accounts)]
		wantSequences(t, messages, 1, uint64(len(accounts)))
		voids := 0
		for i, m := range messages {
			if m.Void() {
				voids++
			}
			if mine := accounts[i] == account; m.Void() && !mine || mine && voids > 0 && !m.Void() {
				t.Fatalf("%s: message %d of %s, after %d voids: void %v", stream, m.Sequence, accounts[i], voids, m.Void())
			}
		}
	}
}

// copyStore copies the files of a server that runs, as they would be found after it was killed, into a new directory.
func copyStore(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	eachFile(t, filepath.Join(dir, "jetstream"), func(path string, content []byte) {
		copied := filepath.Join(to, "jetstream", path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(copied), 0o700), os.WriteFile(copied, content, 0o600)); err != nil {
			t.Fatal(err)
		}
	})
	return to
}
