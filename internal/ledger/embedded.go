package ledger

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

const (
	startTimeout = 30 * time.Second // for connections to be taken, once what is stored was recovered
	startPoll    = 100 * time.Millisecond

	// JetStream computes a limit from the machine wherever it is given none. Memory is for the ordered consumers
	// alone; the disk is bounded by its size, and a full one refuses appends with an error.
	maxMemory = 256 << 20
	maxStore  = 1 << 50

	embeddedName = "jobtally-embedded"
	embeddedUser = "jobtally"
	urlFile      = "nats.url"
	portFile     = "nats.port" // of the last run
)

// Embedded is a nats-server in this process, listening on loopback for the operator commands and for consumers.
type Embedded struct {
	URL string // with generated credentials; also in the data directory, mode 0600

	dir      string
	password string
	sync     time.Duration
	options  server.Options
	log      *slog.Logger

	mu      sync.Mutex // guards the two fields below
	server  *server.Server
	failure error // why the server is stopped, for good or until the disk takes writes again; nil while it runs

	doubts   chan error // that the server is sound; it has room for one
	closing  context.Context
	close    context.CancelFunc
	watching sync.WaitGroup
}

// StartEmbedded starts a nats-server that keeps its streams in dir/jetstream. What is appended through the ledger that
// its Open returns is synced to disk as sync says: 0 before every acknowledgement, else in such intervals. The caller
// holds the lock on dir.
func StartEmbedded(dir string, sync time.Duration, log *slog.Logger) (*Embedded, error) {
	store := filepath.Join(dir, "jetstream")
	if err := dropUnborn(store); err != nil {
		return nil, err
	}
	if err := errors.Join(scrubOnce(store), forgetIndexes(store)); err != nil {
		return nil, err
	}
	e := &Embedded{
		password: rand.Text(),
		dir:      dir, sync: sync, log: log, doubts: make(chan error, 1),
		options: server.Options{
			ServerName: embeddedName, Host: "127.0.0.1",
			JetStream: true, StoreDir: store,
			JetStreamMaxMemory: maxMemory, JetStreamMaxStore: maxStore,
			// Each webhook is a consumer, and so is each reader: at the default of 1,000 a stream, webhooks would keep the node from
			// reading its ledger.
			JetStreamLimits: server.JSLimitOpts{DefaultMaxConsumers: -1},
			SyncInterval:    sync,
			NoSigs:          true,
		},
	}
	// One that a killed process left has the port of this server, most likely, and another password.
	if err := os.RemoveAll(e.urlPath()); err != nil {
		return nil, err
	}
	e.closing, e.close = context.WithCancel(context.Background())
	s, err := e.run()
	if err != nil {
		return nil, err
	}
	e.server = s
	if err := e.tellURL(s); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// run starts a server on the store.
func (e *Embedded) run() (*server.Server, error) {
	options, door := e.options, &doorkeeper{e: e} // the server writes into the options
	options.Port, options.CustomClientAuthentication = e.port(), door
	s, err := server.NewServer(&options)
	if err != nil {
		return nil, fmt.Errorf("nats-server: %w", err)
	}
	door.server = s
	if err := door.offer(); err != nil {
		return nil, fmt.Errorf("nats-server: %w", err)
	}
	logger := &serverLog{log: e.log.With("component", "nats-server")}
	s.SetLoggerV2(logger, false, false, false)
	s.Start()
	if err := logger.awaitReady(s); err != nil {
		stop(s)
		return nil, fmt.Errorf("nats-server did not start on %s: %w", options.StoreDir, err)
	}
	return s, nil
}

// port returns the port of the last run, so that consumers find the server where it was, or that it is to be any one.
func (e *Embedded) port() int {
	text, err := os.ReadFile(e.portPath())
	if err != nil {
		return server.RANDOM_PORT
	}
	port, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 16)
	if err != nil || port == 0 {
		return server.RANDOM_PORT
	}
	// The server would say only when it has read its streams that it cannot listen there.
	taken, err := net.Listen("tcp", net.JoinHostPort(e.options.Host, strconv.FormatUint(port, 10)))
	if err != nil {
		e.log.Warn("the port of the NATS server is taken, so it listens on another: consumers need its new address", "port", port, "error", err)
		return server.RANDOM_PORT
	}
	taken.Close()
	return int(port)
}

