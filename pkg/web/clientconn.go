package web

import (
	"crypto/tls"
	"errors"
	"net"
	"time"
)

// clientListener accepts clientConns.
type clientListener struct {
	net.Listener
	strictTransport string // see Server
}

// Accept implements net.Listener.
func (l clientListener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &clientConn{Conn: accepted, errors: rawErrors{strictTransport: l.strictTransport}}
	switch accepted := accepted.(type) {
	case *net.TCPConn:
		return clientTCPConn{c, accepted}, nil
	case *tls.Conn:
		return clientTLSConn{c, accepted}, nil
	}
	return c, nil
}

// clientConn is the connection of a client.
type clientConn struct {
	net.Conn
	errors rawErrors
	pace   pace
}

// clientOf returns the clientConn in a connection that a Server has accepted.
func clientOf(c net.Conn) (*clientConn, bool) {
	client, ok := c.(interface{ client() *clientConn })
	if !ok {
		return nil, false
	}
	return client.client(), true
}

func (c *clientConn) client() *clientConn { return c }

// Write implements net.Conn.
func (c *clientConn) Write(p []byte) (int, error) { return c.pace.write(c.Conn, &c.errors, p) }

// SetDeadline implements net.Conn.
func (c *clientConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetWriteDeadline implements net.Conn.
func (c *clientConn) SetWriteDeadline(t time.Time) error { return c.pace.setWriteDeadline(c.Conn, t) }

// clientTCPConn has the methods of a TCP connection that net/http and handlers look for.
type clientTCPConn struct {
	*clientConn
	tcp *net.TCPConn
}

// CloseWrite is for net/http: the client gets the response before the connection is closed.
func (c clientTCPConn) CloseWrite() error { return c.tcp.CloseWrite() }

// SetWriteBuffer is for handlers that switch protocols.
func (c clientTCPConn) SetWriteBuffer(n int) error { return c.tcp.SetWriteBuffer(n) }

// clientTLSConn is clientTCPConn for TLS. The first read does the handshake, so the timeout for
// headers limits it.
type clientTLSConn struct {
	*clientConn
	tls *tls.Conn
}

// CloseWrite is for net/http: the client gets the response before the connection is closed.
func (c clientTLSConn) CloseWrite() error { return c.tls.CloseWrite() }

// ConnectionState is for net/http, which sets Request.TLS.
func (c clientTLSConn) ConnectionState() tls.ConnectionState { return c.tls.ConnectionState() }

// SetWriteBuffer is for handlers that switch protocols.
func (c clientTLSConn) SetWriteBuffer(n int) error {
	tcp, ok := c.tls.NetConn().(*net.TCPConn)
	if !ok {
		return errors.ErrUnsupported
	}
	return tcp.SetWriteBuffer(n)
}
