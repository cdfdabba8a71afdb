package ledger

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	watchEvery = time.Second
	probeSize  = 4 << 20 // bytes that must fit on the disk before the server is started again
	probeFile  = "probe"
)

// watch stops a server that cannot write, and starts it again once the disk takes writes. nats-server keeps the error of
// a failed write for ever, and answers nobody: an append would wait for its time-out each time.
func (e *Embedded) watch() {
	ticks := time.NewTicker(watchEvery)
	defer ticks.Stop()
	var before error
	for {
		select {
		case <-ticks.C:
		case <-e.closing.Done():
			return
		}
		err := e.health()
		if err != nil && before != nil { // twice, for a stream that is just being created counts as lost
			e.mend(err, ticks.C)
			err = nil
		}
		before = err
	}
}

// health returns why the server does not keep what it is sent, or nil.
func (e *Embedded) health() error {
	health := e.server.Healthz(&server.HealthzOptions{})
	if health.Error == "" {
		return nil
	}
	return errors.New(health.Error)
}

// mend stops the server, and starts it again once the disk takes writes.
func (e *Embedded) mend(cause error, ticks <-chan time.Time) {
	e.fail(fmt.Errorf("the ledger cannot be written: %w", cause))
	e.log.Error("the ledger cannot be written; trying until it can", "error", cause)
	stop(e.server)
	for {
		select {
		case <-ticks:
		case <-e.closing.Done():
			return
		}
		err := probe(e.dir)
		if err != nil {
			e.fail(fmt.Errorf("the ledger cannot be written: %w", err))
			continue
		}
		s, err := e.run()
		if err != nil {
			e.fail(err)
			continue
		}
		e.mu.Lock()
		e.server, e.failure = s, nil
		e.mu.Unlock()
		e.log.Info("the ledger can be written again")
		return
	}
}

func (e *Embedded) fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.failure = err
}

// Failure returns why the server is stopped, until the disk takes writes again; nil while it runs.
func (e *Embedded) Failure() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.failure
}

// probe returns nil if the disk of a directory takes writes.
func probe(dir string) error {
	path := filepath.Join(dir, probeFile)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, probeSize))
	return errors.Join(err, f.Sync(), f.Close(), os.Remove(path))
}
