package projections

import (
	"context"
	"fmt"
	"os"
	"time"
)

// SQLite writes its log from the start again only when nobody reads in it at that moment. Under readers that overlap
// that moment never comes, and the log grows without end.
const (
	// logLimit is the size of the write-ahead log, in bytes, from which on Apply empties it.
	logLimit = 64 << 20
	// logPause is how long Apply leaves a log alone that it could not empty, because somebody reads for long.
	logPause = time.Second
	// logPatience is how long it waits for readers to end, each time. Those that begin meanwhile need no log.
	logPatience = 50 * time.Millisecond
)

// boundLog empties the write-ahead log if it is too large, or has what was erased. The caller is Apply, past the commit
// point and after it handed out the decisions. So no error matters to what is folded: what stands in the way of emptying
// the log is gone at a later try, or is found by the next commit.
func (db *DB) boundLog() {
	info, err := os.Stat(db.path + "-wal")
	scrubs := db.scrubDue && !time.Now().Before(db.scrubAfter)
	if err != nil || info.Size() < db.logLimit && !db.scrubDue {
		return
	}
	if (scrubs || info.Size() >= db.logLimit) && time.Since(db.logHeld) >= logPause {
		db.checkpoint()
	}
	if db.scrubDue {
		db.scrubLater()
	}
}

// checkpoint empties the log, and then scrubs the file if that is due.
func (db *DB) checkpoint() {
	ctx, held := context.Background(), true
	db.writer.ExecContext(ctx, busyTimeoutPragma(logPatience))
	err := db.writer.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&held, new(int), new(int))
	db.writer.ExecContext(ctx, busyTimeoutPragma(busyTimeout))
	if err != nil || held {
		db.logHeld = time.Now()
		return
	}
	if db.scrubDue && !time.Now().Before(db.scrubAfter) {
		db.scrub()
	}
}

func busyTimeoutPragma(d time.Duration) string {
	return fmt.Sprintf("PRAGMA busy_timeout = %d", d.Milliseconds())
}
