package http

import (
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// refusalsEvery is how often the log tells of refused connections.
const refusalsEvery = time.Minute

// LimitConnections returns a listener that closes at once what is beyond the limits on connections: an answer would take
// what the limit is to spare, under TLS a whole handshake. Trusted proxies, and clients on this machine unless the limits
// hold for them, may take all there are.
func LimitConnections(inner *net.TCPListener, cfg Config) net.Listener {
	cfg = cfg.withDefaults()
	return &listener{TCPListener: inner, limits: cfg.Limits, proxies: cfg.TrustedProxies, log: cfg.Log, open: map[netip.Addr]uint{}}
}

type listener struct {
	*net.TCPListener
	limits  Limits
	proxies networks
	log     *slog.Logger

	mu      sync.Mutex
	all     uint
	open    map[netip.Addr]uint // connections of each client that has any
	refused int                 // since told
	told    time.Time
}

// Accept returns the next connection that is within the limits.
func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptTCP()
		if err != nil {
			return nil, err
		}
		address := addressOf(conn.RemoteAddr().String())
		if l.enter(address) {
			return &connection{TCPConn: conn, leave: sync.OnceFunc(func() { l.leave(address) })}, nil
		}
		_ = conn.SetLinger(0) // nothing is kept of it, not even for those who wait for its end
		_ = conn.Close()
	}
}

func (l *listener) enter(address netip.Addr) bool {
	client := clientOf(address)
	l.mu.Lock()
	defer l.mu.Unlock()
	within := l.limits.Connections == 0 || l.all < l.limits.Connections
	if most := l.limits.ConnectionsPerAddress; most > 0 && l.open[client] >= most && !l.spares(address) {
		within = false
	}
	if !within {
		l.tell(address)
		return false
	}
	l.all++
	l.open[client]++
	return true
}

func (l *listener) leave(address netip.Addr) {
	client := clientOf(address)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.open[client]--; l.open[client] == 0 {
		delete(l.open, client)
	}
}

func (l *listener) spares(address netip.Addr) bool {
	return address.IsLoopback() && !l.limits.Loopback || l.proxies.contain(address)
}

// tell logs from time to time that connections are refused, and where the last one came from.
func (l *listener) tell(address netip.Addr) {
	l.refused++
	if now := time.Now(); now.Sub(l.told) >= refusalsEvery {
		l.log.Warn("connections beyond the limits are closed", "closed", l.refused, "last_address", address.String(), "open", l.all,
			"max_connections", l.limits.Connections, "max_connections_per_address", l.limits.ConnectionsPerAddress)
		l.refused, l.told = 0, now
	}
}

// connection tells its listener when it is closed.
type connection struct {
	*net.TCPConn
	leave func()
}

// Close closes the connection, and makes room for another.
func (c *connection) Close() error {
	c.leave()
	return c.TCPConn.Close()
}
