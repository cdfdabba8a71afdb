// Command example follows what becomes of the captures of a running jobtally, and prints it. Beside `make run`:
//
//	go run ./consumer/example
//
// README.md beside this file says how to run it as a consumer of its own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"jobtally/consumer"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// options are what the command line and the environment say.
type options struct {
	data, durable, topic, poison, metrics, failOn string
	partitions                                    int
	ackWait                                       time.Duration
}

func parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet("example", flag.ContinueOnError)
	flags.StringVar(&o.data, "data", "data", "data directory of the service, which says where its NATS server is; not read where NATS_URL says it")
	flags.StringVar(&o.durable, "durable", "example", "durable consumer that keeps the checkpoint; that of NATS_USER where there is one")
	flags.StringVar(&o.topic, "topic", consumer.Decisions, "stream to read, such as DECISIONS_0; DECISIONS is all of them")
	flags.IntVar(&o.partitions, "partitions", 0, "number of partitions, where the user may not ask for it")
	flags.DurationVar(&o.ackWait, "ack-wait", consumer.DefaultAckWait, "after how long the message that a killed process had is delivered again, where this makes the durable consumer")
	flags.StringVar(&o.poison, "poison", "poison.jsonl", "file that takes what cannot be handled, a line each")
	flags.StringVar(&o.metrics, "metrics-addr", "", "address to serve /metrics on, such as 127.0.0.1:9465")
	flags.StringVar(&o.failOn, "fail-on", "", "fail on captured jobs that have this in their title, to see what becomes of them")
	if err = flags.Parse(args); err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %s", flags.Arg(0))
	}
	return o, err
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	log := watermill.NewSlogLogger(slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	config, err := o.connect(log)
	if err != nil {
		return err
	}
	defer config.Conn.Close()
	subscriber, err := consumer.NewSubscriber(config)
	if err != nil {
		return err
	}
	poison, err := openQueue(o.poison)
	if err != nil {
		return err
	}
	defer poison.Close()
	registry := prometheus.NewRegistry()
	if o.metrics != "" {
		stop, err := serveMetrics(o.metrics, registry, stderr)
		if err != nil {
			return err
		}
		defer stop()
	}
	router, err := newRouter(o.topic, subscriber, poison, registry, log, handlers{out: stdout, failOn: o.failOn})
	if err != nil {
		return err
	}
	return errors.Join(router.Run(ctx), subscriber.Err()) // a router does not say why a subscription ended
}

// connect connects as the user of the environment, or else as the service itself.
func (o *options) connect(log watermill.LoggerAdapter) (config consumer.Config, err error) {
	config = consumer.Config{Durable: o.durable, Partitions: o.partitions, AckWait: o.ackWait, Logger: log}
	url, settings := os.Getenv("NATS_URL"), []nats.Option{
		nats.Name("example"), nats.MaxReconnects(-1),
		nats.PingInterval(5 * time.Second), // a server of a cluster that hangs is left for another after three
	}
	if url == "" {
		text, err := os.ReadFile(filepath.Join(o.data, "nats.url"))
		if err != nil {
			return config, fmt.Errorf("no service runs on %s, and NATS_URL is not set: %w", o.data, err)
		}
		url = strings.TrimSpace(string(text))
	}
	if user := os.Getenv("NATS_USER"); user != "" {
		settings = append(settings, nats.UserInfo(user, os.Getenv("NATS_PASSWORD")), nats.CustomInboxPrefix("_INBOX_"+user))
		config.Domain, config.Durable = consumer.Domain, user
	}
	config.Conn, err = nats.Connect(url, settings...)
	return config, err
}
