package http

import (
	nethttp "net/http"
	"net/netip"
	"slices"
	"strings"
)

const headerForwardedFor = "X-Forwarded-For"

// networks are those of the proxies whose word is taken on where a call comes from.
type networks []netip.Prefix

func (n networks) contain(address netip.Addr) bool {
	return slices.ContainsFunc(n, func(network netip.Prefix) bool { return network.Contains(address) })
}

// clientAddress returns where a call comes from: its peer, or when that is a trusted proxy the last address of
// X-Forwarded-For that is none. What stands left of that address anybody can have written. An entry that is no address
// ends the search: then it is the nearest proxy that is known.
func (n networks) clientAddress(r *nethttp.Request) netip.Addr {
	client := addressOf(r.RemoteAddr)
	if !n.forwarded(r) {
		return client
	}
	for _, line := range slices.Backward(r.Header[headerForwardedFor]) {
		for more := true; more; {
			var entry string
			line, entry, more = cutLast(line)
			address := addressOf(entry)
			if !address.IsValid() {
				return client
			}
			if client = address; !n.contain(client) {
				return client
			}
		}
	}
	return client
}

// forwarded says whether a trusted proxy tells where a call comes from.
func (n networks) forwarded(r *nethttp.Request) bool {
	return len(n) > 0 && len(r.Header[headerForwardedFor]) > 0 && n.contain(addressOf(r.RemoteAddr))
}

// cutLast takes the last entry off a list.
func cutLast(line string) (rest, last string, more bool) {
	comma := strings.LastIndexByte(line, ',')
	if comma < 0 {
		return "", strings.Trim(line, " \t"), false
	}
	return line[:comma], strings.Trim(line[comma+1:], " \t"), true
}

// addressOf reads an address, with or without a port; the zero Addr is none.
func addressOf(text string) netip.Addr {
	if withPort, err := netip.ParseAddrPort(text); err == nil {
		return withPort.Addr().Unmap().WithZone("")
	}
	address, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}
	}
	return address.Unmap().WithZone("")
}

// clientOf returns what stands for one client among addresses: an IPv4 address, or the /64 that one host has of IPv6.
func clientOf(address netip.Addr) netip.Addr {
	if !address.Is6() {
		return address
	}
	network, _ := address.Prefix(64) // fails for an invalid address only, and that is not IPv6
	return network.Addr()
}
