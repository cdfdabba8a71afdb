// Command api is the service: the HTTP API on a node, which by default holds everything, the NATS server included.
package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	nethttp "net/http"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"jobtally/internal/cli"
	"jobtally/internal/http"
	"jobtally/internal/node"
	"jobtally/internal/telemetry"
)

const (
	// answerTimeout is how long requests in flight have to be answered once the service is told to stop.
	answerTimeout = 3 * time.Second
	// stopTimeout is how long a stop takes at most: connections that have no whole request by then are closed.
	stopTimeout = answerTimeout + time.Second
	// catchUpTimeout is how long the service waits, before it listens, to answer from the first call on.
	catchUpTimeout = 2 * time.Second
	// startTimeout bounds the start of the node: folding the ledger goes on after it.
	startTimeout = time.Minute
	// gcPercent is how much garbage there may be to what is in use, unless GOGC says it. The indexes and blocks of the
	// embedded NATS server are most of what is in use, and grow with the accounts. With Go's 100 the garbage beside them
	// is as much again; with 60 the collector takes some 2 % more of the processor time of a capture.
	gcPercent = 60
)

type flags struct {
	Addr       string    `default:"127.0.0.1:8080" placeholder:"HOST:PORT" help:"Address of the HTTP API (default: ${default}). Loopback, because without --tls-cert it speaks plain HTTP; port 0 picks a free one and logs it."`
	Data       string    `default:"data" placeholder:"DIR" help:"Data directory (default: ${default}). Everything lies there; one process has it at a time."`
	NATS       string    `name:"nats" placeholder:"URL" help:"URL of an external NATS server (default: none; one runs in this process). Then a projector must run: this process only folds what it decides."`
	Partitions uint      `default:"0" placeholder:"N" help:"Number of partitions that the ledger has (default: as created, at first 1). Fixed when the ledger is created; given, it must agree."`
	Plans      cli.Plans `default:"free=50,pro=500,premium=-1,enterprise=-1" placeholder:"NAME=LIMIT,..." help:"Plans with their captures a month, -1 for unlimited (default: ${default}). A change does not touch accounts that are open."`
	Sync       cli.Sync  `default:"always" placeholder:"always|DURATION" help:"When the embedded NATS server syncs to disk (default: ${default}). always loses nothing acknowledged to a power failure; 1s may lose the last second, and answers a single client sooner."`
	Exposure
	cli.Webhooks
	cli.Telemetry
	cli.Logging
}

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	os.Exit(cli.Main(run))
}

// run is the service from start to end. It returns nil when ctx ended it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	return serve(ctx, args, stdout, stderr, time.Now)
}

// serve is run on a clock that a test may set.
func serve(ctx context.Context, args []string, stdout, stderr io.Writer, now func() time.Time) (err error) {
	var f flags
	parsed, err := cli.Parse(&f, "api", "jobtally counts the jobs that people capture against a monthly quota, and can prove every answer.", args, stdout, stderr)
	if parsed == nil {
		return err
	}
	log := f.Logger(stderr)
	starting, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	// The port is taken first: a service that cannot listen need not open its ledger.
	listener, err := listen(f.Addr)
	if err != nil {
		return err
	}
	defer listener.Close()
	proof, err := f.certificate(log)
	if err != nil {
		return err
	}
	warnOfPlainHTTP(listener, proof, log)
	watching, err := telemetry.Start(starting, f.watched(log))
	if err != nil {
		return err
	}
	defer watching.Close()
	log = watching.Log(log)
	n, err := node.Start(starting, f.config(now, log, watching.Node()))
	if err != nil {
		return unlessStopped(ctx, err)
	}
	defer func() {
		if err = errors.Join(err, n.Close()); err == nil {
			log.Info("stopped")
		}
	}()
	watching.Watch(n)
	relay := n.StartRelay(starting, node.RelayConfig{Allow: f.WebhookAllow, Log: log, Observer: watching.Relay()})
	watching.WatchRelay(relay.Census)
	defer catchUp(ctx, n.AwaitCaughtUp, log)()
	if err := f.open(starting, n, now, stdout, curl(listener, proof)); err != nil {
		return unlessStopped(ctx, err)
	}
	log.Info("listening", "addr", listener.Addr().String(), "data", f.Data, "tls", proof != nil)
	cfg := f.limit(http.Config{
		Backend: backend(n, relay, watching), Plans: f.Plans, Now: now, Log: log,
		Observer: http.Observer{Began: watching.Began(), Answered: watching.Answered(), Streams: http.StreamObserver{
			Began: watching.StreamBegan(), Told: watching.StreamTold(), Ended: watching.StreamEnded(),
		}},
	})
	server := http.NewServer(cfg)
	server.RegisterOnShutdown(relay.StopSending) // which takes as long as answering does: the two are waited for together
	return answer(ctx, http.LimitConnections(listener, cfg), server, proof, log)
}

// open sees to it that a service on its own has an account. A first start has nothing to catch up with.
func (f flags) open(ctx context.Context, n *node.Node, now func() time.Time, stdout io.Writer, curl string) error {
	if f.NATS != "" || !n.CaughtUp() || n.Projection.Outdated() {
		return nil
	}
	d := demo{node: n, file: tokenFile(f.Data), plans: f.Plans, now: now}
	return d.ensure(ctx, stdout, curl)
}

