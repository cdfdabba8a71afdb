package cli

// Telemetry are the flags by which a process that runs is watched.
type Telemetry struct {
	MetricsAddr  string `placeholder:"HOST:PORT" help:"Address that serves /metrics for Prometheus, /livez and /readyz (default: none). Plain HTTP without tokens, so not for the public; port 0 picks a free one and logs it."`
	OTLPEndpoint string `name:"otlp-endpoint" env:"JOBTALLY_OTLP_ENDPOINT,OTEL_EXPORTER_OTLP_ENDPOINT" placeholder:"URL" help:"URL of an OpenTelemetry collector that takes traces over HTTP, such as http://127.0.0.1:4318 (default: none; there are no traces). The other OTEL_ variables are heard then."`
}
