package ledger

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	bootFile     = "boot"     // in the store: which boot of the machine the server last ran in
	streamIndex  = "index.db" // what nats-server remembers of a stream beside its blocks
	kernelBootID = "/proc/sys/kernel/random/boot_id"
)

// forgetIndexes removes the indexes of the request streams below store, unless the machine has run on since the server
// last wrote them. After a power failure an index may be newer than the blocks, and the server would take the messages
// that it names, and that nobody was answered for, to be deleted: a gap for ever. It makes a missing index anew from
// the blocks.
func forgetIndexes(store string) error {
	path, boot := filepath.Join(store, bootFile), bootID()
	last, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if boot != "" && string(last) == boot {
		return nil
	}
	indexes, err := filepath.Glob(filepath.Join(store, "jetstream", "*", "streams", "REQUESTS_*", "msgs", streamIndex))
	if err != nil {
		return err
	}
	for _, index := range indexes {
		if err := os.Remove(index); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(store, 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(boot), 0o600)
}

// bootID tells this boot of the machine from any other. It is empty where the system does not say.
func bootID() string {
	text, _ := os.ReadFile(kernelBootID)
	return strings.TrimSpace(string(text))
}
