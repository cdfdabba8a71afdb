package telemetry

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"jobtally/internal/relay"
	"jobtally/internal/webhook"
)

var (
	deliveryCauses   = []webhook.Cause{webhook.ByEvent, webhook.ByTest, webhook.ByRedrive, webhook.ByRedeliver}
	deliveryOutcomes = []webhook.Outcome{webhook.Accepted, webhook.Failed, webhook.Poisoned}
	webhookStates    = []webhook.State{webhook.Enabled, webhook.Disabled, webhook.Gone, webhook.Failing, webhook.Unreadable}
)

// Relay returns what a relay tells. It is called once.
func (t *Telemetry) Relay() (o relay.Observer) {
	if t.metrics != nil {
		o.Delivered = newDeliveries(t.metrics.registry)
	}
	return o
}

// newDeliveries returns what counts deliveries.
func newDeliveries(registry *prometheus.Registry) func(webhook.Cause, webhook.Outcome, time.Duration) {
	attempts := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "jobtally_webhook_deliveries_total", Help: "Attempts of this process to deliver an event to a webhook, by cause and outcome.",
	}, []string{"cause", "outcome"})
	took := histogram("jobtally_webhook_delivery_duration_seconds", "Time of one attempt to deliver an event to a webhook.", callBuckets)
	registry.MustRegister(attempts, took)
	for _, cause := range deliveryCauses {
		for _, outcome := range deliveryOutcomes {
			attempts.WithLabelValues(string(cause), string(outcome))
		}
	}
	return func(cause webhook.Cause, outcome webhook.Outcome, duration time.Duration) {
		attempts.WithLabelValues(string(cause), string(outcome)).Inc()
		took.Observe(duration.Seconds())
	}
}

// WatchRelay has the metrics tell of the webhooks that there are, from now on. It is called once. Where a census fails, they
// tell of none.
func (t *Telemetry) WatchRelay(census func(context.Context) (relay.Census, error)) {
	if t.metrics != nil {
		t.metrics.registry.MustRegister(&lookedRelay{
			census:  census,
			states:  prometheus.NewDesc("jobtally_webhooks", "Webhooks of all accounts, by state.", []string{"state"}, nil),
			waiting: prometheus.NewDesc("jobtally_webhook_waiting_decisions", "Decisions that webhooks were not sent yet, whether they want them or not.", nil, nil),
		})
	}
}

// lookedRelay are the metrics of webhooks that are looked up when somebody scrapes.
type lookedRelay struct {
	census          func(context.Context) (relay.Census, error)
	states, waiting *prometheus.Desc
}

// Describe sends what Collect may send.
func (l *lookedRelay) Describe(to chan<- *prometheus.Desc) {
	to <- l.states
	to <- l.waiting
}

// Collect looks. What the ledger's server does not answer is left out.
func (l *lookedRelay) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	census, err := l.census(ctx)
	if err != nil {
		return
	}
	for _, state := range webhookStates {
		to <- prometheus.MustNewConstMetric(l.states, prometheus.GaugeValue, float64(census.ByState[state]), string(state))
	}
	to <- prometheus.MustNewConstMetric(l.waiting, prometheus.GaugeValue, float64(census.Waiting))
}
