package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"

	"jobtally/internal/ledger"
	"jobtally/internal/node"
	"jobtally/internal/projections"
)

// audit decides every request of a ledger again, and compares decisions and rows.
func (s *suite) audit(ctx context.Context) (result sample, err error) {
	d, err := s.atLimit(ctx)
	if err != nil {
		return result, err
	}
	err = withLedger(ctx, d.path, func(l *ledger.Ledger, _ *nats.Conn) error {
		audit := projections.Audit{
			Ledger:     projections.AuditLedger{ID: l.ID, Partitions: l.Partitions, Heads: l.Heads, Get: l.Get, ReadTo: l.ReadTo},
			Projection: filepath.Join(d.path, node.ProjectionFile), Scratch: s.scratch.path,
			Report: func(projections.Difference) {}, Progress: func(projections.Summary) {},
		}
		began := time.Now()
		sum, err := audit.Run(ctx)
		if err != nil {
			return err
		}
		if sum.Differences > 0 || sum.Rows == 0 {
			return fmt.Errorf("the audit found %+v", sum)
		}
		result.value = float64(sum.Requests) / time.Since(began).Seconds()
		return nil
	})
	return result, err
}
