package web

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/problem"
)

// Errors for requests that net/http rejects before any handler runs.
var (
	errMalformedRequest = problem.New(problem.Invalid, "malformed_request", "Malformed HTTP request.")
	errHeaderTooLarge   = problem.New(problem.Invalid, "header_too_large", "The request headers are too large.")
	errUnsupported      = problem.New(problem.Invalid, "unsupported_request", "The request uses an unsupported feature of HTTP.")
)

// rawErrors replaces the errors of one connection that net/http writes itself by errors in the
// envelope.
type rawErrors struct {
	strictTransport string // see Server

	// responding is true from the start of a handler until its response is written. What a
	// handler writes may look like an error of net/http, and must not be replaced: the client
	// would take the wrong bytes for the end of the response.
	responding atomic.Bool
}

type rawErrorsKey struct{}

// withRawErrors is for http.Server's ConnContext.
func withRawErrors(ctx context.Context, c net.Conn) context.Context {
	if c, ok := clientOf(c); ok {
		return context.WithValue(ctx, rawErrorsKey{}, &c.errors)
	}
	return ctx
}

// respondItself notes that the handler responds to the request of ctx.
func respondItself(ctx context.Context) {
	if replaced, ok := ctx.Value(rawErrorsKey{}).(*rawErrors); ok {
		replaced.responding.Store(true)
	}
}

func (e *rawErrors) write(w io.Writer, p []byte) (int, error) {
	if e.responding.Load() {
		return w.Write(p)
	}
	status, ok := rawErrorStatus(p)
	if !ok {
		return w.Write(p)
	}
	if _, err := w.Write(rawErrorResponse(status, e.strictTransport)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// rawErrorStatus returns the status of p if p is an error response. net/http writes each in
// one piece.
func rawErrorStatus(p []byte) (status int, ok bool) {
	const version = "HTTP/1.1 " // or HTTP/1.0
	if len(p) < len(version)+3 || p[len(version)] < '4' || !bytes.HasPrefix(p, []byte("HTTP/1.")) {
		return 0, false
	}
	status, err := strconv.Atoi(string(p[len(version) : len(version)+3]))
	return status, err == nil
}

func rawErrorResponse(status int, strictTransport string) []byte {
	fault := errMalformedRequest
	switch {
	case status == http.StatusRequestHeaderFieldsTooLarge:
		fault = errHeaderTooLarge
	case status == http.StatusExpectationFailed, status > http.StatusInternalServerError:
		fault = errUnsupported
	}
	id := uuid.Must(uuid.NewV7()).String()
	body := fmt.Sprintf(`{"success":false,"message":%q,"code":%q,"requestId":%q}`+"\n", fault.Message, fault.Code, id)
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	for _, header := range securityHeaders {
		fmt.Fprintf(&b, "%s: %s\r\n", header.name, header.values[0])
	}
	if strictTransport != "" {
		fmt.Fprintf(&b, "%s: %s\r\n", strictTransportHeader, strictTransport)
	}
	fmt.Fprintf(&b, "%s: %s\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		requestIDHeader, id, len(body), body)
	return []byte(b.String())
}
