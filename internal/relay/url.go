package relay

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"jobtally/internal/webhook"
)

const urlAtMost = 2048 // bytes

// checkURL returns a *webhook.URLError unless events may be sent to a URL, as far as can be seen without asking anybody.
// Where its name leads is looked at with each connection.
func (g *guard) checkURL(text string) error {
	refuse := func(format string, args ...any) error { return &webhook.URLError{Reason: fmt.Sprintf(format, args...)} }
	if len(text) > urlAtMost {
		return refuse("it has %d bytes, and may have %d", len(text), urlAtMost)
	}
	u, err := url.Parse(text)
	if err != nil {
		return refuse("it cannot be read; it looks like https://example.com/hooks")
	}
	switch {
	case strings.Contains(text, " "):
		return refuse("it has a space, which no URL has: write it as %%20")
	case u.Scheme != "https" && u.Scheme != "http":
		return refuse("it does not begin with https://")
	case u.Opaque != "" || u.Hostname() == "":
		return refuse("it names no host; it looks like https://example.com/hooks")
	case u.User != nil:
		return refuse("it has a user or password: deliveries are signed instead; check webhook-signature")
	case u.Fragment != "" || strings.Contains(text, "#"):
		return refuse("it has a fragment, the part from # on, which is never sent")
	}
	if port := u.Port(); port != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return refuse("its port is none of 1 to 65535")
		}
	}
	return g.checkHost(u, refuse)
}

func (g *guard) checkHost(u *url.URL, refuse func(string, ...any) error) error {
	if u.Scheme == "http" && len(g.allow) == 0 {
		return refuse("it begins with http://, and everybody on the way could read what is sent: give it as https://")
	}
	literal, err := netip.ParseAddr(u.Hostname())
	if host := strings.TrimSuffix(strings.ToLower(u.Hostname()), "."); host == "localhost" || strings.HasSuffix(host, ".localhost") {
		literal, err = netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	}
	switch {
	case err != nil && endsInNumber(u.Hostname()):
		return refuse("its host ends in a number, and is no address as it stands: write an address as four decimal numbers")
	case err != nil:
		return nil // a name
	case u.Scheme == "http" && !g.allows(literal):
		return refuse("it begins with http://, which is only for the networks that the operator allows: give it as https://")
	case !g.mayReach(literal):
		return refuse("its host is an address that is not public: nothing is sent there")
	}
	return nil
}

// endsInNumber says whether a host is one of which no name ends: some resolvers take 0x7f.1, 2130706433 and the like for
// addresses.
func endsInNumber(host string) bool {
	host = strings.TrimSuffix(host, ".")
	last := strings.ToLower(host[strings.LastIndex(host, ".")+1:])
	_, err := strconv.ParseUint(strings.TrimPrefix(last, "0x"), 16, 64)
	return err == nil && (strings.HasPrefix(last, "0x") || strings.Trim(last, "0123456789") == "")
}
