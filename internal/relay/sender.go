package relay

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"time"

	"jobtally/internal/webhook"
)

const (
	sendTimeout     = 15 * time.Second // of an attempt, from looking up the name to the end of the answer
	connectTimeout  = 10 * time.Second
	answerAtMost    = 64 << 10 // bytes of an answer that are read: it says nothing, but its connection can be used again
	headersAtMost   = 32 << 10
	idleConnections = 256
	idlePerHost     = 4
	idleAtMost      = 90 * time.Second
	retryAfterMost  = 24 * time.Hour
	errorAtMost     = 200 // bytes
	userAgent       = "jobtally/1"
)

// sender sends signed messages to URLs. What is not public it reaches only where the guard says so.
type sender struct {
	guard guard
	// Over plain HTTP only what the operator allows is reached: that is a transport of its own.
	secure, plain *http.Transport
	timeout       time.Duration
	now           func() time.Time
}

func newSender(cfg Config) *sender {
	s := &sender{guard: guard{cfg.Allow}, timeout: cfg.timeout, now: cfg.Now}
	s.secure, s.plain = transport(cfg, s.guard.mayReach), transport(cfg, s.guard.allows)
	return s
}

func transport(cfg Config, may func(netip.Addr) bool) *http.Transport {
	dialer := &net.Dialer{Timeout: connectTimeout, Control: control(may), Resolver: cfg.resolver}
	return &http.Transport{
		Proxy:       nil, // none of the environment: it would connect in our place, wherever it was told
		DialContext: dialer.DialContext, TLSClientConfig: &tls.Config{RootCAs: cfg.RootCAs, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2: true, TLSHandshakeTimeout: connectTimeout, DisableCompression: true,
		MaxIdleConns: idleConnections, MaxIdleConnsPerHost: idlePerHost, IdleConnTimeout: idleAtMost, MaxResponseHeaderBytes: headersAtMost,
	}
}

func (s *sender) close() {
	s.secure.CloseIdleConnections()
	s.plain.CloseIdleConnections()
}

// outgoing is a message to an endpoint.
type outgoing struct {
	id           string // the webhook-id
	body         []byte
	redelivering bool
}

// answer is what an endpoint made of a message.
type answer struct {
	status     int           // 0 where there was none
	failure    string        // in words; empty where it was accepted
	retryAfter time.Duration // as the endpoint asked for, counted from at; or 0
	at         time.Time
	took       time.Duration
}

func (a *answer) accepted() bool { return a.failure == "" }

// send sends a message once, and returns within the timeout.
func (s *sender) send(ctx context.Context, e *webhook.Endpoint, m *outgoing) (a answer) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	a.at = s.now()
	began := time.Now()
	defer func() { a.took = time.Since(began) }()
	request, err := s.request(ctx, e, m, a.at)
	if errors.Is(err, errUnsigned) {
		a.failure = "it has no secret that is valid: make another"
		return a
	}
	if err != nil {
		a.failure = "its URL cannot be used: register another"
		return a
	}
	transport := s.secure
	if request.URL.Scheme == "http" {
		transport = s.plain
	}
	response, err := transport.RoundTrip(request) // which follows no redirect
	if err != nil {
		a.failure = s.explain(err, request.URL)
		return a
	}
	defer response.Body.Close()
	answered := s.now()
	a.status = response.StatusCode
	if a.status != http.StatusSwitchingProtocols { // whose body is the connection, and ends with no context
		io.CopyN(io.Discard, response.Body, answerAtMost) // an answer that is cut short says as much
	}
	if rest := retryAfter(response.Header, answered); rest > 0 {
		a.retryAfter = rest + max(0, answered.Sub(a.at))
	}
	a.failure = explainStatus(a.status)
	return a
}

func (s *sender) request(ctx context.Context, e *webhook.Endpoint, m *outgoing, at time.Time) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL, bytes.NewReader(m.body))
	if err != nil {
		return nil, err
	}
	signature, err := sign(e.Secrets, m.id, at, m.body)
	if err != nil {
		return nil, err
	}
	request.Header = http.Header{
		"Content-Type": {"application/json"}, "User-Agent": {userAgent},
		"Webhook-Id": {m.id}, "Webhook-Timestamp": {strconv.FormatInt(at.Unix(), 10)}, "Webhook-Signature": {signature},
	}
	if m.redelivering {
		request.Header.Set("Webhook-Redelivery", "true")
	}
	return request, nil
}

// explainStatus says what is wrong with a status, or nothing.
func explainStatus(status int) string {
	switch {
	case status >= 200 && status < 300:
		return ""
	case status >= 300 && status < 400:
		return fmt.Sprintf("it answered %d: redirects are not followed; register the URL that it leads to", status)
	case status == http.StatusGone:
		return "it answered 410: it wants nothing more"
	}
	return strings.TrimSpace(fmt.Sprintf("it answered %d %s", status, http.StatusText(status)))
}

// explain says why there was no answer, without the host.
func (s *sender) explain(err error, u *url.URL) string {
	var unknown *net.DNSError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return fmt.Sprintf("it did not answer within %s", s.timeout)
	case errors.Is(err, context.Canceled):
		return "it was not waited for: the relay was stopped"
	case errors.Is(err, errNotPublic), errors.As(err, &unknown):
		return errNotPublic.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "it closed the connection without an answer"
	case errors.As(err, &certificate):
		return "its certificate is not accepted: " + brief(certificate.Err, u)
	}
	return brief(err, u)
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// brief is an error as it may be shown and kept: short, without host and addresses, and with nothing of what was answered. That
// is quoted where it is no HTTP: whoever may have any port called must not read what a service says there.
func brief(err error, u *url.URL) string {
	var system *net.OpError
	var host x509.HostnameError
	var unknown x509.UnknownAuthorityError
	var protocol textproto.ProtocolError
	switch {
	case errors.As(err, &host):
		return "it is of another host"
	case errors.As(err, &unknown):
		return "it is signed by an unknown authority"
	case errors.As(err, &protocol):
		return "the headers of its answer cannot be read"
	case errors.As(err, &system):
		err = system.Err
	}
	text, _, _ := strings.Cut(strings.ReplaceAll(err.Error(), u.Hostname(), "the host"), `"`)
	if _, why, is := strings.Cut(text, "transport connection broken: "); is {
		text = why
	}
	text = strings.TrimPrefix(text, "net/http: ")
	text = strings.TrimSpace(strings.ToValidUTF8(text, "\ufffd"))
	return strings.ToValidUTF8(text[:min(len(text), errorAtMost)], "")
}

// retryAfter returns for how long an endpoint asks to be left alone: seconds, or a date. At most a day.
func retryAfter(header http.Header, now time.Time) time.Duration {
	text := header.Get("Retry-After")
	seconds, err := strconv.ParseUint(text, 10, 64)
	if err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(seconds, uint64(retryAfterMost/time.Second))) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return min(max(0, at.Sub(now)), retryAfterMost)
}
