package relay

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"jobtally/internal/webhook"
)

func TestURLsThatAreRefused(t *testing.T) {
	none := &guard{}
	for url, want := range map[string]string{
		"":                              "does not begin with https://",
		"ftp://example.com":             "does not begin with https://",
		"http://hooks.example":          "give it as https://",
		"https://":                      "names no host",
		"https:hooks.example":           "names no host",
		"https://:443/x":                "names no host",
		"https://user:pw@hooks.example": "user or password",
		"https://hooks.example/#x":      "fragment",
		"https://hooks.example/#":       "fragment",
		"https://hooks.example:0":       "port",
		"https://hooks.example:":        "port",
		"https://hooks.example:70000":   "port",
		"https://hooks.example:http":    "cannot be read",
		"https://hooks example":         "cannot be read",
		"https://hooks.example/?q=a b":  "%20",
		"https://127.0.0.1/x":           "not public",
		"https://localhost":             "not public",
		"https://LOCALHOST.":            "not public",
		"https://x.localhost":           "not public",
		"https://10.1.2.3":              "not public",
		"https://100.64.0.1":            "not public",
		"https://169.254.169.254/meta":  "not public",
		"https://172.31.255.255":        "not public",
		"https://192.168.0.1":           "not public",
		"https://198.19.0.1":            "not public",
		"https://203.0.113.7":           "not public",
		"https://224.0.0.1":             "not public",
		"https://255.255.255.255":       "not public",
		"https://0.0.0.0":               "not public",
		"https://[::1]":                 "not public",
		"https://[::]":                  "not public",
		"https://[::ffff:10.0.0.1]":     "not public",
		"https://[64:ff9b::a00:1]":      "not public",
		"https://[2002:a00:1::]":        "not public",
		"https://[2001::1]":             "not public",
		"https://[2001:db8::1]":         "not public",
		"https://[fc00::1]":             "not public",
		"https://[fe80::1%25eth0]":      "not public",
		"https://[ff02::1]":             "not public",
		"https://127.1":                 "ends in a number",
		"https://2130706433":            "ends in a number",
		"https://0x7f000001":            "ends in a number",
		"https://0X7F.0.0.1":            "ends in a number",
		"https://0177.0.0.1":            "ends in a number",
		"https://10.0.0.1.":             "ends in a number",
		"https://hooks.example/" + strings.Repeat("x", urlAtMost): "and may have 2048",
	} {
		err := none.checkURL(url)
		var told *webhook.URLError
		if !errors.As(err, &told) || !strings.Contains(told.Reason, want) {
			t.Errorf("%s: %v, want %q", url, err, want)
		}
	}
	for _, url := range []string{"https://hooks.example", "https://hooks.example:8443/a?b=c", "https://8.8.8.8", "https://hooks.3com.example", "https://x.0xy", "https://[2606:4700::1111]/", "HTTPS://hooks.example"} {
		if err := none.checkURL(url); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
	some := &guard{allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}}
	for url, allowed := range map[string]bool{
		"https://10.0.0.1": true, "http://10.0.0.1": true, "http://hooks.internal": true, "https://[fd00::1]": true, "https://[::ffff:10.0.0.1]": true,
		"http://8.8.8.8": false, "https://192.168.0.1": false, "http://localhost": false,
	} {
		if err := some.checkURL(url); (err == nil) != allowed {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// TestNamesThatLeadToPrivateAddresses registers a name, and has it lead elsewhere.
func TestNamesThatLeadToPrivateAddresses(t *testing.T) {
	h, dns := newHouse(t), newNames(t)
	public, private := listenOn(t, "127.0.0.2:0"), (*listening)(nil)
	private = listenOn(t, "127.0.0.1:"+strconv.Itoa(public.port))
	cfg := h.config()
	cfg.Allow, cfg.resolver = []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}, dns.resolver()
	r := open(t, cfg)
	e := create(t, r, "demo", "http://hooks.example:"+strconv.Itoa(public.port))

	dns.answer.Store(&[]string{"127.0.0.2"})
	wantTest(t, r, e, "")
	dns.answer.Store(&[]string{"127.0.0.1"})
	wantTest(t, r, e, errNotPublic.Error())
	dns.answer.Store(&[]string{"127.0.0.1", "127.0.0.2"})
	wantTest(t, r, e, "")
	dns.answer.Store(&[]string{})
	wantTest(t, r, e, errNotPublic.Error())
	if public.got.Load() != 2 || private.got.Load() != 0 {
		t.Errorf("the one that is allowed got %d, the other %d", public.got.Load(), private.got.Load())
	}

	// Over https public addresses would do, and this machine's still do not.
	secure := create(t, r, "demo", "https://hooks.example:"+strconv.Itoa(public.port))
	dns.answer.Store(&[]string{"127.0.0.1"})
	wantTest(t, r, secure, errNotPublic.Error())
}

// TestTheProxyOfTheEnvironmentIsNotUsed has one that would reach anything.
func TestTheProxyOfTheEnvironmentIsNotUsed(t *testing.T) {
	h, rcv, proxy := newHouse(t), receive(t, nil), listenOn(t, "127.0.0.1:0")
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:"+strconv.Itoa(proxy.port))
	t.Setenv("NO_PROXY", "")
	cfg := h.config()
	cfg.RootCAs = rcv.trusted()
	r := open(t, cfg)
	wantTest(t, r, create(t, r, "demo", rcv.URL), "")
	if proxy.got.Load() != 0 {
		t.Error("it was asked")
	}
}

func TestCertificatesThatAreNotAccepted(t *testing.T) {
	h, rcv := newHouse(t), receive(t, nil)
	r := open(t, h.config())
	wantTest(t, r, create(t, r, "demo", rcv.URL), "its certificate is not accepted")
	cfg := h.config()
	cfg.RootCAs = rcv.trusted()
	dns := newNames(t)
	dns.answer.Store(&[]string{"127.0.0.1"})
	cfg.resolver = dns.resolver()
	r = open(t, cfg)
	wantTest(t, r, create(t, r, "demo", strings.Replace(rcv.URL, "127.0.0.1", "hooks.test", 1)), "its certificate is not accepted: it is of another host")
}

func wantTest(t *testing.T, r *Relay, e webhook.Endpoint, failure string) {
	t.Helper()
	d := must[webhook.Delivery](t)(r.Test(within(t), e.Account, e.ID))
	if !strings.HasPrefix(d.Error, failure) || (failure == "") != (d.Outcome == webhook.Accepted) {
		t.Errorf("said %q, want %q", d.Error, failure)
	}
}

// listening counts the requests to an address.
type listening struct {
	port int
	got  atomic.Int32
}

func listenOn(t *testing.T, address string) *listening {
	t.Helper()
	l := must[net.Listener](t)(net.Listen("tcp", address))
	on := &listening{port: l.Addr().(*net.TCPAddr).Port}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		on.got.Add(1)
		w.Header().Set("Connection", "close") // so that the name is looked up anew
	}))
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	return on
}

// names answers for every name.
type names struct {
	conn   net.PacketConn
	answer atomic.Pointer[[]string]
}

func newNames(t *testing.T) *names {
	t.Helper()
	n := &names{conn: must[net.PacketConn](t)(net.ListenPacket("udp", "127.0.0.1:0"))}
	t.Cleanup(func() { n.conn.Close() })
	go n.serve()
	return n
}

func (n *names) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", n.conn.LocalAddr().String())
	}}
}

func (n *names) serve() {
	buffer := make([]byte, 2048)
	for {
		size, from, err := n.conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buffer[:size]) != nil {
			continue
		}
		m.Response, m.Additionals = true, nil
		addresses := *n.answer.Load()
		if len(addresses) == 0 {
			m.RCode = dnsmessage.RCodeNameError
		}
		for _, address := range addresses {
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
				m.Answers = append(m.Answers, dnsmessage.Resource{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
					Body:   &dnsmessage.AResource{A: netip.MustParseAddr(address).As4()},
				})
			}
		}
		if answer, err := m.Pack(); err == nil {
			n.conn.WriteTo(answer, from)
		}
	}
}
