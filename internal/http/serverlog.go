package http

import (
	"bytes"
	"context"
	"log/slog"
)

// serverLog is where net/http writes what goes wrong below the API.
type serverLog struct{ log *slog.Logger }

// handshakeFailed begins what net/http writes of a client that does not speak TLS, or not to us. On the internet those
// are scanners: whoever opens connections could fill the log.
var handshakeFailed = []byte("http: TLS handshake error")

// Write logs a line at WARN, or at DEBUG when it tells of a client only.
func (l serverLog) Write(line []byte) (int, error) {
	level := slog.LevelWarn
	if bytes.HasPrefix(line, handshakeFailed) {
		level = slog.LevelDebug
	}
	l.log.Log(context.Background(), level, string(bytes.TrimSpace(line)))
	return len(line), nil
}
