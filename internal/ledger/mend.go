package ledger

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"jobtally/internal/events"
)

const (
	watchEvery = time.Second
	probeSize  = 4 << 20 // bytes that must fit on the disk before the server is started again
	probeFile  = "probe"
)

// watch stops a server that cannot write one of the streams, and starts it again once the disk takes writes.
// nats-server keeps the error of a failed write for ever, and answers nobody: an append would wait for its time-out each
// time.
func (e *Embedded) watch(streams map[string]bool) {
	ticks := time.NewTicker(watchEvery)
	defer ticks.Stop()
	for {
		var cause error
		select {
		case <-ticks.C:
			cause = e.health(streams)
			e.expel()
		case cause = <-e.doubts:
		case <-e.closing.Done():
			return
		}
		if cause != nil {
			e.mend(cause, ticks.C)
		}
	}
}

// doubt has the server stopped and started again, for a reason that it does not know itself.
func (e *Embedded) doubt(cause error) {
	select {
	case e.doubts <- cause:
	default: // one is as good as two
	}
}

// health returns why the server does not keep what it is sent, or nil. What else lies among its streams is not ours.
func (e *Embedded) health(streams map[string]bool) error {
	return sickness(e.server.Healthz(&server.HealthzOptions{Details: true}).Errors, streams)
}

// sickness returns what of the findings keeps the server from writing the streams. Whether it takes connections is looked at
// for a millisecond (nats-server 2.15.2), in which a machine that is busy may not come to it.
func sickness(findings []server.HealthzError, streams map[string]bool) error {
	for _, found := range findings {
		if found.Type != server.HealthzErrorConn && (found.Stream == "" || streams[found.Stream]) {
			return errors.New(found.Error)
		}
	}
	return nil
}

// mend stops the server, and starts it again once the disk takes writes.
func (e *Embedded) mend(cause error, ticks <-chan time.Time) {
	e.log.Error("the ledger cannot be written; trying until it can", "error", cause)
	e.fail(cause)
	stop(e.server)
	for {
		select {
		case <-ticks:
		case <-e.closing.Done():
			return
		}
		if err := e.restart(); err != nil {
			e.fail(err)
			continue
		}
		e.log.Info("the ledger can be written again")
		return
	}
}

// restart starts the server if the disk takes writes.
func (e *Embedded) restart() error {
	if err := probe(e.blocks(events.Requests.Name(0))); err != nil {
		return err
	}
	if err := scrub(e.options.StoreDir); err != nil {
		return err
	}
	s, err := e.run()
	if err != nil {
		return err
	}
	if err := e.tellURL(s); err != nil {
		stop(s)
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.server, e.failure = s, nil
	select {
	case <-e.doubts: // it was of the server that was stopped
	default:
	}
	return nil
}

func (e *Embedded) fail(cause error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.failure = fmt.Errorf("the ledger cannot be written: %w", cause)
}

// Failure returns why the server is stopped, for good or until the disk takes writes again; nil while it runs.
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
