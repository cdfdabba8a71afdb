package telemetry

import (
	"context"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"jobtally/internal/node"
)

// lookTimeout bounds what a scrape asks of the ledger.
const lookTimeout = 3 * time.Second

// looked are the metrics that are looked up when somebody scrapes. What the ledger does not answer is left out.
type looked struct {
	node       *node.Node
	partitions []string

	ready, failing, undecided, events, age, log *prometheus.Desc
}

func (m *metrics) watch(n *node.Node) {
	of := []string{"partition"}
	l := &looked{
		node:      n,
		ready:     prometheus.NewDesc("jobtally_ready", "1 while this process is ready, as /readyz says, and 0 while it is not.", nil, nil),
		failing:   prometheus.NewDesc("jobtally_partition_failing", "1 while the projector of the partition makes no progress here, or is stopped.", of, nil),
		undecided: prometheus.NewDesc("jobtally_undecided_requests", "Requests without a decision.", of, nil),
		events:    prometheus.NewDesc("jobtally_projection_lag_events", "Requests that are not folded here.", of, nil),
		age:       prometheus.NewDesc("jobtally_projection_lag_seconds", "Age of the oldest request that is not folded here.", of, nil),
		log:       prometheus.NewDesc("jobtally_wal_bytes", "Size of the write-ahead log of the projection.", nil, nil),
	}
	for p := range n.Ledger.Partitions {
		l.partitions = append(l.partitions, strconv.Itoa(p))
	}
	m.registry.MustRegister(l)
}

// Describe sends what Collect may send.
func (l *looked) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{l.ready, l.failing, l.undecided, l.events, l.age, l.log} {
		to <- d
	}
}

// Collect looks.
func (l *looked) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	gauge(l.ready, number(l.node.Ready(ctx) == nil))
	gauge(l.log, float64(l.node.LogBytes()))
	for p, partition := range l.partitions {
		lag, err := l.node.Lag(ctx, p)
		gauge(l.failing, number(lag.Failing), partition)
		if err != nil {
			continue
		}
		gauge(l.undecided, float64(lag.Undecided), partition)
		gauge(l.events, float64(lag.Unfolded), partition)
		gauge(l.age, lag.Age.Seconds(), partition)
	}
}

func number(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
