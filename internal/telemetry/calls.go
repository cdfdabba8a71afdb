package telemetry

import (
	"maps"
	nethttp "net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// otherMethod stands for every method that is not one of HTTP's own: clients may send any text as one.
const otherMethod = "_OTHER"

var methods = []string{
	nethttp.MethodGet, nethttp.MethodHead, nethttp.MethodPost, nethttp.MethodPut, nethttp.MethodPatch, nethttp.MethodDelete,
	nethttp.MethodConnect, nethttp.MethodOptions, nethttp.MethodTrace, otherMethod,
}

// known returns the method, or what stands for one that is not known.
func known(method string) string {
	switch method {
	case nethttp.MethodGet, nethttp.MethodHead, nethttp.MethodPost, nethttp.MethodPut, nethttp.MethodPatch, nethttp.MethodDelete,
		nethttp.MethodConnect, nethttp.MethodOptions, nethttp.MethodTrace:
		return method
	}
	return otherMethod
}

// callKey are the labels of a call. There are as many as the API has routes, methods and statuses.
type callKey struct {
	method, route string
	status        int
}

// callDurations are the durations of calls, by their labels. They are looked up without a lock and without an allocation.
type callDurations struct {
	vec      *prometheus.HistogramVec
	resolved *atomic.Pointer[map[callKey]prometheus.Observer] // the map never changes: another one is put in its place
	adding   *sync.Mutex
}

func newCalls(registry *prometheus.Registry) (map[string]prometheus.Gauge, callDurations) {
	active := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "http_server_active_requests", Help: "Calls that are being answered.",
	}, []string{"http_request_method"})
	durations := callDurations{
		vec: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "http_server_request_duration_seconds", Help: "Time from reading the head of a call to the end of its answer.", Buckets: callBuckets,
		}, []string{"http_request_method", "http_route", "http_response_status_code"}),
		resolved: &atomic.Pointer[map[callKey]prometheus.Observer]{}, adding: &sync.Mutex{},
	}
	durations.resolved.Store(&map[callKey]prometheus.Observer{})
	registry.MustRegister(active, durations.vec)
	byMethod := map[string]prometheus.Gauge{}
	for _, method := range methods {
		byMethod[method] = active.WithLabelValues(method)
	}
	return byMethod, durations
}

func (m *metrics) answered(key callKey, took time.Duration) {
	m.calls.of(key).Observe(took.Seconds())
}

func (d *callDurations) of(key callKey) prometheus.Observer {
	if o, ok := (*d.resolved.Load())[key]; ok {
		return o
	}
	d.adding.Lock()
	defer d.adding.Unlock()
	o := d.vec.WithLabelValues(key.method, key.route, strconv.Itoa(key.status))
	more := maps.Clone(*d.resolved.Load())
	more[key] = o
	d.resolved.Store(&more)
	return o
}
