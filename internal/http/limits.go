package http

import (
	"errors"
	"log/slog"
	nethttp "net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// Limits bound what one client may take of the API. A client is a token, and also where it calls from: an IPv4 address, or
// an IPv6 network of 64 bits. 0 is no limit.
type Limits struct {
	// Requests a second, on the average of ten seconds.
	RequestsPerSecond, RequestsPerSecondPerAddress uint
	// Requests that are being answered at the same time.
	RequestsAtOnce, RequestsAtOncePerAddress uint
	// Streams of events of one token at the same time. They are not among the requests at once.
	StreamsAtOnce uint
	// Connections that are open at the same time, for LimitConnections.
	Connections, ConnectionsPerAddress uint
	// Loopback says whether clients on this machine are held to all but Connections too.
	Loopback bool
}

// limiter holds calls to the limits, and remembers who made them.
type limiter struct {
	proxies      networks
	loopback     bool // whether clients on this machine are limited
	byAddress    *gate[netip.Addr]
	byToken      *gate[events.Digest] // by the hash that a token has been found to match
	streams      *gate[events.Digest] // likewise
	log          *slog.Logger
	proxyWarning sync.Once
}

func newLimiter(cfg Config) *limiter {
	return &limiter{
		proxies: cfg.TrustedProxies, loopback: cfg.Limits.Loopback, log: cfg.Log,
		byAddress: newGate[netip.Addr](cfg.Limits.RequestsPerSecondPerAddress, cfg.Limits.RequestsAtOncePerAddress, cfg.gateNow),
		byToken:   newGate[events.Digest](cfg.Limits.RequestsPerSecond, cfg.Limits.RequestsAtOnce, cfg.gateNow),
		streams:   newGate[events.Digest](0, cfg.Limits.StreamsAtOnce, cfg.gateNow),
	}
}

// failureCost is what a failed authentication takes of what an address may send, in requests: whoever guesses tokens, or
// goes on with one that is revoked, is slowed down to a twentieth.
const failureCost = 20

// limited admits a call by where it comes from, before anything of it is looked at.
func (l *limiter) limited(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if l.spares(c) {
			l.warnOfProxy(c)
			return next(c)
		}
		visitor, err := l.byAddress.enter(clientOf(callOf(c).address))
		if err != nil {
			return err
		}
		cost := &callOf(c).cost
		defer func() { l.byAddress.leave(visitor, *cost) }()
		callOf(c).byAddress = visitor
		err = next(c)
		if failedAuthentication(err) {
			*cost = failureCost - 1
		}
		return err
	}
}

// admitted calls next for a token that is known, unless there are too many requests of it.
func (l *limiter) admitted(c echo.Context, held capture.Token, next func(echo.Context, capture.Token) error) error {
	if l.spares(c) {
		return next(c, held)
	}
	visitor, err := l.byToken.enter(held.SecretHash)
	if err != nil {
		return err
	}
	defer func() { l.byToken.leave(visitor, callOf(c).cost) }()
	callOf(c).byToken = visitor
	return next(c, held)
}

// room has a call with a large body count as that many requests at once as would fill the memory likewise, until it leaves.
func (l *limiter) room(c echo.Context) (leave func(), err error) {
	k, more := callOf(c), bodiesIn(c.Request())-1
	if err := l.byAddress.widen(k.byAddress, more); err != nil {
		return nil, err
	}
	if err := l.byToken.widen(k.byToken, more); err != nil {
		l.byAddress.narrow(k.byAddress, more)
		return nil, err
	}
	return func() { l.byAddress.narrow(k.byAddress, more); l.byToken.narrow(k.byToken, more) }, nil
}

// streaming admits a stream of events. While it lasts it is a stream of its token, and not a request at once: else those who
// look on would keep those out who capture.
func (l *limiter) streaming(c echo.Context) (leave func(), err error) {
	if l.spares(c) {
		return func() {}, nil
	}
	k := callOf(c)
	stream, err := l.streams.enter(k.token.SecretHash)
	if err != nil {
		return nil, tooMany(codeTooManyStreams, retryEvents)
	}
	l.byAddress.narrow(k.byAddress, 1)
	l.byToken.narrow(k.byToken, 1)
	return func() {
		l.byAddress.narrow(k.byAddress, -1)
		l.byToken.narrow(k.byToken, -1)
		l.streams.leave(stream, 0)
	}, nil
}

// bodiesIn returns how many bodies of the usual size are in that of a batch, of which the size may not be told.
func bodiesIn(r *nethttp.Request) int {
	const most = maxBatchBytes / maxBodyBytes
	if r.ContentLength < 0 {
		return most
	}
	return int(min(max(1, (r.ContentLength+maxBodyBytes-1)/maxBodyBytes), most))
}

// spares says whether a call is not held to the limits: it comes from this machine, and no proxy had to say so, for one that
// passes on what clients write would let anybody be spared.
func (l *limiter) spares(c echo.Context) bool {
	return !l.loopback && callOf(c).address.IsLoopback() && !l.proxies.forwarded(c.Request())
}

// warnOfProxy tells once that calls which nothing limits come from elsewhere, by a proxy on this machine that is not trusted.
func (l *limiter) warnOfProxy(c echo.Context) {
	if len(c.Request().Header[headerForwardedFor]) == 0 {
		return
	}
	l.proxyWarning.Do(func() {
		l.log.Warn("a proxy on this machine is not trusted, and so its clients are not limited; see --trusted-proxies",
			"address", callOf(c).address.String())
	})
}

// failedAuthentication says whether a call failed because its token is not good. Who sends none guesses none.
func failedAuthentication(err error) bool {
	var p *problem
	return errors.As(err, &p) && p.Status == nethttp.StatusUnauthorized && p.Code != codeTokenMissing
}

// tooMany returns the problem of a client that has to wait.
func tooMany(of code, wait time.Duration) *problem {
	p := newProblem(of, "")
	p.retryAfter = wait
	return p
}