// unlessStopped returns the error of a start, but for a start that was told to stop: that is no failure.
func unlessStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// catchUp waits a moment for the node to fold what the ledger has, which is mostly nothing. When that takes longer the
// service comes up all the same: it tells how it is, and answers calls once it has caught up. Once stop has returned,
// nothing more is said of it.
func catchUp(ctx context.Context, await func(context.Context) error, log *slog.Logger) (stop func()) {
	first, cancel := context.WithTimeout(ctx, catchUpTimeout)
	defer cancel()
	if await(first) == nil || ctx.Err() != nil {
		return func() {}
	}
	log.Info("folding the ledger; calls are answered with 503 until that is done")
	ctx, cancelWait := context.WithCancel(ctx)
	var waiting sync.WaitGroup
	waiting.Go(func() {
		if await(ctx) == nil {
			log.Info("caught up")
		}
	})
	return func() { cancelWait(); waiting.Wait() }
}

func (f flags) watched(log *slog.Logger) telemetry.Config {
	return telemetry.Config{Service: "jobtally-api", MetricsAddr: f.MetricsAddr, OTLPEndpoint: f.OTLPEndpoint, Log: log}
}

func (f flags) config(now func() time.Time, log *slog.Logger, observer node.Observer) node.Config {
	if f.Sync != 0 && f.NATS == "" {
		log.Warn("a power failure may lose acknowledged captures", "sync", time.Duration(f.Sync))
	}
	return node.Config{
		Dir: f.Data, NATS: f.NATS, Partitions: int(f.Partitions), Sync: time.Duration(f.Sync), Decides: f.NATS == "", Now: now, Log: log, Observer: observer,
	}
}

func backend(n *node.Node, relay *node.Relay, watching *telemetry.Telemetry) http.Backend {
	return http.Backend{
		Webhooks:   func() (http.Webhooks, error) { return webhooks(relay) },
		Partitions: n.Ledger.Partitions,
		Append:     watching.Append(n.Append),
		AppendAll:  watching.AppendAll(n.AppendAll),
		Await:      n.Projection.Await,
		Decision:   n.Projection.Decision,
		Requester:  n.Requester,
		CountsIn:   n.Projection.CountsIn,
		Quota:      n.Projection.Quota,
		Month:      n.Projection.Month,
		Months:     n.Projection.Months,
		Replay:     n.Replay,
		Erasures:   n.Projection.Erasures,
		Try:        n.Projection.Try,
		Jobs:       n.Projection.Jobs,
		Lookup:     n.Projection.Lookup,
		Account:    n.Projection.Account,
		Accounts:   n.Projection.Accounts,
		TokensOf:   n.Projection.TokensOf,
		Job:        n.Projection.Job,
		Tokens:     n.Projection.Tokens,
		NoteUse:    n.NoteUse,
		LastUsed:   n.LastUsed,
		Folded:     n.Projection.Folded,
		CaughtUp:   n.CaughtUp,
		Outdated:   n.Projection.Outdated,
		Events:     n.Events,
		Ready:      n.Ready,
	}
}

// webhooks returns what the API needs of the relay as it is now.
func webhooks(of *node.Relay) (http.Webhooks, error) {
	relay, err := of.Now()
	if err != nil {
		return http.Webhooks{}, err
	}
	return http.Webhooks{
		Create: relay.Create, List: relay.List, Get: relay.Get, Progress: relay.Progress, Change: relay.Change, Rotate: relay.Rotate,
		Remove: relay.Remove, Test: relay.Test, Deliveries: relay.Deliveries,
	}, nil
}

// answer serves until ctx ends, then takes no more and answers what is in flight. Who still waits for a decision
// after answerTimeout is told that it is pending. Once it has returned, nobody works on a call any more.
func answer(ctx context.Context, listener net.Listener, server *nethttp.Server, proof *certificate, log *slog.Logger) error {
	requests, hurry := context.WithCancel(context.Background())
	server.BaseContext = func(net.Listener) context.Context { return requests }
	finish := track(server)
	defer func() { hurry(); finish() }()
	served := make(chan error, 1)
	go func() { served <- serveOn(server, listener, proof) }()
	select {
	case err := <-served:
		return errors.Join(err, server.Close())
	case <-ctx.Done():
	}
	log.Info("stopping: answering what is in flight")
	timer := time.AfterFunc(answerTimeout, hurry)
	defer timer.Stop()
	stopping, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	err := server.Shutdown(stopping)
	if errors.Is(err, context.DeadlineExceeded) {
		log.Warn("closing connections on which no whole request came")
		err = server.Close()
	}
	return err
}

// track returns what waits for the calls that are being worked on, and has no other begin: a server that is closed waits for
// none, and each would find the node closed.
func track(server *nethttp.Server) (finish func()) {
	var working sync.RWMutex
	handler := server.Handler
	server.Handler = nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if !working.TryRLock() {
			panic(nethttp.ErrAbortHandler)
		}
		defer working.RUnlock()
		handler.ServeHTTP(w, r)
	})
	return working.Lock
}
