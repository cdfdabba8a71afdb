package projections

import (
	"database/sql"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"jobtally/internal/events"
)

// captures are the decisions on one account and n captures into it.
func captures(t testing.TB, n int) []events.Decision {
	t.Helper()
	requests := []*events.Request{request("demo", "open", openWith(-1))}
	for i := range n {
		url := fmt.Sprintf("https://example.com/%d", i)
		requests = append(requests, request("demo", url, captureOf(november, url)))
	}
	decisions, _ := decideAll(recorded(t, requests...))
	return decisions
}

func logSize(t testing.TB, db *DB) int64 {
	t.Helper()
	info, err := os.Stat(db.path + "-wal")
	ok(t, err)
	return info.Size()
}

// beginRead begins a read transaction and holds it until end is called.
func beginRead(t testing.TB, db *DB) (end func()) {
	t.Helper()
	tx := must[*sql.Tx](t)(db.reading.Begin())
	var n int
	ok(t, tx.QueryRow("SELECT count(*) FROM partitions").Scan(&n))
	return func() { ok(t, tx.Rollback()) }
}

// Readers that overlap keep SQLite from ever writing its log from the start again. It is emptied all the same.
func TestLogIsBoundedUnderConstantReaders(t *testing.T) {
	t.Parallel()
	const limit, batch = 1 << 20, 50
	db := newDB(t)
	db.logLimit = limit
	stop, readers := make(chan struct{}), sync.WaitGroup{}
	for range 3 {
		readers.Go(func() {
			for end := beginRead(t, db); ; {
				next := beginRead(t, db) // before the other one ends: at no time is there no reader
				end()
				end = next
				select {
				case <-stop:
					end()
					return
				default:
				}
			}
		})
	}
	decisions, largest, written := captures(t, 3000), int64(0), int64(0)
	for last := int64(0); len(decisions) > 0; decisions = decisions[min(batch, len(decisions)):] {
		db.logHeld = time.Time{} // as if logPause had passed since a reader held it
		ok(t, db.Apply(0, decisions[:min(batch, len(decisions))]))
		size := logSize(t, db)
		largest = max(largest, size)
		written += max(0, size-last)
		last = size
	}
	close(stop)
	readers.Wait()
	if largest > 3*limit {
		t.Errorf("the log grew to %d bytes, want about %d", largest, limit)
	}
	if written < 6*limit {
		t.Errorf("only %d bytes were written: that would not have shown it", written)
	}
}

// Somebody who reads for long keeps the log from being emptied, and nobody from folding. It shrinks once he ended.
func TestLogShrinksOnceALongReaderEnds(t *testing.T) {
	t.Parallel()
	db, decisions := newDB(t), captures(t, 1000)
	db.logLimit = 1 << 16
	end := beginRead(t, db)
	began, tries := time.Now(), map[time.Time]bool{}
	for i := 0; i < 900; i += 50 {
		ok(t, db.Apply(0, decisions[i:i+50]))
		tries[db.logHeld] = true
	}
	held := logSize(t, db)
	if held < 10*db.logLimit {
		t.Fatalf("the log has only %d bytes: nothing held it", held)
	}
	delete(tries, time.Time{})
	if most := 1 + int(time.Since(began)/logPause); len(tries) == 0 || len(tries) > most {
		t.Errorf("folding stood still %d times, want 1 to %d", len(tries), most)
	}
	end()
	db.logHeld = time.Time{} // as if logPause had passed
	ok(t, db.Apply(0, decisions[900:950]))
	if size := logSize(t, db); size != 0 {
		t.Errorf("the log has %d bytes, had %d", size, held)
	}
	ok(t, db.Apply(0, decisions[950:]))
}
