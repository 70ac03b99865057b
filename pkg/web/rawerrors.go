package web

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/problem"
)

// Errors for requests that net/http rejects before any handler runs.
var (
	errMalformedRequest = problem.New(problem.Invalid, "malformed_request", "Malformed HTTP request.")
	errHeaderTooLarge   = problem.New(problem.Invalid, "header_too_large", "The request headers are too large.")
	errUnsupported      = problem.New(problem.Invalid, "unsupported_request", "The request uses an unsupported feature of HTTP.")
)

// rawErrorListener replaces the plain-text errors that net/http writes itself by errors in
// the envelope, on all connections of a listener.
type rawErrorListener struct {
	net.Listener
	strictTransport string // see Server
}

// Accept implements net.Listener.
func (l rawErrorListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	switch c := c.(type) {
	case *net.TCPConn:
		return rawErrorConn{c, l.strictTransport}, err
	case *tls.Conn:
		return rawErrorTLSConn{c, l.strictTransport}, err
	}
	return c, err
}

// rawErrorConn keeps all methods of a TCP connection, some of which net/http looks for.
type rawErrorConn struct {
	*net.TCPConn
	strictTransport string
}

// Write implements net.Conn.
func (c rawErrorConn) Write(p []byte) (int, error) {
	return writeReplaced(c.TCPConn, p, c.strictTransport)
}

// rawErrorTLSConn is rawErrorConn for TLS. The first read does the handshake, so the timeout
// for headers limits it.
type rawErrorTLSConn struct {
	*tls.Conn
	strictTransport string
}

// Write implements net.Conn.
func (c rawErrorTLSConn) Write(p []byte) (int, error) {
	return writeReplaced(c.Conn, p, c.strictTransport)
}

func writeReplaced(w io.Writer, p []byte, strictTransport string) (int, error) {
	status, ok := rawErrorStatus(p)
	if !ok {
		return w.Write(p)
	}
	if _, err := w.Write(rawErrorResponse(status, strictTransport)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// rawErrorHeader is the complete header of net/http's own errors. Errors of handlers have a
// Date, too.
var rawErrorHeader = []byte("\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n")

// rawErrorStatus returns the status of p if p is an error of net/http itself.
func rawErrorStatus(p []byte) (status int, ok bool) {
	const version = "HTTP/1.1 "
	if len(p) < len(version)+3 || p[len(version)] < '4' || !bytes.HasPrefix(p, []byte(version)) {
		return 0, false
	}
	line := bytes.IndexByte(p, '\r')
	if line < 0 || !bytes.HasPrefix(p[line:], rawErrorHeader) {
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
	case status > http.StatusInternalServerError:
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
