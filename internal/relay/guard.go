package relay

import (
	"errors"
	"net/netip"
	"slices"
	"syscall"
)

// errNotPublic is the error of a connection to an address that is not public. It does not say which, and is in the words of one
// to a name that is not found: whoever registers a URL must not learn which names there are within the operator's network.
var errNotPublic = errors.New("its host is not found, or leads to an address that is not public: nothing is sent there")

// notPublic are the networks of IPv4 that the internet does not reach, or that no host of it has.
var notPublic = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
	"192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
	"224.0.0.0/4", "240.0.0.0/4",
)

// Of IPv6 only 2000::/3 is given out, and within it these are no hosts, or lead to an address of IPv4.
var (
	public6    = netip.MustParsePrefix("2000::/3")
	notPublic6 = prefixes("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// guard says which addresses may be reached.
type guard struct{ allow []netip.Prefix }

// mayReach says whether an address may be reached: it is public, or the operator allows it.
func (g *guard) mayReach(address netip.Addr) bool {
	return g.allows(address) || isPublic(address.Unmap())
}

// allows says whether the operator allows an address.
func (g *guard) allows(address netip.Addr) bool {
	return slices.ContainsFunc(g.allow, func(p netip.Prefix) bool { return p.Contains(address.Unmap()) })
}

func isPublic(address netip.Addr) bool {
	contains := func(p netip.Prefix) bool { return p.Contains(address) }
	if address.Is4() {
		return !slices.ContainsFunc(notPublic, contains)
	}
	return address.Zone() == "" && public6.Contains(address) && !slices.ContainsFunc(notPublic6, contains)
}

// control returns what a dialer asks about each address before it connects to it: whatever answered for the name, and
// whenever, nothing else is connected to.
func control(may func(netip.Addr) bool) func(network, address string, _ syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil || !may(to.Addr()) {
			return errNotPublic
		}
		return nil
	}
}
