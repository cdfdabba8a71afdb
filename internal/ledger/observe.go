package ledger

import (
	"os"
	"time"
)

// Observer is told what a ledger does. Functions that are nil are not called. They are called concurrently, by whoever
// everybody else waits for: they are quick.
type Observer struct {
	// Grouped is told of each group of requests that is about to be made durable together, with their number.
	Grouped func(requests int)
	// Synced is told of each fsync of a stream of requests, with how long it took. It is told of none where the server syncs.
	Synced func(took time.Duration)
}

// Observe has an observer told from now on. It is for before the first Append.
func (l *Ledger) Observe(o Observer) {
	for _, a := range l.appenders {
		a.grouped = o.Grouped
		if a.syncer != nil && o.Synced != nil {
			a.syncer.tell(o.Synced)
		}
	}
}

// tell has synced told of each fsync that works.
func (s *syncer) tell(synced func(time.Duration)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fsync := s.fsync
	s.fsync = func(f *os.File) error {
		began := time.Now()
		err := fsync(f)
		if err == nil {
			synced(time.Since(began))
		}
		return err
	}
}
