package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"jobtally/internal/node"
)

const (
	loadConnections = 64
	samplePeriod    = 100 * time.Millisecond
)

// fullRows are those of the service on the full ledger.
func (s *suite) fullRows() []row {
	there := fmt.Sprintf("%d jobs and %d accounts", s.size.many*s.size.jobsEach, s.size.many)
	decisions := s.size.many * (s.size.jobsEach + 2)
	rows := []row{
		{
			name: "captures-full", what: fmt.Sprintf("durable captures, %d connections, %s already there", loadConnections, there), unit: "/s",
			against:  fmt.Sprintf("the same load on a ledger of %d open accounts without jobs", s.size.accounts),
			goal:     goal{leastRatio: 0.8},
			measure:  s.fullCaptures,
			baseline: func(ctx context.Context) (sample, error) { return s.distinctCaptures(ctx, loadConnections) },
		},
		{
			name: "start", what: fmt.Sprintf("start to ready with %d decisions folded, after a clean stop, files cached", decisions), unit: "s",
			goal: goal{mostValue: 1}, measure: s.startToReady,
		},
		{
			name: "rebuild", what: fmt.Sprintf("decisions folded anew by `projector rebuild`, no service running, %s", there), unit: "/s",
			measure: s.rebuild,
		},
	}
	if s.inProcess {
		return rows // the service is then not to be killed, nor its memory to be told from the bench's
	}
	return append(rows, row{
		name: "start-killed", what: fmt.Sprintf("start to ready with %d decisions folded, killed (SIGKILL) at the end of a load", decisions), unit: "s",
		measure: s.startAfterKill,
	}, row{
		name: "memory", what: fmt.Sprintf("most resident memory (VmRSS) under %d connections of captures with %s", loadConnections, there), unit: "MB",
		goal: goal{mostValue: 300}, measure: s.residentMemory,
	})
}

// withFull runs use while the service runs on the full ledger, which keeps what is captured.
func (s *suite) withFull(ctx context.Context, use func(*ledgerDir, *service) error) error {
	d, err := s.million(ctx)
	if err != nil {
		return err
	}
	return s.withService(ctx, d.path, func(running *service) error { return use(d, running) })
}

func (s *suite) fullCaptures(ctx context.Context) (result sample, err error) {
	err = s.withFull(ctx, func(d *ledgerDir, running *service) (err error) {
		result, err = s.captureAll(ctx, running, d, d.held, loadConnections)
		return err
	})
	return result, err
}

func (s *suite) startToReady(ctx context.Context) (result sample, err error) {
	err = s.withFull(ctx, func(_ *ledgerDir, running *service) error {
		result.value = running.ready.Seconds()
		return nil
	})
	return result, err
}

// rebuild folds the full ledger anew.
func (s *suite) rebuild(ctx context.Context) (result sample, err error) {
	d, err := s.million(ctx)
	if err != nil {
		return result, err
	}
	done, err := node.Rebuild(ctx, node.Config{Dir: d.path, Log: quiet()}, func(uint64, uint64) {})
	result.value = float64(done.Decisions) / done.Seconds
	return result, err
}

// startAfterKill starts the service after it was killed at the end of a load.
func (s *suite) startAfterKill(ctx context.Context) (sample, error) {
	d, err := s.million(ctx)
	if err != nil {
		return sample{}, err
	}
	running, err := s.serve(ctx, d.path)
	if err != nil {
		return sample{}, err
	}
	_, err = s.captureAll(ctx, running, d, d.held, loadConnections)
	running.kill()
	if err != nil {
		return sample{}, err
	}
	return s.startToReady(ctx)
}

// residentMemory returns the most that was resident at once while the service captured, from its start on.
func (s *suite) residentMemory(ctx context.Context) (result sample, err error) {
	err = s.withFull(ctx, func(d *ledgerDir, running *service) error {
		watching, cancel := context.WithCancel(ctx)
		var most int64
		var watch error
		var done sync.WaitGroup
		done.Go(func() { most, watch = mostResident(watching, running.pid) })
		_, err := s.captureAll(ctx, running, d, d.held, loadConnections)
		cancel()
		done.Wait()
		peak, peakErr := memory(running.pid, "VmHWM")
		s.say("  VmRSS under load at most %d MB, VmHWM %d MB", most>>20, peak>>20)
		result.value = float64(most) / (1 << 20)
		return errors.Join(err, watch, peakErr)
	})
	return result, err
}

// mostResident samples VmRSS until ctx ends.
func mostResident(ctx context.Context, pid int) (most int64, err error) {
	ticker := time.NewTicker(samplePeriod)
	defer ticker.Stop()
	for {
		now, err := memory(pid, "VmRSS")
		if err != nil {
			return most, err
		}
		most = max(most, now)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return most, nil
		}
	}
}

func makeDir(path string) error { return os.MkdirAll(path, 0o700) }
