package web

import (
	"encoding/hex"
	"net/http"
	"strings"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/propagation"

	"github.com/headgate/headgate/pkg/event"
)

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

// originOf returns the origin of r: client address, user agent, request id and trace. Its
// error is that of ClientIP.
func originOf(r *http.Request, trusted Prefixes) (event.Origin, error) {
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
	ip, err := ClientIP(r, trusted)
	if ip.IsValid() {
		origin.IP = ip.String()
	}
	return origin, err
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
