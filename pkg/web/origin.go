package web

import (
	"encoding/hex"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/propagation"

	"github.com/headgate/headgate/pkg/event"
)

// Prefixes is a list of networks, written as CIDRs or single addresses
// separated by commas.
type Prefixes []netip.Prefix

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Prefixes) UnmarshalText(text []byte) error {
	*p = nil
	for part := range strings.SplitSeq(string(text), ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		if addr, err := netip.ParseAddr(part); err == nil {
			*p = append(*p, netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()))
			continue
		}
		prefix, err := netip.ParsePrefix(part)
		if err != nil {
			return err
		}
		*p = append(*p, prefix.Masked())
	}
	return nil
}

// Contain reports whether addr is in one of the networks.
func (p Prefixes) Contain(addr netip.Addr) bool {
	for _, prefix := range p {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// ClientIP returns the address of the client: the peer or, if the peer is a trusted proxy,
// the last address in X-Forwarded-For that is not one.
func ClientIP(r *http.Request, trusted Prefixes) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	client, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	client = client.Unmap().WithZone("")
	if !trusted.Contain(client) {
		return client
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && trusted.Contain(client); i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		client = hop.Unmap().WithZone("")
	}
	return client
}

const (
	requestIDHeader = "X-Request-Id"
	// The characters of common request ids, such as AWS's Root=1-67891233-abcdef012345678912345678.
	// None of them has a meaning in a log, a header or a page.
	requestIDChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:/=+-"
	maxRequestID   = 128
	maxUserAgent   = 512
)

// requestID returns the incoming id if it is well-formed, and newID otherwise.
func requestID(r *http.Request, newID uuid.UUID) string {
	id := r.Header.Get(requestIDHeader)
	invalid := func(c rune) bool { return !strings.ContainsRune(requestIDChars, c) }
	if id == "" || len(id) > maxRequestID || strings.ContainsFunc(id, invalid) {
		return newID.String()
	}
	return id
}

// originOf returns the origin of r: client address, user agent, request id and trace.
func originOf(r *http.Request, trusted Prefixes) event.Origin {
	newID := uuid.Must(uuid.NewV7())
	id := requestID(r, newID)
	agent := strings.ToValidUTF8(r.UserAgent(), "\uFFFD")
	if len(agent) > maxUserAgent {
		agent = strings.ToValidUTF8(agent[:maxUserAgent], "")
	}
	origin := event.Origin{
		Actor:         event.Actor{Type: "anonymous"},
		UserAgent:     agent,
		RequestID:     id,
		CorrelationID: id,
		TraceParent:   traceParent(r, newID),
	}
	if ip := ClientIP(r, trusted); ip.IsValid() {
		origin.IP = ip.String()
	}
	return origin
}

// traceParent returns the trace context of the request (W3C Trace Context), or a new one
// made from the bytes of newID, so that it can be found by the request id.
func traceParent(r *http.Request, newID uuid.UUID) string {
	if r.Header.Get("Traceparent") != "" {
		ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		carrier := propagation.MapCarrier{}
		propagation.TraceContext{}.Inject(ctx, carrier)
		if parent := carrier["traceparent"]; parent != "" {
			return parent
		}
	}
	text := make([]byte, 0, 55)
	text = append(text, "00-"...)
	text = hex.AppendEncode(text, newID[:])
	text = append(text, '-')
	text = hex.AppendEncode(text, newID[8:])
	return string(append(text, "-00"...))
}