// tellURL notes where a server listens, and has it listen there again when it is started again.
func (e *Embedded) tellURL(s *server.Server) error {
	port := strconv.Itoa(s.Addr().(*net.TCPAddr).Port)
	if err := os.WriteFile(e.portPath(), []byte(port+"\n"), 0o600); err != nil {
		return err
	}
	u := url.URL{Scheme: "nats", User: url.UserPassword(embeddedUser, e.password), Host: s.Addr().String()}
	e.URL = u.String()
	return os.WriteFile(e.urlPath(), []byte(e.URL+"\n"), 0o600)
}

func (e *Embedded) urlPath() string  { return filepath.Join(e.dir, urlFile) }
func (e *Embedded) portPath() string { return filepath.Join(e.dir, portFile) }

// Open opens the ledger of the server, given a connection to it, as the function Open does, and from then on watches over
// its streams. What is appended through this one is on disk when it is acknowledged, and no decision is recorded on
// what is not. It is called once.
func (e *Embedded) Open(ctx context.Context, nc *nats.Conn) (*Ledger, error) {
	if e.sync == 0 {
		// A process that was killed may have left what was never synced, a creation the entries of its directories.
		if err := errors.Join(syncTree(e.options.StoreDir), syncFile(e.dir, (*os.File).Sync)); err != nil {
			return nil, fmt.Errorf("sync the data directory: %w", err)
		}
	}
	l, err := openLedger(ctx, nc, e)
	if err == nil {
		e.watching.Go(func() { e.watch(l.streamNames()) })
	}
	return l, err
}

// blocks returns the directory in which the server keeps the messages of a stream.
func (e *Embedded) blocks(stream string) string {
	return filepath.Join(e.options.StoreDir, "jetstream", server.DEFAULT_GLOBAL_ACCOUNT, "streams", stream, "msgs")
}

// Sync returns once what the server wrote of a stream that lies beside the ledger is on disk, with its configuration. Where the
// server is to sync in intervals it leaves that to the server.
func (e *Embedded) Sync(stream string) error {
	if e.sync != 0 {
		return nil
	}
	dir := filepath.Dir(e.blocks(stream))
	return errors.Join(syncTree(dir), syncFile(filepath.Dir(dir), (*os.File).Sync))
}

// IsEmbedded says whether a connection leads to the server within another jobtally. What is acknowledged there is on
// disk only when it is decided.
func IsEmbedded(nc *nats.Conn) bool { return nc.ConnectedServerName() == embeddedName }

// EmbeddedURL returns the URL of the server that runs on a data directory, as StartEmbedded left it there.
func EmbeddedURL(dir string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, urlFile))
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(text)), nil
}

// Connect connects to the server within the process, and again whenever that was started again.
func (e *Embedded) Connect(name string, log *slog.Logger) (*nats.Conn, error) {
	return connect(e.URL, name, log, nats.InProcessServer(e))
}

// InProcessConn returns a connection to the server that runs now.
func (e *Embedded) InProcessConn() (net.Conn, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failure != nil {
		return nil, e.failure
	}
	return e.server.InProcessConn()
}

// Close stops the server and waits until its files are closed. Where the disk fails it, the next start takes longer, and
// loses nothing.
func (e *Embedded) Close() {
	e.close()
	e.watching.Wait()
	os.Remove(e.urlPath()) // the next start removes one that is left
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failure != nil {
		return // it is stopped, and not in order
	}
	stop(e.server)
	e.failure = errClosed
	if err := trustIndexes(e.options.StoreDir); err != nil {
		e.log.Warn("the NATS server was not stopped in order", "error", err)
	}
}

var errClosed = errors.New("the NATS server is stopped")

func stop(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
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
