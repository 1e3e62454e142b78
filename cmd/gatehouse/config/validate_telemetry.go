package config

import (
	"maps"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
)

func (v *validator) log() {
	p, log := path{"log"}, v.config.Log
	v.choice(p.key("level"), log.Level, LogLevels()...)
	for _, name := range slices.Sorted(maps.Keys(log.Modules)) {
		entry := p.key("modules").key(name)
		if !slices.Contains(LogModules(), name) {
			v.refuse(entry, "is no module of the log", oneOf(name, LogModules(), ""))
			continue
		}
		v.choice(entry, log.Modules[name], LogLevels()...)
	}
	v.share(p.key("sample"), log.Sample)
	v.choice(p.key("format"), string(log.Format), log.Format.choices()...)
	const smallest, largest = 64 << 10, 1 << 30
	if log.Buffer < smallest || log.Buffer > largest {
		v.refuse(p.key("buffer"), v.shown(p.key("buffer"))+" is no size for it", "write 64KiB to 1GiB")
	}
}

// share is a part of everything.
func (v *validator) share(p path, share float64) {
	if !(share >= 0 && share <= 1) {
		v.refuse(p, v.shown(p)+" is no share", "write 0 for none, 1 for all, or a number between")
	}
}

func (v *validator) tracing() {
	p, tracing := path{"tracing"}, v.config.Tracing
	v.choice(p.key("protocol"), string(tracing.Protocol), tracing.Protocol.choices()...)
	v.share(p.key("sample"), tracing.Sample)
	v.aboveZero(p.key("timeout"), int64(tracing.Timeout), "write a duration such as 5s")
	v.certificate(p.key("tls"), tracing.TLS.CertFile, tracing.TLS.KeyFile)
	for _, name := range slices.Sorted(maps.Keys(tracing.Headers)) {
		v.tracingHeader(p.key("headers").key(name), name, string(tracing.Headers[name]))
	}
	if tracing.Endpoint != "" {
		v.tracingEndpoint(p, tracing)
	}
}

func (v *validator) tracingEndpoint(p path, tracing Tracing) {
	const mend = "write http://HOST:PORT or https://HOST:PORT"
	at := p.key("endpoint")
	endpoint, err := url.Parse(tracing.Endpoint)
	if err != nil || endpoint.Scheme != "http" && endpoint.Scheme != "https" {
		v.refuse(at, v.shown(at)+" does not begin with http:// or https://", mend)
		return
	}
	if fault, mend := targetFault(endpoint); fault != "" {
		v.refuse(at, v.shown(at)+" "+fault, mend)
	}
	if tracing.TLS != (TracingTLS{}) && endpoint.Scheme != "https" {
		v.refuse(p.key("tls"), "has settings, but the endpoint is not https", "write https:// in front of it, or remove them")
	}
}

// tracingHeader: gRPC wants metadata in lower case, and keeps grpc- for itself.
func (v *validator) tracingHeader(p path, name, value string) {
	if name == "" || !isMadeOf(name, "-_.") || strings.HasPrefix(strings.ToLower(name), "grpc-") || strings.HasSuffix(strings.ToLower(name), "-bin") {
		v.refuse(p, "is no name of a header", "write letters, digits and dashes")
	}
	if textproto.TrimString(value) != value || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) {
		v.refuse(p, "has a character that no header can carry", "write printable ASCII")
	}
}
