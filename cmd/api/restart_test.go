package main

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

func TestASecondStartHasTheSameTokenDataAndQuotaAndNoCeremony(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	s := startBinary(t, data)
	s.wantsCeremony(t)
	token := s.token
	captured := s.capture(t, jobURL(1), retryKey).wants(t, http.StatusCreated)
	count := s.get(t, "/api/jobs/quota")
	s.stop(t)

	s = startBinary(t, data, "--plans", "pro=500") // a catalogue is for accounts to come
	if s.token != token {
		t.Error("the second start has another token")
	}
	s.get(t, "/api/jobs/quota").wantsSame(t, count)
	s.get(t, "/api/jobs/captures/"+captured.Receipt.Position).wants(t, http.StatusOK)
	s.get(t, captured.header.Get("Location")).wants(t, http.StatusOK)
	s.capture(t, jobURL(1), retryKey).wantsSame(t, captured)
	s.capture(t, jobURL(1)).wants(t, http.StatusOK)
	s.stop(t)
	if got := s.stdout.String(); got != "" {
		t.Errorf("the second start printed\n%s", got)
	}
}

func TestADeletedSQLiteFileIsFoldedAnewToTheSameAnswers(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	s := start(t, data, midNovember, "--plans", "free=3")
	keys := []string{"one", "two", "three", "four"}
	var first, told []reply
	var paths []string
	for i, key := range keys {
		r := s.capture(t, jobURL(i), "Idempotency-Key: "+key)
		first, paths = append(first, r), append(paths, "/api/jobs/captures/"+r.Receipt.Position)
		if r.status == http.StatusCreated {
			paths = append(paths, r.header.Get("Location"))
		}
	}
	s.operator(t, "account", "plan", "demo", "--limit", "7")
	s.capture(t, jobURL(0)).wants(t, http.StatusOK)
	paths = append(paths, "/api/jobs/quota", "/api/jobs/captures/0-1000", "/api/jobs/none")
	for _, path := range paths {
		told = append(told, s.get(t, path))
	}
	s.stop(t)
	files, err := filepath.Glob(s.projection() + "*")
	if err != nil || len(files) == 0 {
		t.Fatalf("projection files %v, %v", files, err)
	}
	for _, file := range files {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}

	s = start(t, data, midNovember)
	s.settle(t)
	for i, path := range paths {
		s.get(t, path).wantsSame(t, told[i])
	}
	for i, key := range keys {
		s.capture(t, jobURL(i), "Idempotency-Key: "+key).wantsSame(t, first[i])
	}
	s.wantsQuota(t, quota{3, 7, 4, december})
}

func TestAnOlderSQLiteFileCatchesUp(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	s := start(t, data, midNovember)
	s.capture(t, jobURL(1)).wants(t, http.StatusCreated)
	s.stop(t)
	older, err := os.ReadFile(s.projection())
	if err != nil {
		t.Fatal(err)
	}
	s = start(t, data, midNovember)
	captured := s.capture(t, jobURL(2)).wants(t, http.StatusCreated)
	s.stop(t)
	if err := os.WriteFile(s.projection(), older, 0o600); err != nil {
		t.Fatal(err)
	}
	s = start(t, data, midNovember)
	s.settle(t)
	s.wantsQuota(t, quota{2, 50, 48, december})
	if told := s.get(t, "/api/jobs/captures/"+captured.Receipt.Position); told.Receipt != captured.Receipt {
		t.Errorf("receipt %+v, first it was %+v", told.Receipt, captured.Receipt)
	}
}

func TestTheFilesWithSecretsAreForTheirOwnerOnly(t *testing.T) {
	t.Parallel()
	s := startBinary(t, filepath.Join(t.TempDir(), "new", "data"))
	for file, want := range map[string]os.FileMode{
		".": 0o700, "token": 0o600, "nats.url": 0o600, "projection.db": 0o600, "projection.db-wal": 0o600,
	} {
		info, err := os.Stat(filepath.Join(s.data, file))
		if err != nil {
			t.Error(err)
		} else if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", file, got, want)
		}
	}
}
