package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// certificateEvery is how often at most the files of the certificate are looked at, when a client connects.
const certificateEvery = time.Second

// certificate is the pair of files that the service proves itself with. It is read again when a file changed: whoever
// renews it need not stop the service.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger
	now               func() time.Time

	mu      sync.Mutex
	pair    *tls.Certificate
	files   [2]os.FileInfo // as they were when the pair was read
	looked  time.Time
	failure string // why what is in the files now is not used, as it was logged
}

// openCertificate reads the pair. Its errors name the flag that is wrong.
func openCertificate(certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log, now: time.Now}
	if err := c.read(); err != nil {
		return nil, err
	}
	c.looked = c.now()
	return c, nil
}

// config makes a TLS configuration of which every handshake has the certificate of its time.
func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current(), nil },
	}
}

// current returns the pair that is in the files, or while that cannot be used the last one that could.
func (c *certificate) current() *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if now.Sub(c.looked) < certificateEvery {
		return c.pair
	}
	c.looked = now
	if c.failure == "" && c.unchanged() {
		return c.pair
	}
	if err := c.read(); err == nil {
		c.failure = ""
		c.log.Info("the certificate was read again", "file", c.certFile, "expires", c.pair.Leaf.NotAfter)
	} else if c.failure != err.Error() {
		c.failure = err.Error()
		c.log.Warn("the new certificate cannot be used; the one before stays", "error", err, "expires", c.pair.Leaf.NotAfter)
	}
	return c.pair
}

func (c *certificate) unchanged() bool {
	for i, path := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(path)
		if err != nil || !os.SameFile(info, c.files[i]) || !info.ModTime().Equal(c.files[i].ModTime()) || info.Size() != c.files[i].Size() {
			return false
		}
	}
	return true
}

// read reads both files, of which it remembers what they were before: a change meanwhile is seen the next time.
func (c *certificate) read() error {
	certInfo, certText, err := readWithInfo("--tls-cert", c.certFile)
	if err != nil {
		return err
	}
	keyInfo, keyText, err := readWithInfo("--tls-key", c.keyFile)
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(certText, keyText)
	if err != nil {
		return fmt.Errorf("--tls-cert %s with --tls-key %s: %w", c.certFile, c.keyFile, err)
	}
	c.pair, c.files = &pair, [2]os.FileInfo{certInfo, keyInfo}
	return nil
}

func readWithInfo(flag, path string) (os.FileInfo, []byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", flag, err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", flag, err)
	}
	return info, text, nil
}

// curl returns how curl calls the service on an address: options, and the URL to which paths are added. A certificate
// that nobody signed but itself has to be named to curl; and the URL has a name that is in the certificate.
func (c *certificate) curl(address string) string {
	options := ""
	c.mu.Lock()
	leaf := c.pair.Leaf
	c.mu.Unlock()
	if bytes.Equal(leaf.RawIssuer, leaf.RawSubject) {
		options = "--cacert " + quoteForShell(c.certFile) + " "
	}
	host, port, err := net.SplitHostPort(address)
	if err == nil && leaf.VerifyHostname(host) != nil && len(leaf.DNSNames) > 0 && !strings.Contains(leaf.DNSNames[0], "*") {
		if peer, err := netip.ParseAddr(host); err == nil && peer.IsLoopback() {
			options += "--resolve " + net.JoinHostPort(leaf.DNSNames[0], port) + ":" + host + " "
		}
		address = net.JoinHostPort(leaf.DNSNames[0], port)
	}
	return options + "https://" + address
}

func quoteForShell(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
