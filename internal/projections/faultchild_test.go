package projections

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"jobtally/internal/events"
)

// faultEnv tells the process that is to be killed what to do: a killing, in JSON.
const faultEnv = "JOBTALLY_TEST_KILLING"

type killing struct {
	Dir, Site, Kind string
	Size            int
}

// told is an acknowledgement as the process that gave it wrote it down.
type told struct {
	ID       string
	Position uint64
	Digest   events.Digest
}

// workUntilKilled works in another process, which is killed by the fault, and takes over what was acknowledged there.
func (c *clients) workUntilKilled(t *testing.T, f *fault) {
	t.Helper()
	child := exec.CommandContext(within(t), os.Args[0], "-test.run=^TestFaultChild$", "-test.timeout="+deadline.String())
	child.Env = append(os.Environ(), faultEnv+"="+string(must[[]byte](t)(json.Marshal(killing{c.dir, f.site, f.kind, f.size}))))
	var stderr bytes.Buffer
	child.Stderr = &stderr
	out, err := child.Output()
	if status := child.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGKILL {
		t.Fatalf("ended with %v, want it killed\n%s\n%s", err, out, stderr.String())
	}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var a told
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		c.acknowledged[a.ID] = answer{events.Position{Sequence: a.Position}, a.Digest}
	}
	c.asked = 1000 // it is later than anything there
	if n := len(c.acknowledged); n != c.size {
		t.Errorf("%d captures were acknowledged, want those of one batch, %d", n, c.size)
	}
}

// TestFaultChild is the process that TestFaultTable kills. Each acknowledgement is a line, written before anything else.
func TestFaultChild(t *testing.T) {
	env := os.Getenv(faultEnv)
	if env == "" {
		return
	}
	var k killing
	ok(t, json.Unmarshal([]byte(env), &k))
	c := clientsOf(k.Dir, 3, k.Size)
	c.tell = func(id string, a answer) {
		line := must[[]byte](t)(json.Marshal(told{id, a.position.Sequence, a.digest}))
		must[int](t)(fmt.Fprintf(os.Stdout, "%s\n", line))
	}
	c.work(t, newFault(k.Site, k.Kind, k.Size))
	t.Fatal("lives on")
}
