package config

import "time"

// Tracing says where spans are sent.
type Tracing struct {
	// Endpoint is the URL of an OTLP collector, of a scheme and a host alone; "":
	// there is no tracing.
	Endpoint string       `yaml:"endpoint"`
	Protocol OTLPProtocol `yaml:"protocol"`
	// Sample is the share of the traces which begin here that are recorded,
	// from 0 to 1. A trace that a trusted proxy began is recorded as it says.
	Sample float64 `yaml:"sample"`
	// Timeout is how long one export may take, with all its tries.
	Timeout time.Duration `yaml:"timeout"`
	// Headers are sent with each export.
	Headers map[string]Secret `yaml:"headers"`
	// TLS is for an https endpoint.
	TLS TracingTLS `yaml:"tls"`
}

// TracingTLS says how an https endpoint is verified, and what we show it.
type TracingTLS struct {
	CAFile     string `yaml:"ca_file"`
	CertFile   string `yaml:"cert_file"`
	KeyFile    string `yaml:"key_file"`
	ServerName string `yaml:"server_name"`
}

// OTLPProtocol is how spans are sent.
type OTLPProtocol string

// The two protocols; OTLP over HTTP has protobuf bodies.
const (
	OTLPgRPC OTLPProtocol = "grpc"
	OTLPHTTP OTLPProtocol = "http"
)
