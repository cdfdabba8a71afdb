package consumer

import (
	"context"
	"errors"
	"fmt"
	"strconv"
)

// ErrPruned is the error of asking for what is no longer in the stream.
var ErrPruned = errors.New("the messages from there on were pruned")

// ErrAhead is the error of asking for what comes after a message that the stream does not have yet.
var ErrAhead = errors.New("the stream does not reach so far")

// metadataPartitions is what a stream says the number of partitions under.
const metadataPartitions = "jobtally_partitions"

func (s *Subscriber) partitions(ctx context.Context) (int, error) {
	stream, err := s.js.Stream(ctx, Decisions+"_0")
	if err != nil {
		return 0, fmt.Errorf("how many partitions there are: %w", lacksRight(s.config.Conn, "STREAM.INFO", err))
	}
	return strconv.Atoi(stream.CachedInfo().Config.Metadata[metadataPartitions])
}

// sequenceOf returns the sequence to read after.
func (s *Subscriber) sequenceOf(ctx context.Context, stream string, start Start) (uint64, error) {
	switch start.kind {
	case fromAfter:
		return start.sequence, s.checkStart(ctx, stream, start.sequence)
	case fromNow:
		info, err := s.js.Stream(ctx, stream)
		if err != nil {
			return 0, lacksRight(s.config.Conn, "STREAM.INFO", err)
		}
		return info.CachedInfo().State.LastSeq, nil
	}
	return 0, nil
}

// checkStart TODO
func (s *Subscriber) checkStart(ctx context.Context, stream string, after uint64) error {
	return nil
}
