package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
)

const (
	reconnectWait = 250 * time.Millisecond
	// pingEvery is how often a server is asked for a sign of life. The client library gives up one that owes three: with its own
	// interval, of minutes, whoever is connected to a server that hangs, or to a machine that is gone, would wait that long beside
	// servers that answer.
	pingEvery = 4 * time.Second
)

// Connection is a connection to a nats-server: nobody but this package needs the client library.
type Connection = nats.Conn

// errURL repeats nothing of a URL that cannot be read: what is wrong with it may be its password.
var errURL = errors.New("the URL of the NATS server cannot be read: it is nats://HOST:PORT or nats://USER:PASSWORD@HOST:PORT, several apart by commas; in a password, write each special character as % and two digits")

// errScheme is the error of a URL of another protocol, or of a scheme that is misspelt: the client library would take it for nats,
// and so send a password in the clear that was to go over tls.
var errScheme = errors.New("the URL of the NATS server begins with none of nats://, tls://, ws:// and wss://")

// Connect connects to a nats-server, and keeps connecting again when the connection is lost. What is published
// meanwhile fails at once instead of being buffered: nobody may be answered on the strength of a buffer. No error and
// no line of the log has the password.
//
// Answers come under _INBOX_ and the name of the user, where the URL names one: so a server can keep one user from
// reading what another is answered.
func Connect(server, name string, log *slog.Logger) (*nats.Conn, error) {
	return connect(server, name, log)
}

func connect(server, name string, log *slog.Logger, options ...nats.Option) (*nats.Conn, error) {
	urls, err := parse(server)
	if err != nil {
		return nil, err
	}
	if user := userOf(urls[0]); inToken.MatchString(user) {
		options = append(options, nats.CustomInboxPrefix("_INBOX_"+user))
	}
	nc, err := nats.Connect(server, append(options, nats.Name(name),
		nats.MaxReconnects(-1), nats.ReconnectWait(reconnectWait), nats.ReconnectBufSize(-1), nats.Timeout(ackTimeout),
		nats.PingInterval(pingEvery),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Warn("connection to nats lost", "error", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) { log.Info("connected to nats again", "addr", nc.ConnectedAddr()) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { log.Warn("nats", "error", err) }),
	)...)
	if err != nil {
		return nil, fmt.Errorf("connect to the NATS server at %s: %w", redacted(urls[0]), err)
	}
	return nc, nil
}

// inToken are the names that can be part of a subject.
var inToken = regexp.MustCompile(`^[0-9A-Za-z_-]+$`)

// parse reads URLs apart by commas, as the client library does.
func parse(servers string) (urls []*url.URL, err error) {
	for text := range strings.SplitSeq(servers, ",") {
		if text = strings.TrimSpace(text); !strings.Contains(text, "://") {
			text = "nats://" + text
		}
		u, err := url.Parse(text)
		if err != nil || u.Host == "" || strings.Contains(u.Path+u.RawQuery+u.Fragment, "@") {
			return nil, errURL
		}
		if !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			return nil, errScheme
		}
		urls = append(urls, u)
	}
	return urls, nil
}

// userOf returns the name of the user in a URL. One without a password is a token, and secret.
func userOf(u *url.URL) string {
	if _, ok := u.User.Password(); !ok {
		return ""
	}
	return u.User.Username()
}

// redacted returns a URL without its secret.
func redacted(u *url.URL) string {
	shown := *u
	if shown.User != nil && userOf(u) == "" {
		shown.User = url.User("xxxxx")
	}
	return shown.Redacted()
}

// asking bounds a question. One that is lost with a server of a cluster is never answered: who starts, say, would wait for all the
// time that the start may take.
func asking(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, ackTimeout)
}

// heed returns a context that ends when the server says that the user of the connection lacks a right. A server does not
// answer what it does not permit, it tells the connection: whoever asked would wait until their time is out.
func heed(ctx context.Context, nc *nats.Conn) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	told := nc.ErrorHandler()
	nc.SetErrorHandler(func(nc *nats.Conn, sub *nats.Subscription, err error) {
		if errors.Is(err, nats.ErrPermissionViolation) {
			cancel(lacksRight(nc, err))
			return
		}
		told(nc, sub, err)
	})
	return ctx, func() { nc.SetErrorHandler(told); cancel(nil) }
}

// Heeding does something with a context that ends when the server says that the user of the connection lacks a right, which is
// the error then. Nobody else uses the connection meanwhile.
func Heeding(ctx context.Context, nc *Connection, do func(context.Context) error) error {
	ctx, stop := heed(ctx, nc)
	defer stop()
	return because(ctx, do(ctx))
}

// because returns what a context of heed ended with in the place of the error that came of it.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, nats.ErrPermissionViolation) {
		return cause
	}
	return err
}

// explain adds to the error of a question that was not answered that the user lacks the right to ask under its subject, or
// to be answered, where the server said so.
func explain(nc *nats.Conn, subject string, err error) error {
	last := nc.LastError()
	if !errors.Is(last, nats.ErrPermissionViolation) || !unanswered(err) ||
		!strings.Contains(last.Error(), subject) && !strings.Contains(last.Error(), "Subscription") {
		return err
	}
	return fmt.Errorf("%w: %w", lacksRight(nc, last), err)
}

func unanswered(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) || errors.Is(err, jetstream.ErrAsyncPublishTimeout)
}

func lacksRight(nc *nats.Conn, violation error) error {
	user := "there is none in its URL"
	if urls, err := parse(nc.ConnectedUrl()); err == nil && userOf(urls[0]) != "" {
		user = userOf(urls[0])
	}
	return fmt.Errorf("the NATS user (%s) lacks a right: %w", user, violation)
}

// MayAppend returns nil if the user of the connection may append to a stream, and otherwise why not. Nothing is recorded:
// the server is asked to append to a stream that is not this one, which it refuses.
func (l *Ledger) MayAppend(ctx context.Context, stream events.Stream) error {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	ctx, stop := heed(ctx, l.nc)
	defer stop()
	for _, subject := range stream.Subjects(0) {
		m := nats.NewMsg(strings.TrimSuffix(subject, ">") + "~.none")
		m.Header.Set(jetstream.ExpectedStreamHeader, "none")
		if _, err := l.nc.RequestMsgWithContext(ctx, m); err != nil {
			return fmt.Errorf("%w: append to %s: %w", events.ErrUnavailable, stream, because(ctx, err))
		}
	}
	return nil
}
