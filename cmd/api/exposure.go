package main

import (
	"fmt"
	"log/slog"
	"net"
	nethttp "net/http"

	"jobtally/internal/cli"
	"jobtally/internal/http"
)

// Exposure are the flags of a service that others can reach.
type Exposure struct {
	TLSCert string `name:"tls-cert" and:"tls" placeholder:"FILE" help:"Certificate in PEM, with those between it and the root (default: none; plain HTTP). Then the service speaks HTTPS only, with HTTP/2. Read again when it changes."`
	TLSKey  string `name:"tls-key" and:"tls" placeholder:"FILE" help:"Key of the certificate, in PEM (default: none)."`

	TrustedProxies cli.Networks `placeholder:"CIDR,..." help:"Networks of the proxies in front, whose X-Forwarded-For is believed (default: none; the peer is the client)."`

	MaxConnections              uint `default:"4096" placeholder:"N" help:"Open connections in all (default: ${default}; 0 for any number). More are closed at once."`
	MaxConnectionsPerAddress    uint `default:"256" placeholder:"N" help:"... of one client address (default: ${default}; 0 for any number): an IPv4 address or an IPv6 /64. Trusted proxies have no such limit."`
	MaxRequestsAtOnce           uint `default:"100" placeholder:"N" help:"Requests of one token that are answered at the same time (default: ${default}; 0 for any number). More get 429."`
	MaxRequestsAtOncePerAddress uint `default:"200" placeholder:"N" help:"... of one client address (default: ${default}; 0 for any number)."`
	MaxStreamsAtOnce            uint `default:"20" placeholder:"N" help:"Streams of events of one token at the same time (default: ${default}; 0 for any number): tabs of a browser, or services. More get 429."`
	RequestsPerSecond           uint `default:"50" placeholder:"N" help:"Requests a second of one token (default: ${default}; 0 for any number), averaged over 10 seconds: who sent none for so long may send ten times as many at once. More get 429. This is not the quota."`
	RequestsPerSecondPerAddress uint `default:"100" placeholder:"N" help:"... of one client address (default: ${default}; 0 for any number). A token that is not accepted counts as 20 requests."`
	LimitLoopback               bool `help:"Hold clients on this machine to these limits too (default: no; they are held to --max-connections only)."`
}

// limit completes the configuration of the API with what the flags say.
func (e Exposure) limit(cfg http.Config) http.Config {
	cfg.TrustedProxies = e.TrustedProxies
	cfg.Limits = http.Limits{
		Connections: e.MaxConnections, ConnectionsPerAddress: e.MaxConnectionsPerAddress,
		RequestsAtOnce: e.MaxRequestsAtOnce, RequestsAtOncePerAddress: e.MaxRequestsAtOncePerAddress,
		StreamsAtOnce:     e.MaxStreamsAtOnce,
		RequestsPerSecond: e.RequestsPerSecond, RequestsPerSecondPerAddress: e.RequestsPerSecondPerAddress,
		Loopback: e.LimitLoopback,
	}
	return cfg
}

// certificate returns the certificate of the service, or nil when it speaks plain HTTP.
func (e Exposure) certificate(log *slog.Logger) (*certificate, error) {
	if e.TLSCert == "" {
		return nil, nil
	}
	return openCertificate(e.TLSCert, e.TLSKey, log)
}

// curl returns what follows curl to call the service: the URL to which paths are added, and options before it.
func curl(listener *net.TCPListener, proof *certificate) string {
	if proof == nil {
		return "http://" + listener.Addr().String()
	}
	return proof.curl(listener.Addr().String())
}

// warnOfPlainHTTP tells that whoever is between the service and its clients can read what they send.
func warnOfPlainHTTP(listener *net.TCPListener, proof *certificate, log *slog.Logger) {
	if proof == nil && !listener.Addr().(*net.TCPAddr).IP.IsLoopback() {
		log.Warn("tokens travel in the clear unless a proxy in front speaks TLS; see --tls-cert", "addr", listener.Addr().String())
	}
}

// listen returns a listener on an address.
func listen(address string) (*net.TCPListener, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%w; choose another address with --addr", err)
	}
	return listener.(*net.TCPListener), nil // which is what net.Listen makes for tcp
}

// serveOn returns what serves on a listener, with TLS if there is a certificate.
func serveOn(server *nethttp.Server, listener net.Listener, proof *certificate) error {
	if proof == nil {
		return server.Serve(listener)
	}
	server.TLSConfig = proof.config()
	return server.ServeTLS(listener, "", "")
}
