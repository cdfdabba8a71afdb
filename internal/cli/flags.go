package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Logging are the flags of the log, which goes to standard error.
type Logging struct {
	LogLevel  slog.Level `default:"info" help:"Least level that is logged: debug, info, warn or error. debug has a line for each HTTP request."`
	LogFormat string     `default:"text" enum:"text,json" help:"Form of the log, on standard error: text for people, json for collectors."`
}

// Logger returns the log that the flags ask for.
func (l Logging) Logger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: l.LogLevel}
	if l.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// Sync is how often the embedded server syncs to disk: 0, written always, before every acknowledgement.
type Sync time.Duration

// UnmarshalText reads always, or an interval such as 1s.
func (s *Sync) UnmarshalText(text []byte) error {
	if string(text) == "always" {
		*s = 0
		return nil
	}
	interval, err := time.ParseDuration(string(text))
	if err != nil || interval <= 0 {
		return fmt.Errorf("%q is neither always nor an interval such as 1s", text)
	}
	*s = Sync(interval)
	return nil
}

// MaxLimit is the largest number of captures a month that is a limit, as over HTTP: more than anybody counts, and a number that
// every client can read.
const MaxLimit = 1_000_000_000_000

// Plans is the catalogue: the monthly limit of each plan, -1 for unlimited.
type Plans map[string]int64

// UnmarshalText reads free=50,pro=500 and the like.
func (p *Plans) UnmarshalText(text []byte) error {
	plans := Plans{}
	for _, entry := range strings.Split(string(text), ",") {
		name, number, ok := strings.Cut(strings.TrimSpace(entry), "=")
		limit, err := strconv.ParseInt(number, 10, 64)
		if !ok || name == "" || err != nil || limit < -1 || limit > MaxLimit {
			return fmt.Errorf("%q is not a plan: write NAME=LIMIT, with a limit of captures a month, at most %d, or -1 for unlimited", entry, MaxLimit)
		}
		plans[name] = limit
	}
	*p = plans
	return nil
}

// Limit returns the limit of a plan, or an error that says which plans there are.
func (p Plans) Limit(plan string) (int64, error) {
	limit, ok := p[plan]
	if !ok {
		return 0, fmt.Errorf("%w: there is no plan %q; there are %s", ErrUsage, plan,
			strings.Join(slices.Sorted(maps.Keys(p)), ", "))
	}
	return limit, nil
}

// Networks is a list of networks, or of single addresses.
type Networks []netip.Prefix

// UnmarshalText reads 10.0.0.0/8,192.0.2.1 and the like.
func (n *Networks) UnmarshalText(text []byte) error {
	var read Networks
	for _, entry := range strings.Split(string(text), ",") {
		entry = strings.TrimSpace(entry)
		network, err := netip.ParsePrefix(entry)
		if address, one := netip.ParseAddr(entry); one == nil {
			network, err = netip.PrefixFrom(address, address.BitLen()), nil
		}
		if network.Addr().Is4In6() { // addresses are told apart as IPv4, and none would be in it
			err = errors.New("IPv4 in IPv6")
		}
		if err != nil || network != network.Masked() {
			return fmt.Errorf("%q is not a network: write it like 10.0.0.0/8 or 192.0.2.1", entry)
		}
		read = append(read, network)
	}
	*n = read
	return nil
}
