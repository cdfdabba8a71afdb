package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// The two files that nats-server writes for a stream when it creates it, in this order.
const (
	streamSettings = "meta.inf"
	streamSum      = "meta.sum"
)

// dropUnborn removes the streams below store whose creation was cut short between their two files. nats-server would
// take such a stream into use without ever writing the second one, and then not know the stream at the start after.
// One that has messages is no such stream: it is left alone, with an error.
func dropUnborn(store string) error {
	files := os.DirFS(store)
	settings, err := fs.Glob(files, "jetstream/*/streams/*/"+streamSettings)
	if err != nil {
		return err
	}
	for _, file := range settings {
		stream := path.Dir(file)
		sum, err := fs.Stat(files, path.Join(stream, streamSum))
		if err == nil && sum.Size() > 0 {
			continue
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := holdsNothing(files, stream); err != nil {
			return err
		}
		if err := os.RemoveAll(filepath.Join(store, filepath.FromSlash(stream))); err != nil {
			return err
		}
	}
	return nil
}

func holdsNothing(files fs.FS, stream string) error {
	blocks, err := fs.Glob(files, path.Join(stream, "msgs", "*.blk"))
	if err != nil {
		return err
	}
	for _, block := range blocks {
		info, err := fs.Stat(files, block)
		if err != nil {
			return err
		}
		if info.Size() > 0 {
			return fmt.Errorf("%w: stream %s has messages, but its %s is missing; restore it from a backup of the data directory",
				ErrDrift, path.Base(stream), streamSum)
		}
	}
	return nil
}
