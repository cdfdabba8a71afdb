package node

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// ledgered is which tokens are issued, as far as a test is concerned.
type ledgered struct {
	erased  []string
	failure error
	asked   []string      // the last time
	told    chan struct{} // is closed at the next time, unless nil
}

func (l *ledgered) issued(_ context.Context, ids []string) (still []string, err error) {
	l.asked = slices.Sorted(slices.Values(ids))
	for _, id := range ids {
		if !slices.Contains(l.erased, id) {
			still = append(still, id)
		}
	}
	if l.told != nil {
		close(l.told)
		l.told = nil
	}
	return still, l.failure
}

func (l *ledgered) open(t *testing.T, dir string) *uses {
	t.Helper()
	return newUses(dir, l.issued, slog.New(slog.DiscardHandler))
}

func wantsFile(t *testing.T, dir, want string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, usesFile))
	if err != nil || strings.TrimSpace(string(text)) != want {
		t.Errorf("the file says %s, %v, want %s", text, err, want)
	}
}

func on(t *testing.T, day string) time.Time {
	t.Helper()
	at, err := time.Parse(time.DateOnly, day)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestLastUsesAreKeptToTheDay(t *testing.T) {
	dir, issued := t.TempDir(), &ledgered{}
	u := issued.open(t, dir)
	u.save()
	if _, err := os.Stat(u.path); err == nil {
		t.Error("nothing was used, and there is a file")
	}
	u.note("a", on(t, "2026-11-22").Add(24*time.Hour-1))
	u.note("b", on(t, "2026-11-22"))
	u.note("a", on(t, "2026-11-23"))
	u.note("b", on(t, "2026-11-21")) // a clock that jumped back
	for id, want := range map[string]string{"a": "2026-11-23", "b": "2026-11-22", "c": ""} {
		if got := u.last(id); got != want {
			t.Errorf("last use of %s: %q, want %q", id, got, want)
		}
	}
	u.save()
	wantsFile(t, dir, `{"a":"2026-11-23","b":"2026-11-22"}`)

	t.Log("another process goes on from there, and asks only of what is new to it")
	u = issued.open(t, dir)
	if got := u.last("b"); got != "2026-11-22" {
		t.Errorf("last use: %q", got)
	}
	u.note("c", on(t, "2026-11-24"))
	u.close()
	wantsFile(t, dir, `{"a":"2026-11-23","b":"2026-11-22","c":"2026-11-24"}`)
	if !slices.Equal(issued.asked, []string{"c"}) {
		t.Errorf("asked of %s", issued.asked)
	}

	t.Log("nothing new is nothing to write")
	before, err := os.Stat(u.path)
	if err != nil {
		t.Fatal(err)
	}
	u.note("c", on(t, "2026-11-24"))
	u.save()
	if after, err := os.Stat(u.path); err != nil || !os.SameFile(before, after) {
		t.Errorf("it was written again: %v", err)
	}
}

func TestErasedTokensLeaveTheFile(t *testing.T) {
	dir, issued := t.TempDir(), &ledgered{}
	u := issued.open(t, dir)
	u.note("a", on(t, "2026-11-22"))
	u.note("b", on(t, "2026-11-22"))
	u.save()
	issued.erased = []string{"a"}
	u.save()
	wantsFile(t, dir, `{"a":"2026-11-22","b":"2026-11-22"}`) // nobody said so
	u.tokensErased()
	u.close()
	wantsFile(t, dir, `{"b":"2026-11-22"}`)

	t.Log("a call that was under way meanwhile brings none back")
	u.note("a", on(t, "2026-11-22"))
	u.save()
	wantsFile(t, dir, `{"b":"2026-11-22"}`)
	if got := u.last("a"); got != "" {
		t.Errorf("last use: %q", got)
	}
	issued.erased = []string{"a", "b"}
	u.tokensErased()
	u.close()
	wantsFile(t, dir, `{}`)
}

func TestErasureIsWrittenAtOnce(t *testing.T) {
	dir, issued := t.TempDir(), &ledgered{}
	u := issued.open(t, dir)
	u.note("a", on(t, "2026-11-22"))
	u.save()
	issued.erased, issued.told = []string{"a"}, make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	told, ended := issued.told, make(chan struct{})
	go func() { defer close(ended); u.run(ctx) }()
	u.tokensErased()
	<-told // and is written before the end
	cancel()
	<-ended
	wantsFile(t, dir, `{}`)
}

func TestUsesThatCannotBeWrittenAreWrittenLater(t *testing.T) {
	dir, issued := t.TempDir(), &ledgered{}
	u := issued.open(t, dir)
	u.note("a", on(t, "2026-11-22"))
	u.note("b", on(t, "2026-11-22"))
	issued.failure = errors.New("on fire")
	if err := u.trySave(); !errors.Is(err, issued.failure) {
		t.Errorf("%v", err)
	}
	issued.failure = nil
	if err := os.Mkdir(u.path+unfinished, 0o700); err != nil {
		t.Fatal(err)
	}
	issued.erased = []string{"a"}
	u.tokensErased()
	u.close()
	if _, err := os.Stat(u.path); err == nil {
		t.Fatal("it was written all the same")
	}
	if err := os.Remove(u.path + unfinished); err != nil {
		t.Fatal(err)
	}
	u.save()
	wantsFile(t, dir, `{"b":"2026-11-22"}`)
}

func TestUsesFileThatCannotBeRead(t *testing.T) {
	dir, issued := t.TempDir(), &ledgered{}
	for _, text := range []string{"", "[]", `{"a":"yesterday"}`, `{"a":`} {
		if err := os.WriteFile(filepath.Join(dir, usesFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		u := issued.open(t, dir)
		u.note("b", on(t, "2026-11-22"))
		u.save()
		wantsFile(t, dir, `{"b":"2026-11-22"}`)
	}
	t.Log("what a process left that died while it wrote is removed")
	if err := os.WriteFile(filepath.Join(dir, usesFile+unfinished), []byte(`{"erased":"2026-11-22"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	issued.open(t, dir)
	if _, err := os.Stat(filepath.Join(dir, usesFile+unfinished)); err == nil {
		t.Error("it is still there")
	}
}

func TestNotingAUseOfTheDayAllocatesNothing(t *testing.T) {
	u := (&ledgered{}).open(t, t.TempDir())
	at, id := on(t, "2026-11-22"), strings.Repeat("a", 12)
	u.note(id, at)
	if allocated := testing.AllocsPerRun(1000, func() { u.note(id, at.Add(time.Hour)) }); allocated != 0 {
		t.Errorf("%v allocations", allocated)
	}
}
