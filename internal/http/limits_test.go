package http

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	nethttp "net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/events"
	"jobtally/internal/token"
)

// limitedNode is a node whose handler stays, and so remembers who called.
type limitedNode struct {
	*node
	handler nethttp.Handler
	log     bytes.Buffer
}

func newLimitedNode(t *testing.T, limits Limits) *limitedNode {
	n := &limitedNode{node: newNode(t)}
	n.build(limits)
	return n
}

func (n *limitedNode) build(limits Limits) {
	n.handler = NewHandler(Config{
		Backend: n.Backend, Limits: limits, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, gateNow: n.clock,
		Log: slog.New(slog.NewJSONHandler(&n.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
}

// get reads the quota from an address, with a token.
func (n *limitedNode) get(address, held string, headers ...string) exchange {
	return n.answer(httptest.NewRequest("GET", "/api/jobs/quota", nil), address, held, headers...)
}

func (n *limitedNode) answer(r *nethttp.Request, address, held string, headers ...string) exchange {
	r.RemoteAddr = address + ":4711"
	r.Header.Set("Authorization", "Bearer "+held)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	n.handler.ServeHTTP(w, r)
	return exchange{w.Result(), w.Body.String()}
}

const home, away, loopback = "203.0.113.9", "198.51.100.4", "127.0.0.1"

func TestRequestsOfATokenAreLimited(t *testing.T) {
	n := newLimitedNode(t, Limits{RequestsPerSecond: 1})
	anna, bob := n.anna.Reveal(), n.bob.Reveal()
	for i := range 10 { // from anywhere
		n.get(addressNumber(i).String(), anna).wants(t, 200, `{"used":0…`)
	}
	x := n.get(home, anna)
	if body := x.wantsProblem(t, codeRateLimited); !strings.Contains(body, "this is not the quota of the month") {
		t.Errorf("taken for the quota: %s", body)
	}
	x.wantsHeader(t, "Retry-After: 1", "RateLimit:", "WWW-Authenticate:")
	n.get(home, bob).wants(t, 200, `{"used":0…`)
	n.get(loopback, anna).wants(t, 200, `{"used":0…`)
	n.get(home, token.New().Reveal()).wantsProblem(t, codeTokenUnknown)
}

func TestRequestsOfAnAddressAreLimitedBeforeTheTokenIsLookedUp(t *testing.T) {
	n := newLimitedNode(t, Limits{RequestsPerSecondPerAddress: 1})
	for range 10 {
		n.get(home, n.anna.Reveal()).wants(t, 200, `{"used":0…`)
	}
	lookedUp := false
	n.Tokens = func(context.Context, string) ([]capture.Token, error) { lookedUp = true; return nil, nil }
	r := httptest.NewRequest("POST", "/api/jobs", iotest.ErrReader(io.ErrUnexpectedEOF))
	x := n.answer(r, home, n.bob.Reveal(), "Content-Type: application/json")
	x.wantsProblem(t, codeRateLimited)
	x.wantsHeader(t, "Retry-After: 1")
	if lookedUp {
		t.Error("the token was looked up")
	}
	n.get(home, n.anna.Reveal(), "X-Forwarded-For: 192.0.2.77").wantsProblem(t, codeRateLimited)
	n.get(away, n.anna.Reveal()).wants(t, 200, `{"used":0…`)
}

func TestRequestsBehindAProxyAreThoseOfItsClients(t *testing.T) {
	n := newLimitedNode(t, Limits{RequestsPerSecondPerAddress: 1})
	const proxy = "10.0.0.1"
	for range 10 {
		n.get(proxy, n.anna.Reveal(), "X-Forwarded-For: "+home).wants(t, 200, `{"used":0…`)
	}
	n.get(proxy, n.anna.Reveal(), "X-Forwarded-For: "+home).wantsProblem(t, codeRateLimited)
	n.get(proxy, n.anna.Reveal(), "X-Forwarded-For: 127.0.0.1, "+home).wantsProblem(t, codeRateLimited)
	n.get(home, n.anna.Reveal()).wantsProblem(t, codeRateLimited)
	n.get(proxy, n.anna.Reveal(), "X-Forwarded-For: "+away).wants(t, 200, `{"used":0…`)
	for range 10 { // a proxy that passes on what clients write
		n.get(proxy, n.anna.Reveal(), "X-Forwarded-For: 127.0.0.1").wants(t, 200, `{"used":0…`)
	}
	n.get(proxy, n.anna.Reveal(), "X-Forwarded-For: 127.0.0.1").wantsProblem(t, codeRateLimited)
	if !strings.Contains(n.log.String(), `"address":"203.0.113.9"`) || strings.Contains(n.log.String(), `"address":"10.0.0.1"`) {
		t.Errorf("the log has other addresses:\n%s", n.log.String())
	}
}

// Who guesses, or goes on with a token that is revoked, has less than others.
func TestGuessesCountAgainstTheAddress(t *testing.T) {
	for name, held := range map[string]func(n *limitedNode) string{
		"never issued": func(*limitedNode) string { return token.New().Reveal() },
		"malformed":    func(*limitedNode) string { return "jt_guess" },
		"revoked":      func(n *limitedNode) string { return n.gone.Reveal() },
	} {
		t.Run(name, func(t *testing.T) {
			n := newLimitedNode(t, Limits{RequestsPerSecondPerAddress: 10})
			for i := range 5 {
				if x := n.get(home, held(n)); x.StatusCode != 401 {
					t.Errorf("guess %d: %d %s", i, x.StatusCode, x.body)
				}
			}
			n.get(home, held(n)).wantsProblem(t, codeRateLimited)
			n.get(home, n.anna.Reveal()).wantsProblem(t, codeRateLimited) // or else it would tell a right guess
			n.get(away, n.anna.Reveal()).wants(t, 200, `{"used":0…`)
		})
	}
	n := newLimitedNode(t, Limits{RequestsPerSecondPerAddress: 10})
	for range 90 {
		n.answer(httptest.NewRequest("GET", "/livez", nil), home, "").wants(t, 200, `{"status":"alive"}`)
	}
	n.get(home, "").wantsProblem(t, codeTokenMissing)
	n.get(home, n.anna.Reveal()).wants(t, 200, `{"used":0…`)
}

func TestRequestsAtOnceAreLimited(t *testing.T) {
	for name, tt := range map[string]struct {
		limits        Limits
		token, others code // of a second request from the same address with the same token, with another token
		elsewhere     code // with the same token from another address
	}{
		"of a token":    {Limits{RequestsAtOnce: 1}, codeTooManyRequestsAtOnce, "", codeTooManyRequestsAtOnce},
		"of an address": {Limits{RequestsAtOncePerAddress: 1}, codeTooManyRequestsAtOnce, codeTooManyRequestsAtOnce, ""},
	} {
		t.Run(name, func(t *testing.T) {
			n := newLimitedNode(t, tt.limits)
			quota, entered, leave := n.Quota, make(chan struct{}), make(chan struct{})
			n.Quota = func(ctx context.Context, account string, month events.Month) (capture.Quota, error) {
				if ctx.Value(nethttp.ServerContextKey) != nil {
					entered <- struct{}{}
					<-leave
				}
				return quota(ctx, account, month)
			}
			n.build(tt.limits)
			done := make(chan exchange)
			go func() {
				held := context.WithValue(t.Context(), nethttp.ServerContextKey, n)
				done <- n.answer(httptest.NewRequestWithContext(held, "GET", "/api/jobs/quota", nil), home, n.anna.Reveal())
			}()
			<-entered
			n.get(home, n.anna.Reveal()).wantsOr(t, tt.token)
			n.get(home, n.bob.Reveal()).wantsOr(t, tt.others)
			n.get(away, n.anna.Reveal()).wantsOr(t, tt.elsewhere)
			n.get(loopback, n.bob.Reveal()).wantsOr(t, "")
			close(leave)
			(<-done).wants(t, 200, `{"used":0…`)
			n.get(home, n.anna.Reveal()).wants(t, 200, `{"used":0…`)
		})
	}
}

// wantsOr checks that the answer is a problem of the code, or the quota when there is none.
func (x exchange) wantsOr(t *testing.T, want code) {
	t.Helper()
	if want == "" {
		x.wants(t, 200, `{"used":0…`)
		return
	}
	x.wantsProblem(t, want)
	x.wantsHeader(t, "Retry-After: 1")
}

func TestAPanicGivesItsPlaceBack(t *testing.T) {
	n := newLimitedNode(t, Limits{RequestsAtOnce: 1, RequestsAtOncePerAddress: 1})
	n.Quota = nil
	n.build(Limits{RequestsAtOnce: 1, RequestsAtOncePerAddress: 1})
	for range 3 {
		n.get(home, n.anna.Reveal()).wantsProblem(t, codeInternal)
	}
}

func TestLoopbackIsLimitedWhereTheLimitsSaySo(t *testing.T) {
	n := newLimitedNode(t, Limits{RequestsPerSecondPerAddress: 1, Loopback: true})
	for range 10 {
		n.get(loopback, n.anna.Reveal()).wants(t, 200, `{"used":0…`)
	}
	n.get(loopback, n.anna.Reveal()).wantsProblem(t, codeRateLimited)
}

func TestAProxyThatIsNotNamedIsWarnedOf(t *testing.T) {
	n := newLimitedNode(t, Limits{})
	const warning = `"msg":"a proxy on this machine is not trusted, and so its clients are not limited; see --trusted-proxies"`
	n.get(loopback, n.anna.Reveal())
	n.get(home, n.anna.Reveal(), "X-Forwarded-For: "+away)
	n.get("10.0.0.1", n.anna.Reveal(), "X-Forwarded-For: "+loopback) // a call of the proxy's own machine
	if strings.Contains(n.log.String(), warning) {
		t.Errorf("warned without a reason:\n%s", n.log.String())
	}
	for range 3 {
		n.get(loopback, n.anna.Reveal(), "X-Forwarded-For: "+away)
	}
	if strings.Count(n.log.String(), warning) != 1 {
		t.Errorf("not warned once:\n%s", n.log.String())
	}
}

func BenchmarkLimited(b *testing.B) {
	g := newGate[netip.Addr](1_000_000_000, 1_000_000, time.Now)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for n := 0; pb.Next(); n++ {
			if v, err := g.enter(addressNumber(n % 1000)); err == nil {
				g.leave(v, 0)
			}
		}
	})
}
