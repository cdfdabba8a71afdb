package ledger

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

const (
	startTimeout = 30 * time.Second // a large ledger whose index was lost is scanned whole at start
	startPoll    = 100 * time.Millisecond

	// JetStream computes a limit from the machine wherever it is given none. Memory is for the ordered consumers
	// alone; the disk is bounded by its size, and a full one refuses appends with an error.
	maxMemory = 256 << 20
	maxStore  = 1 << 50

	embeddedUser = "jobtally"
	urlFile      = "nats.url"
)

// Embedded is a nats-server in this process, listening on loopback for the operator commands.
type Embedded struct {
	URL string // with generated credentials; also in the data directory, mode 0600

	server  *server.Server
	urlPath string
}

// StartEmbedded starts a nats-server that keeps its streams in dir/jetstream and syncs them to disk as sync says:
// 0 before every acknowledgement, else in such intervals. The caller holds the lock on dir.
func StartEmbedded(dir string, sync time.Duration, log *slog.Logger) (*Embedded, error) {
	store := filepath.Join(dir, "jetstream")
	if err := dropUnborn(store); err != nil {
		return nil, err
	}
	password := rand.Text()
	opts := &server.Options{
		ServerName: "jobtally", Host: "127.0.0.1", Port: server.RANDOM_PORT,
		CustomClientAuthentication: credentials{password},
		JetStream:                  true, StoreDir: store,
		JetStreamMaxMemory: maxMemory, JetStreamMaxStore: maxStore,
		SyncAlways: sync == 0, SyncInterval: sync,
		NoSigs: true,
	}
	s, err := server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("nats-server: %w", err)
	}
	logger := &serverLog{log: log.With("component", "nats-server")}
	s.SetLoggerV2(logger, false, false, false)
	s.Start()
	if err := logger.awaitReady(s); err != nil {
		s.Shutdown()
		return nil, fmt.Errorf("nats-server did not start on %s: %w", opts.StoreDir, err)
	}
	u := url.URL{Scheme: "nats", User: url.UserPassword(embeddedUser, password), Host: s.Addr().String()}
	e := &Embedded{URL: u.String(), server: s, urlPath: filepath.Join(dir, urlFile)}
	if err := os.WriteFile(e.urlPath, []byte(e.URL+"\n"), 0o600); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// credentials let in whoever knows the password of this run.
type credentials struct{ password string }

// Check compares in a time that does not depend on the answer.
func (c credentials) Check(client server.ClientAuthentication) bool {
	given := client.GetOpts()
	return given.Username == embeddedUser && subtle.ConstantTimeCompare([]byte(given.Password), []byte(c.password)) == 1
}

// EmbeddedURL returns the URL of the server that runs on a data directory, as StartEmbedded left it there.
func EmbeddedURL(dir string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, urlFile))
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(text)), nil
}

// Connect connects to the server within the process.
func (e *Embedded) Connect(name string, log *slog.Logger) (*nats.Conn, error) {
	return connect(e.URL, name, log, nats.InProcessServer(e.server))
}

// Close stops the server and waits until its files are closed.
func (e *Embedded) Close() {
	os.Remove(e.urlPath) // a stale one is harmless: its port answers no more
	e.server.Shutdown()
	e.server.WaitForShutdown()
}

// serverLog passes the server's log on. Where the stock logger ends the process on a fatal error, this one
// remembers the error for StartEmbedded to return.
type serverLog struct {
	log *slog.Logger

	mu        sync.Mutex
	lastFatal error
}

// awaitReady returns nil once the server takes connections, and otherwise why it does not.
func (l *serverLog) awaitReady(s *server.Server) error {
	for start := time.Now(); !s.ReadyForConnections(startPoll); {
		if err := l.fatal(); err != nil {
			return err
		}
		if time.Since(start) > startTimeout {
			return errors.New("not ready in time")
		}
	}
	return nil
}

func (l *serverLog) fatal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lastFatal
}

// Fatalf records the error.
func (l *serverLog) Fatalf(format string, v ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lastFatal = fmt.Errorf(format, v...)
	l.log.Error(l.lastFatal.Error())
}

// Noticef logs at debug level: what the server says in passing is of no use to whoever runs jobtally.
func (l *serverLog) Noticef(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }

// Warnf logs a warning.
func (l *serverLog) Warnf(format string, v ...any) { l.log.Warn(fmt.Sprintf(format, v...)) }

// Errorf logs an error.
func (l *serverLog) Errorf(format string, v ...any) { l.log.Error(fmt.Sprintf(format, v...)) }

// Debugf is never called: the server's debug flag is off.
func (l *serverLog) Debugf(string, ...any) {}

// Tracef is never called: the server's trace flag is off.
func (l *serverLog) Tracef(string, ...any) {}
