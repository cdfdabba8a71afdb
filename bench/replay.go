package main

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"jobtally/internal/ledger"
	"jobtally/internal/replay"
)

// replay reads both streams and puts each request together with its decision.
func (s *suite) replay(ctx context.Context) (result sample, err error) {
	d, err := s.million(ctx)
	if err != nil {
		return result, err
	}
	err = withLedger(ctx, d.path, func(l *ledger.Ledger, _ *nats.Conn) error {
		source := replay.Source{ID: l.ID, Partitions: l.Partitions, Heads: l.Heads, ReadTo: l.ReadTo}
		began, pairs := time.Now(), 0
		for pair, err := range source.Pairs(ctx, 0, "", 0, uint64(s.size.decisions)) {
			if err != nil {
				return err
			}
			if pairs++; pair.Undecided() {
				return fmt.Errorf("%s is undecided", pair.Position)
			}
		}
		result.value = float64(pairs) / time.Since(began).Seconds()
		return nil
	})
	return result, err
}
