package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// proof is a certificate that nobody signed but itself, with its key, in two files.
type proof struct {
	certFile, keyFile string
	cert              *x509.Certificate
}

// newProof writes a certificate with a serial number, for names or else for loopback.
func newProof(t *testing.T, dir string, serial int64, names ...string) proof {
	t.Helper()
	p := proof{certFile: filepath.Join(dir, "cert.pem"), keyFile: filepath.Join(dir, "key.pem")}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "jobtally test"}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if len(names) == 0 {
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if p.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	replaceFile(t, p.certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	replaceFile(t, p.keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
	return p
}

// replaceFile puts a new file in the place of another, as those do that renew certificates.
func replaceFile(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func (p proof) flags() []string { return []string{"--tls-cert", p.certFile, "--tls-key", p.keyFile} }

// client returns a configuration that trusts this certificate only.
func (p proof) client() *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(p.cert)
	return &tls.Config{RootCAs: roots}
}

// trust makes the client of the service speak HTTPS.
func (s *service) trust(p proof) {
	s.url = strings.Replace(s.url, "http://", "https://", 1)
	s.http = &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: p.client(), ForceAttemptHTTP2: true}}
}

func TestHTTPSWithHTTP2(t *testing.T) {
	t.Parallel()
	p := newProof(t, t.TempDir(), 1)
	s := start(t, t.TempDir(), midNovember, p.flags()...)
	address := strings.TrimPrefix(s.url, "http://")
	if r := s.get(t, "/livez").wants(t, http.StatusBadRequest); !strings.Contains(r.body, "HTTP request to an HTTPS server") {
		t.Errorf("plain HTTP is answered %s", r.body)
	}
	s.trust(p)
	x, err := s.http.Get(s.url + "/livez")
	if err != nil {
		t.Fatal(err)
	}
	defer x.Body.Close()
	if x.StatusCode != 200 || x.ProtoMajor != 2 || x.TLS.Version != tls.VersionTLS13 {
		t.Errorf("%s over %s, TLS %x", x.Status, x.Proto, x.TLS.Version)
	}
	if got := x.Header.Get("Strict-Transport-Security"); got != "max-age=31536000" {
		t.Errorf("Strict-Transport-Security: %q", got)
	}
	replies := together(20, func(i int) reply { return s.capture(t, jobURL(i)) })
	if got := tally(replies); got[http.StatusCreated] != 20 {
		t.Errorf("captures over HTTP/2: %v", got)
	}
	s.wantsQuota(t, quota{20, 50, 30, december})

	old := p.client()
	old.MaxVersion = tls.VersionTLS11
	if conn, err := tls.Dial("tcp", address, old); err == nil {
		conn.Close()
		t.Error("TLS 1.1 is spoken")
	}
	plain := p.client()
	plain.MaxVersion = tls.VersionTLS12
	plain.NextProtos = []string{"http/1.1"}
	conn, err := tls.Dial("tcp", address, plain)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if state := conn.ConnectionState(); state.NegotiatedProtocol != "http/1.1" || state.Version != tls.VersionTLS12 {
		t.Errorf("an older client speaks %q over TLS %x", state.NegotiatedProtocol, state.Version)
	}
	if strings.Contains(s.stderr.String(), "WARN") {
		t.Errorf("warned of:\n%s", s.stderr.String())
	}
}

// Too much of a header is refused under HTTP/2 too, and so is too large a body.
func TestHTTP2IsHeldToTheSameSizes(t *testing.T) {
	t.Parallel()
	p := newProof(t, t.TempDir(), 1)
	s := start(t, t.TempDir(), midNovember, p.flags()...)
	s.trust(p)
	var long []string
	for i := range 5 {
		long = append(long, fmt.Sprintf("X-Long-%d: %s", i, strings.Repeat("x", 8<<10)))
	}
	// A client that has heard of the limit does not even send it, and one that sends it is told so or cut off.
	if r, err := s.call(http.MethodGet, "/livez", nil, long...); err == nil && r.status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a header of 40 KiB is answered %d %s", r.status, r.body)
	}
	s.post(t, strings.Repeat(" ", 256<<10+1)).wantsProblem(t, http.StatusRequestEntityTooLarge, "body_too_large")
	s.get(t, "/livez").wants(t, http.StatusOK)
}

func TestWhatTheFirstStartPrintsUnderTLSCanBePasted(t *testing.T) {
	t.Parallel()
	needs(t, "curl", "curl", "--version")
	for name, names := range map[string][]string{"for loopback": nil, "for a name": {"jobtally.example"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProof(t, t.TempDir(), 1, names...)
			s := startBinary(t, t.TempDir(), p.flags()...)
			s.wait(t, &s.stdout, regexp.MustCompile(`The token is kept in .*\n`))
			lines := regexp.MustCompile(`(?m)^ +curl (?:.*\\\n)+.*$`).FindAllString(s.stdout.String(), -1)
			if len(lines) != 2 {
				t.Fatalf("%d curl lines in\n%s", len(lines), s.stdout.String())
			}
			for i, want := range []string{`{"outcome":"captured",`, `{"used":1,"limit":50,"remaining":49,`} {
				output, err := exec.Command("sh", "-c", lines[i]).CombinedOutput()
				if err != nil || !strings.HasPrefix(string(output), want) {
					t.Errorf("%s\nprints %s, %v", lines[i], output, err)
				}
			}
		})
	}
}

// serialAt connects to an address, and returns the serial number of the certificate there.
func serialAt(t *testing.T, address string) int64 {
	t.Helper()
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true}) // which one it is is the question
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

func TestARenewedCertificateIsServedWithoutARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := newProof(t, dir, 1)
	s := start(t, t.TempDir(), midNovember, p.flags()...)
	address := strings.TrimPrefix(s.url, "http://")
	s.trust(p)
	s.capture(t, jobURL(1)).wants(t, http.StatusCreated)
	open := s.http
	renewed := newProof(t, dir, 2)
	for begun := time.Now(); serialAt(t, address) != 2; {
		if time.Since(begun) > patience {
			t.Fatalf("the new certificate is not served\n%s", s.stderr.String())
		}
	}
	s.wantsQuota(t, quota{1, 50, 49, december}) // on the connection that is open
	open.CloseIdleConnections()
	s.trust(renewed)
	s.wantsQuota(t, quota{1, 50, 49, december})
}

// TestCertificates renews them, rightly and wrongly, under a listener on a clock of the test's.
func TestCertificates(t *testing.T) {
	var log bytes.Buffer
	dir, at := t.TempDir(), time.Now()
	p := newProof(t, dir, 1)
	c, err := openCertificate(p.certFile, p.keyFile, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	c.now, c.looked = func() time.Time { return at }, at
	listener, err := tls.Listen("tcp", "127.0.0.1:0", c.config())
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, conn)
			conn.Close()
		}
	}()
	defer func() { listener.Close(); <-served }()
	wants := func(serial int64, step string, logged ...string) {
		t.Helper()
		if got := serialAt(t, listener.Addr().String()); got != serial {
			t.Errorf("%s: the certificate is %d, want %d", step, got, serial)
		}
		for _, want := range logged {
			if !strings.Contains(log.String(), want) {
				t.Errorf("%s: the log has no %s:\n%s", step, want, log.String())
			}
		}
		if n := strings.Count(log.String(), "\n"); n != len(logged) {
			t.Errorf("%s: %d lines in the log, want %d:\n%s", step, n, len(logged), log.String())
		}
		log.Reset()
	}
	wants(1, "at first")
	newProof(t, dir, 2)
	wants(1, "renewed within a second")
	at = at.Add(certificateEvery)
	wants(2, "a second later", "the certificate was read again")
	at = at.Add(certificateEvery)
	wants(2, "nothing changed")

	good, err := os.ReadFile(p.certFile)
	if err != nil {
		t.Fatal(err)
	}
	replaceFile(t, p.certFile, good[:100])
	at = at.Add(certificateEvery)
	wants(2, "half a file", "level=WARN")
	for range 3 {
		at = at.Add(certificateEvery)
		wants(2, "still half a file")
	}
	if err := os.Remove(p.certFile); err != nil {
		t.Fatal(err)
	}
	at = at.Add(certificateEvery)
	wants(2, "no file", "no such file")
	replaceFile(t, p.certFile, good)
	at = at.Add(certificateEvery)
	wants(2, "the good one again", "the certificate was read again")

	key, err := os.ReadFile(newProof(t, t.TempDir(), 9).keyFile)
	if err != nil {
		t.Fatal(err)
	}
	replaceFile(t, p.keyFile, key)
	at = at.Add(certificateEvery)
	wants(2, "another's key", "private key does not match public key")
	newProof(t, dir, 3)
	at = at.Add(certificateEvery)
	wants(3, "mended", "the certificate was read again")
}

func TestACertificateThatCannotBeUsedIsNamed(t *testing.T) {
	t.Parallel()
	p, other, dir := newProof(t, t.TempDir(), 1), newProof(t, t.TempDir(), 2), t.TempDir()
	missing, garbage := filepath.Join(dir, "missing.pem"), filepath.Join(dir, "garbage.pem")
	replaceFile(t, garbage, []byte("not PEM"))
	for name, c := range map[string]struct {
		cert, key string
		code      int
		says      []string
	}{
		"no certificate":     {missing, p.keyFile, 1, []string{"--tls-cert: ", missing, "no such file"}},
		"no key":             {p.certFile, missing, 1, []string{"--tls-key: ", missing, "no such file"}},
		"a directory":        {dir, p.keyFile, 1, []string{"--tls-cert: ", "is a directory"}},
		"garbage":            {garbage, p.keyFile, 1, []string{"--tls-cert " + garbage, "failed to find any PEM data in certificate"}},
		"another's key":      {p.certFile, other.keyFile, 1, []string{"--tls-key " + other.keyFile, "private key does not match public key"}},
		"a key for both":     {p.keyFile, p.keyFile, 1, []string{"--tls-cert " + p.keyFile, "PEM inputs may have been switched"}},
		"a certificate only": {p.certFile, "", 2, []string{"--tls-cert", "--tls-key"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data := filepath.Join(t.TempDir(), "data")
			args := append(serviceFlags(data), "--tls-cert", c.cert)
			if c.key != "" {
				args = append(args, "--tls-key", c.key)
			}
			code, stdout, stderr := finish(t, command(apiBinary, args...))
			if code != c.code || stdout != "" || strings.Count(stderr, "\n") != 1 {
				t.Errorf("exit code %d, %q, %q; want %d and one line", code, stdout, stderr, c.code)
			}
			for _, want := range c.says {
				if !strings.Contains(stderr, want) {
					t.Errorf("%q does not say %q", stderr, want)
				}
			}
			if _, err := os.Stat(data); err == nil {
				t.Error("a service that cannot prove itself made a data directory")
			}
		})
	}
}
