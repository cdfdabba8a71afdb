package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/components/cqrs"
	"github.com/ThreeDotsLabs/watermill/components/metrics"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"jobtally/consumer"
)

// expected are the types that this program knows. Those that no handler takes are acknowledged; any other, such as a newer version of
// one of these, goes into the poison queue until a newer program takes it from there.
var expected = []string{
	consumer.TypeJobCaptured, consumer.TypeJobCaptureDuplicated, consumer.TypeJobCaptureRejected, consumer.TypeJobCaptureRepeated,
	consumer.TypeJobUpdated, consumer.TypeJobDeleted, consumer.TypeRequestRefused,
	consumer.TypeAccountOpened, consumer.TypeAccountErased, consumer.TypePlanChanged, consumer.TypeTokenIssued,
	consumer.TypeTokenRevoked, consumer.TypeMonthArchived,
}

// newRouter wires subscriber, handlers, poison queue and metrics. One group of handlers has one subscription, so that they see an
// account's events in their order.
func newRouter(topic string, subscriber message.Subscriber, poison message.Publisher, registry *prometheus.Registry, log watermill.LoggerAdapter, h handlers) (*message.Router, error) {
	router, err := message.NewRouter(message.RouterConfig{}, log)
	if err != nil {
		return nil, err
	}
	measured := metrics.NewPrometheusMetricsBuilder(registry, "jobtally", "example")
	if poison, err = measured.DecoratePublisher(poison); err != nil {
		return nil, err
	}
	poisoned, err := middleware.PoisonQueueWithFilter(poison, "poison", isPoison)
	if err != nil {
		return nil, err
	}
	retry := middleware.Retry{
		MaxRetries: 3, InitialInterval: 50 * time.Millisecond, MaxInterval: time.Second, Multiplier: 2, Logger: log,
		ShouldRetry: func(p middleware.RetryParams) bool { return !errors.Is(p.Err, consumer.ErrUnknownType) },
	}
	router.AddSubscriberDecorators(measured.DecorateSubscriber)
	router.AddMiddleware(poisoned, retry.Middleware, measured.NewRouterMiddleware().Middleware, middleware.Recoverer, consumer.Expect(expected...))
	processor, err := cqrs.NewEventGroupProcessorWithConfig(router, cqrs.EventGroupProcessorConfig{
		GenerateSubscribeTopic: func(cqrs.EventGroupProcessorGenerateSubscribeTopicParams) (string, error) { return topic, nil },
		SubscriberConstructor: func(cqrs.EventGroupProcessorSubscriberConstructorParams) (message.Subscriber, error) {
			return subscriber, nil
		},
		AckOnUnknownEvent: true, // of those that are expected
		Marshaler:         consumer.Marshaler{},
		Logger:            log,
	})
	if err != nil {
		return nil, err
	}
	return router, processor.AddHandlersGroup("jobs",
		cqrs.NewGroupEventHandler(h.captured), cqrs.NewGroupEventHandler(h.rejected),
		cqrs.NewGroupEventHandler(h.updated), cqrs.NewGroupEventHandler(h.deleted))
}

// isPoison says whether a message is to be put aside. One whose handling was cut short by a stop comes again by itself.
func isPoison(err error) bool { return !errors.Is(err, context.Canceled) }

// serveMetrics serves /metrics for Prometheus until it is stopped.
func serveMetrics(addr string, registry *prometheus.Registry, stderr io.Writer) (stop func() error, err error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go server.Serve(listener)
	fmt.Fprintf(stderr, "metrics on http://%s/metrics\n", listener.Addr())
	return server.Close, nil
}
