package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestScratchRefusesWhatIsNotItsOwn(t *testing.T) {
	dir := t.TempDir()
	precious := filepath.Join(dir, "projection.db")
	if err := os.WriteFile(precious, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := takeScratch(dir); err == nil {
		t.Fatalf("took %s", s.path)
	}
	if text, err := os.ReadFile(precious); err != nil || string(text) != "precious" {
		t.Errorf("the file is %q, %v", text, err)
	}
}

func TestScratchLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "new")} {
		s, err := takeScratch(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := takeScratch(path); err == nil {
			t.Error("two benches took one directory")
		}
		made, _ := s.fresh("ledger")
		if err := makeDir(made); err != nil {
			t.Fatal(err)
		}
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("left %v, %v", entries, err)
	}
}

func TestScratchTakesUpItsOwn(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{markFile: "", "left over": "by a bench that was killed"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := takeScratch(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("it starts with %v, %v", entries, err)
	}
}
