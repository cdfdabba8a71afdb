package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// machine is where and when a table was measured.
type machine struct {
	date, cpu, kernel, fileSystem, goVersion, commit, loadBefore string
	cores                                                        int
}

func describeMachine(fileSystem string) machine {
	return machine{
		date: time.Now().UTC().Format("2006-01-02 15:04 UTC"), cpu: cpuModel(), cores: runtime.NumCPU(),
		kernel: firstLine("/proc/sys/kernel/osrelease"), fileSystem: fileSystem, goVersion: runtime.Version(),
		commit: commit(), loadBefore: loadAverage(),
	}
}

func (m machine) String() string {
	return fmt.Sprintf("%s; %s, %d cores; Linux %s; %s; %s; commit %s; load average before it %s",
		m.date, m.cpu, m.cores, m.kernel, m.fileSystem, m.goVersion, m.commit, m.loadBefore)
}

func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				return strings.TrimSpace(value)
			}
		}
	}
	return "unknown processor (" + runtime.GOARCH + ")"
}

// loadAverage is that of the last minute: a noisy neighbour shows in it before the bench begins.
func loadAverage() string {
	average, _, _ := strings.Cut(firstLine("/proc/loadavg"), " ")
	return average
}

func firstLine(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return line
}

// commit names what was measured, and says so when the checkout has changes that are in no commit.
func commit() string {
	head, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	name := strings.TrimSpace(string(head))
	changes, err := exec.Command("git", "status", "--porcelain", "--", "cmd", "internal", "go.mod").Output()
	if err != nil || len(changes) > 0 {
		name += " with uncommitted changes"
	}
	return name
}
