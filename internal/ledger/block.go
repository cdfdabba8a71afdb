package ledger

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nats-io/nats-server/v2/server"
)

// What of the form of a block matters here. It is a row of records: length with flags, sequence with flags, time, the
// length of the subject; then the subject, headers and data, and a checksum.
const (
	recordMin     = 30 // bytes: those of a record of nothing
	flagHeaders   = 1 << 31
	flagErased    = 1 << 63 // the record was written over
	flagTombstone = 1 << 62 // the record says that the message of its sequence is removed
)

// erasingFile is in the store from before the first message is erased until the next start.
const erasingFile = "erasing"

// nextRecord returns the sequence, with its flags, and the length of the first record; 0 where there is no whole one.
func nextRecord(block []byte) (sequence uint64, length int) {
	if len(block) < recordMin {
		return 0, 0
	}
	length = int(binary.LittleEndian.Uint32(block) &^ flagHeaders)
	if length < recordMin || length > len(block) {
		return 0, 0
	}
	return binary.LittleEndian.Uint64(block[4:]), length
}

// readBlock returns the records of a block, which an operator may have told the server to compress.
func readBlock(path string) ([]byte, error) {
	block, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var compressed server.CompressionInfo
	start, err := compressed.UnmarshalMetadata(block)
	if err != nil || start == 0 {
		return block, err
	}
	return compressed.Algorithm.Decompress(block[start:])
}

// holdsMessage says whether the message of a sequence is in the files of a stream, and with it all before it.
func holdsMessage(dir string, sequence uint64) (bool, error) {
	blocks := newSyncer(dir)
	numbers, err := blocks.blocks()
	for i := len(numbers) - 1; i >= 0; i-- {
		block, err := readBlock(blocks.path(numbers[i]))
		if err != nil {
			return false, err
		}
		before := false
		for found, length := nextRecord(block); length > 0; found, length = nextRecord(block) {
			if found == sequence {
				return true, nil
			}
			before = before || found < sequence
			block = block[length:]
		}
		if before {
			return false, nil
		}
	}
	return false, err
}

// scrub removes from the streams below store the messages that are removed and still in the files: what the server
// leaves when it is killed, or when its disk fails, while it erases one. It notes the removal first, and then writes the
// block anew; started again, it would never look at that message. The server must not run.
func scrub(store string) error {
	switch _, err := os.Stat(filepath.Join(store, erasingFile)); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	streams, err := filepath.Glob(filepath.Join(store, "jetstream", "*", "streams", "*", "msgs"))
	if err != nil {
		return err
	}
	for _, dir := range streams {
		if err := scrubStream(dir); err != nil {
			return err
		}
	}
	return nil
}

// scrubStream does what scrub does for one stream. The index, which would not know of it, goes first.
func scrubStream(dir string) error {
	if err := os.Remove(filepath.Join(dir, streamIndex)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, unfinished := range []string{"*.tmp", "*.new"} { // what the server was about to put in a block's place
		paths, err := filepath.Glob(filepath.Join(dir, unfinished))
		for _, path := range paths {
			err = errors.Join(err, os.Remove(path))
		}
		if err != nil {
			return err
		}
	}
	blocks := newSyncer(dir)
	numbers, err := blocks.blocks()
	if err != nil {
		return err
	}
	removed := map[uint64]bool{}
	for _, number := range numbers {
		block, err := readBlock(blocks.path(number))
		if err != nil {
			return err
		}
		for sequence, length := nextRecord(block); length > 0; sequence, length = nextRecord(block) {
			if sequence&flagTombstone != 0 {
				removed[sequence&^flagTombstone] = true
			}
			block = block[length:]
		}
	}
	for _, number := range numbers {
		if err := scrubBlock(blocks.path(number), removed); err != nil {
			return err
		}
	}
	return syncFile(dir, (*os.File).Sync)
}

// scrubBlock writes a block anew without the messages that are removed, if it has any.
func scrubBlock(path string, removed map[uint64]bool) error {
	if len(removed) == 0 {
		return nil
	}
	block, err := readBlock(path)
	if err != nil {
		return err
	}
	kept, size := make([]byte, 0, len(block)), len(block)
	for sequence, length := nextRecord(block); length > 0; sequence, length = nextRecord(block) {
		if !removed[sequence] {
			kept = append(kept, block[:length]...)
		}
		block = block[length:]
	}
	kept = append(kept, block...) // what the server will make of the rest of a message is its own business
	switch len(kept) {
	case size:
		return nil
	case 0:
		return os.Remove(path)
	}
	anew := path + ".tmp"
	if err := errors.Join(os.WriteFile(anew, kept, 0o600), syncFile(anew, (*os.File).Sync)); err != nil {
		return err
	}
	return os.Rename(anew, path)
}

// markErasing has the next start scrub the streams.
func markErasing(store string) error {
	path := filepath.Join(store, erasingFile)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	return errors.Join(syncFile(path, (*os.File).Sync), syncFile(store, (*os.File).Sync))
}

// scrubOnce scrubs the streams, and has the next start not do it again.
func scrubOnce(store string) error {
	if err := scrub(store); err != nil {
		return err
	}
	err := os.Remove(filepath.Join(store, erasingFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, syncFile(store, (*os.File).Sync))
}
