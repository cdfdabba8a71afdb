package telemetry

import (
	"github.com/prometheus/client_golang/prometheus"

	"jobtally/internal/feed"
)

// streams are the metrics of streams of events.
type streams struct {
	open  prometheus.Gauge
	told  prometheus.Counter
	ended map[feed.End]prometheus.Counter
}

func newStreams(registry *prometheus.Registry) streams {
	s := streams{
		open:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "jobtally_streams", Help: "Streams of events that are open."}),
		told:  counter("jobtally_stream_events_total", "Events that clients were told in streams, each client by itself."),
		ended: map[feed.End]prometheus.Counter{},
	}
	ended := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "jobtally_streams_ended_total", Help: "Streams of events that ended, by why.",
	}, []string{"why"})
	registry.MustRegister(s.open, s.told, ended)
	for _, why := range feed.Ends() {
		s.ended[why] = ended.WithLabelValues(string(why))
	}
	return s
}

// StreamBegan, StreamTold and StreamEnded return what the API tells of streams of events, as its Observer wants it; nil where
// nobody listens.
func (t *Telemetry) StreamBegan() func() {
	if t.metrics == nil {
		return nil
	}
	return t.metrics.streams.open.Inc
}

// StreamTold is described with StreamBegan.
func (t *Telemetry) StreamTold() func(events int) {
	if t.metrics == nil {
		return nil
	}
	return func(events int) { t.metrics.streams.told.Add(float64(events)) }
}

// StreamEnded is described with StreamBegan.
func (t *Telemetry) StreamEnded() func(why feed.End) {
	if t.metrics == nil {
		return nil
	}
	return func(why feed.End) {
		t.metrics.streams.open.Dec()
		t.metrics.streams.ended[why].Inc()
	}
}
