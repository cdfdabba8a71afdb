package http

import (
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

func TestClientAddress(t *testing.T) {
	proxies := networks{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/16"), netip.MustParsePrefix("127.0.0.1/32")}
	for _, tt := range []struct {
		name, peer string
		forwarded  []string // lines
		want       string
	}{
		{"direct", "203.0.113.9:1234", nil, "203.0.113.9"},
		{"direct, forged", "203.0.113.9:1234", []string{"127.0.0.1"}, "203.0.113.9"},
		{"direct, forged as if behind a proxy", "203.0.113.9:1234", []string{"198.51.100.1, 10.0.0.1"}, "203.0.113.9"},
		{"proxy", "10.0.0.1:80", []string{"203.0.113.9"}, "203.0.113.9"},
		{"proxy without the header", "10.0.0.1:80", nil, "10.0.0.1"},
		{"proxy, forged by the client", "10.0.0.1:80", []string{"127.0.0.1, 203.0.113.9"}, "203.0.113.9"},
		{"proxy, forged in a line of its own", "10.0.0.1:80", []string{"198.51.100.1", "203.0.113.9"}, "203.0.113.9"},
		{"two proxies", "10.0.0.1:80", []string{"198.51.100.1, 203.0.113.9, 10.0.0.2"}, "203.0.113.9"},
		{"two proxies, two lines", "10.0.0.1:80", []string{"198.51.100.1, 203.0.113.9", "10.0.0.2"}, "203.0.113.9"},
		{"proxies only", "10.0.0.1:80", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"garbage", "10.0.0.1:80", []string{"203.0.113.9, unknown"}, "10.0.0.1"},
		{"garbage behind a proxy", "10.0.0.1:80", []string{"203.0.113.9, _hidden, 10.0.0.2"}, "10.0.0.2"},
		{"empty", "10.0.0.1:80", []string{""}, "10.0.0.1"},
		{"empty entry", "10.0.0.1:80", []string{"203.0.113.9,"}, "10.0.0.1"},
		{"port", "10.0.0.1:80", []string{"203.0.113.9:4711"}, "203.0.113.9"},
		{"IPv6", "[fd00::1]:80", []string{"2001:db8::7"}, "2001:db8::7"},
		{"IPv6 with a port", "[fd00::1]:80", []string{"[2001:db8::7]:4711"}, "2001:db8::7"},
		{"IPv6 with a zone", "[fe80::1%eth0]:80", nil, "fe80::1"},
		{"IPv4 in IPv6", "[::ffff:10.0.0.1]:80", []string{"::ffff:203.0.113.9"}, "203.0.113.9"},
		{"proxy on this machine", "127.0.0.1:80", []string{"203.0.113.9"}, "203.0.113.9"},
		{"a long list", "10.0.0.1:80", []string{strings.Repeat("10.0.0.2, ", 1000) + "203.0.113.9"}, "203.0.113.9"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr, r.Header[headerForwardedFor] = tt.peer, tt.forwarded
			if got := proxies.clientAddress(r); got.String() != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
			if got := networks(nil).clientAddress(r); got != addressOf(tt.peer) {
				t.Errorf("without trusted proxies %s, want the peer", got)
			}
		})
	}
}

func TestOneHostOfIPv6IsOneClient(t *testing.T) {
	of := func(text string) netip.Addr { return clientOf(netip.MustParseAddr(text)) }
	if of("2001:db8::1") != of("2001:db8::ffff:1:2:3") || of("2001:db8::1") == of("2001:db8:0:1::1") {
		t.Error("a client is not a /64")
	}
	if of("203.0.113.9") == of("203.0.113.8") {
		t.Error("two addresses of IPv4 are one client")
	}
	if got := clientOf(netip.Addr{}); got.IsValid() {
		t.Errorf("no address is client %s", got)
	}
}

// Whatever a header says, only a trusted peer is believed, and it names a proxy only when it names nobody else.
func FuzzClientAddress(f *testing.F) {
	proxies := networks{netip.MustParsePrefix("10.0.0.0/8")}
	for _, seed := range []string{"203.0.113.9", "127.0.0.1, 203.0.113.9,10.0.0.2", ",", "[2001:db8::1]:80, 10.0.0.1", "::ffff:10.0.0.1"} {
		f.Add("10.0.0.1:1", seed)
		f.Add("192.0.2.1:1", seed)
	}
	f.Fuzz(func(t *testing.T, peer, forwarded string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr, r.Header[headerForwardedFor] = peer, []string{forwarded}
		got, from := proxies.clientAddress(r), addressOf(peer)
		last := addressOf(strings.Trim(forwarded[strings.LastIndexByte(forwarded, ',')+1:], " \t"))
		switch {
		case !proxies.contain(from) && got != from:
			t.Errorf("%s is believed that it calls for %s", from, got)
		case proxies.contain(from) && last.IsValid() && !proxies.contain(last) && got != last:
			t.Errorf("%s for %s is taken for %s", from, last, got)
		}
	})
}
