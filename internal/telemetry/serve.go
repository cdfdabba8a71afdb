package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	nethttp "net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"jobtally/internal/node"
)

const (
	headerTimeout = 5 * time.Second
	scrapeTimeout = 10 * time.Second
	// maxScrapes is how many may look at once; the next is told 503.
	maxScrapes = 4
)

// server serves metrics and health, in plain HTTP, to whoever reaches its address.
type server struct {
	http nethttp.Server
	node atomic.Pointer[node.Node] // nil until it is up
}

func serve(addr string, registry *prometheus.Registry, log *slog.Logger) (*server, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%w; choose another address with --metrics-addr", err)
	}
	s := &server{}
	mux := nethttp.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes, Timeout: scrapeTimeout}))
	mux.HandleFunc("GET /livez", func(w nethttp.ResponseWriter, _ *nethttp.Request) { say(w, nethttp.StatusOK, "alive") })
	mux.HandleFunc("GET /readyz", s.ready)
	s.http = nethttp.Server{
		Handler: mux, ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout, WriteTimeout: 2 * scrapeTimeout,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	go func() {
		if err := s.http.Serve(listener); !errors.Is(err, nethttp.ErrServerClosed) {
			log.Error("metrics are served no longer", "error", err)
		}
	}()
	log.Info("serving metrics", "addr", listener.Addr().String())
	return s, nil
}

func (s *server) watch(n *node.Node) { s.node.Store(n) }

// ready answers /readyz: whether the node is ready, and else why not.
func (s *server) ready(w nethttp.ResponseWriter, r *nethttp.Request) {
	n := s.node.Load()
	if n == nil {
		say(w, nethttp.StatusServiceUnavailable, "starting")
		return
	}
	if err := n.Ready(r.Context()); err != nil {
		say(w, nethttp.StatusServiceUnavailable, err.Error())
		return
	}
	say(w, nethttp.StatusOK, "ready")
}

// say answers in words for an operator.
func say(w nethttp.ResponseWriter, status int, words string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	io.WriteString(w, words+"\n") // who asked may be gone
}

func (s *server) close(ctx context.Context) {
	if s != nil && s.http.Shutdown(ctx) != nil {
		s.http.Close()
	}
}
